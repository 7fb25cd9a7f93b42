package tracee

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// What a guardian needs: to see that no thread is in a region whose controller
// has died, and to take that region away.

// Place is where a dead controller's region lies, or should have lain.
type Place struct {
	Addr, Size uint64
	ID         int // of the segment, -1 when it is gone
	Maps       []procfs.VMA
	Gadgets    Gadgets
}

// stackLook is how much of a stack is searched for what will return into a
// region.
const stackLook = 64 << 10

// holds tells whether a stopped thread is in the region, on its way there, or
// in a signal handler that will return to either.
func (p *Place) holds(t *Thread) bool {
	at, sp := placeOf(&t.Regs)
	if at-p.Addr < p.Size || entering(&t.Regs, p.ID, p.Addr) {
		return true
	}
	// Between the system call and its `ret` into the region; a `leave` before it
	// takes the stack pointer to where it is.
	var b8 [8]byte
	if at-p.Gadgets.Syscall < gadgetMax && sys.ReadMem(t.TID, sp, b8[:]) == nil && le.Uint64(b8[:])-p.Addr < p.Size {
		return true
	}
	end := sp + stackLook
	for i := range p.Maps {
		if v := &p.Maps[i]; sp >= v.Start && sp < v.End {
			end = min(end, v.End)
		}
	}
	sp = (sp + 7) &^ 7
	if end <= sp {
		return false
	}
	b := make([]byte, end-sp)
	if sys.ReadMem(t.TID, sp, b) != nil {
		return false
	}
	for at := 0; at+8 <= len(b); at += 8 {
		v := le.Uint64(b[at:])
		if (v-p.Addr < p.Size || v == p.Gadgets.Syscall) && savedPC(b, at, &t.Regs) {
			return true
		}
	}
	return false
}

// Uses tells whether a thread of a frozen tree stands on some memory with its
// stack pointer.
func (t *Tree) Uses(addr, size uint64) bool {
	for _, p := range t.Processes {
		for _, th := range p.Threads {
			if _, sp := placeOf(&th.Regs); sp-addr < size {
				return true
			}
		}
	}
	return false
}

// SendHome sees to it that no thread of a frozen tree is in a region or on its
// way into it. Their executors go home by themselves once their owner is dead;
// those that a job-control stop halts on the way are made to run. It gives false
// when one is still there after d.
func (t *Tree) SendHome(p Place, d time.Duration) bool {
	end := time.Now().Add(d)
	for _, proc := range t.Processes {
		for _, th := range proc.Threads {
			for p.holds(th) {
				if time.Now().After(end) || !t.runOn(th, end) {
					return false
				}
			}
		}
	}
	return true
}

// runOn lets a frozen thread run for a moment and stops it again.
func (t *Tree) runOn(th *Thread, end time.Time) bool {
	const moment = 100 * time.Microsecond
	faultpoint.At("home.run")
	th.stopped, th.GroupStop = false, 0
	if err := sys.Cont(th.TID, 0); err != nil {
		return false
	}
	began, asked := time.Now(), false
	for !th.stopped {
		done, err := t.settle(th)
		switch {
		case err != nil:
			return false
		case done && !th.stopped:
			return false // it is gone
		case done:
		case asked && time.Now().After(end):
			t.waiting = append(t.waiting, th)
			return false
		case !asked && time.Since(began) > moment:
			// Not sooner: in a job-control stop it halts by itself before its next
			// instruction, and asked as well it would never get to that.
			if err := sys.Interrupt(th.TID); err != nil {
				return false
			}
			asked = true
		default:
			time.Sleep(moment / 4)
		}
	}
	return th.read(th.process.At(), make([]byte, xstateMax)) == nil
}

// Adopt makes a guest of a stopped process that has the region of a controller
// that died, with no thread in it; Release then takes the region away.
func Adopt(p *Process, id int, addr uint64, size int, maps []procfs.VMA, gad Gadgets, list *sys.RobustList) (*Guest, error) {
	n := (size - slotsOff) / SlotSize
	if n < 1 || RegionSize(n) != size {
		return nil, fmt.Errorf("pid %d: a region of %d bytes: %w", p.PID, size, unix.EINVAL)
	}
	list, err := list.Room()
	if err != nil {
		return nil, err
	}
	shm, err := sys.AttachShm(id, size)
	if err != nil {
		return nil, fmt.Errorf("pid %d: segment %d: %w", p.PID, id, err)
	}
	r := &Region{shm: shm, addr: addr, data: addr + uint64(size), slots: n, list: list}
	r.own(list.TID())
	g := &Guest{PID: p.PID, Region: r, gad: gad, execs: map[*Thread]*Executor{}, maps: maps, attached: true, bare: id}
	for i := range maps {
		if maps[i].Start == r.data {
			g.bare = -1
		}
	}
	// One thread is enough, if it has room for what the way out takes.
	var errs []error
	for _, t := range p.Threads {
		if g.next == n-1 {
			break // the last one is the aide's
		}
		if _, err := g.Executor(t); err != nil {
			errs = append(errs, err)
			break
		}
		if g.first = t; g.wayOut(t).suits <= suitsRoom {
			break
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(append(errs, g.Release())...)
	}
	return g, nil
}
