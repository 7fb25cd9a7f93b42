package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fermata-cr/fermata/internal/inherited"
	"golang.org/x/sys/unix"
)

// shell is an interactive bash on a terminal of its own, driven like a person
// would: what is typed goes in, what is shown comes out.
type shell struct {
	t    *testing.T
	tty  *os.File
	cmd  *exec.Cmd
	out  chan []byte
	seen bytes.Buffer
}

// newShell starts it. The command "foreground" is on its path.
func newShell(t *testing.T) *shell {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	if err := inherited.Drop(); err != nil {
		t.Fatal(err)
	}
	master, slave := openPTY(t)
	s := &shell{t: t, tty: master, out: make(chan []byte, 1024)}
	s.cmd = exec.Command(bash, "--norc", "--noprofile", "--noediting", "-i")
	s.cmd.Env = append(os.Environ(), "PS1=$ ", "TERM=dumb", "HISTFILE=")
	s.cmd.Dir = t.TempDir()
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	go func() {
		defer close(s.out)
		for {
			b := make([]byte, 4096)
			n, err := master.Read(b)
			if n > 0 {
				s.out <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		// A hang-up reaches the shell and its jobs, as closing a window does.
		master.Close()
		done := make(chan struct{})
		go func() { s.cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			s.cmd.Process.Kill()
			<-done
			t.Error("the shell did not end at the hang-up")
		}
	})
	return s
}

// openPTY gives the two ends of a new pseudo terminal (pty(7)).
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "ptmx"), slave
}

// write types text.
func (s *shell) write(text string) {
	s.t.Helper()
	if _, err := s.tty.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits until the terminal shows something that matches, and forgets
// everything up to its end. It gives the submatches.
func (s *shell) expect(pattern string) []string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(10 * time.Second)
	for {
		if m := re.FindSubmatchIndex(s.seen.Bytes()); m != nil {
			got := s.seen.Bytes()
			var sub []string
			for i := 0; i < len(m); i += 2 {
				sub = append(sub, string(got[m[i]:m[i+1]]))
			}
			s.seen.Next(m[1])
			return sub
		}
		select {
		case b, ok := <-s.out:
			if !ok {
				s.t.Fatalf("the terminal closed before %q; it showed\n%s", pattern, s.seen.String())
			}
			s.seen.Write(b)
		case <-late:
			s.t.Fatalf("no %q; the terminal shows\n%s", pattern, s.seen.String())
		}
	}
}

// program writes a script for sh and gives its name.
func (s *shell) program(text string) string {
	s.t.Helper()
	path := filepath.Join(s.cmd.Dir, "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return "./program"
}

// groups runs a test with the program in a group of its own and in fermata's.
func groups(t *testing.T, test func(t *testing.T, s *shell, foreground string)) {
	for _, c := range []struct{ name, command string }{{"own group", "foreground "}, {"same group", "foreground same "}} {
		t.Run(c.name, func(t *testing.T) { test(t, newShell(t), c.command) })
	}
}

func TestForegroundStatus(t *testing.T) {
	groups(t, func(t *testing.T, s *shell, fg string) {
		for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143} {
			p := s.program(script)
			s.write(fg + p + "; echo \"status=$?=\"\n")
			if got := s.expect(`status=(\d+)=`)[1]; got != fmt.Sprint(want) {
				t.Errorf("%s: status %s, want %d", script, got, want)
			}
		}
	})
}

// TestForegroundReads: the program has the terminal, whatever group it is in,
// and the shell has it afterwards.
func TestForegroundReads(t *testing.T) {
	groups(t, func(t *testing.T, s *shell, fg string) {
		p := s.program("echo ready\nread x\necho \"got<$x>\"\nexit 3\n")
		s.write(fg + p + "; echo \"status=$?=\"\n")
		s.expect("ready")
		s.write("words\n")
		s.expect("got<words>")
		s.expect("status=3=")
		s.write("echo shell-$((1+1))-lives\n")
		s.expect("shell-2-lives")
	})
}

// TestForegroundGivesBack: who started fermata without job control has the
// terminal again when the program has ended.
func TestForegroundGivesBack(t *testing.T) {
	groups(t, func(t *testing.T, s *shell, fg string) {
		p := s.program("echo ready\nread x\n")
		s.write("sh -c '" + fg + p + "; read y; echo \"got<$y>\"'\n")
		s.expect("ready")
		s.write("one\n")
		s.write("two\n")
		s.expect("got<two>")
	})
}

