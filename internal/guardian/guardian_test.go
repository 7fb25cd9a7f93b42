package guardian

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/sys"
)

// controllers are what dying controllers do; the test binary runs it as a
// process of its own. It writes "ready" when it has made its debts.
var controllers = map[string]func(g *Guardian, args []string) error{
	"nothing": func(*Guardian, []string) error { return nil },
	"paid":    func(g *Guardian, _ []string) error { g.Journal.Add(journal.Draft).Done(); return nil },
	"draft": func(g *Guardian, a []string) error {
		dir := fmt.Sprintf("%s.partial-%d", a[0], os.Getpid())
		e := g.Journal.AddText(journal.Draft, dir+"\x00"+a[0])
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "sub", "x"), nil, 0o600); err != nil {
			return err
		}
		switch a[1] {
		case "noted", "published":
			var st unix.Stat_t
			if err := unix.Lstat(dir, &st); err != nil {
				return err
			}
			e.Set(0, uint64(st.Dev))
			e.Set(1, st.Ino)
		}
		link := a[0] + ".link"
		if err := os.WriteFile(link, nil, 0o600); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(link, &st); err != nil {
			return err
		}
		g.Journal.AddText(journal.Link, link, uint64(st.Dev), st.Ino)
		if a[1] == "published" {
			return os.Rename(dir, a[0])
		}
		return nil
	},
	"foreign draft": func(g *Guardian, a []string) error {
		g.Journal.AddText(journal.Draft, a[0]+"\x00"+a[0]+".final")
		return nil
	},
	"stop": func(g *Guardian, a []string) error {
		pid, _ := strconv.Atoi(a[0])
		g.Journal.Add(journal.Stop, uint64(pid))
		return nil
	},
	"doom": func(g *Guardian, a []string) error {
		for _, s := range a[1:] {
			pid, _ := strconv.Atoi(s)
			g.Journal.Add(journal.Doom, uint64(pid))
		}
		if a[0] == "all" {
			g.Journal.Add(journal.Sentence)
		}
		return nil
	},
	"doom of another": func(g *Guardian, a []string) error {
		pid, _ := strconv.Atoi(a[0])
		g.Journal.Add(journal.Doom, uint64(pid), 1)
		g.Journal.Add(journal.Sentence)
		return nil
	},
	"descriptors": func(g *Guardian, a []string) error {
		pid, _ := strconv.Atoi(a[0])
		sock, _ := strconv.Atoi(a[1])
		tty, _ := strconv.Atoi(a[2])
		p, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		if sock, err = unix.PidfdGetfd(p, sock, 0); err != nil {
			return err
		}
		if tty, err = unix.PidfdGetfd(p, tty, 0); err != nil {
			return err
		}
		g.Journal.Add(journal.Target, uint64(pid))
		g.Sockopt(sock, unix.SOL_SOCKET, unix.SO_PEEK_OFF, []byte{0xff, 0xff, 0xff, 0xff})
		if err := unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 3); err != nil {
			return err
		}
		was, err := sys.Termios(tty)
		if err != nil {
			return err
		}
		g.Terminal(tty, was)
		now := *was
		now.Lflag &^= unix.ECHO | unix.ICANON
		now.Cc[unix.VMIN] = 7
		return sys.SetTermios(tty, &now)
	},
}

