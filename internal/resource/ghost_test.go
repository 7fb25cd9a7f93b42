package resource

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	fileChildren["ghosts"] = func() {
		// 10, 11: one deleted inode, two descriptions; sparse
		as(10, open("g", unix.O_RDWR|unix.O_CREAT), nil)
		must1(unix.Pwrite(10, pattern(5000, 1), 0))
		must1(unix.Pwrite(10, []byte("end"), 1<<32))
		as(11, open("g", unix.O_WRONLY|unix.O_APPEND), nil)
		must1(unix.Seek(10, 42, unix.SEEK_SET))
		chown(10, 123, 456)
		must(unix.Fchmod(10, 0o4711))
		ts := []unix.Timespec{{Sec: 1000, Nsec: 5}, {Sec: 2000, Nsec: 7}}
		must(unix.UtimesNanoAt(unix.AT_FDCWD, "g", ts, 0))
		must(unix.Unlink("g"))
		// 12: its old name is taken
		as(12, open("taken", unix.O_RDONLY|unix.O_CREAT), nil)
		must(unix.Unlink("taken"))
		write("taken", []byte("another"))
		// 13, 14, 15: a removed tree
		must(unix.Mkdir("dir", 0o750))
		must(unix.Mkdir("dir/sub", 0o700))
		as(13, open("dir", unix.O_RDONLY|unix.O_DIRECTORY), nil)
		as(14, open("dir/sub", unix.O_PATH), nil)
		as(15, open("dir/sub/f", unix.O_RDWR|unix.O_CREAT), nil)
		must1(unix.Write(15, []byte("deep")))
		must(unix.Unlink("dir/sub/f"))
		must(unix.Rmdir("dir/sub"))
		must(unix.UtimesNanoAt(unix.AT_FDCWD, "dir", ts, 0))
		must(unix.Rmdir("dir"))
		// 16: without a name from the start
		as(16, open(".", unix.O_TMPFILE|unix.O_RDWR|unix.O_APPEND), nil)
		must1(unix.Write(16, []byte("tmp")))
		// 17: another link is left, in the same directory
		as(17, open("first", unix.O_RDWR|unix.O_CREAT), nil)
		must1(unix.Write(17, []byte("linked")))
		must(unix.Link("first", "second"))
		must(unix.Unlink("first"))
		// 18: another link is left, elsewhere
		must(unix.Mkdir("far", 0o755))
		must(unix.Mkdir("away", 0o755))
		as(18, open("far/one", unix.O_RDWR|unix.O_CREAT), nil)
		must(unix.Link("far/one", "away/two"))
		must(unix.Unlink("far/one"))
		must(unix.Rmdir("far"))
		// 19: deleted, of mode 0, open for writing only
		as(19, open("wo", unix.O_WRONLY|unix.O_CREAT), nil)
		must1(unix.Write(19, []byte("write only")))
		if asRoot {
			must(unix.Fchmod(19, 0))
		} else {
			must(unix.Fchmod(19, 0o400))
		}
		must(unix.Unlink("wo"))
		// 20: a deleted symbolic link
		must(unix.Symlink("target", "l"))
		as(20, open("l", unix.O_PATH|unix.O_NOFOLLOW), nil)
		must(unix.Unlink("l"))
		// 23, 24: a removed tree whose name is another directory's by now
		must(unix.Mkdir("again", 0o755))
		as(23, open("again", unix.O_RDONLY|unix.O_DIRECTORY), nil)
		must(unix.Mkdir("again/in", 0o755))
		as(24, open("again/in", unix.O_RDONLY|unix.O_DIRECTORY), nil)
		must(unix.Rmdir("again/in"))
		must(unix.Rmdir("again"))
		must(unix.Mkdir("again", 0o755))
		// 21: two names, both gone
		as(21, open("n1", unix.O_RDWR|unix.O_CREAT), nil)
		must(unix.Link("n1", "n2"))
		as(22, open("n2", unix.O_RDWR), nil)
		must(unix.Unlink("n1"))
		must(unix.Unlink("n2"))
	}
}

func init() {
	fileChildren["unreadable"] = func() {
		as(10, open("wo", unix.O_WRONLY|unix.O_CREAT), nil)
		must(unix.Fchmod(10, 0))
		must(unix.Unlink("wo"))
	}
	fileChildren["lost"] = func() {
		must(unix.Mkdir("far", 0o755))
		must(unix.Mkdir("away", 0o755))
		as(10, open("far/one", unix.O_RDWR|unix.O_CREAT), nil)
		must(unix.Link("far/one", "away/two"))
		must(unix.Unlink("far/one"))
		must(unix.Rmdir("far"))
	}
}

