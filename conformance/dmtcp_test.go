package conformance

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runDMTCP is the case with DMTCP, for comparison only: it launches programs
// itself, has a coordinator, and gives a restored program other pids outside, so
// that only the program's own verdict counts. The tool is the directory of its
// commands.
func (s *supervisor) runDMTCP() (skipped string) {
	bin := func(name string) string { return filepath.Join(s.spec.Tool, name) }
	port := filepath.Join(s.spec.Img, "port")
	coordinator, err := syscall.ForkExec(bin("dmtcp_coordinator"), []string{bin("dmtcp_coordinator"), "-q", "-q", "-p", "0", "--port-file", port, "--ckptdir", s.spec.Img, "--tmpdir", s.spec.Img}, &syscall.ProcAttr{
		Dir: s.spec.Img, Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		s.failf("the coordinator: %v", err)
	}
	at := ""
	s.until("the coordinator to listen", func() bool {
		b, _ := os.ReadFile(port)
		at = strings.TrimSpace(string(b))
		return at != ""
	})
	root := s.startProgram(bin("dmtcp_launch"), "-q", "-q", "--coord-port", at, "--no-gzip", "--ckptdir", s.spec.Img, "--tmpdir", s.spec.Img)
	if why := s.awaitReady(root); why != "" {
		return why
	}
	began := time.Now()
	t := s.command(bin("dmtcp_command"), "--coord-port", at, "--kcheckpoint")
	s.mustTool(t)
	// The command does not wait for what it asks for.
	s.until("the program's end", func() bool { _, ok := s.reaped(root); return ok })
	s.checkpointed = time.Since(began)
	images, err := filepath.Glob(filepath.Join(s.spec.Img, "ckpt_*.dmtcp"))
	if err != nil || len(images) == 0 {
		s.failf("no images (%v)", err)
	}
	s.pause()
	log, err := os.OpenFile(filepath.Join(s.spec.Dir, "log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		s.failf("%v", err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.failf("%v", err)
	}
	defer null.Close()
	argv := append([]string{bin("dmtcp_restart"), "-q", "-q", "--coord-port", at, "--tmpdir", s.spec.Img}, images...)
	began = time.Now()
	restart, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir: s.spec.Img, Env: os.Environ(), Files: []uintptr{null.Fd(), log.Fd(), log.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		s.failf("dmtcp_restart: %v", err)
	}
	s.until("the program to run again", func() bool {
		// For the leader of a session it ends when that has been made.
		if st, ok := s.reaped(restart); ok && st != 0 {
			s.failf("dmtcp_restart: %s", statusText(st))
		}
		return strings.Contains(s.command(bin("dmtcp_command"), "--coord-port", at, "--status").stdout, "RUNNING=yes")
	})
	s.restored = time.Since(began)
	if err := os.WriteFile(filepath.Join(s.spec.Dir, "go"), nil, 0o644); err != nil {
		s.failf("%v", err)
	}
	s.spec.Deadline = min(s.spec.Deadline, 10*time.Second)
	s.until("its verdict", func() bool { return s.verdict() != "" })
	if v := s.verdict(); v != "PASS" {
		s.failf("%s", v)
	}
	unix.Kill(coordinator, unix.SIGTERM)
	return ""
}

// until waits for something to come true.
func (s *supervisor) until(what string, f func() bool) {
	for end := time.Now().Add(s.spec.Deadline); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.failf("waited in vain for %s; %s", what, strconv.Quote(tail(s.whereabouts())))
		}
	}
}
