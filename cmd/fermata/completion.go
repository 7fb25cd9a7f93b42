package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata/internal/repo"
)

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the completion script for a shell",
		Long: paragraphs(`
Prints a script that teaches your shell to complete fermata's verbs, flags, pids
and the names of checkpoints.`),
		Example: `  # bash, for the running shell
  source <(fermata completion bash)

  # zsh
  fermata completion zsh > "${fpath[1]}/_fermata"

  # fish
  fermata completion fish > ~/.config/fish/completions/fermata.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(c *cobra.Command, args []string) error {
			root, w := c.Root(), c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(w, true)
			case "zsh":
				return root.GenZshCompletion(w)
			}
			return root.GenFishCompletion(w, true)
		},
	}
}

// completeREFs offers names of checkpoints for the first most arguments (-1:
// all), and paths once there is a slash.
func completeREFs(most int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if repo.IsPath(begun) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
		r, err := repo.Default()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		entries, err := listAll(r)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, e := range entries {
			if strings.HasPrefix(e.Name, begun) {
				names = append(names, e.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completePIDs offers this user's processes (root: all of them).
func completePIDs(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() || !strings.HasPrefix(d.Name(), begun) {
			continue
		}
		// Kernel threads have no exe, others' processes do not show it.
		if _, err := os.Readlink(filepath.Join("/proc", d.Name(), "exe")); err != nil {
			continue
		}
		comm, err := os.ReadFile(filepath.Join("/proc", d.Name(), "comm"))
		if err != nil {
			continue
		}
		out = append(out, fmt.Sprintf("%d\t%s", pid, clean(strings.TrimSuffix(string(comm), "\n"))))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
