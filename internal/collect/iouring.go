package collect

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/resource"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// uringAreas finds out which io_uring instance each area shows: all of them have
// the same inode, but each has pages of its own.
func (c *Collector) uringAreas() error {
	var known []resource.UringFrames
	for _, t := range c.Tasks {
		for _, a := range t.urings {
			if known == nil {
				known = c.Files.Urings()
			}
			frame, err := sys.FrameOf(t.At(), a.Start)
			if err != nil {
				return fmt.Errorf("pid %d: area %#x-%#x: %w", t.PID, a.Start, a.End, err)
			}
			id := uint32(0)
			for _, u := range known {
				rings := a.Offset == sys.UringRings || a.Offset == sys.UringCQRing
				if frame != 0 && (rings && frame == u.Rings || a.Offset == sys.UringEntries && frame == u.Entries) {
					id = u.ID
				}
			}
			if id == 0 {
				c.refuse(t, fmt.Sprintf("area %#x-%#x %s", a.Start, a.End, a.RawPath()), "it shows a part of an io_uring instance that is not open as a descriptor in the tree, or not saved", "keep the descriptor open as long as it is used")
				continue
			}
			a.Entry.Shmid = proto.Uint64(uint64(id))
			if c.Files.Polled(id) && t.extra != nil && (t.extra.GetMlockFuture() != 0 || limited(t)) {
				// It is mapped when limits and locks are in force again, and for a
				// moment the whole address space with it.
				c.refuse(t, fmt.Sprintf("area %#x-%#x %s", a.Start, a.End, a.RawPath()), "its instance has a thread of its own (IORING_SETUP_SQPOLL), and the address space is limited (RLIMIT_AS) or locked (MCL_FUTURE)", "do without one of them")
			}
		}
	}
	return nil
}

// limited tells whether a task's address space is.
func limited(t *Task) bool {
	l := t.core.GetTc().GetRlimits().GetRlimits()
	return len(l) > unix.RLIMIT_AS && l[unix.RLIMIT_AS].GetCur() != math.MaxUint64
}

// inThreads is resource.Dump.InThreads. Calls of a task under seccomp would be
// judged, should this process die: they are left out.
func (c *Collector) inThreads(pid int, nr uintptr, args ...uint64) error {
	for _, t := range c.Tasks {
		if t.PID != pid || t.guest == nil {
			continue
		}
		var run []*tracee.Executor
		for _, th := range t.Threads {
			if st := t.status[th.TID]; st == nil || st.Seccomp != 0 {
				continue
			}
			e, err := t.guest.Executor(th)
			if err != nil {
				return err
			}
			e.Reset()
			e.Add(nr, args...)
			e.Start()
			run = append(run, e)
		}
		var first error
		for _, e := range run {
			if err := e.Wait(); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
	return nil
}
