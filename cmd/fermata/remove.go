package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata/internal/repo"
)

func newRemove() *cobra.Command {
	var asJSON *bool
	c := &cobra.Command{
		Use:     "remove REF...",
		Aliases: []string{"rm"},
		Short:   "Delete checkpoints",
		Long: paragraphs(`
Deletes checkpoints, by name or by directory. Nobody ever finds half of one: it
is renamed first. What is not a checkpoint is refused and stays as it is.`),
		Example: `  fermata remove python3-4711-kqzv

  fermata remove before-upgrade /mnt/big/job1`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeREFs(-1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := repo.Default()
			if err != nil {
				for _, ref := range args {
					if !repo.IsPath(ref) {
						return err
					}
				}
			}
			removed := []string{}
			var failed error
			for _, ref := range args {
				err := r.Remove(ref)
				if err == nil {
					removed = append(removed, ref)
					continue
				}
				err = fmt.Errorf("remove %s: %w", ref, err)
				switch {
				case failed == nil:
					failed = err
				case !*asJSON:
					report(err, false, c.OutOrStdout(), c.ErrOrStderr())
				}
			}
			if *asJSON && failed == nil {
				return writeJSON(c.OutOrStdout(), struct {
					Removed []string `json:"removed"`
				}{removed})
			}
			return failed
		},
	}
	asJSON = jsonFlag(c)
	return c
}
