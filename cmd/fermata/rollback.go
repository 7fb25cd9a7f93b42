package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata"
	"github.com/fermata-cr/fermata/internal/fault"
)

func newRollback() *cobra.Command {
	var (
		files  string
		asJSON *bool
	)
	c := &cobra.Command{
		Use:   "rollback [flags] REF",
		Short: "Set a running program back to its checkpoint",
		Long: paragraphs(`
Ends what runs of the program that a checkpoint was made of, with everything it
has started since, and brings it back as it was then, with the same pids. It runs
in the background afterwards; its pid is printed. The checkpoint is read as a
whole before anything is ended. If another program has a pid of it by now,
nothing is done.

Files that the program has open for writing are cut back to the size they had,
as restore --files=rollback does; --files=keep and --files=strict are as there.

A checkpoint that need not survive the machine is fastest in memory:
checkpoint --to mem:NAME.`),
		Example: `  fermata checkpoint --to mem:before 4711
  fermata rollback mem:before`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeREFs(1),
		RunE: func(c *cobra.Command, args []string) error {
			mode, ok := filesModes[files]
			if !ok {
				return fault.Errorf(fault.ErrUsage, "--files: %q is none of strict, rollback, keep", files)
			}
			dir, err := resolve(args[0])
			if err != nil {
				return err
			}
			bar := newProgress(c.ErrOrStderr())
			ctx, w := watch(c.Context())
			res, err := engineRollback(ctx, dir, fermata.RestoreOptions{Files: mode, Progress: bar.callback()})
			bar.done()
			if err = w.operationDone(err); err != nil {
				return fmt.Errorf("rollback %s: %w", args[0], err)
			}
			res.Ref = args[0]
			return announce(c, res, true, *asJSON)
		},
	}
	c.Flags().StringVar(&files, "files", "rollback", "the `MODE` for changed files: strict, rollback or keep")
	c.RegisterFlagCompletionFunc("files", cobra.FixedCompletions([]string{"strict", "rollback", "keep"}, cobra.ShellCompDirectiveNoFileComp))
	asJSON = jsonFlag(c)
	return c
}
