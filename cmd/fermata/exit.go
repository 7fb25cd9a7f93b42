package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata"
)

// The exit codes: a promise to scripts. Numbers are never given a new meaning.
const (
	exitOK         = 0
	exitInternal   = 1
	exitUsage      = 2
	exitRefused    = 3
	exitNotFound   = 4
	exitBusy       = 5
	exitPermission = 6
	exitDamaged    = 7
	exitTimeout    = 8
)

// exitCodes explains them, for the help, the manual and the JSON errors.
var exitCodes = []struct {
	code int
	kind string // in JSON errors
	is   error
	text string
}{
	{exitOK, "", nil, "success"},
	{exitInternal, "internal", nil, "internal error: something failed that should not have; the program was left as it was"},
	{exitUsage, "usage", fermata.ErrUsage, "the command line is wrong or contradicts itself"},
	{exitRefused, "refused", fermata.ErrRefused, "refused: the program has state that cannot be saved, or this machine lacks what a restore needs; every reason is named, nothing was changed"},
	{exitNotFound, "not-found", fermata.ErrNotFound, "no such process, or no such checkpoint"},
	{exitBusy, "busy", fermata.ErrBusy, "a pid (or another thing there is only one of) that a restore needs is in use"},
	{exitPermission, "permission", fermata.ErrPermission, "this user may not do that"},
	{exitDamaged, "damaged", fermata.ErrDamaged, "the checkpoint is incomplete, altered, or written by a newer version"},
	{exitTimeout, "timeout", fermata.ErrTimeout, "the program could not be stopped within --timeout; it was let go unharmed"},
}

// interruptedText explains the codes beyond the table.
const interruptedText = "interrupted by SIGHUP, SIGINT, SIGQUIT or SIGTERM; the program goes on unharmed and nothing is left behind"

// interrupted is the end of an operation by a signal to fermata.
type interrupted struct {
	sig syscall.Signal
	err error
}

func (i *interrupted) Error() string { return fmt.Sprintf("interrupted by %s: %v", i.sig, i.err) }
func (i *interrupted) Unwrap() error { return i.err }

// programEnded carries a restored program's status through the command's
// ordinary return: it is no failure and prints nothing.
type programEnded struct{ code int }

func (p programEnded) Error() string { return fmt.Sprintf("the program ended with status %d", p.code) }

// classify gives an error's exit code and kind.
func classify(err error) (code int, kind string) {
	var i *interrupted
	if errors.As(err, &i) {
		return 128 + int(i.sig), "interrupted"
	}
	for _, c := range exitCodes {
		if c.is != nil && errors.Is(err, c.is) {
			return c.code, c.kind
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitTimeout, "timeout"
	}
	return exitInternal, "internal"
}

// jsonError is what --json writes instead of a result.
type jsonError struct {
	Error struct {
		Kind    string           `json:"kind"`
		Exit    int              `json:"exit"`
		Message string           `json:"message"`
		Reasons []fermata.Reason `json:"reasons,omitempty"`
	} `json:"error"`
}

// report tells the user about an error and gives the exit code.
func report(err error, asJSON bool, stdout, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	var ended programEnded
	if errors.As(err, &ended) {
		return ended.code
	}
	code, kind := classify(err)
	var refused *fermata.RefusedError
	errors.As(err, &refused)
	var told *alreadyTold
	switch {
	case errors.As(err, &told):
	case asJSON:
		var j jsonError
		j.Error.Kind, j.Error.Exit, j.Error.Message = kind, code, err.Error()
		if refused != nil {
			j.Error.Reasons = refused.Reasons
		}
		writeJSON(stdout, j)
	default:
		fmt.Fprintf(stderr, "fermata: %s\n", err)
		if code == exitUsage && len(os.Args) > 1 {
			fmt.Fprintln(stderr, "see fermata --help")
		}
	}
	return code
}

// alreadyTold is an error whose verb has written its own account of it.
type alreadyTold struct{ err error }

func (a *alreadyTold) Error() string { return a.err.Error() }
func (a *alreadyTold) Unwrap() error { return a.err }

// exitStatusText is the table for people.
func exitStatusText() string {
	var b strings.Builder
	for _, c := range exitCodes {
		fmt.Fprintf(&b, "  %d    %s\n", c.code, wrap(c.text))
	}
	fmt.Fprintf(&b, "  129, 130, 131, 143\n       %s\n", wrap(interruptedText))
	return b.String()
}

// wrap breaks a text into lines for the table.
func wrap(text string) string {
	const margin, width = "\n       ", 72
	var b strings.Builder
	at := 0
	for i, w := range strings.Fields(text) {
		switch {
		case i == 0:
		case at+1+len(w) > width:
			b.WriteString(margin)
			at = 0
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(w)
		at += len(w)
	}
	return b.String()
}

// newExitStatus is a topic of the help, no verb.
func newExitStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-status",
		Short: "What the exit codes mean",
		Long: "Every verb ends with one of these codes:\n\n" + exitStatusText() + paragraphs(`

fermata restore in the foreground (without --detach), once the program runs,
ends with the program's own exit status, or 128 plus the number of the signal
that ended it, as shells do. With --json every failure is also a document on
stdout: {"error": {"kind": ..., "exit": ..., "message": ..., "reasons": ...}}.`),
	}
}
