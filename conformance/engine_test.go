package conformance

import (
	"os"
	"path/filepath"
	"strings"
)

// engine is what checkpoints and restores: fermata, or a peer that tells us
// whether a program of ours asks for something that can be done.
type engine interface {
	// checkpoint saves the tree of pid into the new directory img.
	checkpoint(pid int, img string, kill bool) tool
	// restore brings it back and returns when it runs.
	restore(pid int, img string) tool
	// mutate takes a part out of the image and returns how often it was there.
	mutate(img, what string) (int, error)
}

func newEngine(s *supervisor) engine {
	if s.spec.Engine != "fermata" {
		return criuEngine{s}
	}
	return fermataEngine{s}
}

type fermataEngine struct{ s *supervisor }

func (e fermataEngine) checkpoint(pid int, img string, kill bool) tool {
	args := append([]string{e.s.spec.Tool, "checkpoint", "--to", img}, e.s.spec.Program.Checkpoint...)
	if kill {
		args = append(args, "--kill")
	}
	return e.s.command(append(args, itoa(pid))...)
}

// exitBusy is fermata's documented exit code for a pid that is taken.
const exitBusy = 5

func (e fermataEngine) restore(pid int, img string) tool {
	args := []string{e.s.spec.Tool, "restore", "--detach"}
	switch e.s.spec.Mode {
	case "lazy":
		args = append(args, "--lazy")
	case "copies":
		args = append(args, "--copies", "2")
	case "user":
		args = append(args, "--pidns")
	}
	t := e.s.command(append(args, img)...)
	t.busy = t.status.Exited() && t.status.ExitStatus() == exitBusy
	return t
}

func (e fermataEngine) mutate(img, what string) (int, error) {
	return mutateFermata(img, what)
}

// criuEngine drives CRIU by its command line, or what takes the same one. In an
// exchange another tool restores than the one that dumped.
type criuEngine struct{ s *supervisor }

func (e criuEngine) restorer() string {
	if e.s.spec.Restorer != "" {
		return e.s.spec.Restorer
	}
	return e.s.spec.Tool
}

func (e criuEngine) checkpoint(pid int, img string, kill bool) tool {
	if err := os.Mkdir(img, 0o755); err != nil {
		e.s.failf("%v", err)
	}
	args := []string{e.s.spec.Tool, "dump", "-t", itoa(pid), "-D", img, "-o", "dump.log", "-v4", "--link-remap", "--file-locks", "--tcp-established", "--ext-unix-sk", "--network-lock", "skip"}
	if !kill {
		args = append(args, "--leave-running")
	}
	if server := e.s.spec.Server; server != "" {
		// It goes into the background listening, and ends with the dump.
		const port = "7711" // of a network namespace of our own
		if t := e.explain(e.s.command(server, "page-server", "-d", "-D", img, "-o", "server.log", "-v4", "--address", "127.0.0.1", "--port", port), filepath.Join(img, "server.log")); t.status != 0 {
			return t
		}
		args = append(args, "--page-server", "--address", "127.0.0.1", "--port", port)
	}
	return e.explain(e.s.command(args...), filepath.Join(img, "dump.log"))
}

func (e criuEngine) restore(pid int, img string) tool {
	t := e.explain(e.s.command(e.restorer(), "restore", "-d", "-D", img, "-o", "restore.log", "-v4", "--link-remap", "--file-locks", "--tcp-established", "--ext-unix-sk", "--network-lock", "skip"), filepath.Join(img, "restore.log"))
	t.busy = strings.Contains(t.stderr, "Pid") && strings.Contains(t.stderr, "already exist") || strings.Contains(t.stderr, "is in use: by")
	return t
}

func (e criuEngine) mutate(img, what string) (int, error) {
	return mutateCRIU(img, what)
}

// explain adds the errors of CRIU's log to what it said.
func (e criuEngine) explain(t tool, log string) tool {
	if t.status == 0 {
		return t
	}
	c, _ := os.ReadFile(log)
	for line := range strings.Lines(string(c)) {
		if strings.Contains(line, "Error") {
			t.stderr += line
		}
	}
	if t.stderr == "" {
		t.stderr = tail(string(c))
	}
	return t
}
