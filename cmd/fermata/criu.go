package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata/internal/criu"
)

// newCriu describes the compatible command for the help and the manual; main
// carries it out before any flag of ours is looked at.
func newCriu() *cobra.Command {
	var b strings.Builder
	b.WriteString(criu.Description + "\nOptions:\n\n")
	for _, o := range criu.OptionTexts() {
		fmt.Fprintf(&b, "  %s\n       %s\n", o.Spelling, wrap(o.Text))
	}
	return &cobra.Command{
		Use:   "criu ACTION [options]",
		Short: "The command line of CRIU",
		Long:  b.String(),
		Example: `  # a dump and a restore as CRIU's users write them
  fermata criu dump -t 4711 -D images -o dump.log -v4 --shell-job
  fermata criu restore -D images -o restore.log -v4 --shell-job`,
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			if code := criu.Main(args, c.OutOrStdout(), c.ErrOrStderr()); code != 0 {
				return programEnded{code}
			}
			return nil
		},
	}
}
