package tracee

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// How the region gets into a process: one thread maps it by a system call of
// the vdso, whose `ret` then leads into it. That takes eight bytes of stack,
// for a moment.

// ErrNoPlace: the process has no room for the region, or no usable text.
var ErrNoPlace = errors.New("no place for the executor")

// Inject is Prepare that starts the executor in the entrance and waits for it.
func Inject(pid int, t *Thread, n int, maps []procfs.VMA, gad Gadgets, uid, gid uint32, list *sys.RobustList) (*Guest, error) {
	g, err := Prepare(pid, t, n, maps, gad, uid, gid, list)
	if err != nil {
		return nil, err
	}
	if _, err := g.Executor(g.first); err != nil {
		return nil, errors.Join(err, g.Release())
	}
	return g, nil
}

// Prepare makes a region of n slots for a stopped process. The executor that is
// started first, in the Entrance, brings it in: that is t, or another thread
// whose stack suits better. The caller must call Release on every path.
func Prepare(pid int, t *Thread, n int, maps []procfs.VMA, gad Gadgets, uid, gid uint32, list *sys.RobustList) (*Guest, error) {
	n++ // for a thread of our own, see aide
	t.journal().Beat()
	size := uint64(RegionSize(n))
	if err := roomFor(pid, maps, 2*size); err != nil {
		return nil, err
	}
	addr := elsewhere(maps, 2*size)
	if addr == 0 {
		return nil, fmt.Errorf("pid %d: %w: no free range of %d bytes", pid, ErrNoPlace, 2*size)
	}
	g := &Guest{PID: pid, gad: gad, execs: map[*Thread]*Executor{}, maps: maps, bare: -1}
	if g.first = g.entrance(t); g.first == nil {
		return nil, refused(pid, "stack", "no thread has some hundred bytes left below its stack pointer", "try again when the program runs elsewhere")
	}
	r, err := newRegion(n, addr, addr+size, uid, gid, list, t.journal(), pid)
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", pid, err)
	}
	g.Region = r
	return g, nil
}

// Entrance gives the thread that brings the region in.
func (g *Guest) Entrance() *Thread { return g.first }

func refused(pid int, object, why, remedy string) error {
	comm, _ := procfs.ReadComm(pid, 0)
	return &fault.RefusedError{Reasons: []fault.Reason{{PID: pid, Comm: comm, Object: object, Why: why, Remedy: remedy}}}
}

var maxMapCount = sync.OnceValue(func() int {
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	n, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || err2 != nil {
		return 65530
	}
	return n
})

// roomFor refuses where shmat could only fail. It is asked here because a shmat
// that fails is the one thing that a thread would not survive if this process
// died at that moment.
func roomFor(pid int, maps []procfs.VMA, size uint64) error {
	if len(maps)+2 >= maxMapCount() {
		return refused(pid, "address space", fmt.Sprintf("it has %d areas, and the kernel allows no more", len(maps)), "raise the sysctl vm.max_map_count")
	}
	var lim unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_AS, nil, &lim); err != nil || lim.Cur == unix.RLIM_INFINITY {
		return nil // may be another user's, whom only CAP_SYS_RESOURCE lets us ask about
	}
	total := size
	for i := range maps {
		total += maps[i].Len()
	}
	if total > lim.Cur {
		return refused(pid, "address space", fmt.Sprintf("it may not grow by the %d bytes that looking at it takes (RLIMIT_AS is %d)", size, lim.Cur), "raise its limit: prlimit --pid "+strconv.Itoa(pid)+" --as=…")
	}
	return nil
}

// hole gives an address in the largest gap of a memory map, or 0. The middle of
// the gap keeps clear of stacks that grow and of the next mmap.
func hole(maps []procfs.VMA, size uint64) uint64 {
	const low, high = 1 << 16, 1 << 47
	var best, at uint64
	prev := uint64(low)
	gap := func(end uint64) {
		if end > prev && end-prev > best {
			best, at = end-prev, prev
		}
	}
	for i := range maps {
		if maps[i].Start >= high {
			break
		}
		gap(maps[i].Start)
		prev = max(prev, maps[i].End)
	}
	gap(high - sys.PageSize)
	if best < size+2*sys.PageSize {
		return 0
	}
	return (at + (best-size)/2) &^ (sys.PageSize - 1)
}

// elsewhere gives an address in the middle half of that gap, or 0: another one
// for each session, so that nothing an earlier one left on a stack (the frame of
// a handler long returned from, a thread that is late) is taken for this one's.
func elsewhere(maps []procfs.VMA, size uint64) uint64 {
	at := hole(maps, size)
	if at == 0 {
		return 0
	}
	free := ^uint64(0) // around it, on the nearer side
	for i := range maps {
		switch v := &maps[i]; {
		case v.End <= at:
			free = min(free, at-v.End)
		case v.Start >= at+size:
			free = min(free, v.Start-at-size)
		}
	}
	pages := min(free, 1<<40) / 2 / sys.PageSize
	if pages == 0 {
		return at
	}
	return max(at+(rand.Uint64N(2*pages)-pages)*sys.PageSize, 1<<16)
}

