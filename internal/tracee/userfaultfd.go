package tracee

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Userfaultfd makes a userfaultfd of the guest's address space, which only this
// process holds: the task made it (nobody else can) and has closed it again.
//
// For that moment it is in the task's table. Should this process die then, the
// task's undo list closes it, once: a second close could meet another file that
// the program has opened meanwhile under that number. So the list is
// close(result of the call that made it) until the number is known, and
// close_range(number, result of the call in that place) from then on: that call is
// now the one that closes it, its result counts as the number until it has run, and
// is 0 afterwards, which makes an empty range.
func (g *Guest) Userfaultfd(t *Thread) (fd int, err error) {
	e, err := g.Executor(t)
	if err != nil {
		return -1, err
	}
	pidfd, err := unix.PidfdOpen(t.TID, sys.PidfdThread)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // before Linux 6.9
		pidfd, err = unix.PidfdOpen(g.PID, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("thread %d: pidfd: %w", t.TID, err)
	}
	defer unix.Close(pidfd)
	if err := step("userfaultfd.make"); err != nil {
		return -1, err
	}
	e.Reset()
	made := e.Add(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|sys.UffdUserModeOnly)
	e.set(undoAt, unix.SYS_CLOSE)
	e.Use(undoAt, 0, made)
	e.undo(1)
	if err := e.Run(); err != nil {
		return -1, err
	}
	faultpoint.At("userfaultfd.made")
	if err := e.Err(made); err != nil {
		e.undo(0)
		return -1, fmt.Errorf("thread %d: userfaultfd: %w", t.TID, err)
	}
	n := uint64(e.Result(made))
	fd, err = unix.PidfdGetfd(pidfd, int(n), 0)
	if err == nil {
		unix.CloseOnExec(fd)
		err = step("userfaultfd.close")
	}
	e.set(undoAt+1, unix.SYS_CLOSE_RANGE, n)
	e.Use(undoAt+1, 1, made)
	atomic.StoreUint64(sys.Word64(e.mem, offUndo), e.addr+offCalls+(undoAt+1)*callSize)
	e.recall(made, unix.SYS_CLOSE, n)
	faultpoint.At("userfaultfd.got")
	rerr := e.Run()
	if rerr == nil {
		rerr = e.Err(made)
	}
	e.undo(0)
	faultpoint.At("userfaultfd.closed")
	if err = errors.Join(err, rerr); err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	if err != nil {
		return -1, fmt.Errorf("thread %d: userfaultfd: %w", t.TID, err)
	}
	return fd, nil
}

// recall makes the call at an index, the batch's last, another one, which has the
// result of the former until it has run.
func (s *Slot) recall(i int, nr uintptr, args ...uint64) {
	o := offCalls + i*callSize
	c := s.mem[o : o+callSize]
	le.PutUint64(c[0:], uint64(nr))
	for k, v := range args {
		le.PutUint64(c[16+8*k:], v)
	}
	s.n = i + 1
}
