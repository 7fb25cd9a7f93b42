package tracee

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/sys"
)

// A snapshot is a process whose memory is a copy-on-write copy of a target's,
// made by fork(2) in the target's own shoes. It never runs the program; it
// stands still to be read, and ends with its tracer.
//
// The target must not see that it had a child. So it makes an intermediate that
// shares its memory (CLONE_VM: no page table is copied), gives up everything
// else that it has of the target's (descriptors, session, process group, working
// directory), makes the snapshot and ends: init, or a subreaper outside the tree,
// is the snapshot's parent then. For the moment of that end the target ignores SIGCHLD, so the
// kernel takes the intermediate away by itself, without a signal, a zombie or a
// sum in the target's times (do_notify_parent in kernel/signal.c). A SIGCHLD
// that is already queued would be thrown away by changing the disposition
// (do_sigaction): it is taken out before and queued again afterwards.
//
// Should the controller die, each of the three finds its own way: the snapshot
// ends; the intermediate waits for that and for the target; the target runs the
// same calls as its undo list.

// SnapshotRoom is how many slots a region needs for a snapshot to be made.
const SnapshotRoom = 2

// A Snapshot stands for the memory that a process had.
type Snapshot struct {
	PID  int
	done bool
}

// Subject is a process of which a snapshot is to be made, or that adopts
// orphans.
type Subject struct {
	Guest     *Guest
	Thread    *Thread // of the process, any
	Subreaper bool    // PR_SET_CHILD_SUBREAPER is on
	// Snapshot says that one is to be made of its memory.
	Snapshot bool
	// Drop are areas that the snapshot does without from the beginning.
	Drop [][2]uint64
}

// shot is a snapshot on its way.
type shot struct {
	Subject
	t    *Executor // in the target
	mid  *Executor // the intermediate, nil once it has ended
	copy *Executor
	out  *Snapshot

	gate                      uint64
	set, zero, ign, old, open uint64
	info                      [2]uint64
	// midOn: it was let go into its slot and was not waited for. Until it has got
	// there it reads the batch that made it, in its maker's slot.
	midOn bool
}

const (
	sigchld     = 1 << (unix.SIGCHLD - 1)
	gateTimeout = 2 // seconds: for how long an intermediate waits for its parent, whose end is near
	nowhere     = 1<<31 - 1
	unshareAll  = 1 << 1 // CLOSE_RANGE_UNSHARE
)

// ErrNoSnapshot: a snapshot cannot be made of a process, or not without the
// process noticing.
var ErrNoSnapshot = errors.New("no snapshot of its memory")

// CanSnapshot tells whether a snapshot can be made of a process without it
// noticing, and if not, why.
func CanSnapshot(t *Thread) error {
	for _, th := range t.process.Threads {
		for i := range th.Pending {
			if th.Pending[i].Signo() == int(unix.SIGCHLD) {
				return fmt.Errorf("%w: a SIGCHLD waits for thread %d alone", ErrNoSnapshot, th.TID)
			}
		}
	}
	return nil
}

// Snapshots makes a snapshot of each subject that wants one, all from the same
// frozen instant; subjects must name every subreaper of the tree. The result has
// one entry for each subject. On an error none is left.
func Snapshots(subjects []Subject) (_ []*Snapshot, err error) {
	shots := make([]*shot, len(subjects))
	for i, s := range subjects {
		e, err := s.Guest.Executor(s.Thread)
		if err != nil {
			return nil, err
		}
		shots[i] = &shot{Subject: s, t: e}
	}
	defer func() {
		// Whatever happened, no intermediate may stay, and every disposition
		// must be what it was.
		if e := finish(shots); e != nil {
			err = errors.Join(err, e)
		}
		if err != nil {
			for _, s := range shots {
				err = errors.Join(err, s.out.Close())
			}
		}
	}()
	if err := each(shots, (*shot).ask, (*shot).asked); err != nil {
		return nil, err
	}
	if err := each(shots, (*shot).split, (*shot).splitDone); err != nil {
		return nil, err
	}
	// This is what takes time: the kernel copies the page tables, on every
	// processor it has.
	if err := each(shots, (*shot).fork, (*shot).forked); err != nil {
		return nil, err
	}
	if err := each(shots, (*shot).drop, (*shot).dropped); err != nil {
		return nil, err
	}
	out := make([]*Snapshot, len(shots))
	for i, s := range shots {
		out[i] = s.out
	}
	return out, nil
}

