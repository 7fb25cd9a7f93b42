// Package fault is fermata's vocabulary of failures: the sentinel errors that
// the library's callers and the command's exit codes are derived from, and the
// refusal that collects every reason why something cannot be saved.
package fault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Sentinels; the public package documents them.
var (
	ErrRefused    = errors.New("refused")
	ErrNotFound   = errors.New("not found")
	ErrBusy       = errors.New("busy")
	ErrPermission = errors.New("permission denied")
	ErrDamaged    = errors.New("checkpoint damaged")
	ErrTimeout    = errors.New("timed out")
	ErrUsage      = errors.New("usage")
)

// Reason is one cause of a refusal.
type Reason struct {
	PID    int    `json:"pid,omitempty"`     // the task, 0 when none in particular
	Comm   string `json:"command,omitempty"` // its command name
	Object string `json:"object"`            // "fd 7: io_uring instance", "area 7f00-7f10 …"
	Why    string `json:"why"`               // what stands in the way
	Remedy string `json:"remedy,omitempty"`  // what the user can do
	// Passing says that the program itself will soon put it right: it is worth
	// another try.
	Passing bool `json:"passing,omitempty"`
}

// String gives the reason in one line.
func (r Reason) String() string {
	var b strings.Builder
	if r.PID != 0 {
		fmt.Fprintf(&b, "pid %d", r.PID)
		if r.Comm != "" {
			fmt.Fprintf(&b, " (%s)", r.Comm)
		}
		b.WriteString(": ")
	}
	b.WriteString(r.Object)
	b.WriteString(": ")
	b.WriteString(r.Why)
	if r.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(r.Remedy)
	}
	return b.String()
}

// RefusedError is ErrRefused with all its reasons.
type RefusedError struct{ Reasons []Reason }

// Error lists every reason, one a line after the first.
func (e *RefusedError) Error() string {
	s := make([]string, len(e.Reasons))
	for i, r := range e.Reasons {
		s[i] = r.String()
	}
	return "refused: " + strings.Join(s, "\n  ")
}

// Passing tells whether one of the reasons passes by itself. Others may come of
// it: what a task that cannot be looked at yet shares with others seems to be held
// outside the tree.
func (e *RefusedError) Passing() bool {
	return slices.ContainsFunc(e.Reasons, func(r Reason) bool { return r.Passing })
}

// Is makes errors.Is(err, ErrRefused) true.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Refusals gathers reasons; the zero value is ready, and it may be used from
// several goroutines.
type Refusals struct {
	mu sync.Mutex
	r  []Reason
}

// Add notes one reason.
func (r *Refusals) Add(x Reason) {
	r.mu.Lock()
	r.r = append(r.r, x)
	r.mu.Unlock()
}

// Err gives nil when there is no reason, else a *RefusedError.
func (r *Refusals) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.r) == 0 {
		return nil
	}
	return &RefusedError{Reasons: append([]Reason(nil), r.r...)}
}

// Wrap gives err the kind of the sentinel, keeping its text and its chain.
func Wrap(sentinel, err error) error {
	if err == nil {
		return nil
	}
	return &kinded{sentinel, err}
}

// Errorf is fmt.Errorf with a sentinel's kind.
func Errorf(sentinel error, format string, a ...any) error {
	return &kinded{sentinel, fmt.Errorf(format, a...)}
}

type kinded struct{ kind, err error }

func (k *kinded) Error() string   { return k.err.Error() }
func (k *kinded) Unwrap() []error { return []error{k.kind, k.err} }

// Kind tells whether an error has one of the kinds already.
func Kind(err error) bool {
	for _, k := range []error{ErrRefused, ErrNotFound, ErrBusy, ErrPermission, ErrDamaged, ErrTimeout, ErrUsage} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}
