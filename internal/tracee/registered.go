package tracee

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Whether somebody's userfaultfd watches an area is shown by smaps alone, for
// which the kernel walks all page tables of the task; and it may be held by a
// process far away, that answers the task's faults or asks what it writes. So the
// task is made to try to register its areas with a userfaultfd of its own, which
// the kernel refuses with EBUSY where another one has them. It looks at all areas
// of a range in order before it changes any (userfaultfd_register in
// fs/userfaultfd.c), so each range ends at an area that cannot be registered.

// Watched is what is to be found out of one process's areas.
type Watched struct {
	Guest  *Guest
	Thread *Thread
	Ranges []WatchedRange
}

// WatchedRange is one question to the kernel.
type WatchedRange struct {
	Start, End uint64
	// First: it is about the range's first area, and whatever else the kernel
	// answers does not matter. Else it is about all areas up to the last, which is
	// one that can never be made writable (EPERM).
	First bool
}

// Registration is what was found out.
type Registration int

// What Registered tells of a process.
const (
	// RegistrationUnknown: the kernel cannot be asked this way.
	RegistrationUnknown Registration = iota
	// NotRegistered: no userfaultfd has any of the areas.
	NotRegistered
	// SomeRegistered: some userfaultfd has at least one.
	SomeRegistered
)

const (
	// watchedMax is how many ranges one batch asks about.
	watchedMax = undoAt - askFirst - 1
	// WatchedMost is how many may be asked about of one process: a millisecond.
	WatchedMost = 512
)

// Registered tells for each process whether a userfaultfd, whoever holds it, has
// any of its areas.
func Registered(all []Watched) ([]Registration, error) {
	out := make([]Registration, len(all))
	execs := make([]*Executor, len(all))
	var errs []error
	for i, w := range all {
		if len(w.Ranges) == 0 || len(w.Ranges) > WatchedMost {
			continue
		}
		e, err := w.Guest.Executor(w.Thread)
		if err == nil {
			err = step("registered.ask")
		}
		if err != nil {
			errs = append(errs, err)
			break
		}
		askRegistered(e, w.Ranges[:min(len(w.Ranges), watchedMax)])
		execs[i] = e
	}
	for i, e := range execs {
		if e == nil {
			continue
		}
		left := all[i].Ranges
		for {
			now := left[:min(len(left), watchedMax)]
			got, err := toldRegistered(e, now)
			if err != nil {
				errs = append(errs, fmt.Errorf("pid %d: %w", all[i].Guest.PID, err))
			}
			out[i], left = got, left[len(now):]
			if err != nil || got != NotRegistered || len(left) == 0 {
				break
			}
			askRegistered(e, left[:min(len(left), watchedMax)])
		}
	}
	faultpoint.At("registered.asked")
	return out, errors.Join(errs...)
}

// Indices of the calls of ask.
const (
	askMake = iota
	askEnable
	askFirst
)

// askRegistered begins to ask about some ranges.
func askRegistered(e *Executor, ranges []WatchedRange) {
	e.Reset()
	// With WP_ASYNC areas of almost any kind can be registered, so that few end the
	// kernel's look.
	e.Add(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|sys.UffdUserModeOnly)
	e.StopOnError(askMake)
	e.Add(unix.SYS_IOCTL, 0, sys.UffdioAPI, e.Put(sys.UffdEnableArg(sys.UffdWPAsync)))
	e.Use(askEnable, 0, askMake)
	for _, r := range ranges {
		n := e.Add(unix.SYS_IOCTL, 0, sys.UffdioRegister, e.Put(sys.UffdRegisterArg(r.Start, r.End-r.Start, sys.UffdWP)))
		e.Use(n, 0, askMake)
	}
	closing := e.Add(unix.SYS_CLOSE, 0)
	e.Use(closing, 0, askMake)
	// Until the batch has made it, this closes no descriptor.
	e.set(undoAt, unix.SYS_CLOSE, 0)
	e.Use(undoAt, 0, askMake)
	e.undo(1)
	e.Start()
}

// toldRegistered waits for the answers.
func toldRegistered(e *Executor, ranges []WatchedRange) (Registration, error) {
	err := e.Wait()
	e.undo(0)
	switch {
	case err != nil:
		return RegistrationUnknown, err
	case errors.Is(e.Err(askMake), unix.ENOSYS):
		return NotRegistered, nil // there is no such thing
	case e.Err(askMake) != nil, e.Err(askEnable) != nil:
		return RegistrationUnknown, nil
	}
	got := NotRegistered
	for i, r := range ranges {
		switch err := e.Err(askFirst + i); {
		case errors.Is(err, unix.EBUSY):
			return SomeRegistered, nil
		case r.First && (err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM)):
		case !errors.Is(err, unix.EPERM):
			got = RegistrationUnknown
		}
	}
	return got, nil
}

// ReadOnly gives the part of the region that its process cannot ever write; none
// in a process of our own making.
func (r *Region) ReadOnly() (start, end uint64) {
	if r.data == r.addr {
		return 0, 0
	}
	return r.addr, r.data
}
