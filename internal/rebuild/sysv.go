package rebuild

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// segment is a SysV shared memory segment that the tree attaches.
type segment struct {
	id   int
	made bool
	here *sys.Shm // attached by this process, so that it stays until the tree is there
	dest bool     // to be marked for removal once the tree has it
}

// sysv gives the segment of a shared memory object, made again with its id where
// it is gone. One that is there is filled with what was saved, unless others use
// it.
func (b *builder) sysv(id uint64) (*segment, error) {
	o := b.shm[id]
	if o == nil || o.GetSysv() == nil {
		return nil, fault.Errorf(fault.ErrDamaged, "SysV segment %d is not in the image", id)
	}
	if s := b.segments[id]; s != nil {
		return s, nil
	}
	v := o.GetSysv()
	s := &segment{id: int(v.GetId()), dest: v.GetMode()&sys.ShmDest != 0}
	want := sys.ShmInfo{Key: v.GetKey(), UID: v.GetUid(), GID: v.GetGid(), Mode: v.GetMode(), Size: o.GetSize()}
	users := uint64(0)
	info, err := sys.ShmStat(s.id)
	switch {
	case err == nil && info.Size == want.Size && info.Key == want.Key:
		users = info.Users
	case err == nil:
		return nil, fault.Errorf(fault.ErrRefused, "SysV segment %d is now another one, of %d bytes and key %#x; remove that: ipcrm -m %d", s.id, info.Size, uint32(info.Key), s.id)
	default:
		flags := 0
		if h := o.GetHugeShift(); h != 0 {
			const shmHugetlb = 0o4000
			flags = shmHugetlb | int(h)<<mapHugeShift
		}
		if err := sys.MakeShm(s.id, want, flags); err != nil {
			why := err.Error()
			switch {
			case errors.Is(err, unix.EEXIST):
				why = fmt.Sprintf("its key %#x is another's now", uint32(want.Key))
			case errors.Is(err, unix.EBUSY):
				why = "its id is taken"
			}
			return nil, fault.Errorf(fault.ErrRefused, "SysV segment %d of %d bytes cannot be made again: %s", s.id, want.Size, why)
		}
		s.made = true
	}
	if b.segments == nil {
		b.segments = map[uint64]*segment{}
	}
	b.segments[id] = s
	if s.here, err = sys.AttachShm(s.id, int(want.Size)); err != nil {
		return nil, fmt.Errorf("SysV segment %d: %w", s.id, err)
	}
	if want.Mode&sys.ShmLocked != 0 && s.made {
		if err := sys.LockShm(s.id); err != nil {
			b.note("SysV segment %d: locking: %v", s.id, err)
		}
	}
	if users > 0 {
		b.note("SysV segment %d is attached by other processes: its content stays as it is", s.id)
		return s, nil
	}
	if !s.made {
		clear(s.here.Mem)
	}
	fd, err := ownMapping(s.here.Mem)
	if err != nil {
		return nil, fmt.Errorf("SysV segment %d: %w", s.id, err)
	}
	o.fd = fd
	return s, b.fillObject(o.ShmObject, fd)
}

// ownMapping opens the memory object that a mapping of this process shows.
func ownMapping(mem []byte) (int, error) {
	at := uint64(sys.Address(mem))
	maps, err := procfs.ReadMaps(unix.Getpid())
	if err != nil {
		return -1, err
	}
	for i := range maps {
		if v := &maps[i]; v.Start == at {
			return unix.Open(fmt.Sprintf("/proc/self/map_files/%x-%x", v.Start, v.End), unix.O_RDWR|unix.O_CLOEXEC, 0)
		}
	}
	return -1, fmt.Errorf("no mapping at %#x", at)
}

// attach queues what attaches a segment where area i of a process shows a part
// of it: the whole of it, of which what no area shows is unmapped again.
func (b *builder) attach(q *queue, p *proc, kept []bool, i int) error {
	a := &p.areas[i]
	start := a.GetStart() - a.GetPgoff()
	for j := i - 1; j >= 0 && p.areas[j].GetStart() >= start; j-- {
		if c := &p.areas[j]; c.is(collect.VMASysV) && c.GetShmid() == a.GetShmid() && c.GetStart()-c.GetPgoff() == start && !kept[j] {
			return nil // with that one
		}
	}
	s, err := b.sysv(a.GetShmid())
	if err != nil {
		return err
	}
	size := (b.shm[a.GetShmid()].GetSize() + sys.PageSize - 1) &^ (sys.PageSize - 1)
	if h := b.shm[a.GetShmid()].GetHugeShift(); h != 0 {
		size = (size + 1<<h - 1) &^ (1<<h - 1)
	}
	flags := uint64(0)
	if a.flags()&procfs.VMMayWrite == 0 {
		flags |= sys.ShmRdonly
	}
	if a.GetProt()&unix.PROT_EXEC != 0 {
		flags |= sys.ShmExec
	}
	q.add("shmat", unix.SYS_SHMAT, uint64(s.id), start, flags)
	q.want(start)
	at := start
	gap := func(end uint64) {
		if end > at {
			q.add("munmap", unix.SYS_MUNMAP, at, end-at)
		}
	}
	for j := i; j < len(p.areas) && p.areas[j].GetStart() < start+size; j++ {
		c := &p.areas[j]
		if !c.is(collect.VMASysV) || c.GetShmid() != a.GetShmid() || c.GetStart()-c.GetPgoff() != start {
			continue
		}
		gap(c.GetStart())
		at = c.GetEnd()
		q.add("mprotect", unix.SYS_MPROTECT, c.GetStart(), c.GetEnd()-c.GetStart(), uint64(c.GetProt()))
		if m := c.GetMadv() & hugeAdvice; m != 0 {
			b.advise(q, c, m)
		}
	}
	gap(start + size)
	return nil
}

// keepSegments lets go of the segments, which the tree has now. Those that were
// to go with their last user are again.
func (b *builder) keepSegments() error {
	for _, s := range b.segments {
		if s.dest {
			if err := sys.RemoveShm(s.id); err != nil {
				return fmt.Errorf("SysV segment %d: %w", s.id, err)
			}
		}
		s.made = false
	}
	return nil
}

// closeSegments detaches this process; what was made for a tree that there will
// not be is removed.
func (b *builder) closeSegments() {
	for _, s := range b.segments {
		if s.made {
			_ = sys.RemoveShm(s.id)
		}
		if s.here != nil {
			s.here.Unmap()
		}
	}
	b.segments = nil
}