func TestMain(m *testing.M) {
	name := os.Getenv("FERMATA_TEST_CONTROLLER")
	f := controllers[name]
	if f == nil {
		// What a dead controller leaves becomes our child.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	if os.Getenv("FERMATA_TEST_WHOLE") != "" {
		small = false
	}
	g, err := Start()
	if err == nil {
		err = f(g, strings.Fields(os.Getenv("FERMATA_TEST_ARGS")))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready", g.PID())
	// What happens next comes from stdin.
	switch line, _ := bufio.NewReader(os.Stdin).ReadString('\n'); line {
	case "close\n":
		g.Close()
		fmt.Println("closed")
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "hang\n":
		g.Journal.Patience(200 * time.Millisecond)
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
		// Another thread may be the one that gets it, a while later.
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
}

// patience is how long what must happen may take on a machine that has other
// things to do.
const patience = 30 * time.Second

type controller struct {
	*exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	guardian int
}

func control(t *testing.T, name string, args ...string) *controller {
	t.Helper()
	c := &controller{Cmd: exec.Command(os.Args[0])}
	c.Env = append(os.Environ(), "FERMATA_TEST_CONTROLLER="+name, "FERMATA_TEST_ARGS="+strings.Join(args, " "))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	line, err := c.out.ReadString('\n')
	if _, serr := fmt.Sscanf(line, "ready %d", &c.guardian); err != nil || serr != nil {
		t.Fatalf("%s: %q %v", name, line, err)
	}
	return c
}

// die kills the controller and waits for the end of its guardian.
func (c *controller) die(t *testing.T) {
	t.Helper()
	c.Process.Kill()
	c.Wait()
	c.gone(t)
}

func (c *controller) gone(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if n, err := unix.Wait4(c.guardian, nil, unix.WNOHANG, nil); n == c.guardian || err == unix.ECHILD {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the guardian does not end")
		}
	}
}

func TestControllerEndsWell(t *testing.T) {
	c := control(t, "paid")
	fmt.Fprintln(c.in, "close")
	if line, err := c.out.ReadString('\n'); line != "closed\n" {
		t.Fatalf("%q %v", line, err)
	}
	// It has waited for its guardian: neither process nor zombie.
	if err := unix.Kill(c.guardian, 0); err != unix.ESRCH {
		t.Errorf("the guardian is still there: %v", err)
	}
	c.Process.Kill()
	c.Wait()
}

func TestHungControllerIsEnded(t *testing.T) {
	c := control(t, "nothing")
	began := time.Now()
	fmt.Fprintln(c.in, "hang")
	err := c.Wait()
	if ws := c.ProcessState.Sys().(interface{ Signaled() bool }); !ws.Signaled() {
		t.Errorf("it ended by itself: %v", err)
	}
	if d := time.Since(began); d < 200*time.Millisecond || d > patience {
		t.Errorf("after %v", d)
	}
	c.gone(t)
}

func TestDrafts(t *testing.T) {
	dir := t.TempDir()
	for _, how := range []string{"made", "noted", "published"} {
		final := filepath.Join(dir, how)
		c := control(t, "draft", final, how)
		c.die(t)
		left, _ := filepath.Glob(final + "*")
		want := []string(nil)
		if how == "published" {
			want = []string{final, final + ".link"}
		}
		if fmt.Sprint(left) != fmt.Sprint(want) {
			t.Errorf("%s: left %v, want %v", how, left, want)
		}
	}
	// A directory whose name is not that of a draft of this controller is not
	// touched, whatever the journal says.
	foreign := filepath.Join(dir, "foreign")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	control(t, "foreign draft", foreign).die(t)
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c
}

func state(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return b[strings.LastIndexByte(string(b), ')')+2]
}

func TestStopIsOwed(t *testing.T) {
	s := sleeper(t)
	control(t, "stop", strconv.Itoa(s.Process.Pid)).die(t)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if state(s.Process.Pid) == 'T' {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("state %c", state(s.Process.Pid))
}

func TestAllOrNoneAreEnded(t *testing.T) {
	a, b := sleeper(t), sleeper(t)
	pids := []string{strconv.Itoa(a.Process.Pid), strconv.Itoa(b.Process.Pid)}
	control(t, "doom", append([]string{"some"}, pids...)...).die(t)
	control(t, "doom of another", pids[0]).die(t)
	for _, c := range []*exec.Cmd{a, b} {
		if st := state(c.Process.Pid); st != 'S' && st != 'R' {
			t.Errorf("state %c without a sentence", st)
		}
	}
	control(t, "doom", append([]string{"all"}, pids...)...).die(t)
	for _, c := range []*exec.Cmd{a, b} {
		st := state(c.Process.Pid)
		for range 1000 { // it was killed; on a busy machine it ends later
			if st == 'Z' || st == 0 {
				break
			}
			time.Sleep(time.Millisecond)
			st = state(c.Process.Pid)
		}
		if st != 'Z' && st != 0 {
			t.Errorf("state %c after it", st)
		}
	}
}

// TestDescriptors: options of a socket and settings of a terminal that were
// changed for a moment are put back on the program's own files.
func TestDescriptors(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	tty, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tty)
	was, err := sys.Termios(tty)
	if err != nil {
		t.Fatal(err)
	}
	c := control(t, "descriptors", strconv.Itoa(os.Getpid()), strconv.Itoa(pair[0]), strconv.Itoa(tty))
	if v, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEEK_OFF); err != nil || v != 3 {
		t.Fatalf("option %d %v", v, err)
	}
	if now, err := sys.Termios(tty); err != nil || *now == *was {
		t.Fatalf("settings %+v %v", now, err)
	}
	c.die(t)
	if v, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEEK_OFF); err != nil || v != -1 {
		t.Errorf("option %d %v", v, err)
	}
	if now, err := sys.Termios(tty); err != nil || *now != *was {
		t.Errorf("settings %+v, were %+v (%v)", now, was, err)
	}
}

// TestWholeProgram: where the small program cannot be used, this one does the
// same from the beginning.
func TestWholeProgram(t *testing.T) {
	t.Setenv("FERMATA_TEST_WHOLE", "1")
	TestControllerEndsWell(t)
	TestHungControllerIsEnded(t)
	TestDrafts(t)
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		g, err := Start()
		if err != nil {
			b.Fatal(err)
		}
		g.Close()
	}
}