// each begins a step with every shot before it waits for the first. All that
// were begun are waited for.
func each(shots []*shot, begin, end func(*shot) error) error {
	var errs []error
	begun := 0
	for _, s := range shots {
		if err := begin(s); err != nil {
			errs = append(errs, err)
			break
		}
		begun++
	}
	for _, s := range shots[:begun] {
		if err := end(s); err != nil {
			errs = append(errs, fmt.Errorf("pid %d: %w", s.Guest.PID, err))
		}
	}
	return errors.Join(errs...)
}

// again begins a new batch and keeps the data of earlier ones.
func (s *Slot) again() { s.n = 0 }

// ask has the target tell its disposition of SIGCHLD, and writes the undo list.
func (s *shot) ask() error {
	s.t.Reset()
	s.old, _ = s.t.Data(32)
	s.gate, _ = s.t.Data(16)
	var b [8]byte
	le.PutUint64(b[:], sigchld)
	s.set = s.t.Put(b[:])
	s.zero, _ = s.t.Data(16)
	var limit []byte
	s.open, limit = s.t.Data(16)
	le.PutUint64(limit, gateTimeout)
	var ign []byte
	s.ign, ign = s.t.Data(32)
	le.PutUint64(ign, 1) // SIG_IGN
	s.info[0], _ = s.t.Data(128)
	s.info[1], _ = s.t.Data(128)
	s.t.Add(unix.SYS_RT_SIGACTION, uint64(unix.SIGCHLD), 0, s.old, 8)
	s.t.Start()
	return nil
}

func (s *shot) asked() error {
	if err := s.t.Wait(); err != nil {
		return err
	}
	if err := s.t.Err(0); err != nil {
		return fmt.Errorf("rt_sigaction: %w", err)
	}
	n := undoAt
	if s.Snapshot {
		n = s.leave(undoAt, nowhere)
	}
	if s.Subreaper {
		s.t.set(n, unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1)
		n++
	}
	s.t.undo(n - undoAt)
	return nil
}

// leave writes the calls, from index i on, with which the target lets the
// intermediate end: SIGCHLD is ignored, the gate is opened, and everything is
// as before when it is gone. It gives the index behind them.
func (s *shot) leave(i int, mid uint64) int {
	add := func(nr uintptr, args ...uint64) int {
		s.t.set(i, nr, args...)
		i++
		return i - 1
	}
	use := func(call, arg, from int) { s.t.Use(call, arg, from) }
	self := add(unix.SYS_GETTID) // whom a thread may queue anything
	first := add(unix.SYS_RT_SIGTIMEDWAIT, s.set, s.info[0], s.zero, 8)
	add(unix.SYS_RT_SIGACTION, uint64(unix.SIGCHLD), s.ign, 0, 8)
	add(unix.SYS_CLOCK_GETTIME, unix.CLOCK_REALTIME, s.gate) // not 0 any more
	add(unix.SYS_FUTEX, s.gate, futexWake, 1)
	add(unix.SYS_WAIT4, mid, 0, unix.WALL, 0)
	second := add(unix.SYS_RT_SIGTIMEDWAIT, s.set, s.info[1], s.zero, 8)
	add(unix.SYS_RT_SIGACTION, uint64(unix.SIGCHLD), s.old, 0, 8)
	for k, from := range []int{first, second} {
		// Where nothing was queued the number is an error's, and nothing is.
		q := add(unix.SYS_RT_SIGQUEUEINFO, 0, 0, s.info[k])
		use(q, 0, self)
		use(q, 1, from)
	}
	return i
}

