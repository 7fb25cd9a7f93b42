package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/repo"
)

func newSquash() *cobra.Command {
	var asJSON *bool
	var compress string
	var dedup bool
	c := &cobra.Command{
		Use:   "squash [flags] REF [NEWREF]",
		Short: "Make a full checkpoint of one that builds upon others",
		Long: paragraphs(`
A checkpoint made with checkpoint --parent shares files of memory with earlier
ones, and keeps each of these whole for whatever it needs of it. This writes what
it needs into files of its own: under a new name, or in its place. It is read
back before the old one goes.

Checkpoints are whole with or without it; it gives back the space of memory that
no checkpoint needs any more, and makes a long chain a short one.`),
		Example: `  fermata squash friday

  # into another directory, on another file system
  fermata squash friday /mnt/big/friday`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeREFs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := resolve(args[0])
			if err != nil {
				return err
			}
			ref := args[len(args)-1]
			bar := newProgress(c.ErrOrStderr())
			o := fermata.SquashOptions{Dedup: dedup, Progress: bar.callback()}
			if compress != "" {
				how, err := fermata.ParseCompression(compress)
				if err != nil {
					return fmt.Errorf("--compress: %w", err)
				}
				o.Compression = &how
			}
			if len(args) == 2 {
				if o.To, err = resolve(ref); err != nil {
					return err
				}
				if o.To == dir {
					return fault.Errorf(fault.ErrUsage, "%s is where it is already: give one REF to squash it in its place", ref)
				}
				if !repo.IsPath(ref) {
					r, err := repo.Default()
					if err != nil {
						return err
					}
					if err := r.CreateFor(ref); err != nil {
						return err
					}
				}
			}
			ctx, w := watch(c.Context())
			res, err := engineSquash(ctx, dir, o)
			bar.done()
			if err = w.operationDone(err); err != nil {
				return fmt.Errorf("squash %s: %w", args[0], err)
			}
			res.Ref = ref
			if *asJSON {
				return writeJSON(c.OutOrStdout(), res)
			}
			if _, ok := terminal(c.ErrOrStderr()); ok {
				fmt.Fprintf(c.ErrOrStderr(), "%s of memory in files of its own, before: files of %s\n", size(res.Written), size(res.Before))
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), ref)
			return err
		},
	}
	compressFlag(c, &compress)
	c.Flags().BoolVar(&dedup, "dedup", false, "store pages once that have the same content")
	asJSON = jsonFlag(c)
	return c
}
