package resource

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
)

func write(path string, b []byte) { must(os.WriteFile(path, b, 0o644)) }

func open(path string, flags int) int { return must1(unix.Open(path, flags, 0o644)) }

func init() {
	fileChildren["files"] = func() {
		write("a", pattern(9000, 1))
		must(unix.Mkdir("d", 0o755))
		for i := range 300 {
			write(fmt.Sprintf("d/entry-%03d", i), nil)
		}
		as(10, open("a", unix.O_RDWR), nil)
		must1(unix.Seek(10, 777, unix.SEEK_SET))
		as(11, must1(unix.Dup(10)), nil)
		as(12, open("a", unix.O_WRONLY|unix.O_APPEND|unix.O_NONBLOCK|unix.O_SYNC), nil)
		as(13, open("a", unix.O_RDONLY|unix.O_NOATIME|unix.O_NOFOLLOW), nil)
		must1(unix.Seek(13, 1<<43, unix.SEEK_SET))
		as(14, open("d", unix.O_RDONLY|unix.O_DIRECTORY), nil)
		var b [1024]byte
		must1(unix.Getdents(14, b[:]))
		as(15, open("d", unix.O_PATH), nil)
		must(unix.Symlink("nowhere", "s"))
		as(16, open("s", unix.O_PATH|unix.O_NOFOLLOW), nil)
		as(17, open("/dev/null", unix.O_RDWR), nil)
		as(18, open("/dev/urandom", unix.O_RDONLY), nil)
		as(19, open("/proc/meminfo", unix.O_RDONLY), nil)
		must1(unix.Seek(19, 100, unix.SEEK_SET))
		as(20, open("/dev/zero", unix.O_RDWR), nil)
		must(unix.Rename("d", "e"))
		write("later", nil)
		as(21, open("later", unix.O_RDONLY), nil)
		must(unix.Rename("later", "sooner"))
		write("odd (deleted)", []byte("odd"))
		as(22, open("odd (deleted)", unix.O_RDONLY), nil)
		as(23, open("new\nline", unix.O_RDWR|unix.O_CREAT), nil)
		as(24, open("locked", unix.O_RDWR|unix.O_CREAT), nil)
		must(unix.Flock(24, unix.LOCK_EX))
	}
	fileChildren["proc-self"] = func() {
		as(10, open("/proc/self/status", unix.O_RDONLY), nil)
		as(11, open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY), nil)
	}
	fileChildren["refused"] = func() {
		if asRoot {
			as(10, open("/dev/kmsg", unix.O_RDONLY), nil)
		}
		as(11, open("/proc/1/status", unix.O_RDONLY), nil)
		as(12, open("/dev/kmsg", unix.O_RDONLY|unix.O_PATH), nil) // harmless
	}
	fileChildren["changes"] = func() {
		for _, n := range []string{"w1", "w2", "w3", "w4", "r1", "r2", "r3", "r4", "r5", "gone"} {
			write(n, pattern(5000, n[1]))
		}
		for i, n := range []string{"w1", "w2", "w3", "w4"} {
			as(10+i, open(n, unix.O_RDWR), nil)
		}
		for i, n := range []string{"r1", "r2", "r3", "r4", "r5", "gone"} {
			as(20+i, open(n, unix.O_RDONLY), nil)
		}
		as(30, open("r1", unix.O_PATH), nil)
	}
}