const (
	midWaits  = 5 // index of wait4 in leave
	futexWait = 0
	futexWake = 1
)

// exits makes a slot's executor end its process when it goes home.
func (s *shot) exits(slot *Slot) {
	home(slot.mem, exitRegs(s.Thread.Regs, &s.Guest.gad), ^uint64(0))
}

// slot gives a slot that is free until the region goes.
func (g *Guest) slot() (*Slot, error) {
	if g.next >= g.Region.Slots() {
		return nil, fmt.Errorf("pid %d: no slot left", g.PID)
	}
	g.next++
	return g.Region.Slot(g.next - 1), nil
}

// split starts the intermediate.
func (s *shot) split() error {
	if !s.Snapshot {
		return nil
	}
	slot, err := s.Guest.slot()
	if err != nil {
		return err
	}
	s.exits(slot)
	slot.set(undoAt, unix.SYS_FUTEX, s.gate, futexWait, 0, s.open)
	slot.set(undoAt+1, unix.SYS_WAIT4, ^uint64(0), 0, unix.WALL, 0)
	slot.undo(2)
	if err := step("snapshot.split"); err != nil {
		return err
	}
	s.mid = &Executor{Slot: slot}
	s.t.again()
	const flags = unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_PTRACE | unix.CLONE_PARENT_SETTID | uint64(unix.SIGCHLD)
	n := s.t.spawn(flags, 0, slot.addr)
	// The kernel itself writes whom the undo list waits for.
	le.PutUint64(s.t.mem[offCalls+n*callSize+16+8*2:], s.t.argument(undoAt+midWaits, 0))
	s.t.Start()
	return nil
}

func (s *shot) splitDone() error {
	if !s.Snapshot {
		return nil
	}
	mid := s.mid
	s.mid = nil
	if err := s.t.Wait(); err != nil {
		return err
	}
	if err := s.t.Err(0); err != nil {
		return fmt.Errorf("%w: clone: %w", ErrNoSnapshot, err)
	}
	s.mid = mid
	s.mid.TID = int(s.t.Result(0))
	faultpoint.At("snapshot.split.done")
	if err := s.mid.stop(); err != nil {
		return err
	}
	s.mid.halted = false
	s.midOn = true
	return sys.Cont(s.mid.TID, 0)
}

// settled waits until the intermediate is in its slot.
func (s *shot) settled() error {
	if !s.midOn {
		return nil
	}
	s.midOn = false
	return s.mid.Wait()
}

// fork starts the snapshot.
func (s *shot) fork() error {
	if !s.Snapshot {
		return nil
	}
	if err := s.settled(); err != nil {
		return err
	}
	slot, err := s.Guest.slot()
	if err != nil {
		return err
	}
	s.exits(slot)
	if err := step("snapshot.fork"); err != nil {
		return err
	}
	s.copy = &Executor{Slot: slot}
	m := s.mid
	m.Reset()
	m.Add(unix.SYS_CLOSE_RANGE, 0, 1<<32-1, unshareAll)
	m.StopOnError(midCloses)
	m.Add(unix.SYS_SETSID)
	m.StopOnError(midLeaves)
	m.Add(unix.SYS_CHDIR, m.PutString("/"))
	m.Add(unix.SYS_PRCTL, unix.PR_SET_NAME, m.PutString("fermata-memory"))
	m.spawn(unix.CLONE_FILES|unix.CLONE_FS|unix.CLONE_PTRACE, 0, slot.addr)
	m.Start()
	return nil
}

// Indices of the calls with which the intermediate makes the snapshot.
const (
	midCloses = 0
	midLeaves = 1
	midForks  = 4
)

