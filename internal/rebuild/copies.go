package rebuild

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Copies of a tree are made each in a pid namespace of its own, one after the
// other, out of one process that has the memory of the tree's first root: the
// donor. It lives outside all the namespaces, enters one after the other for its
// children (setns(2) with CLONE_NEWPID), and forks the copy's roots there. So
// the pages of private memory are read once, and shared copy-on-write by all
// copies; when the donor goes, they stay. Everything else (files, pipes,
// sockets, shared memory) each copy gets anew.
//
// What a fork costs is the number of pages. So where the program has not said
// that it wants none, the donor's pages are huge ones wherever one is nearly
// full, whatever they were before (as the kernel's khugepaged makes them of any
// program's): a copy that writes to one splits it, and has a page of its own of
// the usual size.

// CopiesResult is what RunCopies made.
type CopiesResult struct {
	Copies []*Result
	Inits  []int // of their pid namespaces, as seen here
}

// RunCopies restores n copies of a checkpoint. It is for a goroutine like that of
// Run. When it fails, or ctx ends, no task of any copy is left.
func RunCopies(ctx context.Context, im *image.Image, o Options, n int) (_ *CopiesResult, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer sys.QuietStops()()
	o.PidNS = true
	base := newBuilder(im, o)
	var all []*builder
	defer func() {
		for _, b := range all {
			if err != nil {
				b.undo()
			}
			b.closeOwn()
		}
		base.undo() // the donor
		base.close()
	}()
	step := func(b *builder, name string, do func() error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	for _, s := range []stepOf{
		{"reading the checkpoint", base.open},
		{"checking", base.noSegments},
		{"checking", base.check},
		{"starting", base.begin},
		{"memory", base.makeDonor},
	} {
		if err := step(base, s.name, s.do); err != nil {
			return nil, err
		}
	}
	for i := range n {
		b := base.copy()
		all = append(all, b)
		for _, s := range append([]stepOf{
			{"reading the checkpoint", b.open},
			{"opening files", b.openFiles},
			{"pid namespace", b.pidNamespace},
		}, b.middle()...) {
			if err := step(b, s.name, s.do); err != nil {
				return nil, fmt.Errorf("copy %d: %w", i+1, err)
			}
		}
		base.progress("rebuild", int64(i+1), int64(n))
	}
	res := &CopiesResult{}
	for i, b := range all {
		r := b.result()
		if i > 0 {
			r.Notes = nil // the same ones
		} else {
			r.Bytes, r.Notes = base.bytes+b.bytes, append(base.notes, b.notes...)
		}
		res.Copies, res.Inits = append(res.Copies, r), append(res.Inits, b.init)
	}
	for i, b := range all {
		if err := b.release(); err != nil {
			return nil, fmt.Errorf("copy %d: %w", i+1, err)
		}
	}
	return res, nil
}

// copy gives a builder of one more copy.
func (b *builder) copy() *builder {
	c := newBuilder(b.im, b.opt)
	c.opt.Store, c.opt.Progress = b.store, nil
	c.seed, c.region, c.scratch, c.slots = b.seed, b.region, b.scratch, b.slots
	c.transport, c.transportFD, c.newSession = b.transport, b.transportFD, b.newSession
	c.timeShift, c.donor, c.hosts = b.timeShift, b.donor, b.hosts
	return c
}

// closeOwn is close of a copy's builder: what it shares stays.
func (b *builder) closeOwn() {
	b.seed, b.region, b.store, b.transport = nil, nil, nil, [2]int{-1, -1}
	b.close()
}

// makeDonor makes the donor: a child of the seed's parent outside all new
// namespaces, with the first root's private memory, anonymous and of files that
// have their names.
func (b *builder) makeDonor() error {
	i := slices.IndexFunc(b.procs, func(p *proc) bool { return p.parent == nil && !p.zombie })
	if i < 0 {
		return fault.Errorf(fault.ErrDamaged, "no root of the tree is alive")
	}
	d := *b.procs[i]
	d.areas = nil
	for _, a := range b.procs[i].areas {
		ok := a.special() || a.is(collect.VMAAnonPrivate) && !a.shared()
		if a.is(collect.VMAFilePrivate) && !a.is(collect.VMAMemfd) {
			var err error
			if ok, err = b.files.Named(a.file()); err != nil {
				return err
			}
		}
		if ok {
			d.areas = append(d.areas, a)
		}
	}
	d.vmOwner = &d
	e, err := b.clone(b.seed.exec, 0, unix.CLONE_PARENT, 0)
	if err != nil {
		return err
	}
	d.exec, d.made = e, true
	b.made = append(b.made, e.TID)
	b.hosts = map[int]bool{b.seed.pid: true, e.TID: true}
	b.hugeDonor = true
	if err := b.buildMM(&d, nil); err != nil {
		return err
	}
	b.donor = &d
	return nil
}

// enter makes the donor's next children members of a pid namespace.
func (b *builder) enter(init int) error {
	e := b.donor.exec
	e.Reset()
	open := e.Add(unix.SYS_PIDFD_OPEN, uint64(init), 0)
	set := e.Add(unix.SYS_SETNS, 0, unix.CLONE_NEWPID)
	e.Use(set, 0, open)
	closing := e.Add(unix.SYS_CLOSE, 0)
	e.Use(closing, 0, open)
	if err := e.Run(); err != nil {
		return err
	}
	for _, c := range []int{open, set, closing} {
		if err := e.Err(c); err != nil {
			return fmt.Errorf("entering the pid namespace: %s: %w", e.Describe(c), err)
		}
	}
	return nil
}

// founder is what roots are cloned from: the donor of copies, else the seed.
func (b *builder) founder() *tracee.Executor {
	if b.donor != nil {
		return b.donor.exec
	}
	return b.seed.exec
}

// errOneInit: a pid namespace has one init.
var errOneInit = errors.New("the tree has a process 1 of its own: it cannot have another init")

// noSegments refuses a tree with objects of System V: these have one number in the
// whole system, so that copies would share what is each one's own.
func (b *builder) noSegments() error {
	for _, o := range b.shm {
		if v := o.GetSysv(); v != nil {
			return fault.Errorf(fault.ErrRefused, "SysV segment %d: copies would share it; restore one only", v.GetId())
		}
	}
	if n := len(b.ipc.sems) + len(b.ipc.queues); n > 0 {
		return fault.Errorf(fault.ErrRefused, "System V semaphores and message queues (%d): copies would share them; restore one only", n)
	}
	return nil
}
