package resource

import (
	"fmt"

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
