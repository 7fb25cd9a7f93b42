package resource

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/tty"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// openPair opens a pty: the master at n, the slave at n+1.
func openPair(a *actor, n int) {
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	a.at(m, err, n)
	a.must(unix.IoctlSetPointerInt(n, unix.TIOCSPTLCK, 0))
	s, err := unix.Open(ptsName(a, n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	a.at(s, err, n+1)
}

func ptsName(a *actor, master int) string {
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	a.must(err)
	return "/dev/pts/" + strconv.Itoa(n)
}

func (a *actor) settings(fd int, change func(*unix.Termios)) {
	t, err := sys.Termios(fd)
	a.must(err)
	change(t)
	a.must(sys.SetTermios(fd, t))
}

func rawLine(t *unix.Termios) {
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
}

func quietLine(t *unix.Termios) {
	t.Lflag &^= unix.ECHO
	t.Oflag &^= unix.OPOST
}

func (a *actor) put(fd int, s string) {
	_, err := unix.Write(fd, []byte(s))
	a.must(err)
}

func (a *actor) until(what string, f func() bool) {
	for end := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			a.must(fmt.Errorf("no %s", what))
		}
	}
}

func inq(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return -1
	}
	return n
}

func stream(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return string(b)
}

var ttyRole = role("tty", func(a *actor) {
	// Raw, both ways full of bytes, with a window.
	openPair(a, 100)
	a.settings(101, rawLine)
	a.put(100, stream(1000))
	a.put(101, stream(9000))
	a.must(unix.IoctlSetWinsize(100, unix.TIOCSWINSZ, &unix.Winsize{Row: 43, Col: 132, Xpixel: 7, Ypixel: 9}))
	a.until("input", func() bool { return inq(101) == 1000 })
	// By lines, one begun, one ended by an end of file, and other output.
	openPair(a, 110)
	a.settings(111, quietLine)
	a.put(110, "one\n\nby eof\004\004two\nbegun")
	a.put(111, "output\n")
	a.until("lines", func() bool { return pollFD(111, unix.POLLIN, 0)&unix.POLLIN != 0 })
	time.Sleep(5 * time.Millisecond)
	// The last thing is an end of file; another end-of-line character.
	openPair(a, 120)
	a.settings(121, func(t *unix.Termios) { quietLine(t); t.Cc[unix.VEOL] = 'x' })
	a.put(120, "axb\nlast\004")
	time.Sleep(5 * time.Millisecond)
	// A line only begun; locked settings; echo on.
	openPair(a, 130)
	if os.Getuid() == 0 {
		a.must(sys.SetLockedTermios(130, &unix.Termios{Lflag: unix.ICANON, Iflag: unix.IUTF8}))
	}
	a.settings(131, func(t *unix.Termios) {
		t.Iflag |= unix.IUTF8
		t.Cc[unix.VINTR] = 7
		t.Ispeed, t.Ospeed = 12345, 12345
		t.Cflag |= 0x1000
	})
	a.put(130, "typed")
	time.Sleep(5 * time.Millisecond)
	// Output is stopped.
	openPair(a, 140)
	a.settings(141, quietLine)
	a.put(141, "before")
	a.put(140, "\023")
	a.until("stop", func() bool { return pollFD(141, unix.POLLOUT, 0)&unix.POLLOUT == 0 })
	// Packet mode, exclusive.
	openPair(a, 150)
	a.settings(151, rawLine)
	a.must(unix.IoctlSetPointerInt(150, unix.TIOCPKT, 1))
	a.put(151, "packet")
	a.must(unix.IoctlSetInt(151, unix.TIOCEXCL, 0))
	// Locked, never opened.
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	a.at(m, err, 160)
	// The slave was closed, with output left.
	openPair(a, 170)
	a.settings(171, rawLine)
	a.put(171, "left")
	a.must(unix.Close(171))
	// The master was closed.
	openPair(a, 180)
	a.must(unix.Close(180))
	// A second description with other flags.
	s, err := unix.Open(ptsName(a, 100), unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	a.at(s, err, 190)
	a.must(unix.Fchmod(101, 0o604))

	for line := a.say("ready"); ; {
		switch line {
		case "settings":
			line = a.say(ttySettings(func(n int) int { return n }))
		case "queues":
			line = a.say(ttyContents(func(n int) int { return n }))
		}
	}
})

var ttyNumbers = []int{100, 101, 110, 111, 120, 121, 130, 131, 140, 141, 150, 151, 160, 170, 181, 190}

// ttySettings describes what does not change by looking; fd gives the descriptor
// of a number.
func ttySettings(fd func(int) int) map[string]string {
	out := map[string]string{}
	for _, n := range ttyNumbers {
		f := fd(n)
		say := func(what string, v any, err error) { out[fmt.Sprintf("%d %s", n, what)] = fmt.Sprint(v, " ", err) }
		fl, err := unix.FcntlInt(uintptr(f), unix.F_GETFL, 0)
		say("flags", fl, err)
		t, err := sys.Termios(f)
		say("settings", t, err)
		t, err = sys.LockedTermios(f)
		say("locked settings", t, err)
		w, err := unix.IoctlGetWinsize(f, unix.TIOCGWINSZ)
		say("window", w, err)
		for what, req := range map[string]uint{"exclusive": unix.TIOCGEXCL, "packet": unix.TIOCGPKT, "lock": unix.TIOCGPTLCK, "index": unix.TIOCGPTN} {
			v, err := unix.IoctlGetInt(f, req)
			say(what, v, err)
		}
		var st unix.Stat_t
		err = unix.Fstat(f, &st)
		say("file", fmt.Sprintf("%#o %d:%d %#x", st.Mode, st.Uid, st.Gid, st.Rdev), err)
		l, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(f))
		say("link", strings.TrimSuffix(l, " (deleted)"), err)
		say("poll", fmt.Sprintf("%#x", pollFD(f, unix.POLLIN|unix.POLLOUT|unix.POLLPRI, 0)), nil)
		if n != 181 {
			say("inq", inq(f), nil)
		}
	}
	return out
}