// listing gives every name below a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	must(filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		names = append(names, strings.TrimPrefix(p, dir))
		return err
	}))
	return strings.Join(names, " ")
}

func TestGhosts(t *testing.T) {
	c := startChild(t, "ghosts")
	var atime unix.Stat_t
	must(unix.Stat(fmt.Sprintf("/proc/%d/fd/10", c.pid), &atime))
	c.collect()
	var now unix.Stat_t
	must(unix.Stat(fmt.Sprintf("/proc/%d/fd/10", c.pid), &now))
	if now.Atim != atime.Atim {
		t.Error("the access time has changed")
	}
	before := listing(t, c.dir)
	must(c.dump.Commit())
	x := c.restore()
	must(x.Commit())
	if after := listing(t, c.dir); after != before {
		t.Errorf("a restore left something:\n%s, was\n%s", after, before)
	}
	var st unix.Stat_t
	must(unix.Fstat(x.fd(10), &st))
	if st.Mode != unix.S_IFREG|0o4711 || !ownedBy(&st, 123, 456) || st.Nlink != 0 || st.Size != 1<<32+3 ||
		st.Mtim != (unix.Timespec{Sec: 2000, Nsec: 7}) || st.Atim != (unix.Timespec{Sec: 1000, Nsec: 5}) {
		t.Errorf("10: %+v", st)
	}
	if st.Blocks > 64 {
		t.Errorf("the holes are filled: %d blocks", st.Blocks)
	}
	var b [5000]byte
	if n, _ := unix.Pread(x.fd(10), b[:], 0); n != 5000 || !bytes.Equal(b[:], pattern(5000, 1)) {
		t.Errorf("content of 10: %d", n)
	}
	if x.pos(10) != 42 || x.flags(11)&^kernelLargefile != unix.O_WRONLY|unix.O_APPEND {
		t.Errorf("%d, %#o", x.pos(10), x.flags(11))
	}
	must1(unix.Write(x.fd(11), []byte("!")))
	if n, _ := unix.Pread(x.fd(10), b[:], 1<<32); string(b[:n]) != "end!" {
		t.Errorf("the descriptions do not share the file: %q", b[:n])
	}
	for fd, want := range map[int]string{10: "g", 11: "g", 13: "dir", 14: "dir/sub", 15: "dir/sub/f", 17: "first", 18: "far/one", 19: "wo", 20: "l", 21: "n1", 22: "n2"} {
		if got := x.link(fd); got != c.dir+"/"+want+" (deleted)" {
			t.Errorf("%d: %s", fd, got)
		}
	}
	if got := x.link(12); !strings.HasPrefix(got, c.dir+"/.fermata-ghost-") {
		t.Errorf("12: %s", got)
	}
	if got := must1(os.ReadFile(c.dir + "/taken")); string(got) != "another" {
		t.Errorf("the file that took the name holds %q", got)
	}
	must(unix.Fstat(x.fd(13), &st))
	if st.Mode != unix.S_IFDIR|0o750 || st.Nlink != 0 || st.Mtim.Sec < 2000 {
		t.Errorf("13: %+v", st)
	}
	// The tree hangs together.
	var in, out unix.Stat_t
	must(unix.Fstatat(x.fd(14), "..", &in, 0))
	must(unix.Fstat(x.fd(13), &out))
	if in.Ino != out.Ino {
		t.Errorf("%d is not below %d", in.Ino, out.Ino)
	}
	must(unix.Fstatat(x.fd(24), "..", &in, 0))
	must(unix.Fstat(x.fd(23), &out))
	var other unix.Stat_t
	must(unix.Stat(c.dir+"/again", &other))
	if in.Ino != out.Ino || in.Ino == other.Ino {
		t.Errorf("%d is not below %d (the new one is %d)", in.Ino, out.Ino, other.Ino)
	}
	if n, _ := unix.Pread(x.fd(15), b[:], 0); string(b[:n]) != "deep" {
		t.Errorf("15: %q", b[:n])
	}
	if got := x.flags(16) &^ kernelLargefile; got != unix.O_TMPFILE|unix.O_RDWR|unix.O_APPEND || x.pos(16) != 3 {
		t.Errorf("16: %#o, at %d", got, x.pos(16))
	}
	must(unix.Linkat(unix.AT_FDCWD, selfFD(x.fd(16)), unix.AT_FDCWD, c.dir+"/named", unix.AT_SYMLINK_FOLLOW))
	if got := must1(os.ReadFile(c.dir + "/named")); string(got) != "tmp" {
		t.Errorf("16: %q", got)
	}
	if err := unix.Linkat(unix.AT_FDCWD, selfFD(x.fd(10)), unix.AT_FDCWD, c.dir+"/never", unix.AT_SYMLINK_FOLLOW); err == nil {
		t.Error("a deleted file got a name again")
	}
	must1(unix.Pwrite(x.fd(17), []byte("L"), 0))
	if got := must1(os.ReadFile(c.dir + "/second")); string(got) != "Linked" {
		t.Errorf("17 is not the other link: %q", got)
	}
	must(unix.Fstat(x.fd(17), &st))
	if st.Nlink != 1 {
		t.Errorf("17 has %d links", st.Nlink)
	}
	must(unix.Fstat(x.fd(18), &st))
	var two unix.Stat_t
	must(unix.Stat(c.dir+"/away/two", &two))
	if two.Ino != st.Ino || st.Nlink != 1 {
		t.Errorf("18 is inode %d with %d links, not %d", st.Ino, st.Nlink, two.Ino)
	}
	must(unix.Fstat(x.fd(19), &st))
	if st.Mode&^0o400 != unix.S_IFREG || st.Size != 10 {
		t.Errorf("19: %+v", st)
	}
	if n, err := unix.Readlinkat(x.fd(20), "", b[:]); string(b[:max(n, 0)]) != "target" {
		t.Errorf("20: %v", err)
	}
	must1(unix.Write(x.fd(21), []byte("same")))
	if n, _ := unix.Pread(x.fd(22), b[:], 0); string(b[:n]) != "same" {
		t.Errorf("22: %q", b[:n])
	}
	if len(x.notes) != 0 {
		t.Errorf("notes: %q", x.notes)
	}
}

