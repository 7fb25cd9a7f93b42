package apps

import (
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// strace following a shell and all that it starts: held at system calls, asleep in
// them, just born, with its tracer in the middle of its work. What strace has
// written of each process must be complete: of writes, duplicated descriptors,
// directories, files opened and ends, which look the same in each run.
var _ = register(&App{
	Name:    "strace",
	Needs:   []Need{{"strace", "strace"}, {"bash", "bash"}},
	Command: []string{"strace", "-ff", "-qq", "-e", "trace=write,dup2,chdir,openat,exit_group", "-e", "signal=none", "-o", "trace", "bash", "work.sh"},
	Result: func(s *stage) string {
		files, err := filepath.Glob(filepath.Join(s.Dir, "trace.*"))
		if err != nil {
			s.failf("%v", err)
		}
		var all []string
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				s.failf("%v", err)
			}
			all = append(all, string(b))
		}
		sort.Strings(all)
		return strings.Join(all, "---\n")
	},
})
