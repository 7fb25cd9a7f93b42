package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// Binding to paths. The kernel keeps the name exactly as bind(2) was given it,
// and makes the file: there must be none yet. So a socket is bound in a scratch
// directory beside the place where its file belongs, by a thread whose root (of a
// relative name: whose working directory) that directory is. The file is moved
// to its place, over what a dead socket left there, when all else has succeeded.

// scratch is the scratch directories of one restore, one beside each place.
type scratch struct {
	dirs map[string]*scratchDir
	fs   *fsThread
	n    int
}

type scratchDir struct {
	path string
	fd   int
}

func newScratch() *scratch { return &scratch{dirs: map[string]*scratchDir{}} }

// at gives the scratch directory beside a place, making it the first time.
func (s *scratch) at(beside string) (*scratchDir, error) {
	if d := s.dirs[beside]; d != nil {
		return d, nil
	}
	path, err := os.MkdirTemp(beside, ".fermata-")
	if err != nil {
		return nil, err
	}
	// Other users of the tree connect here for a moment.
	if err := os.Chmod(path, 0o711); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := &scratchDir{path, fd}
	s.dirs[beside] = d
	return d, nil
}

// remove removes everything. It may be called twice.
func (s *scratch) remove() {
	for k, d := range s.dirs {
		unix.Close(d.fd)
		_ = os.RemoveAll(d.path)
		delete(s.dirs, k)
	}
	s.fs.stop()
	s.fs = nil
}

// boundAt is where a bound file is: a name in a scratch directory.
type boundAt struct {
	dir  *scratchDir
	name string
}

// path gives the bound file's present path.
func (b *boundAt) path() string { return filepath.Join(b.dir.path, b.name) }

// sockaddr gives its address relative to its directory.
func (b *boundAt) sockaddr() []byte { return pathAddr([]byte(b.name)) }

// pathAddr gives the sockaddr of a path; one of full length has no NUL behind it.
func pathAddr(name []byte) []byte {
	name = []byte(cutNUL(name))
	b := sockaddrUnix(name)
	if len(name) < 108 { // sizeof sun_path
		b = append(b, 0)
	}
	return b
}

func sockaddrUnix(name []byte) []byte {
	return append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), name...)
}

// isAbstract tells a name without a file.
func isAbstract(name []byte) bool { return len(name) > 0 && name[0] == 0 }

// bind binds a socket to a path, in the scratch directory beside a place, or
// anywhere when that is "".
func (s *scratch) bind(fd int, name []byte, beside string) (*boundAt, error) {
	path := cutNUL(name)
	if s.fs == nil {
		s.fs = startFSThread()
	}
	stay := filepath.IsAbs(path) && !s.fs.free
	if beside == "" {
		beside = os.TempDir()
		if stay {
			beside = filepath.Dir(path)
		}
	}
	d, err := s.at(beside)
	if err != nil {
		return nil, fmt.Errorf("place for socket %s: %w", path, err)
	}
	s.n++
	at := &boundAt{d, "s" + strconv.Itoa(s.n)}
	if stay {
		err = s.inPlace(fd, path, at.path())
	} else {
		err = s.aside(fd, path, filepath.Join(d.path, "r"+strconv.Itoa(s.n)), at.path())
	}
	if err != nil {
		return nil, fmt.Errorf("binding to %s: %w", path, err)
	}
	return at, os.Chmod(at.path(), 0o777)
}

// aside binds below root and moves the file.
func (s *scratch) aside(fd int, path, root, to string) error {
	defer os.RemoveAll(root)
	cwd, file, err := layOut(root, path)
	if err != nil {
		return err
	}
	err = s.fs.do(func(home int) error {
		if !filepath.IsAbs(path) {
			if err := unix.Chdir(cwd); err != nil {
				return err
			}
			return errors.Join(sys.Bind(fd, pathAddr([]byte(path))), unix.Fchdir(home))
		}
		if err := unix.Chroot(root); err != nil {
			return err
		}
		err := sys.Bind(fd, pathAddr([]byte(path)))
		// Out again: a directory that is open outside leads there.
		return errors.Join(err, unix.Fchdir(home), unix.Chroot("."))
	})
	if err != nil {
		return err
	}
	return os.Rename(file, to)
}

// layOut makes, below root, the directories in which a path can be created, and
// gives the directory for a relative one and where the file will be.
func layOut(root, path string) (cwd, file string, err error) {
	cwd = root
	parts := strings.Split(path, "/")
	if !filepath.IsAbs(path) {
		// As deep as the name may climb.
		for _, p := range parts {
			if p == ".." {
				cwd += "/w"
			}
		}
	}
	if err := os.MkdirAll(cwd, 0o755); err != nil {
		return "", "", err
	}
	at := cwd
	for _, p := range parts[:len(parts)-1] {
		switch p {
		case "", ".":
		case "..":
			if at != root {
				at = filepath.Dir(at)
			}
		default:
			at = at + "/" + p
			if err := os.MkdirAll(at, 0o755); err != nil {
				return "", "", err
			}
		}
	}
	return cwd, at + "/" + parts[len(parts)-1], nil
}

// inPlace binds where chroot is not permitted: at the very path, whose file is
// put aside for that moment.
func (s *scratch) inPlace(fd int, path, to string) error {
	aside := to + ".aside"
	err := os.Rename(path, aside)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	moved := err == nil
	err = sys.Bind(fd, pathAddr([]byte(path)))
	if err == nil {
		err = os.Rename(path, to)
	}
	if moved {
		err = errors.Join(err, os.Rename(aside, path))
	}
	return err
}

// fsThread is an OS thread with a root and working directory of its own.
type fsThread struct {
	jobs chan func()
	home int
	free bool // it may change its root
	err  error
}

func startFSThread() *fsThread {
	t := &fsThread{jobs: make(chan func()), home: -1}
	ready := make(chan struct{})
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else
		// meets its root.
		runtime.LockOSThread()
		if t.err = unix.Unshare(unix.CLONE_FS); t.err == nil {
			t.home, t.err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			t.free = unix.Chroot("/") == nil
		}
		close(ready)
		for f := range t.jobs {
			f()
		}
	}()
	<-ready
	return t
}

// do runs f on the thread. home is a descriptor of the real root.
func (t *fsThread) do(f func(home int) error) error {
	if t.err != nil {
		return t.err
	}
	done := make(chan error)
	t.jobs <- func() { done <- f(t.home) }
	return <-done
}

func (t *fsThread) stop() {
	if t != nil {
		close(t.jobs)
		if t.home >= 0 {
			unix.Close(t.home)
		}
	}
}

// connectIn connects to a path relative to a directory.
func connectIn(fd, dir int, sa []byte) error {
	t := startFSThread()
	defer t.stop()
	return t.do(func(int) error {
		if err := unix.Fchdir(dir); err != nil {
			return err
		}
		return sys.Connect(fd, sa)
	})
}
