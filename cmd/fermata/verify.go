package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata"
)

func newVerify() *cobra.Command {
	var asJSON *bool
	c := &cobra.Command{
		Use:   "verify REF",
		Short: "Check that a checkpoint is whole and can be restored here",
		Long: paragraphs(`
Reads every byte of a checkpoint and compares it with its checksums; then looks
at what a restore on this machine would need and what is in its way. Nothing is
executed.

It ends with 0 when a restore would succeed now, 7 when the checkpoint is
damaged, 3 when this machine, kernel or user lacks something, and 5 when only
something that may go away is in the way: pids in use, files that changed.`),
		Example: `  fermata verify python3-4711-kqzv

  # may the old one be deleted?
  fermata verify --json new && fermata remove old`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeREFs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := resolve(args[0])
			if err != nil {
				return err
			}
			ctx, w := watch(c.Context())
			res, err := engineVerify(ctx, dir)
			if err = w.operationDone(err); err != nil {
				return fmt.Errorf("verify %s: %w", args[0], err)
			}
			res.Ref = args[0]
			if *asJSON {
				err = writeJSON(c.OutOrStdout(), struct {
					*fermata.VerifyResult
					Whole      bool `json:"whole"`
					Restorable bool `json:"restorable"`
				}{res, res.Whole(), res.Restorable()})
			} else {
				err = showVerification(c.OutOrStdout(), res)
			}
			return errors.Join(err, verdict(res))
		},
	}
	asJSON = jsonFlag(c)
	return c
}

// verdict turns a result into the error that gives the exit code.
func verdict(r *fermata.VerifyResult) error {
	switch {
	case !r.Whole():
		return &alreadyTold{fermata.ErrDamaged}
	case len(r.Missing) > 0:
		return &alreadyTold{&fermata.RefusedError{Reasons: r.Missing}}
	case len(r.InTheWay) > 0:
		return &alreadyTold{fermata.ErrBusy}
	}
	return nil
}

// showVerification writes a result for people.
func showVerification(w io.Writer, r *fermata.VerifyResult) error {
	out := &lines{w: w}
	for _, part := range []struct {
		title   string
		reasons []fermata.Reason
	}{{"damaged", r.Damage}, {"missing here", r.Missing}, {"in the way now", r.InTheWay}} {
		if len(part.reasons) > 0 {
			out.f("%s:\n", part.title)
			for _, x := range part.reasons {
				out.f("  %s\n", clean(x.String()))
			}
		}
	}
	for _, n := range r.Notes {
		out.f("note: %s\n", clean(n))
	}
	switch {
	case !r.Whole():
		out.f("%s is damaged\n", r.Ref)
	case !r.Restorable():
		out.f("%s is whole (%s compared), but cannot be restored here now\n", r.Ref, size(r.Bytes))
	default:
		out.f("%s is whole (%s compared) and can be restored here\n", r.Ref, size(r.Bytes))
	}
	return out.err
}
