package resource

import (
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fifo"

	"github.com/fermata-cr/fermata/internal/fault"
)

// FIFOs (fifo(7)): pipes with a path. The entry has both messages, the FIFO's
// and, under the same id, that of a regular file for path and flags. Content is
// that of pipes, in part "fifo-data".
//
// A reader that was opened with O_NONBLOCK before there was any writer is told
// so by poll(2): no POLLHUP. It is opened first, then, as it was; in all other
// cases a descriptor for both directions stands by, so that open(2) waits for
// nobody and nothing is lost between.
type fifoKind struct{}

func init() { Register(fifoKind{}) }

func (fifoKind) Name() string            { return "FIFO" }
func (fifoKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_FIFO} }

func (fifoKind) Match(f *File) bool {
	return f.Stat.Mode&unix.S_IFMT == unix.S_IFIFO && f.Link[0] == '/' && f.Info.Flags&unix.O_PATH == 0
}

func (fifoKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	at, err := d.locate(f)
	if err != nil || at.refused {
		return nil, err
	}
	if at.deleted {
		if err := d.ghost(f, at); err != nil {
			return nil, err
		}
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	return &fdinfo.FileEntry{
		Type: fdinfo.FdTypes_FIFO.Enum(),
		Fifo: &fifo.FifoEntry{Id: proto.Uint32(f.ID), PipeId: proto.Uint32(d.pipeID(f)), RegfId: proto.Uint32(f.ID)},
		Reg:  &d.regEntry(f, at, o).reg,
	}, nil
}

// Complete saves what the FIFOs hold.
func (k fifoKind) Complete(d *Dump) error { return d.completePipes(k) }

func (k fifoKind) Check(r *Restore, e *fdinfo.FileEntry) error {
	if err := r.checkPipe(fdinfo.FdTypes_FIFO, e.GetFifo().GetPipeId()); err != nil {
		return err
	}
	return regular{}.Check(r, e)
}

func (fifoKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	m, err := r.remapped(e.GetId())
	if err != nil {
		return -1, err
	}
	if m != nil {
		return r.openGhost(e.GetId())
	}
	group := r.pipeGroup(fdinfo.FdTypes_FIFO, e.GetFifo().GetPipeId())
	if err := r.openFifo(group, e.GetReg().GetName()); err != nil {
		return -1, err
	}
	return r.fds[e.GetId()], nil
}

// openFifo opens every description of a FIFO by a path, and fills it.
func (r *Restore) openFifo(group []*fdinfo.FileEntry, path string) error {
	id := group[0].GetFifo().GetPipeId()
	saved, err := r.pipeData(fdinfo.FdTypes_FIFO, id)
	if err != nil {
		return err
	}
	var early []*fdinfo.FileEntry
	if readersOnly(group) && saved == nil {
		for _, e := range group {
			if r.Extra(e.GetId()).GetData2() == 0 {
				early = append(early, e)
			}
		}
	}
	for _, e := range early {
		if err := r.openFifoEnd(e, path); err != nil {
			return err
		}
	}
	if len(early) == len(group) {
		return nil
	}
	both, err := r.openFile(path, unix.O_RDWR|unix.O_NONBLOCK, nil)
	if err != nil {
		return err
	}
	defer unix.Close(both)
	n, err := unix.IoctlGetInt(both, unix.TIOCINQ)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if n != 0 {
		return fault.Errorf(fault.ErrBusy, "%s: another process has the FIFO open and put %d bytes into it: end it first", path, n)
	}
	if err := fillPipe(both, saved); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, e := range group {
		if _, ok := r.fds[e.GetId()]; ok {
			continue
		}
		if err := r.openFifoEnd(e, path); err != nil {
			return err
		}
	}
	return nil
}

func readersOnly(group []*fdinfo.FileEntry) bool {
	for _, e := range group {
		if e.GetReg().GetFlags()&unix.O_ACCMODE != unix.O_RDONLY {
			return false
		}
	}
	return true
}

func (r *Restore) openFifoEnd(e *fdinfo.FileEntry, path string) error {
	status := int(e.GetReg().GetFlags()) & keptFlags
	fd, err := r.openFile(path, status&^unix.O_DIRECT|unix.O_NONBLOCK, nil)
	if err != nil {
		return err
	}
	if status&unix.O_NONBLOCK == 0 || status&unix.O_DIRECT != 0 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, status); err != nil {
			unix.Close(fd)
			return fmt.Errorf("%s: flags %#o: %w", path, status, err)
		}
	}
	r.Set(e.GetId(), fd)
	return nil
}