// ttyContents reads everything out, one read after the other.
func ttyContents(fd func(int) int) map[string]string {
	out := map[string]string{}
	reads := func(n int) {
		var all []string
		var text string
		for pollFD(fd(n), unix.POLLIN, 0)&unix.POLLIN != 0 {
			b := make([]byte, 4096)
			k, err := unix.Read(fd(n), b)
			if err != nil {
				all = append(all, err.Error())
				break
			}
			text += string(b[:k])
			all = append(all, string(b[:k]))
			if n == 181 && k == 0 {
				break
			}
		}
		if n == 100 || n == 101 {
			all = []string{text} // how a stream is cut is no state
		}
		out[strconv.Itoa(n)] = fmt.Sprintf("%q", all)
	}
	for _, n := range []int{101, 100, 111, 110, 121, 131, 130, 140, 150, 170, 181} {
		reads(n)
	}
	write := func(n int, s string) {
		if _, err := unix.Write(fd(n), []byte(s)); err != nil {
			out[fmt.Sprintf("write %d", n)] = err.Error()
		}
	}
	// What was begun goes on; what was stopped starts.
	write(110, " more\177\177\n")
	write(130, "\177 on\n")
	write(140, "\021")
	time.Sleep(20 * time.Millisecond)
	out["start"] = fmt.Sprintf("%#x", pollFD(fd(141), unix.POLLOUT, 0))
	write(141, "after")
	write(181, "x")
	time.Sleep(20 * time.Millisecond)
	for _, n := range []int{111, 131, 130, 140} {
		out[fmt.Sprintf("%d first", n)] = out[strconv.Itoa(n)]
		reads(n)
	}
	return out
}

func sameMaps(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for k, w := range want {
		if g := got[k]; g != w {
			if len(g) > 500 {
				g = g[:500] + "…"
			}
			if len(w) > 500 {
				w = w[:500] + "…"
			}
			t.Errorf("%s: %s:\n%s, want\n%s", what, k, g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d items, want %d", what, len(got), len(want))
	}
}

// TestTerminals takes ptys in many states through a checkpoint, twice from one
// that goes on: what is restored, and what goes on, are as if nothing had been.
func TestTerminals(t *testing.T) {
	var settings, contents map[string]string
	undisturbed := start(t, ttyRole, nil)
	undisturbed.ask("queues", &contents)
	undisturbed.quit()

	p := start(t, ttyRole, nil)
	p.ask("settings", &settings)
	s := save(t, p.pid)
	var now map[string]string
	p.ask("settings", &now)
	sameMaps(t, "left running", now, settings)
	s = save(t, p.pid)
	now = nil
	p.ask("settings", &now)
	sameMaps(t, "left running, again", now, settings)
	now = nil
	p.ask("queues", &now)
	sameMaps(t, "left running", now, contents)
	p.quit()

	for _, what := range []string{"restored", "restored again"} {
		r := s.open(t)
		if err := r.Finish(); err != nil {
			t.Fatal(err)
		}
		fd := func(n int) int { return s.fd(t, r, p.pid, n) }
		sameMaps(t, what, ttySettings(fd), settings)
		sameMaps(t, what, ttyContents(fd), contents)
		r.Close()
	}
	if len(contents["100"]) < 9000 || !strings.Contains(contents["111"], "begun mo") {
		t.Errorf("the test itself reads %.200q", contents)
	}
}

func TestTerminalInUse(t *testing.T) {
	p := start(t, ttyRole, nil)
	s := save(t, p.pid)
	r, err := NewRestore(s.im, &s.refuse)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	s.refused(t, "is in use")
	if err := r.OpenAll(); err == nil {
		t.Error("opened all the same")
	}
	// Unless the user says that another number will do.
	r.Close()
	s.refuse = fault.Refusals{}
	if r, err = NewRestore(s.im, &s.refuse); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	notes := 0
	r.Files, r.Note = FilesKeep, func(string, ...any) { notes++ }
	if err := errors.Join(r.Check(), s.refuse.Err(), r.OpenAll(), r.Finish()); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(s.fd(t, r, p.pid, 100), unix.TIOCGPTN)
	if own, oerr := procfs.ReadFDInfo(p.pid, 100); err != nil || oerr != nil || n == own.TTYIndex || notes == 0 {
		t.Errorf("number %d, %v, %v, %d notes", n, err, oerr, notes)
	}
}

// TestTerminalOutside: the other end is in no task of the tree.
func TestTerminalOutside(t *testing.T) {
	p := start(t, externalRole, nil)
	s := save(t, p.pid)
	if err := s.refuse.Err(); err != nil {
		t.Fatal(err)
	}
	infos, err := image.All[*tty.TtyInfoEntry](s.im, ttyInfoPart)
	if err != nil || len(infos) != 1 || infos[0].GetType() != tty.TtyType_EXT_TTY {
		t.Fatalf("%v, %v", infos, err)
	}
	if _, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		r, err := NewRestore(s.im, &s.refuse)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		s.refused(t, "this fermata has none")
	}
}

// The slave alone is in the range that is collected.
var externalRole = role("external", func(a *actor) {
	openPair(a, 90)
	a.at(91, nil, 100)
	a.must(unix.Dup3(100, 101, unix.O_CLOEXEC))
	a.say("ready")
})
