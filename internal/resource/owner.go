package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/fault"
)

// Owners of I/O signals (fcntl(2), F_SETOWN_EX and F_SETSIG). Every kind of open
// file has one: who is told, by which signal, and the user ids of the process
// that set it, which decide whether the signal may be sent (sigio_perm in
// fs/fcntl.c). O_ASYNC comes after the owner, so that none is lost, and after
// all content, so that none is sent for what the restore itself wrote.
//
// It is set in a task, as it names processes by the numbers that the task knows.

const (
	fSetSig   = 10
	fSetownEx = 15
)

// flagsOf gives the flags saved in an entry.
func flagsOf(e *fdinfo.FileEntry) uint32 {
	for _, g := range []interface{ GetFlags() uint32 }{
		e.GetReg(), e.GetIsk(), e.GetPsk(), e.GetNlsk(), e.GetEfd(), e.GetEpfd(), e.GetSgfd(),
		e.GetTfd(), e.GetIfy(), e.GetFfy(), e.GetUsk(), e.GetPipe(), e.GetTty(), e.GetMemfd(),
	} {
		if f := g.GetFlags(); f != 0 {
			return f
		}
	}
	return 0
}

type ownedKey struct{ id uint32 }

// ownersInTask sets the owners of the files of a task that none has set yet.
func (r *Restore) ownersInTask(t Task, table []*fdinfo.FdinfoEntry) error {
	for _, d := range table {
		id := d.GetId()
		e := r.entries[id]
		o, flags := FownOf(e), flagsOf(e)
		if o == nil && flags&unix.O_ASYNC == 0 || flags&unix.O_PATH != 0 {
			continue
		}
		first := false
		_, _ = RestoreValue(r, ownedKey{id}, func() (bool, error) { first = true; return true, nil })
		if !first {
			continue
		}
		x := t.Executor()
		x.Reset()
		var names []string
		add := func(name string, nr uintptr, args ...uint64) {
			x.StopOnError(x.Add(nr, args...))
			names = append(names, name)
		}
		fd := uint64(d.GetFd())
		if o.GetPid() != 0 {
			// The owner's ids are those of whoever sets it. The saved user id
			// stays 0, so that root finds back.
			other := unix.Geteuid() == 0 && (o.GetUid() != 0 || o.GetEuid() != 0)
			if other {
				add("setresuid", unix.SYS_SETRESUID, uint64(o.GetUid()), uint64(o.GetEuid()), 0)
			}
			var b [8]byte
			binary.NativeEndian.PutUint32(b[0:], o.GetPidType())
			binary.NativeEndian.PutUint32(b[4:], o.GetPid())
			add("F_SETOWN_EX", unix.SYS_FCNTL, fd, fSetownEx, x.Put(b[:]))
			if other {
				x.StopOnError(x.Add(unix.SYS_SETRESUID, 0, 0, 0))
				names = append(names, "setresuid")
			}
		}
		if o.GetSignum() != 0 {
			add("F_SETSIG", unix.SYS_FCNTL, fd, fSetSig, uint64(o.GetSignum()))
		}
		if flags&unix.O_ASYNC != 0 {
			add("O_ASYNC", unix.SYS_FCNTL, fd, unix.F_SETFL, uint64(flags&(keptFlags|unix.O_ASYNC)))
		}
		if err := x.Run(); err != nil {
			return err
		}
		for i, n := range names {
			if err := x.Err(i); err != nil {
				if errors.Is(err, unix.ESRCH) {
					err = fault.Errorf(fault.ErrDamaged, "process %d does not exist: %w", o.GetPid(), err)
				}
				return fmt.Errorf("pid %d fd %d: owner of its signals: %s: %w", t.PID(), fd, n, err)
			}
		}
	}
	return nil
}
