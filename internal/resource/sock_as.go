package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Who made a unix connection is kept with it (SO_PEERCRED, unix(7)): of a pair
// whoever called socketpair, of a client's end whoever called listen, of an
// accepted end whoever called connect, each with the effective ids of that
// moment. Nothing else sets it. So these calls are made by the very process, in
// its executor, which is given the effective ids for that moment.

// maker is a process that makes sockets, with the ids it has then.
type maker struct {
	task     Task // nil: this process
	uid, gid int
}

// makerOf gives who made a socket, by what its peer shall see.
func (r *Restore) makerOf(x *fm.SockExtra) maker {
	m := maker{uid: os.Geteuid(), gid: os.Getegid()}
	if x.PeerPid == nil {
		return m
	}
	pid := int(x.GetPeerPid())
	if r.Task != nil {
		m.task = r.Task(pid)
	}
	if m.task == nil {
		r.Note("a unix socket shows pid %d as its peer, which is not in the tree: it will show pid %d", pid, os.Getpid())
		return m
	}
	m.uid, m.gid = int(x.GetPeerUid()), int(x.GetPeerGid())
	return m
}

const keepID = ^uint64(0) // -1 of setresuid(2)

// do runs a call between those that change the effective ids and back.
func (m maker) do(what string, add func(e *tracee.Executor)) error {
	e := m.task.Executor()
	uid, gid := os.Geteuid(), os.Getegid()
	ids := func(nr uintptr, to int) {
		if m.uid != uid || m.gid != gid {
			e.StopOnError(e.Add(nr, keepID, uint64(to), keepID))
		}
	}
	// The group first, and last: it takes the privilege that goes with the user.
	ids(unix.SYS_SETRESGID, m.gid)
	ids(unix.SYS_SETRESUID, m.uid)
	add(e)
	ids(unix.SYS_SETRESUID, uid)
	ids(unix.SYS_SETRESGID, gid)
	n := e.Len()
	if err := e.Run(); err != nil {
		return err
	}
	for i := range n {
		if err := e.Err(i); err != nil {
			return fmt.Errorf("pid %d: %s as user %d: %s: %w", m.task.PID(), what, m.uid, e.Describe(i), err)
		}
	}
	return nil
}

// pair is socketpair(2) by the maker; the descriptors are this process's.
func (m maker) pair(typ int) (p [2]int, err error) {
	if m.task == nil {
		return unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	}
	var out []byte
	err = m.do("socketpair", func(e *tracee.Executor) {
		addr, d := e.Data(8)
		out = d
		e.Add(unix.SYS_SOCKETPAIR, unix.AF_UNIX, uint64(typ|unix.SOCK_CLOEXEC), 0, addr)
	})
	if err != nil {
		return p, err
	}
	theirs := [2]int{int(binary.NativeEndian.Uint32(out)), int(binary.NativeEndian.Uint32(out[4:]))}
	if p, err = take(m.task, theirs); err != nil {
		return p, err
	}
	return p, m.close(theirs[:]...)
}

// take duplicates two descriptors of a task into this process.
func take(t Task, theirs [2]int) (p [2]int, err error) {
	pidfd, err := unix.PidfdOpen(t.PID(), 0)
	if err != nil {
		return p, fmt.Errorf("pid %d: pidfd_open: %w", t.PID(), err)
	}
	defer unix.Close(pidfd)
	for i, n := range theirs {
		if p[i], err = unix.PidfdGetfd(pidfd, n, 0); err != nil {
			if i > 0 {
				unix.Close(p[0])
			}
			return p, fmt.Errorf("pid %d fd %d: duplicate: %w", t.PID(), n, err)
		}
	}
	return p, nil
}

// close closes descriptors of the task.
func (m maker) close(fds ...int) error {
	e := m.task.Executor()
	for _, fd := range fds {
		e.Add(unix.SYS_CLOSE, uint64(fd))
	}
	return e.Run()
}

// lend gives the task copies of descriptors.
func (m maker) lend(fds ...int) ([]int, error) {
	s, ok := m.task.(Sender)
	if !ok {
		return nil, fmt.Errorf("pid %d cannot be sent descriptors", m.task.PID())
	}
	var theirs []int
	for _, fd := range fds {
		n, err := s.Send(fd)
		if err != nil {
			return nil, fmt.Errorf("pid %d: sending a descriptor: %w", m.task.PID(), err)
		}
		theirs = append(theirs, n)
	}
	return theirs, nil
}

// listen is listen(2) by the maker.
func (m maker) listen(fd, backlog int) error {
	if m.task == nil {
		return unix.Listen(fd, backlog)
	}
	theirs, err := m.lend(fd)
	if err != nil {
		return err
	}
	err = m.do("listen", func(e *tracee.Executor) { e.Add(unix.SYS_LISTEN, uint64(theirs[0]), uint64(backlog)) })
	return errors.Join(err, m.close(theirs...))
}

// connect is connect(2) by the maker to an address, a path relative to the
// directory dir when dir is not negative.
func (m maker) connect(fd int, sa []byte, dir int) (err error) {
	if m.task == nil {
		if dir < 0 {
			return sys.Connect(fd, sa)
		}
		return connectIn(fd, dir, sa)
	}
	theirs, err := m.lend(fd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close(theirs...)) }()
	if dir >= 0 {
		back, err := m.chdir(dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, back()) }()
	}
	return m.do("connect", func(e *tracee.Executor) {
		e.Add(unix.SYS_CONNECT, uint64(theirs[0]), e.Put(sa), uint64(len(sa)))
	})
}

// chdir puts the task into a directory; back puts it where it was.
func (m maker) chdir(dir int) (back func() error, err error) {
	theirs, err := m.lend(dir)
	if err != nil {
		return nil, err
	}
	run := func(add func(e *tracee.Executor)) (int, error) {
		e := m.task.Executor()
		add(e)
		if err := e.Run(); err != nil {
			return 0, err
		}
		if err := e.Err(0); err != nil {
			return 0, fmt.Errorf("pid %d: %s: %w", m.task.PID(), e.Describe(0), err)
		}
		return int(e.Result(0)), nil
	}
	here, err := run(func(e *tracee.Executor) {
		e.Add(unix.SYS_OPENAT, atFDCWD, e.PutString("."), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	})
	if err == nil {
		_, err = run(func(e *tracee.Executor) { e.Add(unix.SYS_FCHDIR, uint64(theirs[0])) })
	}
	if err != nil {
		return nil, errors.Join(err, m.close(theirs...))
	}
	return func() error {
		_, err := run(func(e *tracee.Executor) { e.Add(unix.SYS_FCHDIR, uint64(here)) })
		return errors.Join(err, m.close(here, theirs[0]))
	}, nil
}

const atFDCWD = ^uint64(99) // AT_FDCWD, -100
