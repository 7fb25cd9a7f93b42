package resource

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"
)

func init() {
	fileChildren["memfds"] = func() {
		// 10, 11: two descriptions of one file
		as(10, must1(unix.MemfdCreate("a name\nof two lines", unix.MFD_CLOEXEC)), nil)
		must1(unix.Write(10, pattern(10000, 5)))
		must(unix.Ftruncate(10, 1<<33))
		must1(unix.Seek(10, 1234, unix.SEEK_SET))
		as(11, open("/proc/self/fd/10", unix.O_RDONLY|unix.O_NONBLOCK), nil)
		chown(10, 77, 78)
		must(unix.Fchmod(10, 0o640))
		ts := []unix.Timespec{{Sec: 1000, Nsec: 5}, {Sec: 2000, Nsec: 7}}
		must(unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/10", ts, 0))
		// 12: sealed
		as(12, must1(unix.MemfdCreate("sealed", unix.MFD_ALLOW_SEALING)), nil)
		must1(unix.Write(12, pattern(100, 6)))
		must1(unix.FcntlInt(12, unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK))
		// 13: sealed for the future, with a mapping from before
		as(13, must1(unix.MemfdCreate("future", unix.MFD_ALLOW_SEALING)), nil)
		must(unix.Ftruncate(13, 4096))
		must1(unix.Mmap(13, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
		must1(unix.FcntlInt(13, unix.F_ADD_SEALS, sealFutureWrite|unix.F_SEAL_SEAL))
		// 14: a file that is only called so
		if asRoot {
			as(14, open("/memfd:no", unix.O_RDWR|unix.O_CREAT), nil)
			must(unix.Unlink("/memfd:no"))
		}
	}
}

func TestMemfds(t *testing.T) {
	content := map[uint64][]byte{}
	c := startChild(t, "memfds").collect(func(d *Dump) {
		d.MemfdContent = func(id uint64, fd int, size uint64) error {
			b := make([]byte, min(size, 1<<16))
			n, err := unix.Pread(fd, b, 0)
			content[id] = b[:max(n, 0)]
			return err
		}
	})
	if len(content) != 3 {
		t.Fatalf("%d contents", len(content))
	}
	var was unix.Stat_t
	must(unix.Stat(fmt.Sprintf("/proc/%d/fd/10", c.pid), &was))
	im := c.image()
	c.kill()
	r, err := NewRestore(im, c.refuse)
	must(err)
	defer r.Close()
	r.Dir = c.saved
	r.MemfdFill = func(m *memfd.MemfdInodeEntry, fd int) error {
		_, err := unix.Pwrite(fd, content[m.GetInodeId()], 0)
		return err
	}
	must(r.Check())
	must(r.OpenAll())
	x := &restored{Restore: r, t: t, table: map[int]uint32{}}
	for _, e := range c.table {
		x.table[int(e.GetFd())] = e.GetId()
	}
	// What the tasks do between opening and the end: they map.
	old, err := unix.Mmap(x.fd(13), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatalf("a mapping from before the seal: %v", err)
	}
	defer unix.Munmap(old)
	ro, err := unix.Mmap(x.fd(12), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(ro)
	must(r.Commit())

	if l := x.link(10); l != "/memfd:a name\nof two lines (deleted)" {
		t.Errorf("%q", l)
	}
	if x.pos(10) != 1234 || x.pos(11) != 0 || x.flags(11)&^kernelLargefile != unix.O_NONBLOCK || x.flags(10)&^kernelLargefile != unix.O_RDWR {
		t.Errorf("%d %d %#o %#o", x.pos(10), x.pos(11), x.flags(10), x.flags(11))
	}
	var st unix.Stat_t
	must(unix.Fstat(x.fd(10), &st))
	if st.Mode != unix.S_IFREG|0o640 || !ownedBy(&st, 77, 78) || st.Size != 1<<33 || st.Atim != was.Atim || st.Mtim != was.Mtim {
		t.Errorf("%+v, was %+v", st, was)
	}
	must1(unix.Pwrite(x.fd(10), []byte("shared"), 0))
	b := make([]byte, 6)
	if _, err := unix.Pread(x.fd(11), b, 0); string(b) != "shared" {
		t.Errorf("%q %v", b, err)
	}
	seals := func(fd int) int { return must1(unix.FcntlInt(uintptr(x.fd(fd)), unix.F_GET_SEALS, 0)) }
	if seals(10) != unix.F_SEAL_SEAL || seals(12) != unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK || seals(13) != sealFutureWrite|unix.F_SEAL_SEAL {
		t.Errorf("seals %#x %#x %#x", seals(10), seals(12), seals(13))
	}
	if _, err := unix.Pread(x.fd(12), b, 0); string(b) != string(pattern(100, 6)[:6]) {
		t.Errorf("%q %v", b, err)
	}
	if !asRoot {
		return
	}
	if l := x.link(14); l != "/memfd:no (deleted)" || r.entries[x.table[14]].GetReg() == nil {
		t.Errorf("%q", l)
	}
	if _, err := os.Lstat("/memfd:no"); err == nil {
		t.Error("a deleted file is back")
	}
}
