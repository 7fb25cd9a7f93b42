package resource

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fh"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fsnotify"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// An inotify instance (inotify(7), fs/notify/inotify) has watches: a number, an
// inode and a mask, all in fdinfo (Linux 3.8; IN_ONESHOT and IN_EXCL_UNLINK in
// the mask since 5.19), the inode by its file handle. Restoring a watch needs a
// path: the handle is opened for it, or, where a file system has no handles or
// the user may not open them, the path is looked for among those that the tasks
// have to do with.
//
// The events that wait to be read cannot be seen without taking them, nor put
// back. A program that had any finds IN_Q_OVERFLOW in their place, the kernel's
// own word for events that were lost: inotify(7) has programs look again at
// what they watch.
//
// fh_entry.path is the path; a watched file without any name is, by its id, in
// the record of the part "inotify-files", one number a watch, else 0.
// FileExtra.data is how many bytes of events waited.
type inotifyKind struct{}

func init() { Register(inotifyKind{}) }

const inotifyFiles = "inotify-files"

// inotifyMask are the bits that a program can set and the kernel keeps.
const inotifyMask = unix.IN_ALL_EVENTS | unix.IN_EXCL_UNLINK | unix.IN_ONESHOT

func (inotifyKind) Name() string            { return "inotify" }
func (inotifyKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_INOTIFY} }

func (inotifyKind) Match(f *File) bool {
	return f.Link == "anon_inode:inotify" || f.Link == "anon_inode:[inotify]"
}

// Priority makes Complete see the files that other kinds found in flight.
func (inotifyKind) Priority() int { return 900 }

func (inotifyKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	fd, done, err := f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	queued, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return nil, fmt.Errorf("FIONREAD: %w", err)
	}
	if queued > 0 {
		d.Extra(f).Data = proto.Uint64(uint64(queued))
	}
	e := entryOf(fdinfo.FdTypes_INOTIFY)
	e.Ify = &fsnotify.InotifyFileEntry{Id: proto.Uint32(f.ID), Flags: proto.Uint32(f.Flags()), Fown: o}
	for _, w := range f.Info.Inotify {
		e.Ify.Wd = append(e.Ify.Wd, &fsnotify.InotifyWdEntry{
			Id: proto.Uint32(f.ID), IIno: proto.Uint64(w.Ino), SDev: proto.Uint32(uint32(w.Dev)), Wd: proto.Uint32(uint32(w.WD)),
			Mask: proto.Uint32(w.Mask & inotifyMask), IgnoredMask: proto.Uint32(w.IgnoredMask), FHandle: handleEntry(&w.Handle),
		})
	}
	return e, nil
}

// handleEntry gives the schema's form of a handle: words of 64 bits, at least 16.
func handleEntry(h *procfs.FileHandle) *fh.FhEntry {
	e := &fh.FhEntry{Bytes: proto.Uint32(uint32(len(h.Data))), Type: proto.Uint32(uint32(h.Type))}
	b := make([]byte, max(128, (len(h.Data)+7)&^7))
	copy(b, h.Data)
	for i := 0; i < len(b); i += 8 {
		var v uint64
		for j := range 8 {
			v |= uint64(b[i+j]) << (8 * j)
		}
		e.Handle = append(e.Handle, v)
	}
	return e
}

// Complete looks for the paths: only now are all open files known.
func (inotifyKind) Complete(d *Dump) error {
	var probe *watchProbe
	defer func() { probe.close() }()
	for _, f := range d.Files() {
		wds := f.Entry.GetIfy().GetWd()
		if len(wds) == 0 {
			continue
		}
		if probe == nil {
			var err error
			if probe, err = newWatchProbe(); err != nil {
				return err
			}
		}
		rec := &fm.Record{Id: proto.Uint32(f.ID)}
		paths, err := d.watchPaths(f, probe)
		if err != nil {
			return fmt.Errorf("pid %d: %s: %w", f.PID, f, err)
		}
		for i, w := range f.Info.Inotify {
			var id uint64
			if paths[i] != "" {
				wds[i].FHandle.Path = proto.String(paths[i])
			} else if g := d.nameless(&w); g != nil {
				id = uint64(g.ID)
			} else {
				d.Refusal(f, fmt.Sprintf("no path was found for watch %d (inode %d of device %d:%d)", w.WD, w.Ino, w.Dev>>20, w.Dev&0xfffff),
					"run fermata with CAP_DAC_READ_SEARCH (as root), or remove the watch; some file systems (overlayfs) give no way from a watch to its path")
			}
			rec.Num = append(rec.Num, id)
		}
		d.Image.Add(inotifyFiles, rec)
	}
	return nil
}

