package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/tty"

	"github.com/fermata-cr/fermata/internal/fault"
)

// A controlling terminal belongs to a session: its leader takes it (TIOCSCTTY),
// and a child is born with its parent's. Nothing else gives one to a process
// (drivers/tty/tty_jobctrl.c): so a leader must take its terminal before the
// other members are born, and a member that had given it up gives it up again
// (TIOCNOTTY). The foreground group is set when the process groups exist.

// sessionPty gives the pty that a session of the tree has, nil when it has none
// or one from outside.
func (r *Restore) sessionPty(sid int) (*openedPty, *tty.TtyInfoEntry, error) {
	m, err := r.ttys()
	if err != nil {
		return nil, nil, err
	}
	for _, p := range m.ptys {
		for _, i := range []*tty.TtyInfoEntry{p.sinfo, p.minfo} {
			if i.GetSid() != 0 && int(i.GetSid()) == sid && p.minfo != nil {
				return p, i, nil
			}
		}
	}
	return nil, nil, nil
}

// currentFiles gives the descriptions opened as /dev/tty of a pty.
func (r *Restore) currentFiles(p *openedPty) (ids []uint32) {
	for _, id := range r.order {
		e := r.entries[id]
		if e.GetTty() == nil || string(r.Extra(id).GetBlob()) != "/dev/tty" {
			continue
		}
		if m, err := r.ttys(); err == nil {
			if q, _ := m.ofPty(e); q == p {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// TakeTerminal gives a session that has a pty of the tree its controlling
// terminal. It is called after OpenAll, in the leader, when it has called
// setsid and before it has children that belong to the session. The task must
// be a Sender. A session without such a terminal is left alone.
func (r *Restore) TakeTerminal(t Task, sid int) error {
	p, _, err := r.sessionPty(sid)
	if err != nil || p == nil {
		return err
	}
	fd, err := r.lend(t, p)
	if err != nil {
		return err
	}
	e := t.Executor()
	take := e.Add(unix.SYS_IOCTL, uint64(fd), unix.TIOCSCTTY, 0)
	e.Add(unix.SYS_CLOSE, uint64(fd))
	name := e.PutString("/dev/tty")
	ids := r.currentFiles(p)
	var opens []int
	for _, id := range ids {
		flags := openFlags(r.entries[id].GetTty().GetFlags()) | unix.O_NOCTTY | unix.O_CLOEXEC
		opens = append(opens, e.Add(unix.SYS_OPENAT, atCwd, name, uint64(flags)))
	}
	if err := e.Run(); err != nil {
		return err
	}
	if err := e.Err(take); err != nil {
		return fmt.Errorf("session %d: taking its terminal: %w", sid, err)
	}
	if len(opens) == 0 {
		return nil
	}
	pidfd, err := unix.PidfdOpen(t.PID(), 0)
	if err != nil {
		return fmt.Errorf("pid %d: pidfd_open: %w", t.PID(), err)
	}
	defer unix.Close(pidfd)
	var theirs []uint64
	for n, id := range ids {
		if err := e.Err(opens[n]); err != nil {
			return fmt.Errorf("session %d: /dev/tty: %w", sid, err)
		}
		theirs = append(theirs, uint64(e.Result(opens[n])))
		fd, err := unix.PidfdGetfd(pidfd, int(e.Result(opens[n])), 0)
		if err != nil {
			return fmt.Errorf("pid %d: taking /dev/tty: %w", t.PID(), err)
		}
		r.Set(id, fd)
		if err := setStatus(fd, r.entries[id].GetTty().GetFlags()); err != nil {
			return err
		}
	}
	e = t.Executor()
	for _, fd := range theirs {
		e.Add(unix.SYS_CLOSE, fd)
	}
	return e.Run()
}

// atCwd is AT_FDCWD as a system call's argument.
const atCwd = ^uint64(99)

// lend gives a task a descriptor of a pty.
func (r *Restore) lend(t Task, p *openedPty) (int, error) {
	s, ok := t.(Sender)
	if !ok {
		return -1, errors.New("no way to give the task a descriptor")
	}
	fd := p.slave
	if fd < 0 {
		fd = p.master
	}
	if fd < 0 {
		return -1, fault.Errorf(fault.ErrDamaged, "its terminal is not open")
	}
	return s.Send(fd)
}

// DropTerminal makes a task that was born with its session's terminal give it
// up; it is called in members that had none, before they have children.
func (r *Restore) DropTerminal(t Task, sid int) error {
	p, _, err := r.sessionPty(sid)
	if err != nil || p == nil {
		return err
	}
	return r.onTerminal(t, p, "giving up the terminal", unix.TIOCNOTTY, nil)
}

// SetForeground sets the foreground group of the terminal of a session of the
// tree. It is called in a task that has the terminal, when all process groups
// exist. A group without members is left out with a note: it has no meaning.
func (r *Restore) SetForeground(t Task, sid int) error {
	p, i, err := r.sessionPty(sid)
	if err != nil || p == nil {
		return err
	}
	pgrp := int(i.GetPgrp()) // the task speaks of it by the number it sees
	err = r.onTerminal(t, p, "foreground group", unix.TIOCSPGRP, []byte{byte(pgrp), byte(pgrp >> 8), byte(pgrp >> 16), byte(pgrp >> 24)})
	if errors.Is(err, unix.ESRCH) {
		r.Note("pty %d: its foreground group, %d, has no members", i.GetPty().GetIndex(), pgrp)
		return nil
	}
	return err
}

// onTerminal runs an ioctl on a pty in a task.
func (r *Restore) onTerminal(t Task, p *openedPty, what string, req uint64, arg []byte) error {
	fd, err := r.lend(t, p)
	if err != nil {
		return err
	}
	e := t.Executor()
	var at uint64
	if arg != nil {
		at = e.Put(arg)
	}
	n := e.Add(unix.SYS_IOCTL, uint64(fd), req, at)
	e.Add(unix.SYS_CLOSE, uint64(fd))
	if err := e.Run(); err != nil {
		return err
	}
	if err := e.Err(n); err != nil {
		return fmt.Errorf("pid %d: %s: %w", t.PID(), what, err)
	}
	return nil
}
