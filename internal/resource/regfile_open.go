package resource

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// opener opens files by their paths, for one goroutine.
type opener struct {
	paths dirCache
	// before is the regular file that was opened last, and stays open.
	before struct {
		name string
		mode int // O_ACCMODE
	}
}

// openNow opens a file without waiting for another's lease to be given up, which
// takes fs.lease-break-time: then it is refused, with all others that have one.
// (The holder is asked to give the lease up, as by any other open. To look into
// /proc/locks before would cost every restore an RCU grace period, some
// milliseconds: fs/locks.c takes a percpu_rw_semaphore for it.) While it is open
// in the same way already nobody can have one (fcntl(2), F_SETLEASE).
//
// Where somebody has one the error is EWOULDBLOCK.
func (o *opener) openNow(reg *regfile.RegFileEntry, flags int, x *fm.FileExtra) (int, error) {
	if flags&(unix.O_PATH|unix.O_NONBLOCK) != 0 || reg.GetMode()&unix.S_IFMT != unix.S_IFREG {
		return o.openFile(reg.GetName(), flags, x)
	}
	mode := flags & unix.O_ACCMODE
	if o.before.name == reg.GetName() && o.before.mode == mode {
		return o.openFile(reg.GetName(), flags, x)
	}
	o.before.name = ""
	fd, err := o.openFile(reg.GetName(), flags|unix.O_NONBLOCK, x)
	if err != nil {
		return -1, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: flags %#o: %w", reg.GetName(), flags, err)
	}
	o.before.name, o.before.mode = reg.GetName(), mode
	return fd, nil
}

// openFile opens a file by the path that the kernel gave for it. That path had no
// symbolic link in it; if one has come since, it may lead whoever restores to a
// file that the program's user could not open, so that only the very same inode
// will do (x, nil when it is not known).
func (o *opener) openFile(name string, flags int, x *fm.FileExtra) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_NO_SYMLINKS}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_NOCTTY
	}
	dir, base := o.paths.at(name)
	for {
		fd, err := unix.Openat2(dir, base, &how)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOSYS):
			if fd, err = unix.Open(name, int(how.Flags), 0); err == nil {
				return fd, nil
			}
			return -1, fmt.Errorf("%s: open: %w", name, err)
		case errors.Is(err, unix.ELOOP):
			return openLinked(name, int(how.Flags), x)
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
			return -1, fault.Errorf(fault.ErrRefused, "%s: the file is gone: %w", name, err)
		default:
			return -1, fmt.Errorf("%s: open: %w", name, err)
		}
	}
}

// openNow is opener.openNow, for which a lease is a refusal.
func (r *Restore) openNow(reg *regfile.RegFileEntry, flags int, x *fm.FileExtra) (int, error) {
	fd, err := r.opener.openNow(reg, flags, x)
	if flags&unix.O_NONBLOCK != 0 || !errors.Is(err, unix.EWOULDBLOCK) {
		return fd, err
	}
	r.checkLeases()
	if refused := r.Refuse.Err(); refused != nil {
		return -1, refused
	}
	return r.openFile(reg.GetName(), flags, x) // it is gone already
}

// aheadFrom is from how many plain files on half of them are opened by another
// goroutine.
const aheadFrom = 400

// openAhead begins to open the plain files of the second half, and tells which.
// wait, which may be called several times, takes those that could be opened and
// are as they were; of the others Open finds out what stands in the way.
func (r *Restore) openAhead() (ahead map[uint32]bool, wait func(), err error) {
	var plain []uint32
	for _, id := range r.order {
		e := r.entries[id]
		reg := e.GetReg()
		if reg == nil || reg.GetMode()&unix.S_IFMT != unix.S_IFREG || reg.GetFlags()&unix.O_PATH != 0 || e.GetType() != fdinfo.FdTypes_REG || r.Late(id) {
			continue
		}
		if m, err := r.remapped(id); err != nil || m != nil {
			if err != nil {
				return nil, nil, err
			}
			continue
		}
		if _, ok := r.inherited(e); !ok {
			plain = append(plain, id)
		}
	}
	if len(plain) < aheadFrom {
		return nil, func() {}, nil
	}
	plain = plain[len(plain)/2:]
	ahead = make(map[uint32]bool, len(plain))
	for _, id := range plain {
		ahead[id] = true
	}
	fds, done := make([]int, len(plain)), make(chan struct{})
	go func() {
		defer close(done)
		var o opener
		defer o.paths.close()
		for i, id := range plain {
			fds[i] = o.openSame(r.entries[id].GetReg(), r.Extra(id))
		}
	}()
	return ahead, sync.OnceFunc(func() {
		<-done
		for i, id := range plain {
			if _, ok := r.fds[id]; ok && fds[i] >= 0 {
				unix.Close(fds[i]) // another file needed it before
			} else if fds[i] >= 0 {
				r.Set(id, fds[i])
			}
		}
	}), nil
}

// openSame opens a file that is as it was, and sets its offset; else it gives -1.
func (o *opener) openSame(reg *regfile.RegFileEntry, x *fm.FileExtra) int {
	fd, err := o.openNow(reg, int(reg.GetFlags())&keptFlags, x)
	if err != nil {
		return -1
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && compare(reg, x, &st) == nil && setOffset(fd, int64(reg.GetPos())) == nil {
		return fd
	}
	o.before.name = ""
	unix.Close(fd)
	return -1
}