func (s *shot) forked() error {
	if !s.Snapshot {
		return nil
	}
	m := s.mid
	if err := m.Wait(); err != nil {
		return err
	}
	for i := midCloses; i <= midLeaves; i++ {
		if err := m.Err(i); err != nil {
			return fmt.Errorf("snapshot: %s: %w", m.Describe(i), err)
		}
	}
	if err := m.Err(midForks); err != nil {
		return fmt.Errorf("%w: clone: %w", ErrNoSnapshot, err)
	}
	s.copy.TID = int(m.Result(midForks))
	s.out = &Snapshot{PID: s.copy.TID}
	faultpoint.At("snapshot.forked")
	// It stays in the stop that it is born in; nothing is left for it to do.
	if err := s.copy.stop(); err != nil {
		return err
	}
	return sys.SetOptions(s.copy.TID, sys.OptTraceSysgood|sys.OptExitKill)
}

// drop takes from the snapshot the areas that it does without.
func (s *shot) drop() error {
	if !s.Snapshot || len(s.Drop) == 0 {
		return nil
	}
	e := s.copy
	e.Reset()
	for _, d := range s.Drop {
		if !e.Room(1, 0) {
			break
		}
		e.Add(unix.SYS_MUNMAP, d[0], d[1]-d[0])
	}
	e.halted = false
	if err := sys.Cont(e.TID, 0); err != nil {
		return err
	}
	// Until it has got into its slot it reads the batch that made it.
	if err := e.Wait(); err != nil {
		return err
	}
	e.Start()
	return nil
}

func (s *shot) dropped() error {
	if !s.Snapshot || len(s.Drop) == 0 {
		return nil
	}
	if err := s.copy.Wait(); err != nil {
		return err
	}
	return Halt(s.copy)
}

// finish ends the intermediates and takes back what was changed for that.
func finish(shots []*shot) error {
	reapers := func(on uint64) error {
		return each(shots, func(s *shot) error {
			if s.Subreaper {
				s.t.again()
				s.t.Add(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, on)
				s.t.Start()
			}
			return nil
		}, func(s *shot) error {
			if s.Subreaper {
				return s.t.Wait()
			}
			return nil
		})
	}
	var err error
	for _, s := range shots {
		// The target's slot is written anew now.
		err = errors.Join(err, s.settled())
	}
	err = errors.Join(err, reapers(0))
	err = errors.Join(err, each(shots, (*shot).end, (*shot).ended))
	err = errors.Join(err, reapers(1))
	for _, s := range shots {
		s.t.undo(0)
	}
	faultpoint.At("snapshot.finished")
	return err
}

func (s *shot) end() error {
	if s.mid == nil {
		return nil
	}
	faultpoint.At("snapshot.end")
	s.mid.Reset()
	s.mid.Add(unix.SYS_FUTEX, s.gate, futexWait, 0, s.open)
	s.mid.Add(unix.SYS_EXIT_GROUP, 0)
	s.mid.Start()
	s.t.again()
	for n := s.leave(0, uint64(s.mid.TID)); s.t.n < n; s.t.n++ {
	}
	s.t.Start()
	return nil
}

func (s *shot) ended() error {
	if s.mid == nil {
		return nil
	}
	tid := s.mid.TID
	s.mid = nil
	for {
		st, err := sys.Wait(tid)
		if err != nil {
			return fmt.Errorf("thread %d: wait: %w", tid, err)
		}
		if st.Exited() || st.Signaled() {
			break
		}
		if err := sys.Cont(tid, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
	}
	faultpoint.At("snapshot.ended")
	return s.t.Wait()
}

// Expendable makes the snapshot the first to go where memory runs out.
func (s *Snapshot) Expendable() {
	if s != nil {
		// Without it the kernel weighs it as it does the target.
		_ = os.WriteFile("/proc/"+strconv.Itoa(s.PID)+"/oom_score_adj", []byte("1000"), 0)
	}
}

// Close ends the snapshot and gives its memory back. It is harmless to call
// twice, and on nil.
func (s *Snapshot) Close() error {
	if s == nil || s.done {
		return nil
	}
	s.done = true
	faultpoint.At("snapshot.close")
	if err := unix.Kill(s.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("snapshot %d: %w", s.PID, err)
	}
	for {
		st, err := sys.WaitSched(s.PID)
		if err != nil || st.Exited() || st.Signaled() {
			return nil // somebody else may have ended it
		}
	}
}
