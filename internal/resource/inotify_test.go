package resource

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

var inotifyRole = role("inotify", func(a *actor) {
	dir := a.say("ready")
	watch := func(n int, name string, mask uint32) int {
		wd, err := unix.InotifyAddWatch(n, filepath.Join(dir, name), mask)
		a.must(err, name)
		return wd
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	a.at(fd, err, 100)
	watch(100, "d", unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR)
	x := watch(100, "f", unix.IN_MODIFY)
	watch(100, "link", unix.IN_ATTRIB|unix.IN_DONT_FOLLOW)
	_, err = unix.InotifyRmWatch(100, uint32(x))
	a.must(err)
	_, err = unix.Read(100, make([]byte, 4096)) // IN_IGNORED
	a.must(err)
	watch(100, "f", unix.IN_OPEN|unix.IN_ONESHOT|unix.IN_EXCL_UNLINK)

	fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	a.at(fd, err, 101)
	watch(101, "d", unix.IN_ATTRIB)
	a.must(os.Chmod(filepath.Join(dir, "d"), 0o711))
	a.must(os.Chmod(filepath.Join(dir, "f"), 0o711))
	fd, err = unix.InotifyInit1(unix.IN_CLOEXEC)
	a.at(fd, err, 102)
	a.say("ready")
})

func inotifyDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func watches(t *testing.T, pid, fd int) string {
	t.Helper()
	i, err := procfs.ReadFDInfo(pid, fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v, nonblock %v", i.Inotify, i.Flags&unix.O_NONBLOCK != 0)
}

// queued reads what waits in an instance: "WD MASK NAME".
func queued(t *testing.T, fd int) (out []string) {
	t.Helper()
	for readable(t, fd, 0) {
		var b [4096]byte
		n, err := unix.Read(fd, b[:])
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < n; {
			e := (*unix.InotifyEvent)(unsafe.Pointer(&b[at]))
			at += unix.SizeofInotifyEvent
			name := strings.TrimRight(string(b[at:at+int(e.Len)]), "\x00")
			at += int(e.Len)
			out = append(out, strings.TrimSpace(fmt.Sprintf("%d %#x %s", e.Wd, e.Mask, name)))
		}
	}
	return out
}

func TestInotify(t *testing.T) {
	dir := inotifyDir(t)
	p := start(t, inotifyRole, nil)
	p.ask(dir, nil)
	own := watchEverything(t, dir)
	s := save(t, p.pid)
	if os.Getuid() != 0 && s.refuse.Err() != nil {
		s.refused(t, "CAP_DAC_READ_SEARCH") // handles are not for users
		return
	}
	if ev := queued(t, own); len(ev) != 0 {
		t.Errorf("collecting was seen: %q", ev)
	}
	r := s.open(t)
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	if ev := queued(t, own); len(ev) != 0 {
		t.Errorf("restoring was seen: %q", ev)
	}
	fd := map[int]int{}
	for _, n := range []int{100, 101, 102} {
		fd[n] = s.fd(t, r, p.pid, n)
		if got, want := watches(t, unix.Getpid(), fd[n]), watches(t, p.pid, n); got != want {
			t.Errorf("%d: watches\n%s, want\n%s", n, got, want)
		}
	}
	if ev := queued(t, fd[100]); len(ev) != 0 {
		t.Errorf("100: %q from the beginning", ev)
	}
	if ev := queued(t, fd[101]); fmt.Sprint(ev) != fmt.Sprint([]string{"-1 0x4000"}) {
		t.Errorf("101: %q, want an overflow", ev)
	}
	if err := os.WriteFile(filepath.Join(dir, "d", "three"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one shot
		f, err := os.Open(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if got, want := queued(t, fd[100]), []string{"1 0x100 three", "4 0x20", "4 0x8000"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("100: %q, want %q", got, want)
	}
	if got, want := queued(t, fd[101]), []string{"1 0x40000004"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("101: %q, want %q", got, want)
	}
	// The next watch of the program gets the next number.
	if wd, err := unix.InotifyAddWatch(fd[102], dir, unix.IN_CREATE); err != nil || wd != 1 {
		t.Errorf("102: first watch %d, %v", wd, err)
	}
	if wd, err := unix.InotifyAddWatch(fd[100], dir, unix.IN_CREATE); err != nil || wd != 5 {
		t.Errorf("100: next watch %d, %v", wd, err)
	}
}

// watchEverything watches a directory and what is in it.
func watchEverything(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, n := range []string{".", "d", "f", "link", ".."} {
		if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, n), unix.IN_ALL_EVENTS|unix.IN_DONT_FOLLOW); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

// TestInotifyGone: what is watched has gone away by the time of the restore.
func TestInotifyGone(t *testing.T) {
	dir := inotifyDir(t)
	p := start(t, inotifyRole, nil)
	p.ask(dir, nil)
	s := save(t, p.pid)
	if err := s.refuse.Err(); err != nil {
		if os.Getuid() != 0 {
			t.Skip("opening handles needs root")
		}
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	r, err := NewRestore(s.im, &s.refuse)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	s.refused(t, filepath.Join(dir, "d"))
}

// TestWatchNumbers: also where the kernel has no way to set them.
func TestWatchNumbers(t *testing.T) {
	dir := inotifyDir(t)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, wd := range []int{7, 1000} {
		name := filepath.Join(dir, map[int]string{7: "f", 1000: "d"}[wd])
		if wd == 1000 {
			// Count up by hand, as the loop does.
			for n := 8; n < wd; n++ {
				got, err := unix.InotifyAddWatch(fd, name, unix.IN_CREATE)
				if err != nil || got != n {
					t.Fatal(got, err)
				}
				if err := dropWatch(fd, got); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := addWatch(fd, name, unix.IN_CREATE, wd); err != nil {
			t.Error(err)
		}
	}
	if ev := queued(t, fd); len(ev) != 0 {
		t.Errorf("left behind: %q", ev)
	}
	if fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || fl&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#o, %v", fl, err)
	}
	if err := addWatch(fd, filepath.Join(dir, "link"), unix.IN_CREATE|unix.IN_DONT_FOLLOW, 7); err == nil {
		t.Error("a number was given twice")
	}
}

// TestWatchCandidates finds paths without opening handles.
func TestWatchCandidates(t *testing.T) {
	dir := inotifyDir(t)
	d := NewDump(nil, nil)
	defer d.Close()
	d.files = []*File{{PID: os.Getpid(), Link: filepath.Join(dir, "d", "one")}}
	probe, err := newWatchProbe()
	if err != nil {
		t.Fatal(err)
	}
	defer probe.close()
	w, err := probe.look(filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	f := &File{PID: os.Getpid(), Info: procfs.FDInfo{Inotify: []procfs.InotifyWatch{w}}}
	f.Info.Inotify[0].Handle.Data = append([]byte(nil), w.Handle.Data...)
	// A handle that nobody can open, as that of another machine's overlay.
	f.Info.Inotify[0].Dev = w.Dev + 1
	if got, err := d.watchPaths(f, probe); err != nil || got[0] != "" {
		t.Errorf("%q, %v", got, err)
	}
	f.Info.Inotify[0] = w
	f.Info.Inotify[0].Handle.Data = nil
	if got, err := d.watchPaths(f, &watchProbe{probe.fd}); err != nil || got[0] != "" {
		t.Errorf("%q, %v", got, err) // the handle differs
	}
	hs := []sys.Handle{{Type: int32(w.Handle.Type), Data: w.Handle.Data}}
	if fds, errs := sys.OpenHandles(dir, hs); errs[0] == nil {
		unix.Close(fds[0])
	} else if os.Getuid() == 0 {
		t.Error(errs[0])
	}
	if p := d.candidates(); !probe.is(filepath.Join(dir, "d"), &w) || !contains(p, filepath.Join(dir, "d")) {
		t.Errorf("not among %q", p)
	}
}

func contains(s []string, v string) bool {
	for _, x := range s {
		if x == v {
			return true
		}
	}
	return false
}
