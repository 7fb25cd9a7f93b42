package resource

import (
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/eventfd"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
)

// An eventfd (eventfd(2), fs/eventfd.c) is a counter of 64 bits and one flag,
// EFD_SEMAPHORE, that cannot be changed later. Both are in fdinfo: the counter
// since Linux 3.8, the flag since 6.5. Older kernels tell the flag only by what
// a read takes away.
//
// The schema's eventfd_file_entry has no place for EFD_SEMAPHORE, whose bit is
// O_WRONLY's: it is FileExtra.data.
type eventfdKind struct{}

func init() { Register(eventfdKind{}) }

func (eventfdKind) Name() string            { return "eventfd" }
func (eventfdKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_EVENTFD} }
func (eventfdKind) Match(f *File) bool      { return f.Link == "anon_inode:[eventfd]" }

// eventfdMax is the highest count that a write can make (eventfd(2)). Only the
// kernel's own notifiers go one beyond.
const eventfdMax = math.MaxUint64 - 1

func (eventfdKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	s := f.Info.Eventfd
	if s == nil {
		return nil, fmt.Errorf("fdinfo has no eventfd-count")
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	semaphore := s.Semaphore
	if !s.HasSemaphore {
		fd, done, err := f.borrow()
		if err != nil {
			return nil, err
		}
		defer done()
		if semaphore, err = probeSemaphore(fd, s.Count); err != nil {
			return nil, err
		}
	}
	if semaphore {
		d.Extra(f).Data = proto.Uint64(1)
	}
	e := entryOf(fdinfo.FdTypes_EVENTFD)
	e.Efd = &eventfd.EventfdFileEntry{
		Id: proto.Uint32(f.ID), Flags: proto.Uint32(f.Flags()), Fown: o, Counter: proto.Uint64(s.Count),
	}
	return e, nil
}

// probeSemaphore finds out about EFD_SEMAPHORE on a kernel before 6.5: it makes
// the count at least 2, reads, and puts the count back. Tasks that stand still
// notice nothing but that an edge-triggered epoll may report the eventfd once
// more.
func probeSemaphore(fd int, count uint64) (bool, error) {
	var b [8]byte
	put := func(n uint64) error {
		if n == 0 {
			return nil
		}
		binary.NativeEndian.PutUint64(b[:], n)
		_, err := unix.Write(fd, b[:])
		return err
	}
	var add uint64
	if count < 2 {
		add = 2 - count
	}
	if err := put(add); err != nil {
		return false, fmt.Errorf("semaphore probe: %w", err)
	}
	var took uint64
	var semaphore bool
	for {
		// What was added is taken out again: at most one more read, or two.
		if _, err := unix.Read(fd, b[:]); err != nil {
			return false, fmt.Errorf("semaphore probe: %w", err)
		}
		n := binary.NativeEndian.Uint64(b[:])
		semaphore = n == 1
		if took += n; !semaphore || took >= add {
			break
		}
	}
	if err := put(took - add); err != nil {
		return false, fmt.Errorf("semaphore probe: %w", err)
	}
	return semaphore, nil
}

func (eventfdKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	flags := unix.EFD_CLOEXEC
	if r.Extra(e.GetId()).GetData() != 0 {
		flags |= unix.EFD_SEMAPHORE
	}
	fd, err := unix.Eventfd(0, flags)
	if err != nil {
		return -1, fmt.Errorf("eventfd: %w", err)
	}
	// The call's own initial value has only 32 bits.
	if n := min(e.GetEfd().GetCounter(), eventfdMax); n != 0 {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], n)
		if _, err := unix.Write(fd, b[:]); err != nil {
			return finish(fd, fmt.Errorf("count %d: %w", n, err))
		}
	}
	return finish(fd, setStatus(fd, e.GetEfd().GetFlags()))
}
