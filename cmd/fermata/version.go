package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata"
)

func newVersion() *cobra.Command {
	var asJSON *bool
	c := &cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Example:           `  fermata version`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			if *asJSON {
				return writeJSON(c.OutOrStdout(), map[string]string{
					"version": fermata.Version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "fermata %s (%s, %s/%s)\n", fermata.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	asJSON = jsonFlag(c)
	return c
}
