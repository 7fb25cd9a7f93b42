package resource

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	ghostfile "github.com/checkpoint-restore/go-criu/v8/crit/images/ghost-file"
	remapfilepath "github.com/checkpoint-restore/go-criu/v8/crit/images/remap-file-path"
	criutime "github.com/checkpoint-restore/go-criu/v8/crit/images/time"

	"github.com/fermata-cr/fermata/internal/image"
)

// Files whose name is gone, at the checkpoint. Part "remap-file-path" says for
// each description what stands for its path:
//
//	GHOST    the inode has no name at all (a directory: was removed). Its
//	         attributes are in part "ghost-file/N", N being remap_id, its content
//	         (file_extra.saved and extents of file N) in the checkpoint.
//	LINKED   the inode has another name, file_extra.link_path. When none is found
//	         that the program knows, fermata makes one: a hidden link
//	         (LinkPrefix) beside the old name, once the checkpoint cannot be
//	         refused any more (Dump.Commit); it is taken away again when the
//	         checkpoint fails, and at the end of a restore.

// LinkPrefix begins the name of a link that fermata made for one checkpoint.
const LinkPrefix = ".fermata-link-"

// criuLinkPrefix begins that of a link that CRIU made.
const criuLinkPrefix = "link_remap."

type ghostKey inodeKey

// ghost saves a file without a name. Its other link, when there is one, is
// looked for at the end, when all other names are known.
func (d *Dump) ghost(f *File, at place) error {
	st := &f.Stat
	x := d.Extra(f)
	x.Deleted = proto.Bool(true)
	if st.Nlink > 0 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		d.lost = append(d.lost, f)
		return nil
	}
	id, err := Value(d, ghostKey{st.Dev, st.Ino}, func() (uint32, error) {
		g := &ghostfile.GhostFileEntry{
			Uid: proto.Uint32(st.Uid), Gid: proto.Uint32(st.Gid), Mode: proto.Uint32(st.Mode),
			Ino: proto.Uint64(st.Ino), Atim: timeval(st.Atim), Mtim: timeval(st.Mtim),
		}
		x.Uid, x.Gid = g.Uid, g.Gid
		x.AtimeNs, x.MtimeNs = proto.Int64(st.Atim.Nano()), proto.Int64(st.Mtim.Nano())
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFREG:
			g.Size, g.Chunks = proto.Uint64(uint64(st.Size)), proto.Bool(true)
			x.Size = proto.Uint64(uint64(st.Blocks) * 512) // what it takes, without holes
			if err := d.save(f); err != nil {
				return 0, err
			}
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := readlinkat(f)
			if err != nil {
				return 0, err
			}
			g.SymlnkTarget = proto.String(target)
		case isDevice(st.Mode):
			g.Rdev = proto.Uint32(uint32(st.Rdev))
		}
		d.Image.Add(image.Of("ghost-file", int(f.ID)), g)
		return f.ID, nil
	})
	if err != nil {
		return err
	}
	d.remap(f, id, remapfilepath.RemapType_GHOST)
	return nil
}

func (d *Dump) remap(f *File, id uint32, t remapfilepath.RemapType) {
	d.Image.Add("remap-file-path", &remapfilepath.RemapFilePathEntry{
		OrigId: proto.Uint32(f.ID), RemapId: proto.Uint32(id), RemapType: t.Enum(),
	})
}

func timeval(t unix.Timespec) *criutime.Timeval {
	return &criutime.Timeval{TvSec: proto.Uint64(uint64(t.Sec)), TvUsec: proto.Uint64(uint64(t.Nsec) / 1000)}
}

// readlinkat reads a symbolic link that is held open with O_PATH.
func readlinkat(f *File) (string, error) {
	fd, err := f.Dup()
	if err != nil {
		return "", err
	}
	b := make([]byte, 4096)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil {
		return "", fmt.Errorf("target of the symbolic link: %w", err)
	}
	return string(b[:n]), nil
}

// Complete finds the other name of each file that lost one.
func (regular) Complete(d *Dump) error {
	for _, f := range d.lost {
		if f.Entry == nil {
			continue
		}
		name, err := d.otherName(f)
		if err != nil {
			return fmt.Errorf("pid %d: %s: %w", f.PID, f, err)
		}
		if name == "" {
			d.Refusal(f, "its name was removed, another is left and cannot be found, and no link to it can be made",
				"close it before the checkpoint, or run fermata as root")
			continue
		}
		d.Extra(f).LinkPath = proto.String(name)
		d.remap(f, f.ID, remapfilepath.RemapType_LINKED)
	}
	d.lost = nil
	return nil
}

type otherNameKey inodeKey

