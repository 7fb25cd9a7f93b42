package tracee

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/sys"
)

// A region is one shared segment: a header page, a code page, and slots. Each
// thread that runs the executor has a slot of its own.
//
// A program's address space gets two views of it, one behind the other: the
// first can be read and executed, the second read and written. Memory that is
// writable and executable at once a process may have forbidden itself
// (PR_SET_MDWE), which nothing tells from outside; and a shmat that fails is the
// one thing that a thread would not survive without us. Processes of our own
// making have one view that can do all.
const (
	headerSize = 4096
	codeOff    = headerSize
	slotsOff   = headerSize + 4096
	// SlotSize is the size of one slot in bytes.
	SlotSize = 64 << 10

	// Header: the robust futex.
	robustLinkOff = 0x10
	ownerOff      = 0x18
)

// Offsets inside a slot; executor_amd64.s knows them too.
const (
	offCount    = 0x00 // calls in the batch
	offLeft     = 0x08 // calls not run, after a stop on error
	offOwner    = 0x10 // address of the owner word in the task
	offSeq      = 0x18 // bumped to hand over
	offLastSeq  = 0x1c
	offDone     = 0x20 // set by the executor when it is parked
	offPhase    = 0x24
	phaseParked = 2
	offUndoN    = 0x28
	offUndo     = 0x30
	offAlt      = 0x38 // address that the alternate stack is noted at, or 0
	offMask     = 0x40 // the mask while the executor runs: everything blocked
	offLendDst  = 0x48
	offLendLen  = 0x50
	offLendSrc  = 0x58
	offShmID    = 0x60
	offFlags    = 0x64
	offWaitv    = 0x68
	offCalls    = 0x100
	callSize    = 80
	dataOff     = 0x8000
	dataEnd     = 0xb000
	homeOff     = 0xc000 // the way home: code, and what it loads
	homeDataOff = 0xc100
	secondOff   = 0xc400 // code that maps the second view
	lendOff     = 0x98
	altOff      = 0xa0
	offHome     = 0xb8 // address of the way home
	maxCalls    = (dataOff - offCalls) / callSize
	flagRemove  = 1
	stopOnError = 1
	bornFlag    = 2
	goesWith    = 4
)

// MaxCalls is how many calls one batch can hold; DataSize how many bytes of
// data.
const (
	MaxCalls = maxCalls
	DataSize = dataEnd - dataOff
)

var le = binary.LittleEndian

// Slot is one thread's share of a region: the batch being written, the data its
// calls point to, and their results.
type Slot struct {
	mem  []byte
	addr uint64 // of the slot in the task, where it can be written
	code uint64 // of the slot in the task, where it can be executed
	n    int
	data int
}

// Reset empties the batch.
func (s *Slot) Reset() { s.n, s.data = 0, dataOff }

// Len gives how many calls the batch holds.
func (s *Slot) Len() int { return s.n }

// Room tells whether n more calls and data bytes fit.
func (s *Slot) Room(n, data int) bool {
	return s.n+n <= maxCalls && s.data+data+8 <= dataEnd
}

// Add appends a system call to the batch and gives its index.
func (s *Slot) Add(nr uintptr, args ...uint64) int {
	if s.n >= maxCalls {
		// A batch that does not fit is a mistake of the caller, who has Room.
		panic("tracee: batch overflow")
	}
	s.set(s.n, nr, args...)
	s.n++
	return s.n - 1
}

// set writes the call at an index.
func (s *Slot) set(i int, nr uintptr, args ...uint64) {
	o := offCalls + i*callSize
	c := s.mem[o : o+callSize]
	le.PutUint64(c[0:], uint64(nr))
	le.PutUint64(c[8:], 0)
	for i := range 6 {
		var v uint64
		if i < len(args) {
			v = args[i]
		}
		le.PutUint64(c[16+8*i:], v)
	}
	le.PutUint64(c[64:], uint64(int64(notRun)))
	le.PutUint64(c[72:], 0)
}

// undoAt is where in the list of calls the undo list begins: behind every batch
// that runs while there is one, whose results its calls may refer to.
const undoAt = 64

// undo makes the executor run the n calls from undoAt on before it goes home,
// should the controller die; 0 makes it run none.
func (s *Slot) undo(n int) {
	s.put64(offUndo, s.addr+offCalls+undoAt*callSize)
	atomic.StoreUint32(s.word(offUndoN), uint32(n))
}

// argument gives where in the task argument arg of the call at an index is.
func (s *Slot) argument(i, arg int) uint64 {
	return s.addr + uint64(offCalls+i*callSize+16+8*arg)
}

// notRun is the result of a call that a stop on error left out.
var notRun = -int64(unix.ECANCELED)

