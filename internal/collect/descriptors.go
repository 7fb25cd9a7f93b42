package collect

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/resource"
)

// A table of descriptors is read from outside. Of a large one the task itself
// tells what would cost much there: which numbers are in use (for a look into
// /proc/PID/fd the kernel makes an inode of each, 3 µs; fcntl(2) in the task's
// own shoes takes 0.1), which close on exec, whose files have an owner. What a
// task says lies in memory that it, or another process of its user, could write
// meanwhile. So it is asked for nothing that it could not have changed itself:
// leaving a descriptor out is close(2), and one that is not there cannot be
// copied. What file it is, and whether it may be written to, this process asks of
// its own copy.

// descriptors collects a descriptor table.
func (c *Collector) descriptors(t *Task, files int) error {
	c.Files.Ask, c.Files.List = nil, nil
	if t.guest != nil {
		c.Files.List = func(int) ([]int, error) { return listDescriptors(t) }
		c.Files.Ask = func(_ int, fds []int) ([]resource.FDState, error) { return askDescriptors(t, fds) }
	}
	if t.At() != t.PID {
		if c.Files.Leader == nil {
			c.Files.Leader = map[int]int{}
		}
		c.Files.Leader[t.At()] = t.PID
	}
	tab, err := c.Files.Table(t.At())
	if err != nil {
		return err
	}
	name := image.Of("fdinfo", files)
	for _, e := range tab {
		c.Image.Add(name, e)
	}
	return nil
}

// manyFDs is from how many descriptors on the task lists them itself, and
// sparseFDs up to how many numbers are tried for each.
const (
	manyFDs   = 200
	sparseFDs = 20
)

// listDescriptors has a task tell which numbers are in use; nil where /proc is the
// better place to look. /proc/PID/fd has their count for its size (Linux 6.2).
func listDescriptors(t *Task) ([]int, error) {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/fd", t.At()), &st); err != nil {
		return nil, fmt.Errorf("pid %d: descriptors: %w", t.PID, err)
	}
	count, size := int(st.Size), int(t.Status.FDSize)
	if count < manyFDs || size/sparseFDs > count || t.At() != t.PID {
		return nil, nil
	}
	if err := t.answered(); err != nil {
		return nil, err
	}
	e, err := t.guest.Executor(t.Threads[0])
	if err != nil {
		return nil, err
	}
	out := make([]int, 0, count)
	for fd := 0; fd < size; {
		e.Reset()
		first := fd
		for ; fd < size && e.Room(1, 0); fd++ {
			e.Add(unix.SYS_FCNTL, uint64(fd), unix.F_GETFD)
		}
		if err := e.Run(); err != nil {
			return nil, err
		}
		for i := first; i < fd; i++ {
			switch err := e.Err(i - first); {
			case err == nil:
				out = append(out, i)
			case !errors.Is(err, unix.EBADF):
				return nil, nil
			}
		}
	}
	if len(out) != count {
		return nil, nil // it is shared with somebody who runs
	}
	return out, nil
}

// askDescriptors has a task tell about its descriptors; nil when it does not.
func askDescriptors(t *Task, fds []int) ([]resource.FDState, error) {
	if err := t.answered(); err != nil {
		return nil, err
	}
	e, err := t.guest.Executor(t.Threads[0])
	if err != nil {
		return nil, err
	}
	const calls, bytes = 3, 8
	out := make([]resource.FDState, 0, len(fds))
	for len(fds) > 0 {
		e.Reset()
		n := 0
		var owners [][]byte
		for n < len(fds) && e.Room(calls, bytes) {
			at, owner := e.Data(bytes) // struct f_owner_ex: type, pid
			owners = append(owners, owner)
			fd := uint64(fds[n])
			e.Add(unix.SYS_FCNTL, fd, unix.F_GETFD)
			e.Add(unix.SYS_FCNTL, fd, unix.F_GETSIG)
			e.Add(unix.SYS_FCNTL, fd, unix.F_GETOWN_EX, at)
			n++
		}
		if err := e.Run(); err != nil {
			return nil, err
		}
		for i, o := range owners {
			if e.Err(calls*i) != nil {
				return nil, nil
			}
			s := resource.FDState{Cloexec: e.Result(calls*i)&unix.FD_CLOEXEC != 0}
			// O_PATH descriptors have no owner: EBADF.
			if e.Err(calls*i+1) == nil && e.Err(calls*i+2) == nil {
				s.Owner.Signal = int(e.Result(calls*i + 1))
				if pid := int(int32(le.Uint32(o[4:]))); pid != 0 {
					s.Owner.Type, s.Owner.PID = int(le.Uint32(o)), pid
				}
			}
			out = append(out, s)
		}
		fds = fds[n:]
	}
	return out, nil
}
