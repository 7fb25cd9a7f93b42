package resource

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

func mapFile(name string, flags, prot, how int) {
	fd := open(name, flags)
	must1(unix.Mmap(fd, 0, 8192, prot, how))
	must(unix.Close(fd))
}

func init() {
	fileChildren["mapped"] = func() {
		write("m", pattern(8192, 1))
		write("n", pattern(8192, 2))
		write("gone", pattern(8192, 3))
		const rw = unix.PROT_READ | unix.PROT_WRITE
		mapFile("m", unix.O_RDWR, rw, unix.MAP_PRIVATE)
		mapFile("m", unix.O_RDONLY, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		mapFile("m", unix.O_RDONLY, unix.PROT_READ, unix.MAP_SHARED)
		mapFile("n", unix.O_RDWR, rw, unix.MAP_SHARED)
		mapFile("n", unix.O_RDWR, unix.PROT_READ, unix.MAP_SHARED)
		mapFile("gone", unix.O_RDWR, rw, unix.MAP_SHARED)
		mapFile("gone", unix.O_RDWR, unix.PROT_READ, unix.MAP_PRIVATE)
		must(unix.Unlink("gone"))
		fd := must1(unix.MemfdCreate("mem", 0))
		must(unix.Ftruncate(fd, 8192))
		must1(unix.Mmap(fd, 0, 8192, rw, unix.MAP_SHARED))
		must(unix.Close(fd))
		must(unix.Mkdir("wd", 0o711))
		must(unix.Chdir("wd"))
		must(unix.Close(open("../.ready", unix.O_CREAT)))
		must(unix.Rmdir("../wd"))
		for {
			_ = unix.Pause()
		}
	}
}

func TestMapped(t *testing.T) {
	if !asRoot {
		t.Skip("only root can reach a mapped file without a name")
	}
	got := map[string]uint32{}
	var cwd, exe, root uint32
	c := startChild(t, "mapped")
	for {
		if l, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", c.pid)); strings.HasSuffix(l, "/wd (deleted)") {
			break
		}
	}
	c.collect(func(d *Dump) {
		maps := must1(procfs.ReadMaps(c.pid))
		for range 2 { // the second time costs nothing and gives the same
			for i := range maps {
				v := &maps[i]
				if !strings.HasPrefix(v.Path, c.dir) && !strings.HasPrefix(v.Path, "/memfd:") {
					continue
				}
				id, err := d.MappedFile(c.pid, v)
				if err != nil || id == 0 {
					t.Fatalf("%s: %d %v", v.Path, id, err)
				}
				key := fmt.Sprintf("%s%v%v%v%v", strings.TrimPrefix(v.RawPath(), c.dir), v.Read, v.Write, v.Exec, v.Shared)
				if was, ok := got[key]; ok && was != id {
					t.Errorf("%s is file %d and %d", key, was, id)
				}
				got[key] = id
			}
		}
		var err error
		cwd, err = d.PathFile(c.pid, "cwd")
		must(err)
		root, err = d.PathFile(c.pid, "root")
		must(err)
		exe, err = d.PathFile(c.pid, "exe")
		must(err)
	})
	same := func(a, b string) {
		t.Helper()
		if got[a] == 0 || got[a] != got[b] {
			t.Errorf("%s is file %d, %s is file %d", a, got[a], b, got[b])
		}
	}
	same("/mtruetruefalsefalse", "/mtruefalsetruefalse")
	same("/mtruetruefalsefalse", "/mtruefalsefalsetrue")
	same("/ntruetruefalsetrue", "/ntruefalsefalsetrue")
	if got["/gone (deleted)truetruefalsetrue"] == got["/gone (deleted)truefalsefalsefalse"] {
		t.Error("a shared writable and a private mapping have one file")
	}
	if len(c.dump.files) != 8 {
		for _, f := range c.dump.files {
			t.Log(f)
		}
		t.Errorf("%d files", len(c.dump.files))
	}
	x := c.restore()
	must(x.Commit())
	look := func(id uint32, flags int, link string) int {
		t.Helper()
		fd := must1(x.Open(id))
		l := must1(os.Readlink(selfFD(fd)))
		fl := must1(unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)) &^ kernelLargefile
		if l != link || fl != flags {
			t.Errorf("%s with flags %#o, not %s with %#o", l, fl, link, flags)
		}
		return fd
	}
	look(got["/mtruetruefalsefalse"], unix.O_RDONLY, c.dir+"/m")
	look(got["/ntruefalsefalsetrue"], unix.O_RDWR, c.dir+"/n")
	w := look(got["/gone (deleted)truetruefalsetrue"], unix.O_RDWR, c.dir+"/gone (deleted)")
	r := look(got["/gone (deleted)truefalsefalsefalse"], unix.O_RDONLY, c.dir+"/gone (deleted)")
	look(got["/memfd:mem (deleted)truetruefalsetrue"], unix.O_RDWR, "/memfd:mem (deleted)")
	must1(unix.Pwrite(w, []byte("one inode"), 0))
	b := make([]byte, 8192)
	must1(unix.Pread(r, b, 0))
	want := pattern(8192, 3)
	copy(want, "one inode")
	if string(b) != string(want) {
		t.Error("the deleted file's content differs")
	}
	fd := look(cwd, unix.O_PATH|unix.O_DIRECTORY, c.dir+"/wd (deleted)")
	var st unix.Stat_t
	must(unix.Fstat(fd, &st))
	if st.Nlink != 0 || st.Mode != unix.S_IFDIR|0o711 {
		t.Errorf("%+v", st)
	}
	look(root, unix.O_PATH|unix.O_DIRECTORY, "/")
	look(exe, unix.O_RDONLY, must1(os.Readlink("/proc/self/exe")))
}

// TestMappedUser: without the right to open map_files, files are found by their
// paths.
func TestMappedUser(t *testing.T) {
	c := startChild(t, "mapped")
	d := NewDump(nil, c.refuse)
	for _, v := range must1(procfs.ReadMaps(c.pid)) {
		f := &File{PID: c.pid, FD: -1, Link: v.RawPath(), dump: d, dup: -1, lent: -1}
		switch {
		case strings.HasPrefix(v.Path, c.dir+"/gone"):
			if d.findMapped(f, &v) {
				t.Errorf("found %s", f.Link)
			}
		case strings.HasPrefix(v.Path, "/") && !strings.HasPrefix(v.Path, "/memfd:"):
			if !d.findMapped(f, &v) || f.Stat.Ino != v.Ino {
				t.Errorf("%s was not found", f.Link)
			}
		}
	}
}