// How well some memory suits to be written to for a moment, best first.
const (
	suitsWell = iota // a stack that nothing else lies on
	suitsRoom        // a thread's stack with a guard below, far away
	suitsIdle        // a thread that waits on a futex: Go's do that on stacks of their own
	suitsSome        // memory that the thread may write
	suitsNot
)

// stackGrowth is how far below the main stack's area an address may lie that
// the kernel will still make part of it.
const stackGrowth = 64 << 10

// suits tells how well the bytes [from,to) below a thread's stack pointer suit.
// Coroutines and Go's goroutines have stacks that are heap memory: what lies
// below may be another's. The bytes are put back at once, but a thread that has
// a stack of its own is better.
func (g *Guest) suits(t *Thread, from, to uint64) int {
	for i := range g.maps {
		v := &g.maps[i]
		if v.Path == "[stack]" && from >= v.Start-stackGrowth && to <= v.End {
			return suitsWell
		}
		if from < v.Start || from >= v.End {
			continue
		}
		switch {
		case to > v.End || !v.Read || !v.Write || v.Shared:
			return suitsNot
		case i > 0 && g.maps[i-1].End == v.Start && !g.maps[i-1].Read && !g.maps[i-1].Write && from-v.Start > sys.PageSize:
			return suitsRoom
		case waitsOnFutex(&t.Regs):
			return suitsIdle
		}
		return suitsSome
	}
	return suitsNot
}

// entrance chooses the thread that maps the region: t, unless another one suits
// better. nil when none does.
func (g *Guest) entrance(t *Thread) *Thread {
	rank := func(t *Thread) int {
		at := returnSlot(&t.Regs)
		return g.suits(t, at-8, at+8) // a `leave` reads the word below
	}
	best, least := t, rank(t)
	if t.process != nil && least != suitsWell {
		for _, o := range t.process.Threads {
			if r := rank(o); r < least {
				best, least = o, r
			}
		}
	}
	if least == suitsNot {
		return nil
	}
	return best
}

// lending notes what lend is about to do.
func lending(t *Thread, pid int, at uint64, old, b []byte) *journal.Entry {
	if t.journal() == nil {
		return nil
	}
	return t.journal().AddText(journal.Lent, string(old)+string(b), uint64(pid), at)
}

// lend replaces memory of the process by b and gives what was there. Memory of
// the main stack that is not there yet comes into being.
func lend(pid int, at uint64, b []byte) (old []byte, err error) {
	old = make([]byte, len(b))
	if sys.ReadMem(pid, at, old) == nil && sys.WriteMem(pid, at, b) == nil {
		return old, nil
	}
	// process_vm_writev does not let a stack grow; /proc/PID/mem does.
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.ReadAt(old, int64(at)); err != nil {
		return nil, err
	}
	_, err = f.WriteAt(b, int64(at))
	return old, err
}

// prepare fills a slot with the thread's way home.
func prepare(s *Slot, t *Thread) {
	home(s.mem, t.Regs, t.Mask)
	s.put64(offAlt, s.addr+altOff)
}