// nameless gives a collected file that is watched and has no name any more.
func (d *Dump) nameless(w *procfs.InotifyWatch) *File {
	for _, g := range d.files {
		if g.Entry != nil && g.Stat.Ino == w.Ino && kernelDev(g.Stat.Dev) == w.Dev && strings.HasSuffix(g.Link, " (deleted)") {
			return g
		}
	}
	return nil
}

// watchPaths gives the paths of an instance's watches, "" where none is known.
func (d *Dump) watchPaths(f *File, probe *watchProbe) ([]string, error) {
	paths := make([]string, len(f.Info.Inotify))
	byDev := map[uint64][]int{}
	for i, w := range f.Info.Inotify {
		if len(w.Handle.Data) > 0 {
			byDev[w.Dev] = append(byDev[w.Dev], i)
		}
	}
	mounts, err := d.Mounts(f.PID)
	if err != nil {
		return nil, err
	}
	root := "/proc/" + strconv.Itoa(f.PID) + "/root"
	for i := range mounts {
		m := &mounts[i]
		todo := byDev[uint64(m.DevMajor)<<20|uint64(m.DevMinor)]
		if len(todo) == 0 || m.FSType == "autofs" {
			continue
		}
		hs := make([]sys.Handle, len(todo))
		for j, n := range todo {
			h := &f.Info.Inotify[n].Handle
			hs[j] = sys.Handle{Type: int32(h.Type), Data: h.Data}
		}
		fds, _ := sys.OpenHandles(root+m.MountPoint, hs)
		var left []int
		for j, n := range todo {
			if fds[j] >= 0 {
				p, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fds[j]))
				unix.Close(fds[j])
				if err == nil && probe.is(p, &f.Info.Inotify[n]) {
					paths[n] = p
					continue
				}
			}
			left = append(left, n)
		}
		byDev[uint64(m.DevMajor)<<20|uint64(m.DevMinor)] = left
	}
	var cand []string
	for n := range paths {
		if paths[n] != "" {
			continue
		}
		if cand == nil {
			cand = d.candidates()
		}
		for _, p := range cand {
			if probe.is(p, &f.Info.Inotify[n]) {
				paths[n] = p
				break
			}
		}
	}
	return paths, nil
}

// candidates are the paths that the tasks have to do with, and the directories
// above them. Directories are not read for more: whoever watches them would see
// that.
func (d *Dump) candidates() []string {
	type key struct{}
	out, _ := Value(d, key{}, func() ([]string, error) {
		var out []string
		seen := map[string]bool{}
		add := func(p string) {
			for ; strings.HasPrefix(p, "/") && !seen[p]; p = path.Dir(p) {
				seen[p] = true
				out = append(out, p)
			}
		}
		pids := map[int]bool{}
		for _, f := range d.files {
			add(f.Link)
			pids[f.PID] = true
			for _, h := range f.Holders {
				pids[h.PID] = true
			}
		}
		for pid := range pids {
			for _, read := range []func(int, int) (string, error){procfs.ReadCwd, procfs.ReadExe, procfs.ReadRoot} {
				if p, err := read(pid, 0); err == nil {
					add(p)
				}
			}
			args, _ := procfs.ReadCmdline(pid)
			cwd, _ := procfs.ReadCwd(pid, 0)
			for _, a := range args {
				if !strings.HasPrefix(a, "/") {
					a = path.Join(cwd, a)
				}
				add(path.Clean(a))
			}
		}
		for _, p := range []string{"/etc", "/tmp", "/run", "/var/log", "/var/run", "/etc/resolv.conf", "/etc/hosts", "/etc/passwd", "/etc/localtime"} {
			add(p)
		}
		return out, nil
	})
	return out
}

