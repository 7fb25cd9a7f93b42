package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/signalfd"
)

// A signalfd (signalfd(2), fs/signalfd.c) is a set of signals; what a read gives
// are the pending signals of the task that reads, which belong to the task. The
// set is in fdinfo since Linux 3.8.
type signalfdKind struct{}

func init() { Register(signalfdKind{}) }

func (signalfdKind) Name() string            { return "signalfd" }
func (signalfdKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_SIGNALFD} }
func (signalfdKind) Match(f *File) bool      { return f.Link == "anon_inode:[signalfd]" }

func (signalfdKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	if !f.Info.HasSigmask {
		return nil, errors.New("fdinfo has no sigmask")
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	e := entryOf(fdinfo.FdTypes_SIGNALFD)
	e.Sgfd = &signalfd.SignalfdEntry{
		Id: proto.Uint32(f.ID), Flags: proto.Uint32(f.Flags()), Fown: o, Sigmask: proto.Uint64(f.Info.SigMask),
	}
	return e, nil
}

func (signalfdKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	// The kernel's set is 64 bits on every architecture but MIPS.
	var set unix.Sigset_t
	set.Val[0] = e.GetSgfd().GetSigmask()
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("signalfd: %w", err)
	}
	return finish(fd, setStatus(fd, e.GetSgfd().GetFlags()))
}
