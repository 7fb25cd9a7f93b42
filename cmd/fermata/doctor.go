package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata"
)

func newDoctor() *cobra.Command {
	var (
		all    bool
		asJSON *bool
	)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what works on this machine, and why something does not",
		Long: paragraphs(`
Tries, without changing anything, what the kernel, this user and this machine
allow, and tells what that means: what can be done, what only in part, what not,
and what would help. It ends with 0 when programs can be saved and restored, and
with 3 when not.`),
		Example: `  fermata doctor

  # everything that was asked, not only what is missing
  fermata doctor --all

  # as an ordinary user
  sudo -u nobody fermata doctor`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			r := engineDoctor()
			var err error
			if *asJSON {
				err = writeJSON(c.OutOrStdout(), struct {
					OK bool `json:"ok"`
					fermata.DoctorReport
				}{r.OK(), r})
			} else {
				err = showReport(c.OutOrStdout(), r, all)
			}
			if err == nil && !r.OK() {
				err = &alreadyTold{fermata.ErrRefused}
			}
			return err
		},
	}
	c.Flags().BoolVar(&all, "all", false, "show every question, not only those answered with no")
	asJSON = jsonFlag(c)
	return c
}

// showReport writes a report for people.
func showReport(w io.Writer, r fermata.DoctorReport, all bool) error {
	out := &lines{w: w}
	out.f("kernel %s, %s, uid %d\n\nWhat can be done\n", r.Kernel, r.Machine, r.UID)
	for _, a := range r.Abilities {
		out.f("  %-8s %s\n", a.Verdict, a.Title)
		for _, why := range a.Why {
			out.f("             %s\n", why)
		}
	}
	if all {
		out.f("\nWhat was asked\n")
	} else {
		out.f("\nWhat is missing (--all shows the rest)\n")
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	missing := 0
	for _, f := range r.Features {
		if !all && (f.State == "yes" || f.Unused) {
			continue
		}
		missing++
		detail := f.Detail
		if f.Unused {
			detail = strings.TrimPrefix(detail+" (not used by this version)", " ")
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", f.State, f.Title, needs(f), detail)
	}
	t.Flush()
	if missing == 0 {
		out.f("  nothing\n")
	}
	if r.OK() {
		out.f("\nPrograms can be saved and restored here.\n")
	} else {
		out.f("\nPrograms cannot be saved and restored here.\n")
	}
	return out.err
}

// needs tells what a feature depends on.
func needs(f fermata.MachineProbe) string {
	switch {
	case f.Since != "" && f.Config != "":
		return "kernel " + f.Since + ", " + f.Config
	case f.Since != "":
		return "kernel " + f.Since
	}
	return f.Config
}
