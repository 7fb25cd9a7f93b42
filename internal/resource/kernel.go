package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

type kernelKey struct{}

// Kernel gives a reader of the kernel's memory, for state that no call tells
// without changing it. Where there can be none the error is kmem.ErrUnavailable,
// and such state is refused.
func (d *Dump) Kernel() (*kmem.Reader, error) {
	type opened struct {
		r   *kmem.Reader
		err error
	}
	o, _ := Value(d, kernelKey{}, func() (opened, error) {
		open := kmem.Open
		if d.OpenKernel != nil {
			open = d.OpenKernel
		}
		r, err := open()
		if err == nil {
			d.atClose = append(d.atClose, r.Close)
		}
		return opened{r, err}, nil
	})
	return o.r, o.err
}

// KernelTask gives what the kernel has of a thread (struct task_struct).
func (d *Dump) KernelTask(pid, tid int) (*kmem.Reader, kmem.Object, error) {
	k, err := d.Kernel()
	if err != nil {
		return nil, kmem.Object{}, err
	}
	fd, err := d.pidfd(pid)
	if err != nil {
		return nil, kmem.Object{}, err
	}
	t := k.Process(fd, pid)
	if pid != tid {
		s := t.Ptr("signal", "signal_struct")
		t.Addr = 0
		for _, at := range k.List(s.Addr+s.Offset("thread_head"), false) {
			if x := k.At("list_head", at).Of("task_struct", "thread_node"); k.PID(x.Ptr("thread_pid", "pid")) == tid {
				t = x
			}
		}
	}
	if err := k.Err(); err != nil {
		return nil, t, fmt.Errorf("thread %d: %w", tid, err)
	}
	if t.Nil() {
		return nil, t, fmt.Errorf("%w: no thread %d", kmem.ErrChanged, tid)
	}
	return k, t, nil
}

// Overruns gives, for the POSIX timers of a process, how often each has expired
// since its signal was queued (struct k_itimer, it_overrun). The kernel tells that
// when the signal is delivered and not before. timer_gettime(2) must have been
// called, which brings it up to date.
func (d *Dump) Overruns(pid int) (map[int32]int64, error) {
	k, err := d.Kernel()
	if err != nil {
		return nil, err
	}
	fd, err := d.pidfd(pid)
	if err != nil {
		return nil, err
	}
	all := map[int32]int64{}
	s := k.Process(fd, pid).Ptr("signal", "signal_struct")
	for _, at := range k.List(s.Addr+s.Offset("posix_timers"), true) {
		t := k.At("hlist_node", at).Of("k_itimer", "list")
		all[int32(t.Uint("it_id"))] = int64(t.Uint("it_overrun")) + 1
	}
	if err := k.Err(); err != nil {
		return nil, fmt.Errorf("pid %d: timers: %w", pid, err)
	}
	return all, nil
}

