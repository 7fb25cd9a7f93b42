package apps

import (
	"os"
	"os/exec"
	"path/filepath"
)

// A Go program: a scheduler with its own threads and preemption signals, the
// network poller on epoll, a TCP listener and sixteen connections to it from
// inside, a child process on pipes, two hundred workers.
var _ = register(&App{
	Name:    "go",
	Needs:   []Need{{"go", "golang"}},
	Command: []string{"./program"},
	Prepare: func(s *stage) {
		// With the toolchain that runs the tests.
		cmd := exec.Command("go", "build", "-o", filepath.Join(s.Dir, "program"), "main.go")
		cmd.Dir = s.Dir
		cmd.Env = append(os.Environ(), "GO111MODULE=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			s.failf("building: %v\n%s", err, out)
		}
	},
})