// bootstrap sends the first thread into the region, with the batch that its slot
// holds. What it returns, unless it fails, waits until the thread is there.
func (g *Guest) bootstrap(e *Executor) (arrive func() error, err error) {
	failed := func(err error) error {
		g.close(!g.attached)
		return fmt.Errorf("pid %d: thread %d: entering: %w", g.PID, e.TID, err)
	}
	s, t := e.Slot, e.thread
	s.put32(offShmID, uint32(g.Region.ID()))
	s.put32(offFlags, flagRemove)

	// Eight bytes below the thread's own red zone hold the executor's entry for
	// the vdso's `ret`. They lie on the thread's own stack because a signal
	// that is already pending may be delivered the moment the system call ends.
	slot := returnSlot(&t.Regs)
	var entry [8]byte
	second(s.mem, uint64(g.Region.ID()), g.Region.data, s.addr, g.Region.entry())
	le.PutUint64(entry[:], s.code+secondOff)
	old := s.mem[lendOff : lendOff+8]
	if err := sys.ReadMem(g.PID, slot, old); err != nil {
		clear(old) // stack that is not there yet
	}
	s.put64(offLendDst, slot)
	s.put64(offLendLen, 8)
	s.put64(offLendSrc, s.addr+lendOff)
	debt := lending(t, g.PID, slot, old, entry[:])
	settle := func() {
		if debt != nil {
			debt.Done()
		}
	}
	defer func() {
		if err != nil {
			settle()
			err = failed(err)
		}
	}()
	if err := step("bootstrap.lend"); err != nil {
		return nil, err
	}
	was, err := lend(g.PID, slot, entry[:])
	if err != nil {
		return nil, fmt.Errorf("return address at %#x: %w", slot, err)
	}
	undo := func() error {
		if err := t.restore(); err != nil {
			g.attached = true // it will be, and the thread comes home through it
			debt = nil
			return err
		}
		return sys.WriteMem(g.PID, slot, was)
	}
	r := attachRegs(t.Regs, &g.gad, uint64(g.Region.ID()), g.Region.addr, sys.ShmExec|sys.ShmRdonly, slot)
	// Registers first, the mask second: the other order could lose the mask.
	if err := step("bootstrap.registers"); err != nil {
		return nil, errors.Join(err, undo())
	}
	if err := sys.SetRegs(t.TID, &r); err != nil {
		return nil, errors.Join(err, undo())
	}
	if err := step("bootstrap.mask"); err != nil {
		return nil, errors.Join(err, undo())
	}
	if err := sys.SetSigmask(t.TID, ^uint64(0)); err != nil {
		return nil, errors.Join(err, undo())
	}
	if err := step("bootstrap.go"); err != nil {
		return nil, errors.Join(err, undo())
	}
	if err := sys.Cont(t.TID, 0); err != nil {
		return nil, errors.Join(err, undo())
	}
	faultpoint.At("bootstrap.runs")
	return func() (err error) {
		defer func() {
			settle()
			if err != nil {
				delete(g.execs, t)
				err = failed(err)
			}
		}()
		if err := e.wait(); err != nil {
			if e.halted {
				// The segment could not be attached: the thread ran into its return
				// address, where nothing is mapped, or into a slot that cannot be
				// written, and that is where it stands.
				g.attached = s.mapped(g.PID)
				return errors.Join(err, undo())
			}
			g.attached = true // perhaps, and perhaps it still has what was lent
			debt = nil
			return err
		}
		faultpoint.At("bootstrap.entered")
		g.attached = true
		return nil
	}, nil
}

// mapped tells whether a slot can be read in a process.
func (s *Slot) mapped(pid int) bool {
	var b [8]byte
	return sys.ReadMem(pid, s.code, b[:]) == nil
}

// Seat gives the executor of a stopped thread of the guest. Unless it runs there
// already, Start sends the thread into it, with a batch that may have been
// written before: the Entrance's has to have been waited for before another is
// started.
func (g *Guest) Seat(t *Thread) (*Executor, error) {
	if e := g.execs[t]; e != nil {
		return e, nil
	}
	if g.Region == nil || g.next >= g.Region.Slots() {
		return nil, fmt.Errorf("pid %d: no slot left for thread %d", g.PID, t.TID)
	}
	e := &Executor{Slot: g.Region.Slot(g.next), TID: t.TID, thread: t}
	g.next++
	prepare(e.Slot, t)
	e.launch = func() (func() error, error) {
		g.execs[t] = e
		var arrive func() error
		var err error
		if g.attached {
			err = g.enter(e)
		} else {
			arrive, err = g.bootstrap(e)
		}
		if err != nil {
			delete(g.execs, t)
		}
		return arrive, err
	}
	return e, nil
}

// enter sends another thread into the region.
func (g *Guest) enter(e *Executor) error {
	s, t := e.Slot, e.thread
	if t.process != nil && t.process.PID != g.PID && !g.sharers[t.process.PID] {
		// A task of another process in the same address space.
		if g.sharers == nil {
			g.sharers = map[int]bool{}
		}
		g.sharers[t.process.PID] = true
		g.debts = append(g.debts, t.journal().Add(journal.Sharer, uint64(t.process.PID), uint64(g.Region.key)))
	}
	entry := g.Region.entry()
	if g.bare >= 0 {
		second(s.mem, uint64(g.bare), g.Region.data, s.addr, entry)
		entry = s.code + secondOff
		g.bare = -1
	}
	r := enterRegs(t.Regs, entry, s.addr)
	fail := func(err error) error {
		return errors.Join(fmt.Errorf("thread %d: %w", t.TID, err), t.restore())
	}
	if err := step("enter.registers"); err != nil {
		return fail(err)
	}
	if err := sys.SetRegs(t.TID, &r); err != nil {
		return fail(err)
	}
	if err := step("enter.mask"); err != nil {
		return fail(err)
	}
	if err := sys.SetSigmask(t.TID, ^uint64(0)); err != nil {
		return fail(err)
	}
	if err := step("enter.go"); err != nil {
		return fail(err)
	}
	if err := sys.Cont(t.TID, 0); err != nil {
		return fail(err)
	}
	faultpoint.At("enter.runs")
	return nil
}