// RestartLeft gives the time that is left of a thread's interrupted system call, as
// its restart block says (struct restart_block, include/linux/restart_block.h), and
// which call it is: nr, or where that is restart_syscall(2) the one whose arguments
// the block has. ok is false where it is none of those with a limit that is kept
// so. The kernel keeps moments, by clocks that no time namespace shifts: now gives
// what time it is.
func (d *Dump) RestartLeft(tid int, nr uint64, args [6]uint64, now func(clock int) int64) (left int64, call uint64, ok bool, err error) {
	k, err := d.Kernel()
	if err != nil {
		return 0, 0, false, err
	}
	fd, err := unix.PidfdOpen(tid, sys.PidfdThread)
	if err != nil {
		return 0, 0, false, fmt.Errorf("thread %d: pidfd_open: %w", tid, err)
	}
	defer unix.Close(fd)
	b := k.Thread(fd, tid).In("restart_block", "restart_block")
	is := func(call uint64) bool { return nr == call || nr == unix.SYS_RESTART_SYSCALL }
	const (
		futexCmdMask = 127
		futexWait    = 0
	)
	clock, pointer := args[0] < 16, args[0] >= 4096 // what the first argument can be
	sleep := func(call uint64) (int64, uint64, bool) {
		id := b.Int("nanosleep.clockid")
		if id != unix.CLOCK_MONOTONIC && id != unix.CLOCK_BOOTTIME {
			return 0, 0, false // of processor time, say
		}
		return int64(b.Uint("nanosleep.expires")) - now(id), call, true
	}
	switch {
	case is(unix.SYS_CLOCK_NANOSLEEP) && clock && args[1] == 0 && b.Uint("nanosleep.rmtp") == args[3]:
		left, call, ok = sleep(unix.SYS_CLOCK_NANOSLEEP)
	case is(unix.SYS_NANOSLEEP) && pointer && b.Uint("nanosleep.rmtp") == args[1]:
		left, call, ok = sleep(unix.SYS_NANOSLEEP)
	case is(unix.SYS_FUTEX) && pointer && args[1]&futexCmdMask == futexWait && b.Uint("futex.uaddr") == args[0] && b.Uint("futex.val") == args[2]&math.MaxUint32:
		left, call, ok = int64(b.Uint("futex.time"))-now(unix.CLOCK_MONOTONIC), unix.SYS_FUTEX, true
	case is(sys.NrPoll) && b.Uint("poll.ufds") == args[0] && b.Uint("poll.nfds") == args[1]&math.MaxUint32 && b.Int("poll.has_timeout") != 0:
		end := "poll.end_time."
		if !b.Has("poll.end_time") {
			end = "poll."
		}
		left, call, ok = int64(b.Uint(end+"tv_sec"))*1e9+int64(b.Uint(end+"tv_nsec"))-now(unix.CLOCK_MONOTONIC), sys.NrPoll, true
	}
	if err := k.Err(); err != nil {
		return 0, 0, false, fmt.Errorf("thread %d: restart block: %w", tid, err)
	}
	return left, call, ok && left > -int64(time.Hour), nil
}

// Undo is what is taken back from a semaphore when a process ends (semop(2),
// SEM_UNDO).
type Undo struct {
	Set    int32 // the id of the set of semaphores
	Number uint16
	Adjust int16
}

// Undos gives a process's adjustments of System V semaphores, which the kernel
// shows nowhere (struct sem_undo_list, ipc/sem.c). Processes that share their list
// (CLONE_SYSVSEM) have it once. The kernel's memory is looked at only where there
// are semaphores at all.
func (d *Dump) Undos(pid int) (all []Undo, err error) {
	type setsKey struct{}
	sets, err := Value(d, setsKey{}, func() (map[int32]int, error) {
		if sys.SemCount() == 0 {
			return nil, nil
		}
		return semaphoreSets("/proc/sysvipc/sem")
	})
	if err != nil || len(sets) == 0 {
		return nil, err
	}
	k, err := d.Kernel()
	if err != nil {
		return nil, err
	}
	fd, err := d.pidfd(pid)
	if err != nil {
		return nil, err
	}
	l := k.Process(fd, pid).Ptr("sysvsem.undo_list", "sem_undo_list")
	if l.Nil() || k.Err() != nil {
		return nil, nil
	}
	type listKey struct{ addr uint64 }
	if _, seen := d.values[listKey{l.Addr}]; seen {
		return nil, nil
	}
	d.values[listKey{l.Addr}] = true
	for _, at := range k.List(l.Addr+l.Offset("list_proc"), false) {
		u := k.At("list_head", at).Of("sem_undo", "list_proc")
		set := int32(u.Uint("semid"))
		b := k.Bytes(u.Array("semadj"), 2*sets[set])
		for i := 0; i+1 < len(b); i += 2 {
			if v := int16(binary.NativeEndian.Uint16(b[i:])); v != 0 {
				all = append(all, Undo{set, uint16(i / 2), v})
			}
		}
	}
	if err := k.Err(); err != nil {
		return nil, fmt.Errorf("pid %d: adjustments of semaphores: %w", pid, err)
	}
	return all, nil
}

// semaphoreSets reads /proc/sysvipc/sem: the size of each set, by its id.
func semaphoreSets(name string) (map[int32]int, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	sets := map[int32]int{}
	for line := range strings.Lines(string(b)) {
		var key, id, perms, n int
		if c, _ := fmt.Sscan(line, &key, &id, &perms, &n); c == 4 {
			sets[int32(id)] = n
		}
	}
	return sets, err
}
