package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

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
		r, err := kmem.Open()
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