// watchProbe tells whether a path leads to what is watched: it watches the path
// itself for a moment and compares what fdinfo shows, the kernel's own view on
// both sides. Nobody can notice.
type watchProbe struct{ fd int }

func newWatchProbe() (*watchProbe, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1: %w", err)
	}
	return &watchProbe{fd}, nil
}

func (p *watchProbe) close() {
	if p != nil {
		unix.Close(p.fd)
	}
}

func (p *watchProbe) is(name string, w *procfs.InotifyWatch) bool {
	got, err := p.look(name)
	return err == nil && got.Ino == w.Ino && got.Dev == w.Dev && got.Handle.Type == w.Handle.Type &&
		string(got.Handle.Data) == string(w.Handle.Data)
}

// look gives what fdinfo shows of a watch on a path.
func (p *watchProbe) look(name string) (procfs.InotifyWatch, error) {
	wd, err := unix.InotifyAddWatch(p.fd, name, unix.IN_MOVE_SELF|unix.IN_DONT_FOLLOW)
	if err != nil {
		return procfs.InotifyWatch{}, err
	}
	defer unix.InotifyRmWatch(p.fd, uint32(wd))
	info, err := procfs.ReadFDInfo(os.Getpid(), p.fd)
	if err != nil {
		return procfs.InotifyWatch{}, err
	}
	for _, w := range info.Inotify {
		if w.WD == wd {
			return w, nil
		}
	}
	return procfs.InotifyWatch{}, errors.New("fdinfo does not show the watch")
}

func (inotifyKind) Check(r *Restore, e *fdinfo.FileEntry) error {
	ids, err := watchedFiles(r, e)
	if err != nil {
		return err
	}
	for i, w := range e.GetIfy().GetWd() {
		if ids[i] != 0 {
			continue
		}
		p := w.GetFHandle().GetPath()
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			r.Refuse.Add(fault.Reason{
				Object: fmt.Sprintf("inotify file %d, watch %d of %q", e.GetId(), w.GetWd(), p),
				Why:    err.Error(), Remedy: "put it back where it was",
			})
		}
	}
	return nil
}

// watchedFiles gives, by watch, the id of a watched file without a name, or 0.
func watchedFiles(r *Restore, e *fdinfo.FileEntry) ([]uint32, error) {
	type key struct{}
	recs, err := RestoreValue(r, key{}, func() (map[uint32][]uint64, error) {
		all, err := image.All[*fm.Record](r.Image, inotifyFiles)
		m := make(map[uint32][]uint64, len(all))
		for _, x := range all {
			m[x.GetId()] = x.GetNum()
		}
		return m, err
	})
	if err != nil {
		return nil, err
	}
	wds := e.GetIfy().GetWd()
	out := make([]uint32, len(wds))
	num, known := recs[e.GetId()]
	if known && len(num) != len(wds) {
		return nil, fault.Errorf(fault.ErrDamaged, "inotify file %d: %d watches and %d files", e.GetId(), len(wds), len(num))
	}
	for i, n := range num {
		if out[i] = uint32(n); n != 0 && r.Entry(out[i]) == nil {
			return nil, fault.Errorf(fault.ErrDamaged, "inotify file %d: watch %d: file %d: %w", e.GetId(), wds[i].GetWd(), n, errNoFile)
		}
	}
	return out, nil
}

func (inotifyKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("inotify_init1: %w", err)
	}
	if n := r.Extra(e.GetId()).GetData(); n > 0 {
		what := "the program reads IN_Q_OVERFLOW instead"
		if err := overflow(fd); err != nil {
			what = "the program reads nothing instead: " + err.Error()
		}
		r.Note("inotify file %d: %d bytes of events that had not been read are lost; %s", e.GetId(), n, what)
	}
	if e.GetIfy().GetFlags()&unix.O_NONBLOCK == 0 {
		if err := unix.SetNonblock(fd, false); err != nil {
			return finish(fd, err)
		}
	}
	return finish(fd, setStatus(fd, e.GetIfy().GetFlags()))
}