func TestFiles(t *testing.T) {
	c := startChild(t, "files").collect()
	// What the program would read next from its directory.
	next := func(fd int) string {
		var b [64 << 10]byte
		n, err := unix.Getdents(fd, b[:])
		if err != nil {
			t.Fatal(err)
		}
		_, _, names := unix.ParseDirent(b[:n], -1, nil)
		return strings.Join(names, " ")
	}
	own := must1(unix.Open(fmt.Sprintf("/proc/%d/fd/14", c.pid), unix.O_RDONLY|unix.O_DIRECTORY, 0))
	defer unix.Close(own)
	if _, err := unix.Seek(own, int64(c.dump.files[fileIndex(c, 14)].Info.Pos), unix.SEEK_SET); err != nil {
		t.Fatal(err)
	}
	want := next(own)
	x := c.restore()
	if x.pos(10) != 777 || x.table[10] != x.table[11] {
		t.Errorf("offset %d; 10 and 11 are files %d and %d", x.pos(10), x.table[10], x.table[11])
	}
	for fd, want := range map[int]int{
		10: unix.O_RDWR, 12: unix.O_WRONLY | unix.O_APPEND | unix.O_NONBLOCK | unix.O_SYNC,
		13: unix.O_NOATIME | unix.O_NOFOLLOW, 14: unix.O_DIRECTORY,
	} {
		if got := x.flags(fd) &^ kernelLargefile; got != want {
			t.Errorf("flags of %d: %#o, not %#o", fd, got, want)
		}
	}
	for _, fd := range []int{15, 16} {
		if x.flags(fd)&unix.O_PATH == 0 {
			t.Errorf("flags of %d: %#o", fd, x.flags(fd))
		}
	}
	if x.pos(13) != 1<<43 || x.pos(19) != 100 {
		t.Errorf("offsets %d %d", x.pos(13), x.pos(19))
	}
	if got := next(x.fd(14)); got != want || len(got) == 0 {
		t.Errorf("the directory goes on elsewhere: %.60s and %.60s", got, want)
	}
	for fd, want := range map[int]string{
		10: c.dir + "/a", 15: c.dir + "/e", 16: c.dir + "/s", 17: "/dev/null", 18: "/dev/urandom", 19: "/proc/meminfo",
		20: "/dev/zero", 21: c.dir + "/sooner", 22: c.dir + "/odd (deleted)", 23: c.dir + "/new\nline",
	} {
		if got := x.link(fd); got != want {
			t.Errorf("fd %d is %s, not %s", fd, got, want)
		}
	}
	if len(x.notes) != 0 {
		t.Errorf("notes: %v", x.notes)
	}
}

func fileIndex(c *child, fd int) int {
	for i, f := range c.dump.files {
		if f.FD == fd {
			return i
		}
	}
	return -1
}

// TestFilesProcSelf: files of /proc that belong to a task are opened when it
// exists again; here it still does.
func TestFilesProcSelf(t *testing.T) {
	c := startChild(t, "proc-self").collect()
	x := c.prepare(FilesStrict)
	if err := x.OpenAll(); err != nil {
		t.Fatal(err)
	}
	if len(x.fds) != 0 || !x.Late(x.table[10]) {
		t.Error("opened before the task is there")
	}
	if err := x.OpenLate(); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("/proc/%d/status", c.pid); x.link(10) != want {
		t.Errorf("%s, not %s", x.link(10), want)
	}
}

func TestFilesRefused(t *testing.T) {
	c := startChild(t, "refused").collect()
	var want []string
	if asRoot {
		want = append(want, "character device 1:11")
	}
	reasons(t, c.refuse, want...)
	// /proc/1 is as good as ever, as long as that process is there.
	if len(c.table) != 2 {
		t.Errorf("%d files saved", len(c.table))
	}
}

// alter does to the files what may happen between checkpoint and restore.
func alter(t *testing.T, dir string) {
	t.Helper()
	p := func(n string) string { return filepath.Join(dir, n) }
	put := func(n, s string) {
		f, err := os.OpenFile(p(n), os.O_APPEND|os.O_WRONLY, 0)
		must(err)
		must1(f.WriteString(s))
		must(f.Close())
	}
	replace := func(n string, size int) {
		write(p(n)+".new", pattern(size, 9))
		must(os.Rename(p(n)+".new", p(n)))
	}
	put("w1", "more")
	must(os.Truncate(p("w2"), 100))
	// w3: the same size, another content
	f := must1(os.OpenFile(p("w3"), os.O_WRONLY, 0))
	must1(f.WriteAt([]byte("changed"), 0))
	must(f.Close())
	must(os.Chtimes(p("w3"), time.Now().Add(time.Hour), time.Now().Add(time.Hour)))
	// w4: copied away and back, times kept
	st := must1(os.Stat(p("w4")))
	write(p("w4")+".copy", pattern(5000, '4'))
	must(os.Chtimes(p("w4")+".copy", time.Time{}, st.ModTime()))
	must(os.Rename(p("w4")+".copy", p("w4")))
	put("r1", "more")
	must(os.Truncate(p("r2"), 100))
	replace("r3", 6000)
	must(os.Remove(p("r4")))
	must(os.Mkdir(p("r4"), 0o755))
	must(os.Chtimes(p("r5"), time.Now().Add(time.Hour), time.Now().Add(time.Hour)))
	must(os.Remove(p("gone")))
}