// TestForegroundLate: a program that reads before it was given the terminal is
// stopped by the kernel, and goes on when it has it.
func TestForegroundLate(t *testing.T) {
	s := newShell(t)
	p := s.program("read x\necho \"got<$x>\"\nexit 4\n")
	s.write("FOREGROUND_LATE=200ms foreground " + p + "; echo \"status=$?=\"\n")
	s.write("words\n")
	s.expect("got<words>")
	s.expect("status=4=")
}

// TestForegroundInterrupt: Ctrl-C reaches the program once.
func TestForegroundInterrupt(t *testing.T) {
	groups(t, func(t *testing.T, s *shell, fg string) {
		p := s.program("n=0\ntrap 'n=$((n+1)); echo caught-$n' INT\necho ready\nwhile [ $n -lt 2 ]; do sleep 0.05; done\nsleep 0.3\necho total=$n=\nexit 5\n")
		s.write(fg + p + "; echo \"status=$?=\"\n")
		s.expect("ready")
		s.write("\x03")
		s.expect("caught-1")
		time.Sleep(300 * time.Millisecond) // a doubled signal would come now
		s.write("\x03")
		s.expect("caught-2")
		s.expect("total=2=")
		s.expect("status=5=")
	})
}

// TestForegroundForwards: signals sent to fermata's pid arrive at the program.
func TestForegroundForwards(t *testing.T) {
	groups(t, func(t *testing.T, s *shell, fg string) {
		p := s.program("trap 'echo got-usr1' USR1\ntrap 'echo got-usr2' USR2\ntrap 'echo got-hup' HUP\ntrap 'echo got-term; exit 9' TERM\necho ready parent=$PPID=\nwhile :; do sleep 0.05; done\n")
		s.write(fg + p + "; echo \"status=$?=\"\n")
		var pid int
		if _, err := fmt.Sscan(s.expect(`ready parent=(\d+)=`)[1], &pid); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			sig  syscall.Signal
			want string
		}{{syscall.SIGUSR1, "got-usr1"}, {syscall.SIGUSR2, "got-usr2"}, {syscall.SIGHUP, "got-hup"}, {syscall.SIGTERM, "got-term"}} {
			if err := syscall.Kill(pid, c.sig); err != nil {
				t.Fatal(err)
			}
			s.expect(c.want)
		}
		s.expect("status=9=")
	})
}

// TestForegroundSuspend: Ctrl-Z gives the terminal to the shell; fg brings the
// program back to the terminal; bg lets it run without.
func TestForegroundSuspend(t *testing.T) {
	groups(t, func(t *testing.T, s *shell, fg string) {
		p := s.program("echo ready\nread x\necho first\nread y\necho \"got<$x$y>\"\nexit 6\n")
		s.write(fg + p + "\n")
		s.expect("ready")
		s.write("one\n")
		s.expect("first") // Ctrl-Z discards what was not read yet
		s.write("\x1a")
		s.expect("Stopped")
		s.write("echo shell-$((1+1))-lives; jobs\n")
		s.expect("shell-2-lives")
		s.expect("Stopped")
		// In the background it runs until it wants the terminal.
		s.write("bg\n")
		s.expect("&")
		for i := 0; ; i++ {
			time.Sleep(20 * time.Millisecond)
			s.write("jobs; echo end-$((1+1))\n")
			if strings.Contains(s.expect(`(?s)(.*)end-2`)[1], "Stopped") {
				break
			}
			if i == 100 {
				t.Fatal("reading in the background did not stop it")
			}
		}
		s.write("fg; echo \"status=$?=\"\n")
		s.expect("foreground")
		s.write("two\n")
		s.expect("got<onetwo>")
		s.expect("status=6=")
	})
}

// TestForegroundModes: a program that is killed while the terminal is raw
// leaves it as it was.
func TestForegroundModes(t *testing.T) {
	groups(t, func(t *testing.T, s *shell, fg string) {
		p := s.program("stty raw -echo\nkill -9 $$\n")
		// bash itself puts the modes back after its own children; a shell in
		// between does not.
		s.write("sh -c '" + fg + p + "; stty -a | tr \" \" \"\\\\n\" | grep -x -e icanon -e echo -e -icanon -e -echo | tr \"\\\\n\" +; echo =end'\n")
		if got := s.expect(`([-a-z+]+)=end`)[1]; got != "icanon+echo+" {
			t.Errorf("modes %s", got)
		}
	})
}
