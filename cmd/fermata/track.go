package main

import (
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata/internal/fault"
)

func newTrack() *cobra.Command {
	var (
		stop   bool
		asJSON *bool
	)
	c := &cobra.Command{
		Use:   "track [flags] [PID|REF]",
		Short: "Show, or stop, the tracking of programs' writes",
		Long: paragraphs(`
Shows the programs whose writes are tracked since a checkpoint (checkpoint
--track), so that the next one with that as its --parent reads and saves only what
was written.

A small process, fermata-keeper, keeps that between two checkpoints, and ends with
the program. With --stop it is ended now, for the program with a PID or for the one
tracked since REF: the program goes on and notices nothing, and its next checkpoint
with --parent compares all of its memory instead.`),
		Example: `  fermata checkpoint --track --to monday 4711
  fermata checkpoint --parent monday --to tuesday 4711
  fermata track
  fermata track --stop 4711`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeREFs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if stop != (len(args) == 1) {
				return fault.Errorf(fault.ErrUsage, "--stop takes a PID or a REF, and these --stop")
			}
			if stop {
				pid, err := strconv.Atoi(args[0])
				dir := ""
				if err != nil {
					if dir, err = resolve(args[0]); err != nil {
						return err
					}
				}
				if err := engineStopTracking(pid, dir); err != nil {
					return fmt.Errorf("track: %w", err)
				}
				return nil
			}
			all, err := engineTrackings()
			if err != nil {
				return fmt.Errorf("track: %w", err)
			}
			if *asJSON {
				return writeJSON(c.OutOrStdout(), struct {
					Tracked any `json:"tracked"`
				}{all})
			}
			if len(all) == 0 {
				fmt.Fprintln(c.ErrOrStderr(), "nothing is tracked")
				return nil
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "PIDS\tSINCE\tREF\tKEEPER")
			for _, x := range all {
				fmt.Fprintf(t, "%s\t%s\t%s\t%d\n", pidList(x.PIDs), x.Since.Local().Format(time.DateTime), x.Ref, x.Keeper)
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&stop, "stop", false, "stop it")
	asJSON = jsonFlag(c)
	return c
}