func TestFilesChanged(t *testing.T) {
	c := startChild(t, "changes").collect()
	c.kill()
	if err := c.prepare(FilesStrict).Refuse.Err(); err != nil {
		t.Fatalf("nothing has changed: %v", err)
	}
	alter(t, c.dir)
	x := c.prepare(FilesStrict)
	reasons(t, x.Refuse,
		"/w1: grew from 5000 to 5004 bytes", "/w2: shrank from 5000 to 100 bytes", "/w3: was written since the checkpoint",
		"/r2: shrank from 5000 to 100 bytes", "/r3: was replaced by another file",
		"/r4: is now a directory, was a regular file", "/gone: the file is gone")
	if _, err := x.Open(x.table[10]); err == nil || !isRefused(err) {
		t.Errorf("opening a file that grew: %v", err)
	}

	x = c.prepare(FilesKeep)
	reasons(t, x.Refuse, "/r4: is now a directory, was a regular file; put the file back", "/gone: the file is gone")
	if st := fileSize(t, x.fd(10)); st != 5004 {
		t.Errorf("kept file has %d bytes", st)
	}

	x = c.prepare(FilesRollback)
	reasons(t, x.Refuse,
		"/w2: shrank from 5000 to 100 bytes since the checkpoint: it cannot be cut back",
		"/r2: shrank", "/r3: was replaced", "/r4: is now a directory", "/gone: the file is gone")
	fd := x.fd(10)
	if n := fileSize(t, fd); n != 5004 {
		t.Errorf("cut to %d bytes before the restore has succeeded", n)
	}
	x.fd(12)
	if err := x.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := fileSize(t, fd); n != 5000 {
		t.Errorf("%d bytes after the rollback", n)
	}
	if len(x.notes) != 1 || !strings.Contains(x.notes[0], "/w3 was written") {
		t.Errorf("notes: %q", x.notes)
	}
}

func isRefused(err error) bool {
	return strings.Contains(err.Error(), "grew") && errorsIs(err, fault.ErrRefused)
}

func fileSize(t *testing.T, fd int) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Size
}

// TestFilesSaved: content of files open for writing travels, and comes back.
func TestFilesSaved(t *testing.T) {
	c := startChild(t, "changes").collect(func(d *Dump) { d.SaveFiles = true })
	c.kill()
	before := map[string]string{}
	for _, n := range []string{"w1", "w2", "w3", "w4"} {
		before[n] = string(must1(os.ReadFile(filepath.Join(c.dir, n))))
	}
	alter(t, c.dir)
	must(os.Remove(filepath.Join(c.dir, "w4")))
	x := c.prepare(FilesStrict)
	if s := x.Refuse.Err().Error(); !strings.Contains(s, "puts the saved content back") {
		t.Error(s)
	}
	x = c.prepare(FilesRollback)
	reasons(t, x.Refuse, "/r2: shrank", "/r3: was replaced", "/r4: is now a directory", "/gone: the file is gone")
	for fd := 10; fd < 14; fd++ {
		x.fd(fd)
	}
	if err := x.Commit(); err != nil {
		t.Fatal(err)
	}
	x.Close()
	for n, want := range before {
		if got, err := os.ReadFile(filepath.Join(c.dir, n)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", n, len(got), err)
		}
	}
	// A restore that fails leaves no file behind that it made.
	must(os.Remove(filepath.Join(c.dir, "w4")))
	x = c.prepare(FilesRollback)
	x.fd(13)
	x.Close()
	if _, err := os.Stat(filepath.Join(c.dir, "w4")); !os.IsNotExist(err) {
		t.Errorf("the file made by a failed restore: %v", err)
	}
}

// TestFilesSymlinked: nobody gets another file by putting a symbolic link into
// a path.
func TestFilesSymlinked(t *testing.T) {
	c := startChild(t, "changes").collect()
	c.kill()
	p := filepath.Join(c.dir, "r1")
	must(os.Rename(p, p+".real"))
	must(os.Symlink(p+".real", p))
	x := c.prepare(FilesStrict)
	reasons(t, x.Refuse, "/r1: is now a symbolic link")
	// The directory moved away, with a link left: it is the same inode.
	must(os.Remove(p))
	must(os.Rename(p+".real", p))
	must(os.Rename(c.dir, c.dir+".moved"))
	must(os.Symlink(c.dir+".moved", c.dir))
	x = c.prepare(FilesStrict)
	if err := x.Refuse.Err(); err != nil {
		t.Fatal(err)
	}
	x.fd(20)
	must(os.Remove(p))
	must(os.Symlink("/etc/passwd", p))
	x = c.prepare(FilesKeep)
	if fd, err := x.Open(x.table[20]); err == nil {
		t.Errorf("another file was opened: %d", fd)
	}
}