// TestGhostUnreadable: whoever may not read a deleted file cannot save it.
func TestGhostUnreadable(t *testing.T) {
	c := startChild(t, "unreadable").collect()
	if asRoot {
		c.restore()
		return
	}
	reasons(t, c.refuse, "its mode does not let you read it")
}

// TestHiddenLink: a file whose other name nobody finds.
func TestHiddenLink(t *testing.T) {
	mostNames = 0
	defer func() { mostNames = 50000 }()
	c := startChild(t, "lost").collect()
	before := listing(t, c.dir)
	if n := strings.Count(before, LinkPrefix); n != 0 {
		t.Errorf("linked before anything was checked: %s", before)
	}
	must(c.dump.Commit())
	c.dump.Abort()
	if after := listing(t, c.dir); after != before {
		t.Errorf("a failed checkpoint left something: %s", after)
	}
	c.table = nil
	told := ""
	c.collect(func(d *Dump) { d.GuardLink = func(name string, dev, ino uint64) { told = name } })
	must(c.dump.Commit())
	with := listing(t, c.dir)
	if !strings.Contains(with, strings.TrimPrefix(told, c.dir)) || told == "" {
		t.Errorf("the guardian heard of %q", told)
	}
	if n := strings.Count(with, LinkPrefix); n != 1 {
		t.Errorf("%d hidden links: %s", n, with)
	}
	// A restore that fails leaves everything as it is.
	c.kill()
	x := c.prepare(FilesStrict)
	must(x.Refuse.Err())
	must(x.OpenAll())
	x.Close()
	if now := listing(t, c.dir); now != with {
		t.Errorf("after a failed restore: %s, was %s", now, with)
	}
	x = c.restore()
	must(x.Commit())
	if after := listing(t, c.dir); after != before {
		t.Errorf("a restore left %s, was %s", after, before)
	}
	var st, two unix.Stat_t
	must(unix.Fstat(x.fd(10), &st))
	must(unix.Stat(c.dir+"/away/two", &two))
	if two.Ino != st.Ino || st.Nlink != 1 || x.link(10) != c.dir+"/far/one (deleted)" {
		t.Errorf("inode %d with %d links, not %d; %s", st.Ino, st.Nlink, two.Ino, x.link(10))
	}
}

// TestGhostContentLost: a checkpoint without a file's content is damaged.
func TestGhostContentLost(t *testing.T) {
	c := startChild(t, "ghosts").collect()
	c.kill()
	saved := must1(filepath.Glob(c.saved + "/files/*"))
	if len(saved) != 6 {
		t.Fatalf("%d contents", len(saved))
	}
	must(os.Remove(saved[0]))
	r, err := NewRestore(c.image(), c.refuse)
	must(err)
	r.Dir = c.saved
	if err := r.Check(); err == nil || !strings.Contains(err.Error(), "saved content") {
		t.Errorf("%v", err)
	}
	if err := r.OpenAll(); err == nil {
		t.Error("opened")
	}
	r.Close()
	if l := listing(t, c.dir); strings.Contains(l, "fermata") || strings.Contains(l, "/dir") {
		t.Errorf("left behind: %s", l)
	}
}