// Use makes argument arg (0 to 5) of a call the result of an earlier one, which
// may lie at most 255 calls back.
func (s *Slot) Use(call, arg, from int) {
	if call-from <= 0 || call-from > 255 {
		panic("tracee: back reference out of reach")
	}
	s.mem[offCalls+call*callSize+8+arg] = byte(call - from)
}

// StopOnError makes the batch end at a call that fails.
func (s *Slot) StopOnError(call int) { s.mem[offCalls+call*callSize+72] |= stopOnError }

// GoWith makes a call go with the one before it: where that was run it is too,
// though the controller has died. Both must be in the same batch.
func (s *Slot) GoWith(call int) { s.mem[offCalls+call*callSize+72] |= goesWith }

// goesWith tells whether a call goes with the one before it.
func (s *Slot) goesWith(call int) bool { return s.mem[offCalls+call*callSize+72]&goesWith != 0 }

// spawn appends a clone(2) whose child, a thread that starts with the stack
// pointer sp, is another slot's executor.
func (s *Slot) spawn(flags, sp, slot uint64) int {
	n := s.Add(unix.SYS_CLONE, flags, sp, 0, 0, 0, slot)
	s.mem[offCalls+n*callSize+72] |= bornFlag
	return n
}

// Result gives what a call returned, negative errno and all.
func (s *Slot) Result(call int) int64 {
	return int64(le.Uint64(s.mem[offCalls+call*callSize+64:]))
}

// Err gives the error of a call, or nil.
func (s *Slot) Err(call int) error {
	if r := s.Result(call); r < 0 && r > -4096 {
		return unix.Errno(-r)
	}
	return nil
}

// Describe gives a call's number and arguments, for error messages.
func (s *Slot) Describe(call int) string {
	o := offCalls + call*callSize
	f := func(i int) uint64 { return le.Uint64(s.mem[o+16+8*i:]) }
	return fmt.Sprintf("system call %d(%#x, %#x, %#x, %#x, %#x, %#x)", le.Uint64(s.mem[o:]), f(0), f(1), f(2), f(3), f(4), f(5))
}

// Data reserves n bytes (8-aligned, zeroed) that calls can point to: the
// address in the task and the bytes here.
func (s *Slot) Data(n int) (uint64, []byte) {
	at := (s.data + 7) &^ 7
	if at+n > dataEnd {
		panic("tracee: batch data overflow")
	}
	s.data = at + n
	b := s.mem[at : at+n : at+n]
	clear(b)
	return s.addr + uint64(at), b
}

// Put copies b into the data area and gives its address in the task.
func (s *Slot) Put(b []byte) uint64 {
	a, d := s.Data(len(b))
	copy(d, b)
	return a
}

// PutString is Put of a string with a NUL behind it.
func (s *Slot) PutString(v string) uint64 {
	a, d := s.Data(len(v) + 1)
	copy(d, v)
	return a
}

func (s *Slot) put64(off int, v uint64) { le.PutUint64(s.mem[off:], v) }
func (s *Slot) put32(off int, v uint32) { le.PutUint32(s.mem[off:], v) }
func (s *Slot) word(off int) *uint32    { return sys.Word(s.mem, off) }

// init writes the control block; the slot is then ready for an executor.
func (s *Slot) init(owner uint64) {
	clear(s.mem[:offCalls])
	s.put64(offOwner, owner)
	s.put64(offMask, ^uint64(0))
	s.put64(offHome, s.code+homeOff)
	s.Reset()
}

func (s *Slot) start() {
	s.arm()
	sys.FutexWake(s.word(offSeq), 1)
}

// arm hands the batch over to an executor that is not there yet: it begins with
// it as soon as it is.
func (s *Slot) arm() {
	s.put64(offCount, uint64(s.n))
	atomic.AddUint32(s.word(offSeq), 1)
}

// idle tells whether the executor is parked and has run what was handed over.
// It enters the phase of a batch before it notes that it has taken it.
func (s *Slot) idle() bool {
	return atomic.LoadUint32(s.word(offLastSeq)) == atomic.LoadUint32(s.word(offSeq)) && s.Phase() == phaseParked
}

// parked waits until the executor is idle, at most d; false means not yet.
func (s *Slot) parked(d time.Duration, sched bool) bool {
	w := s.word(offDone)
	var end time.Time
	for {
		// The word only ends the sleep. It is cleared first: a wake that comes
		// after the look is not missed.
		atomic.StoreUint32(w, 0)
		if s.idle() {
			return true
		}
		if end.IsZero() {
			end = time.Now().Add(d)
		}
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		_ = sys.FutexWait(w, 0, left, sched)
	}
}