func (d *Dump) otherName(f *File) (string, error) {
	return Value(d, otherNameKey{f.Stat.Dev, f.Stat.Ino}, func() (string, error) {
		for _, o := range d.files {
			if !d.HideLinks && o.Stat.Dev == f.Stat.Dev && o.Stat.Ino == f.Stat.Ino && o.Entry.GetReg() != nil && !d.extras[o.ID].GetDeleted() {
				return o.Entry.GetReg().GetName(), nil
			}
		}
		old := strings.TrimSuffix(f.Link, " (deleted)")
		dir := filepath.Dir(old)
		if !d.HideLinks {
			if name := findName(dir, &f.Stat); name != "" {
				return name, nil
			}
		}
		// The nearest directory that is left, of the same file system.
		for ; ; dir = filepath.Dir(dir) {
			var st unix.Stat_t
			if unix.Lstat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				if st.Dev != f.Stat.Dev {
					return "", nil
				}
				break
			}
			if dir == "/" {
				return "", nil
			}
		}
		if unix.Access(dir, unix.W_OK) != nil {
			return "", nil
		}
		name := filepath.Join(dir, fmt.Sprintf("%s%x-%x-%s", LinkPrefix, f.Stat.Dev, f.Stat.Ino, rand.Text()))
		d.links = append(d.links, hiddenLink{f, name})
		return name, nil
	})
}

// Bounds of the search for another name: the tasks stand still meanwhile.
var (
	mostNames   = 50000
	longestLook = 30 * time.Millisecond
)

// findName looks for a name of an inode: in a directory, below it, then around
// it, level by level, as far as the bounds allow. It leaves access times alone.
func findName(dir string, st *unix.Stat_t) string {
	s := nameSearch{st: st, left: mostNames, end: time.Now().Add(longestLook), seen: map[string]bool{}, buf: make([]byte, 32<<10)}
	for s.left > 0 {
		queue := []string{dir}
		for i := 0; i < len(queue) && s.left > 0; i++ {
			name, dirs := s.look(queue[i])
			if name != "" {
				return name
			}
			queue = append(queue, dirs...)
		}
		if dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

type nameSearch struct {
	st   *unix.Stat_t
	left int
	end  time.Time
	seen map[string]bool
	buf  []byte
}

// look reads one directory: the name, if it is there, and the directories in it.
func (s *nameSearch) look(dir string) (name string, dirs []string) {
	if s.seen[dir] {
		return "", nil
	}
	s.seen[dir] = true
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return "", nil
	}
	defer unix.Close(fd)
	var here unix.Stat_t
	if unix.Fstat(fd, &here) != nil || here.Dev != s.st.Dev {
		return "", nil
	}
	for s.left > 0 {
		n, err := unix.Getdents(fd, s.buf)
		if err != nil || n == 0 {
			break
		}
		if time.Now().After(s.end) {
			s.left = 0
		}
		for b := s.buf[:n]; len(b) > direntName; {
			// struct linux_dirent64: ino, off, length, type, name.
			ino, size, typ := binary.NativeEndian.Uint64(b), int(binary.NativeEndian.Uint16(b[16:])), b[18]
			if size <= direntName || size > len(b) {
				break
			}
			text := unix.ByteSliceToString(b[direntName:size])
			b = b[size:]
			s.left--
			if text == "." || text == ".." || strings.HasPrefix(text, LinkPrefix) {
				continue
			}
			if typ == unix.DT_DIR {
				dirs = append(dirs, filepath.Join(dir, text))
				continue
			}
			var now unix.Stat_t
			if ino == s.st.Ino && unix.Fstatat(fd, text, &now, unix.AT_SYMLINK_NOFOLLOW) == nil && now.Ino == s.st.Ino && now.Dev == s.st.Dev {
				return filepath.Join(dir, text), nil
			}
		}
	}
	return "", dirs
}

const direntName = 19

// hiddenLink is a name that Commit gives a file.
type hiddenLink struct {
	f    *File
	name string
}

// Commit makes what the checkpoint needs in the file system: hidden links to
// files of which no other name was found. It is called while the tasks stand
// still and when nothing was refused; Abort takes it back if the checkpoint
// fails all the same.
func (d *Dump) Commit() error {
	for i, l := range d.links {
		if d.GuardLink != nil {
			d.GuardLink(l.name, l.f.Stat.Dev, l.f.Stat.Ino)
		}
		err := unix.Linkat(unix.AT_FDCWD, l.f.Path(), unix.AT_FDCWD, l.name, unix.AT_SYMLINK_FOLLOW)
		if err != nil {
			d.links = d.links[:i]
			return fmt.Errorf("pid %d: %s: giving it the name %s: %w", l.f.PID, l.f, l.name, err)
		}
	}
	for _, k := range kinds {
		if c, ok := k.(Committer); ok {
			if err := c.Commit(d); err != nil {
				return fmt.Errorf("%s: %w", k.Name(), err)
			}
		}
	}
	return nil
}

// Abort takes back what Commit did.
func (d *Dump) Abort() {
	for _, l := range d.links {
		var st unix.Stat_t
		if unix.Lstat(l.name, &st) == nil && st.Ino == l.f.Stat.Ino && st.Dev == l.f.Stat.Dev {
			_ = unix.Unlink(l.name)
		}
	}
	d.links = nil
}
