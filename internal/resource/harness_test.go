package resource

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/procfs"
)

// fileChildren are the programs whose open files the tests save: each runs in a
// process of its own, in a directory of its own, and makes descriptors with
// chosen numbers from 10 on.
var fileChildren = map[string]func(){}

const fileChildEnv = "FERMATA_FILE_CHILD"

// TestFileChild is no test: it is the child's side.
func TestFileChild(t *testing.T) {
	name := os.Getenv(fileChildEnv)
	if name == "" {
		t.Skip("runs as a child of the other tests only")
	}
	must(unix.CloseRange(10, 1<<20, 0)) // inherited from whoever runs the tests
	fileChildren[name]()
	// Without a descriptor, or the tests might see it open.
	must(unix.Mknod(".ready", unix.S_IFREG|0o644, 0))
	for {
		_ = unix.Pause()
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func must1[T any](v T, err error) T {
	must(err)
	return v
}

// The tests run as any user; only root can give files away.
var asRoot = os.Geteuid() == 0

func chown(fd, uid, gid int) {
	if asRoot {
		must(unix.Fchown(fd, uid, gid))
	}
}

// ownedBy tells whether a file belongs to whom chown gave it.
func ownedBy(st *unix.Stat_t, uid, gid uint32) bool {
	if !asRoot {
		uid, gid = uint32(os.Geteuid()), uint32(os.Getegid())
	}
	return st.Uid == uid && st.Gid == gid
}

// as gives a descriptor a chosen number.
func as(want int, fd int, err error) {
	must(err)
	if fd != want {
		must(unix.Dup3(fd, want, 0))
		must(unix.Close(fd))
	}
}

// child is a running program of fileChildren.
type child struct {
	t      *testing.T
	pid    int
	dir    string
	cmd    *exec.Cmd
	dump   *Dump
	refuse *fault.Refusals
	table  []*fdinfo.FdinfoEntry
	saved  string // directory of the "checkpoint"
}

func startChild(t *testing.T, name string) *child {
	t.Helper()
	return startChildIn(t, name, t.TempDir(), nil)
}

func startChildIn(t *testing.T, name, dir string, stdin *os.File) *child {
	t.Helper()
	c := &child{t: t, dir: dir, saved: t.TempDir()}
	t.Cleanup(c.kill)
	if err := c.run(name, dir, stdin, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return c
}

// run starts the program and waits until it is ready.
func (c *child) run(name, dir string, stdin *os.File, logs string) error {
	log, err := os.OpenFile(filepath.Join(logs, "log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c.cmd = exec.Command("/proc/self/exe", "-test.run=^TestFileChild$")
	if stdin != nil {
		c.cmd.Stdin = stdin
	}
	c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = dir, log, log
	c.cmd.Env = append(os.Environ(), fileChildEnv+"="+name)
	if err := c.cmd.Start(); err != nil {
		return err
	}
	c.pid = c.cmd.Process.Pid
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, ".ready")); err == nil {
			return nil
		}
		if time.Now().After(deadline) || procfs.IsGone(unixKill0(c.pid)) {
			b, _ := os.ReadFile(log.Name())
			return fmt.Errorf("child %s did not come up:\n%s", name, b)
		}
	}
}

func unixKill0(pid int) error {
	if st, err := procfs.ReadStat(pid, 0); err != nil || st.State == 'Z' {
		return procfs.ErrGone
	}
	return nil
}

func (c *child) kill() {
	if c.cmd != nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
		c.cmd = nil
	}
}

// collect saves the descriptors from 10 on.
func (c *child) collect(opts ...func(*Dump)) *child {
	c.t.Helper()
	c.refuse = &fault.Refusals{}
	c.dump = NewDump(image.New(), c.refuse)
	d := c.dump
	defer d.Close()
	d.InTree = func(pid int) bool { return pid == c.pid }
	d.Content = func(name string, f *File) error {
		path := filepath.Join(c.saved, name)
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		dst, err := os.Create(path)
		must(err)
		defer dst.Close()
		_, err = d.CopyContent(dst, f)
		return err
	}
	for _, o := range opts {
		o(d)
	}
	fds, err := procfs.ReadFDs(c.pid)
	if err != nil {
		c.t.Fatal(err)
	}
	look, err := d.lookAhead(c.pid, fds)
	if err != nil {
		c.t.Fatal(err)
	}
	defer look.close()
	for i, fd := range fds {
		s := look.at(i)
		if fd < 10 {
			continue
		}
		if fd%2 != 0 {
			s = nil // the other way
		}
		info, err := procfs.ReadFDInfo(c.pid, fd)
		if err != nil {
			c.t.Fatal(err)
		}
		f, cloexec, err := d.file(c.pid, fd, &FDState{Cloexec: info.Flags&unix.O_CLOEXEC != 0}, s)
		if err != nil {
			c.t.Fatal(err)
		}
		if f != nil && f.Entry != nil {
			if got := f.Info; got.Flags&^unix.O_CLOEXEC != info.Flags&^unix.O_CLOEXEC || got.Pos != info.Pos || len(got.Locks) != len(info.Locks) {
				c.t.Errorf("fd %d: %+v, fdinfo has %+v", fd, got, info)
			}
			var st unix.Stat_t
			if link, err := procfs.ReadLink(c.pid, fd); err != nil || link != f.Link {
				c.t.Errorf("fd %d: %q, its link is %q, %v", fd, f.Link, link, err)
			}
			if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", c.pid, fd), &st); err != nil || st.Ino != f.Stat.Ino || st.Dev != f.Stat.Dev || st.Size != f.Stat.Size || st.Mode != f.Stat.Mode {
				c.t.Errorf("fd %d: %+v, not %+v, %v", fd, f.Stat, st, err)
			}
			f.Holders = append(f.Holders, Holder{c.pid, fd, cloexec})
			n := uint32(fd)
			c.table = append(c.table, &fdinfo.FdinfoEntry{Id: &f.ID, Fd: &n, Type: f.Entry.Type})
		}
	}
	if err := d.Complete(); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// image writes and reads the image, so that nothing lives on in memory only.
func (c *child) image() *image.Image {
	c.t.Helper()
	if err := c.refuse.Err(); err != nil {
		c.t.Fatal(err)
	}
	b, err := c.dump.Image.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	im, err := image.Decode(b)
	if err != nil {
		c.t.Fatal(err)
	}
	return im
}

// restored is what came back.
type restored struct {
	*Restore
	t     *testing.T
	table map[int]uint32
	notes []string
}

// prepare reads the image and checks; the refusals are for the caller.
func (c *child) prepare(policy FilesPolicy) *restored {
	c.t.Helper()
	r, err := NewRestore(c.image(), &fault.Refusals{})
	if err != nil {
		c.t.Fatal(err)
	}
	x := &restored{Restore: r, t: c.t, table: map[int]uint32{}}
	r.Dir, r.Files = c.saved, policy
	r.Note = func(f string, a ...any) { x.notes = append(x.notes, fmt.Sprintf(f, a...)) }
	for _, e := range c.table {
		x.table[int(e.GetFd())] = e.GetId()
	}
	if err := r.Check(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(r.Close)
	return x
}

// restore kills the program and opens everything again.
func (c *child) restore() *restored {
	c.t.Helper()
	c.kill()
	x := c.prepare(FilesStrict)
	if err := x.Refuse.Err(); err != nil {
		c.t.Fatal(err)
	}
	if err := x.OpenAll(); err != nil {
		c.t.Fatal(err)
	}
	return x
}

// fd gives the new description of an old descriptor.
func (x *restored) fd(old int) int {
	x.t.Helper()
	id, ok := x.table[old]
	if !ok {
		x.t.Fatalf("fd %d was not saved", old)
	}
	fd, err := x.Open(id)
	if err != nil {
		x.t.Fatal(err)
	}
	return fd
}

func (x *restored) flags(old int) int {
	x.t.Helper()
	fl, err := unix.FcntlInt(uintptr(x.fd(old)), unix.F_GETFL, 0)
	if err != nil {
		x.t.Fatal(err)
	}
	return fl
}

func (x *restored) pos(old int) int64 {
	x.t.Helper()
	p, err := unix.Seek(x.fd(old), 0, unix.SEEK_CUR)
	if err != nil {
		x.t.Fatal(err)
	}
	return p
}

func (x *restored) link(old int) string {
	x.t.Helper()
	l, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", x.fd(old)))
	if err != nil {
		x.t.Fatal(err)
	}
	return l
}

// reasons fails unless the refusals are as many as the wanted texts and each
// holds its own.
func reasons(t *testing.T, r *fault.Refusals, want ...string) {
	t.Helper()
	var got *fault.RefusedError
	err := r.Err()
	if !errors.As(err, &got) {
		t.Fatalf("nothing was refused (%v); wanted %q", err, want)
	}
	for _, w := range want {
		found := false
		for _, g := range got.Reasons {
			found = found || strings.Contains(g.String(), w)
		}
		if !found {
			t.Errorf("no reason says %q", w)
		}
	}
	if len(got.Reasons) != len(want) || t.Failed() {
		t.Fatalf("%d reasons, not %d: %v", len(got.Reasons), len(want), err)
	}
}

func errorsIs(err, target error) bool { return errors.Is(err, target) }