// Phase tells where the executor is, for error messages.
func (s *Slot) Phase() uint32 { return atomic.LoadUint32(s.word(offPhase)) }

// Region is a shared segment with its slots, mapped here and, once a thread
// attached it, in a task.
type Region struct {
	shm   *sys.Shm
	addr  uint64 // in the task(s)
	data  uint64 // of the view that can be written: addr, or behind the first
	slots int
	list  *sys.RobustList
	key   int32
	debt  *journal.Entry // crossed out when no task has the region any more
}

// NewRegion makes a segment of n slots for address addr of the task, which only
// uid and gid may attach. The calling OS thread becomes its owner through list
// (nil for tasks that die with their tracer).
func NewRegion(n int, addr uint64, uid, gid uint32, list *sys.RobustList) (*Region, error) {
	return newRegion(n, addr, addr, uid, gid, list, nil, 0)
}

// newRegion is NewRegion, with the second view at data, that notes in j that pid
// is to get the region.
func newRegion(n int, addr, data uint64, uid, gid uint32, list *sys.RobustList, j *journal.Journal, pid int) (*Region, error) {
	if len(executorCode) == 0 {
		return nil, sys.ErrArch
	}
	owner := unix.Gettid()
	if list != nil {
		var err error
		if list, err = list.Room(); err != nil {
			return nil, fmt.Errorf("robust list: %w", err)
		}
		owner = list.TID()
	}
	r := &Region{addr: addr, data: data, slots: n, list: list}
	// Under a key that was noted before the segment is there: whatever happens
	// to us, it can be found.
	for {
		r.key = int32(rand.Uint32N(1<<31-1) + 1)
		r.debt = j.Add(journal.Region, uint64(pid), uint64(r.key), addr, uint64(RegionSize(n)))
		err := step("region.make")
		if err == nil {
			r.shm, err = sys.NewShm(r.key, RegionSize(n), uid, gid)
		}
		if err == nil {
			break
		}
		r.debt.Done()
		if err != unix.EEXIST {
			return nil, fmt.Errorf("shared segment of %d bytes: %w", RegionSize(n), err)
		}
	}
	r.debt.Set(4, uint64(r.shm.ID)+1)
	faultpoint.At("region.made")
	r.own(owner)
	faultpoint.At("region.owned")
	return r, nil
}

// own writes the executor's code and who owns it.
func (r *Region) own(tid int) {
	copy(r.shm.Mem[codeOff:], executorCode)
	le.PutUint32(r.shm.Mem[ownerOff:], uint32(tid)|sys.FutexWaiters)
	if r.list != nil {
		r.list.Add(r.shm.Mem[robustLinkOff : robustLinkOff+8])
	}
}

// RegionSize gives the bytes that a region of n slots takes.
func RegionSize(n int) int { return slotsOff + n*SlotSize }

// RobustOffset is the distance from a region's robust link to its owner word,
// for sys.NewRobustList.
const RobustOffset = ownerOff - robustLinkOff

// span gives how many bytes of a task's address space the region takes from its
// address on: one view, or two.
func (r *Region) span() uint64 { return r.data - r.addr + r.Size() }

// Addr gives where the region lies in the task.
func (r *Region) Addr() uint64 { return r.addr }

// Size gives the region's bytes.
func (r *Region) Size() uint64 { return uint64(RegionSize(r.slots)) }

// ID gives the segment's id.
func (r *Region) ID() int { return r.shm.ID }

// Slots gives how many slots there are.
func (r *Region) Slots() int { return r.slots }

func (r *Region) entry() uint64 { return r.addr + codeOff }

// Slot gives slot i, ready for an executor.
func (r *Region) Slot(i int) *Slot {
	o := slotsOff + i*SlotSize
	s := &Slot{mem: r.shm.Mem[o : o+SlotSize : o+SlotSize], addr: r.data + uint64(o), code: r.addr + uint64(o)}
	s.init(r.data + ownerOff)
	return s
}

// Close unlinks the robust futex, and removes and unmaps the segment here. A
// task that still maps it keeps it, and an executor that is still in it goes
// home, as if this thread had died.
func (r *Region) Close() {
	if r.shm != nil {
		r.shm.Remove()
		r.abandon()
	}
}

// abandon is Close of a region that a thread may be on its way to: the segment
// stays for it.
func (r *Region) abandon() {
	if r.list != nil {
		w := sys.Word(r.shm.Mem, ownerOff)
		atomic.StoreUint32(w, atomic.LoadUint32(w)|sys.FutexOwnerDied)
		sys.FutexWake(w, 1<<31-1)
		r.list.Remove(r.shm.Mem[robustLinkOff : robustLinkOff+8])
	}
	faultpoint.At("region.unlinked")
	r.shm.Unmap()
	r.shm = nil
}
