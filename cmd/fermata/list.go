package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata/internal/repo"
)

// listed is one line of the list.
type listed struct {
	Ref     string    `json:"ref"`
	Dir     string    `json:"dir"`
	Created time.Time `json:"created"`
	Roots   []int     `json:"roots"`
	Tasks   int       `json:"tasks"`
	Bytes   int64     `json:"bytes"`
	Shared  int64     `json:"shared"`            // bytes in files that other checkpoints have, too
	Links   int       `json:"links"`             // checkpoints that it builds upon, one upon the other
	Damaged string    `json:"damaged,omitempty"` // why it cannot be read
}

func newList() *cobra.Command {
	var asJSON *bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the checkpoints in your repository",
		Long: paragraphs(`
Lists the checkpoints that have names, the newest last, those in memory (mem:NAME)
too. SHARED is what of its size is in files that other checkpoints have as well
(checkpoint --parent): it is there once. The repository is
$FERMATA_REPO, else /var/lib/fermata for root and $XDG_STATE_HOME/fermata
(~/.local/state/fermata) for others. Checkpoints in directories of your own
(checkpoint --to DIR/NAME) are not known to it.`),
		Example: `  fermata list

  # another repository
  FERMATA_REPO=/mnt/big fermata list

  # the names only
  fermata list --json | jq -r '.checkpoints[].ref'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := repo.Default()
			if err != nil {
				return err
			}
			entries, err := listAll(r)
			if err != nil {
				return fmt.Errorf("list: %w", err)
			}
			all := make([]listed, 0, len(entries))
			for _, e := range entries {
				all = append(all, describe(e))
			}
			slices.SortStableFunc(all, func(a, b listed) int { return a.Created.Compare(b.Created) })
			if *asJSON {
				return writeJSON(c.OutOrStdout(), struct {
					Repository  string   `json:"repository"`
					Checkpoints []listed `json:"checkpoints"`
				}{r.Dir(), all})
			}
			if len(all) == 0 {
				fmt.Fprintf(c.ErrOrStderr(), "no checkpoints in %s\n", r.Dir())
				return nil
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "REF\tMADE\tPROCESSES\tSIZE\tSHARED\tPIDS")
			for _, l := range all {
				made := l.Created.Local().Format(time.DateTime)
				shared := ""
				if l.Shared > 0 {
					shared = size(l.Shared)
				}
				if l.Damaged != "" {
					fmt.Fprintf(t, "%s\t%s\tdamaged\t%s\t%s\t\n", l.Ref, made, size(l.Bytes), shared)
					continue
				}
				fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n", l.Ref, made, l.Tasks, size(l.Bytes), shared, pidList(l.Roots))
			}
			return t.Flush()
		},
	}
	asJSON = jsonFlag(c)
	return c
}

// listAll gives the checkpoints of a repository and those in memory.
func listAll(r repo.Repo) ([]repo.Entry, error) {
	all, err := r.List()
	if err != nil {
		return nil, err
	}
	mem, err := repo.Memory().List()
	if err != nil {
		return nil, err
	}
	for _, e := range mem {
		e.Name = repo.MemoryPrefix + e.Name
		all = append(all, e)
	}
	return all, nil
}

// describe reads what the list shows of one checkpoint.
func describe(e repo.Entry) listed {
	l := listed{Ref: e.Name, Dir: e.Dir, Created: e.ModTime, Roots: []int{}}
	s, err := e.Summary()
	l.Bytes, l.Shared = s.Bytes, s.Shared
	if err != nil {
		l.Damaged = err.Error()
		return l
	}
	l.Created, l.Tasks, l.Links = s.Created, s.Tasks, s.Links
	l.Roots = append(l.Roots, s.Roots...)
	return l
}

// pidList shortens a list of pids.
func pidList(pids []int) string {
	const most = 4
	more := ""
	if len(pids) > most {
		pids, more = pids[:most], " …"
	}
	return strings.Trim(fmt.Sprint(pids), "[]") + more
}