// overflow leaves a fresh, non-blocking instance with IN_Q_OVERFLOW and nothing
// else to read: the queue is filled with events of two files of our own and
// emptied but for the last.
func overflow(fd int) error {
	if err := sys.SetNextWD(fd, 1); err != nil {
		return fmt.Errorf("INOTIFY_IOC_SETNEXTWD: %w", err) // its watches could not have their numbers after this
	}
	var files, wds [2]int
	for i := range files {
		n, err := unix.MemfdCreate("fermata-overflow", unix.MFD_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(n)
		wd, err := unix.InotifyAddWatch(fd, "/proc/self/fd/"+strconv.Itoa(n), unix.IN_ATTRIB)
		if err != nil {
			return err
		}
		files[i], wds[i] = n, wd
	}
	// Alternating, as the same event twice in a row is kept once. The limit is
	// the instance's own, from when it was made.
	limit := 16384
	if b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			limit = n
		}
	}
	const size = unix.SizeofInotifyEvent
	for i := 0; i <= limit+1; i++ {
		if err := unix.Fchmod(files[i&1], 0o600); err != nil {
			return err
		}
	}
	for _, wd := range wds {
		if _, err := unix.InotifyRmWatch(fd, uint32(wd)); err != nil {
			return err
		}
	}
	queued, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return err
	}
	b := make([]byte, 4096*size)
	for left := queued - size; left > 0; {
		n, err := unix.Read(fd, b[:min(left, len(b))])
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		left -= n
	}
	return nil
}

// Finish adds the watches: before, the restore's own opening of files would be
// events to them.
func (inotifyKind) Finish(r *Restore, e *fdinfo.FileEntry) error {
	fd, err := r.Open(e.GetId())
	if err != nil {
		return err
	}
	ids, err := watchedFiles(r, e)
	if err != nil {
		return err
	}
	wds := e.GetIfy().GetWd()
	last := 0
	// fdinfo has the newest first: backwards is the order in which they were
	// added, the numbers going up.
	for i := len(wds) - 1; i >= 0; i-- {
		w := wds[i]
		last = max(last, int(w.GetWd()))
		name, mask := w.GetFHandle().GetPath(), w.GetMask()&inotifyMask|unix.IN_DONT_FOLLOW
		if ids[i] != 0 {
			n, err := r.Open(ids[i])
			if err != nil {
				return err
			}
			name, mask = "/proc/self/fd/"+strconv.Itoa(n), mask&^unix.IN_DONT_FOLLOW
		}
		if err := addWatch(fd, name, mask, int(w.GetWd())); err != nil {
			return fmt.Errorf("inotify: watch %d of %q: %w", w.GetWd(), name, err)
		}
	}
	// The kernel hands out numbers in a circle; where it stands is not shown, but
	// it is behind the last.
	_ = sys.SetNextWD(fd, last+1)
	return nil
}

// maxWatchLoop is how far watch numbers are counted up where they cannot be set.
const maxWatchLoop = 1 << 17

// addWatch adds a watch under a number.
func addWatch(fd int, name string, mask uint32, wd int) error {
	err := sys.SetNextWD(fd, wd)
	for range maxWatchLoop {
		got, aerr := unix.InotifyAddWatch(fd, name, mask)
		if aerr != nil {
			return aerr
		}
		if got == wd {
			return nil
		}
		if err == nil || got > wd {
			return fmt.Errorf("it got number %d", got)
		}
		// A kernel without CONFIG_CHECKPOINT_RESTORE: numbers only go up.
		if err := dropWatch(fd, got); err != nil {
			return err
		}
	}
	return fmt.Errorf("numbers so high cannot be had here: %w", err)
}

// dropWatch removes a watch and the events that it left (IN_IGNORED). Nothing
// else is in the queue: the watches that are there already see no one at work.
func dropWatch(fd, wd int) error {
	if _, err := unix.InotifyRmWatch(fd, uint32(wd)); err != nil {
		return err
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	var b [4096]byte
	for err == nil {
		_, err = unix.Read(fd, b[:])
	}
	if err != unix.EAGAIN {
		return err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	return err
}
