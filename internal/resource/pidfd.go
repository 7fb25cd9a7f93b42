package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pidfd"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// A pidfd (pidfd_open(2), fs/pidfs.c) refers to a process or, with PIDFD_THREAD
// (shown as O_EXCL), to a thread: fdinfo has its id, -1 once it has been reaped.
// Since Linux 6.9 all pidfds of one process have an inode number of its own.
//
// The process must be in the tree; the pidfd is opened when it exists again
// (Later). One of a process that has been reaped gets a process that ended in
// the same way: descriptions with the same inode get the same.
//
// Beside pidfd_entry, FileExtra.ino is the whole inode number, and
// FileExtra.data the status that the reaped process left, where the kernel
// tells.
type pidfdKind struct{}

func init() { Register(pidfdKind{}) }

func (pidfdKind) Name() string            { return "pidfd" }
func (pidfdKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_PIDFD} }

// The link was "pidfd:[INODE]" for a short while in 6.9.
func (pidfdKind) Match(f *File) bool {
	return f.Link == "anon_inode:[pidfd]" || bracketed(f.Link, "pidfd")
}

const reaped = -1

func (pidfdKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	s := f.Info.Pidfd
	if s == nil {
		return nil, errors.New("fdinfo has no Pid")
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	x := d.Extra(f)
	x.Ino = proto.Uint64(f.Stat.Ino)
	switch {
	case s.Pid == 0:
		d.Refusal(f, "it refers to a process outside this pid namespace", "close it before the checkpoint")
		return nil, nil
	case s.Pid == reaped:
		fd, done, err := f.borrow()
		if err != nil {
			return nil, err
		}
		if st, ok := sys.PidfdExitStatus(fd); ok {
			x.Data = proto.Uint64(uint64(st))
		}
		done()
	case d.InTree != nil:
		// The id may be a thread's; /proc has these too.
		st, err := procfs.ReadStatus(s.Pid, 0)
		if err != nil {
			return nil, err
		}
		if !d.InTree(st.Tgid) {
			d.Refusal(f, fmt.Sprintf("it refers to pid %d (%s), outside the tree", s.Pid, st.Name), "checkpoint that process too, or close it")
			return nil, nil
		}
	}
	e := entryOf(fdinfo.FdTypes_PIDFD)
	e.Pidfd = &pidfd.PidfdEntry{
		Id: proto.Uint32(f.ID), Ino: proto.Uint32(uint32(f.Stat.Ino)), Flags: proto.Uint32(f.Flags() &^ unix.O_RDWR),
		Nspid: proto.Int32(int32(s.Pid)), Fown: o,
	}
	return e, nil
}

// Late: its process must exist.
func (pidfdKind) Late(r *Restore, e *fdinfo.FileEntry) bool { return e.GetPidfd().GetNspid() != reaped }

func (k pidfdKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	p := e.GetPidfd()
	if p.GetNspid() == reaped {
		return k.openReaped(r, e)
	}
	pid := int(p.GetNspid())
	if r.PID != nil {
		pid = r.PID(pid)
	}
	return openPidfd(pid, p.GetFlags())
}

func openPidfd(pid int, flags uint32) (int, error) {
	fd, err := unix.PidfdOpen(pid, int(flags)&(unix.O_NONBLOCK|sys.PidfdThread))
	if err != nil {
		return -1, fmt.Errorf("pidfd_open of pid %d with flags %#o: %w", pid, flags, err)
	}
	return finish(fd, setStatus(fd, flags))
}

// openReaped opens all descriptions of one reaped process.
func (pidfdKind) openReaped(r *Restore, e *fdinfo.FileEntry) (int, error) {
	x := r.Extra(e.GetId())
	mine := -1
	err := sys.Ended(uint32(x.GetData()), func(pid int) error {
		for _, id := range r.IDs() {
			o := r.Entry(id)
			p := o.GetPidfd()
			same := p != nil && p.GetNspid() == reaped && p.GetIno() == e.GetPidfd().GetIno() && r.Extra(id).GetIno() == x.GetIno()
			if !same {
				continue
			}
			fd, err := openPidfd(pid, p.GetFlags())
			if err != nil {
				return err
			}
			if id == e.GetId() {
				mine = fd
			} else {
				r.Set(id, fd)
			}
		}
		return nil
	})
	if err != nil && mine >= 0 {
		unix.Close(mine)
		mine = -1
	}
	return mine, err
}
