package tracee

import (
	"errors"
	"fmt"
	"slices"
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
	Lent       []Range
}

// Range is some memory of a process whose bytes were replaced for a moment.
type Range struct{ Addr, Size uint64 }

// stackLook is how much of a stack is searched for what will return into a
// region.
const stackLook = 64 << 10

// point is where a thread is, or where a signal handler of it returns to; of the
// registers those that underway looks at.
type point struct {
	pc, sp uint64
	regs   sys.Regs
}

// points gives where a stopped thread is and, as far as the memory it looks at
// tells, where it will be when its signal handlers return.
func (t *Thread) points(maps []procfs.VMA) []point {
	pc, sp := placeOf(&t.Regs)
	all := []point{{pc, sp, t.Regs}}
	var seen []uint64
	for i := 0; i < len(all) && len(all) < 64; i++ {
		// A handler on an alternate stack interrupted what is on another.
		from := (all[i].sp + 7) &^ 7
		var area procfs.VMA
		for j := range maps {
			if v := &maps[j]; from >= v.Start && from < v.End {
				area = *v
			}
		}
		if area.End == 0 || slices.Contains(seen, area.Start) {
			continue
		}
		end := min(from+stackLook, area.End)
		b := make([]byte, end-from)
		if sys.ReadMem(t.TID, from, b) != nil {
			continue
		}
		seen = append(seen, area.Start)
		for at := 0; at+8 <= len(b); at += 8 {
			if savedPC(b, at, &t.Regs) {
				all = append(all, savedPoint(b, at))
			}
		}
	}
	return all
}

// holds tells whether a stopped thread is in the region, on its way there or on
// its way out, or in a signal handler that will return to either.
func (p *Place) holds(t *Thread) bool {
	for _, at := range t.points(p.Maps) {
		switch {
		case at.pc-p.Addr < p.Size, underway(&at.regs, p.ID, p.Addr, p.Size):
			return true
		case p.Gadgets.onWay(at.pc) && p.lent(at.sp):
			return true // a frame that lies there takes it home
		case at.pc-p.Gadgets.Syscall >= gadgetMax:
			continue
		}
		// Between the system call and its `ret` into the region; a `leave` before
		// it takes the stack pointer to where it is.
		var b [8]byte
		if sys.ReadMem(t.TID, at.sp, b[:]) == nil && le.Uint64(b[:])-p.Addr < p.Size {
			return true
		}
	}
	return false
}

func (p *Place) lent(addr uint64) bool {
	return slices.ContainsFunc(p.Lent, func(r Range) bool { return addr-r.Addr < r.Size })
}

// Uses tells whether a thread of a frozen tree stands on some memory with its
// stack pointer, or will when a signal handler returns.
func (t *Tree) Uses(r Range, maps []procfs.VMA) bool {
	for _, p := range t.Processes {
		for _, th := range p.Threads {
			for _, at := range th.points(maps) {
				if at.sp-r.Addr < r.Size {
					return true
				}
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
