package rebuild

import (
	"iter"

	"golang.org/x/sys/unix"
)

// Most of what a process needs is done by its own executor, and takes the tracer
// a moment of waiting, some ten times over. In a tree of many processes that have
// nothing in common these waits are spent on the others: what is done for such a
// process is a lane, and at each wait the next lane goes on. All of them run on
// the tracing thread, one at a time.

// lanesMax is how many processes are worked on side by side.
const lanesMax = 32

// lane is what is being done for one process.
type lane struct {
	next  func() (struct{}, bool)
	yield func(struct{}) bool
	err   error
}

// beside does something for a process side by side with what is being done for
// others; gather waits for all of it. f must not touch what other lanes do.
func (b *builder) beside(f func() error) error {
	if b.lane != nil {
		return f() // within a lane one thing comes after the other
	}
	for len(b.lanes) >= lanesMax {
		if err := b.turn(); err != nil {
			return err
		}
	}
	l := &lane{}
	l.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		l.yield = yield
		l.err = f()
	})
	b.lanes = append(b.lanes, l)
	return b.advance(len(b.lanes) - 1)
}

// advance goes on with a lane up to its next wait.
func (b *builder) advance(i int) error {
	l := b.lanes[i]
	b.lane = l
	_, more := l.next()
	b.lane = nil
	if more {
		return nil
	}
	b.lanes = append(b.lanes[:i], b.lanes[i+1:]...)
	return l.err
}

// turn goes on with each lane once. The first error is given when all others have
// come to their ends.
func (b *builder) turn() error {
	for i := 0; i < len(b.lanes); {
		n := len(b.lanes)
		if err := b.advance(i); err != nil {
			for len(b.lanes) > 0 {
				_ = b.advance(0)
			}
			return err
		}
		if len(b.lanes) == n {
			i++
		}
	}
	return nil
}

// gather waits until all that is done side by side is done.
func (b *builder) gather() error {
	for b.lane == nil && len(b.lanes) > 0 {
		if err := b.turn(); err != nil {
			return err
		}
	}
	return nil
}

// pause stands before a wait for something that only concerns the lane.
func (b *builder) pause() {
	l := b.lane
	if l == nil || b.alone > 0 {
		return
	}
	l.yield(struct{}{})
	b.lane = l
}

// keep makes the lane the only one that goes on, until the function that it gives
// is called: descriptors come to all processes over one socket.
func (b *builder) keep() (release func()) {
	b.alone++
	return func() { b.alone-- }
}

// count notes how many processes have each of the things that clone(2) can share.
func (b *builder) count() {
	b.sharers = map[[2]uint32]int{}
	for _, p := range b.procs {
		if p.zombie {
			continue
		}
		for _, k := range p.shares() {
			b.sharers[k]++
		}
		for _, t := range p.threads {
			b.tracing = b.tracing || t.extra.Traced != nil
		}
	}
}

func (p *proc) shares() [4][2]uint32 {
	ids := p.ids()
	return [4][2]uint32{{0, ids.GetVmId()}, {1, ids.GetFilesId()}, {2, ids.GetFsId()}, {3, ids.GetSighandId()}}
}

// plain tells whether a process has nothing in common with any other, and is not
// one that others wait for. Where some trace others, none is.
func (b *builder) plain(p *proc) bool {
	if p.zombie || b.opt.PidNS || b.tracing || len(p.children) > 0 || b.opt.Stopped || p.extra.GetStopSignal() != 0 {
		return false
	}
	for _, k := range p.shares() {
		if b.sharers[k] != 1 {
			return false
		}
	}
	return true
}

// inGroup tells whether a process is in a process group already.
func (b *builder) inGroup(p *proc, group int) bool {
	if b.opt.PidNS {
		return false
	}
	got, err := unix.Getpgid(p.host())
	return err == nil && got == group
}
