// Package collect turns a frozen tree into an image: plain values, the
// messages of package image. Nothing here changes a task; what only a task can
// ask the kernel goes through the executor, in one batch a thread.
package collect

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timer"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/memory"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/resource"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
	"github.com/fermata-cr/fermata/internal/tracee"
	"github.com/fermata-cr/fermata/internal/track"
	"github.com/fermata-cr/fermata/internal/waits"
)

// Collector gathers one frozen tree. Its methods run on the tracing thread.
type Collector struct {
	Image  *image.Image
	Refuse *fault.Refusals
	Files  *resource.Dump
	Tree   *tracee.Tree
	// Tasks are the tree's processes with what memory needs to know of them.
	Tasks []*Task
	// Notes are what a restore will not be able to bring back exactly, by
	// documented rule.
	Notes []string
	// Shared are the shared memory objects that the areas map.
	Shared []*Shared
	// SnapshotAbove, when not 0, is from how many bytes of memory on tasks get a
	// snapshot if TakeSnapshots is called.
	SnapshotAbove uint64
	// Snapshots says that there are some.
	Snapshots bool
	// Tracker knows the address spaces whose writes are tracked.
	Tracker Tracker
	// Kernel, where there is one, reads the flags of areas, after VMBitsKnown.
	Kernel *kmem.Reader
	// Spared are bytes that need not be read, since they are unwritten; WrittenPages
	// the pages that Turn found written.
	Spared, WrittenPages uint64

	list    *sys.RobustList
	own     map[string]uint64 // this process's namespaces
	ids     [4]*kcmpSet
	shared  map[sharedKey]*Shared
	asleep  map[int]sleeping
	survey  *Survey
	tables  map[uint32]bool
	guests  []*tracee.Guest
	sharing map[uint32]*Task // the first task of an address space
	threads map[uint32]int   // how many run in an address space
	// unreported are stopped children whose parents have not been told yet.
	unreported map[int]bool
	// AllowSeccompRisk: tasks may be saved that their own seccomp would end,
	// should this process be killed while its executor is in them.
	AllowSeccompRisk bool
	// SkipDontDump: private anonymous areas with MADV_DONTDUMP are saved without
	// their pages.
	SkipDontDump bool
	filters      *filters
	groups       *cgroups
	attached     map[uint64]uint64     // of SysV segments: how many areas of the tree map them
	secure       map[int]*seccompState // of threads under seccomp
	tracers      map[int]*Task         // of tracing threads, when any task is traced
	ran          map[*tracee.Thread]*running
	owing        map[*tracee.Executor]*tracee.Owing
	// ownVdso is this kernel's vdso image.
	vdsoSize uint64
}

// Task is one process of the tree.
type Task struct {
	*tracee.Process
	timers []*fm.PosixTimer
	Comm   string
	Stat   procfs.Stat
	Status procfs.Status
	status map[int]*procfs.Status // of each thread
	Areas  []Area                 // nil for a zombie, or when SharesMM
	// SharesMM is the task whose address space this one shares, or nil.
	SharesMM *Task
	VM       uint32
	extra    *fm.MmExtra
	rings    []*Area // of AIO contexts
	urings   []*Area // of io_uring instances
	aios     []*mm.AioRingEntry
	waits    []waits.Wait
	core     *criu_core.CoreEntry   // of the process
	threads  []*criu_core.CoreEntry // of its threads, in their order
	guest    *tracee.Guest
	answers  func() error // of its batches, when they have not been waited for
	maps     []procfs.VMA
	private  uint64 // bytes of memory of its own, about
	large    bool   // a snapshot is to be made of its memory
	flagless bool   // the flags of its areas are not known yet
	snapshot *tracee.Snapshot
	held     map[*Area]bool // areas that are read while it stands still
	runs     *fm.PageRuns
	space    *track.Space // that its writes are tracked with, once it was looked for
	looked   bool
	found    []memory.Run  // its own pages in areas that can be tracked, nil: not looked at
	turned   []track.Range // written pages that were protected by that
	parent   *fm.PageRuns  // what it has not written is there, if it is
	kept     uint64        // bytes that were noted so
	facts    facts
	begun    bool // it has an executor, or was refused
	traced   bool // its threads have tracers in the tree
	tracer   bool // threads of it trace others
	owes     bool // its executors stay until the tree goes on
	kobjs    *criu_core.TaskKobjIdsEntry
	tracedBy map[*tracee.Thread]*fm.Traced
}

// Survey is what is read before the freeze, to make the freeze short.
type Survey struct {
	Roots  []int
	PIDs   map[int]bool // the processes of the trees
	asleep map[int]sleeping
	own    map[string]uint64 // this process's namespaces
	err    error             // why they could not be read
	// many are processes with so many areas that their flags are read by flags,
	// which opening opens.
	many    map[int]bool
	flags   areaFlags
	opening sync.WaitGroup
	// kernel is a reader of the kernel's memory, opened ahead where it is likely
	// to be needed.
	kernel    *kmem.Reader
	kernelErr error
	reading   bool
}

// readKernel begins to open a reader of the kernel's memory.
func (s *Survey) readKernel() {
	if !s.reading {
		s.reading = true
		s.opening.Go(func() { s.kernel, s.kernelErr = kmem.Open() })
	}
}

// takeKernel gives that reader, which is the caller's then.
func (s *Survey) takeKernel() (*kmem.Reader, error) {
	if !s.reading {
		return kmem.Open()
	}
	s.opening.Wait()
	s.reading = false
	r, err := s.kernel, s.kernelErr
	s.kernel = nil
	return r, err
}

// Close gives back what the survey holds.
func (s *Survey) Close() {
	s.opening.Wait()
	s.flags.close()
	if s.kernel != nil {
		s.kernel.Close()
		s.kernel = nil
	}
}

// Private gives about how many bytes of memory the trees below roots have of
// their own; of large ones only the first processes count.
func Private(roots []int) (n uint64) {
	queue := slices.Clone(roots)
	for i := 0; i < len(queue) && i < 32; i++ {
		if m, err := procfs.ReadStatm(queue[i]); err == nil && m.Resident > m.Shared {
			n += (m.Resident - m.Shared) * sys.PageSize
		}
		kids, _ := procfs.ReadChildren(queue[i], 0)
		queue = append(queue, kids...)
	}
	return n
}

// Look walks the running tree once before it is stopped: it warms the gadget
// cache, and notes since when each sleeping thread sleeps. Close must be called.
func Look(roots []int, exclude map[int]bool) *Survey {
	s := &Survey{Roots: roots, PIDs: map[int]bool{}, asleep: map[int]sleeping{}, many: map[int]bool{}}
	s.own, s.err = procfs.ReadNamespaces(os.Getpid(), 0)
	clock := schedClocks{}
	queue := append([]int(nil), roots...)
	for i := 0; i < len(queue); i++ {
		pid := queue[i]
		if s.PIDs[pid] || exclude[pid] {
			continue
		}
		s.PIDs[pid] = true
		if i < 4 {
			s.look(pid)
		}
		tids, err := procfs.ReadTasks(pid)
		if err != nil {
			continue
		}
		notes := sync.OnceValue(func() []waits.Wait { return waits.Load(pid) })
		for _, tid := range tids {
			if sl, ok := asleep(pid, tid, clock, notes); ok {
				s.asleep[tid] = sl
				if len(tids) > 1 && sl.inMemory() {
					s.readKernel()
				}
			}
			kids, _ := procfs.ReadChildren(pid, tid)
			queue = append(queue, kids...)
		}
	}
	return s
}

// New begins to collect a frozen tree. Close must be called on every path, and
// before the tree is thawed.
func New(tree *tracee.Tree, s *Survey) (*Collector, error) {
	if s.err != nil {
		return nil, s.err
	}
	list, err := sys.NewRobustList(tracee.RobustOffset)
	if err != nil {
		return nil, fmt.Errorf("robust list: %w", err)
	}
	c := &Collector{
		Image: image.New(), Refuse: &fault.Refusals{}, Tree: tree,
		list: list, own: s.own, shared: map[sharedKey]*Shared{}, asleep: s.asleep, survey: s,
		tables: map[uint32]bool{}, sharing: map[uint32]*Task{}, unreported: map[int]bool{},
	}
	for i := range c.ids {
		c.ids[i] = &kcmpSet{what: kobjKinds[i], known: map[int]uint32{}}
	}
	c.Files = resource.NewDump(c.Image, c.Refuse)
	c.Files.InTree, c.Files.OpenKernel = c.inTree, s.takeKernel
	c.Files.InThreads = c.inThreads
	return c, nil
}

// NoteWaits writes down when the timed calls end that the freeze interrupted,
// once the tree goes on.
func (c *Collector) NoteWaits() {
	for _, t := range c.Tasks {
		if len(t.waits) == 0 {
			continue
		}
		for i := range t.waits {
			t.waits[i].Noted = waits.Now()
		}
		// Without the note the next checkpoint only knows less.
		_ = waits.Save(t.PID, t.waits)
	}
}

// inTree tells whether an id is that of a process, a thread or a process group
// of the tree.
func (c *Collector) inTree(id int) bool {
	if id < 0 {
		id = -id
	}
	if c.Tree.Process(id) != nil {
		return true
	}
	for _, t := range c.Tasks {
		if t.Stat.Pgrp == id {
			return true
		}
		for _, th := range t.Threads {
			if th.TID == id {
				return true
			}
		}
	}
	return false
}

// Release takes every executor out again: each task stands still with its own
// registers. It is harmless to call twice.
func (c *Collector) Release() error {
	var now, kept []*tracee.Guest
	for _, g := range c.guests {
		if c.owes(g) {
			kept = append(kept, g) // until the tree goes on (LetGo)
			continue
		}
		now = append(now, g)
	}
	c.guests = kept
	return tracee.ReleaseAll(now)
}

// Pending reads the queues of signals once more, when no executor runs any
// longer: what came meanwhile belongs to the checkpoint too. An interval timer
// that expired in between counts as expired.
func (c *Collector) Pending() error {
	for _, t := range c.Tasks {
		if t.Zombie || t.core == nil {
			continue
		}
		if t.traced {
			if err := c.stillPending(t); err != nil {
				return err
			}
			continue
		}
		if err := t.paused(func() error { return c.pending(t) }); err != nil {
			return err
		}
	}
	return nil
}

// pending does so for one process.
func (c *Collector) pending(t *Task) error {
	shared, err := sys.PeekSignals(t.At(), true)
	if err != nil {
		return fmt.Errorf("pid %d: pending signals: %w", t.PID, err)
	}
	t.core.Tc.SignalsS = queue(shared)
	settleTimers(t.core.GetTc(), t.Process.Pending, shared)
	for i, th := range t.Threads {
		own, err := sys.PeekSignals(th.TID, false)
		if err != nil {
			return fmt.Errorf("thread %d: pending signals: %w", th.TID, err)
		}
		if i < len(t.threads) {
			t.threads[i].ThreadCore.SignalsP = queue(own)
		}
		shared = append(shared, own...)
	}
	c.overruns(t, shared)
	return nil
}

// overruns finds out how often the periodic timers whose signal waits to be
// delivered have expired since. The kernel shows it at the delivery and not
// before; where its memory cannot be read a restored timer begins to count anew.
func (c *Collector) overruns(t *Task, pending []sys.Siginfo) {
	const siTimer = -2 // SI_TIMER
	for i := range pending {
		if pending[i].Code() != siTimer {
			continue
		}
		missed, err := c.Files.Overruns(t.PID)
		if err == nil {
			for _, p := range t.timers {
				cpu := p.GetClock() < 0 || p.GetClock() == unix.CLOCK_PROCESS_CPUTIME_ID || p.GetClock() == unix.CLOCK_THREAD_CPUTIME_ID
				if n := missed[p.GetId()]; n > 0 && p.GetIntervalNs() > 0 && !cpu {
					p.Missed = proto.Int64(n)
				}
			}
			return
		}
		c.Notes = append(c.Notes, fmt.Sprintf("pid %d (%s): the signal of POSIX timer %d is pending: its overruns up to the checkpoint will not be counted after a restore (%v)",
			t.PID, t.Comm, le.Uint32(pending[i][16:]), err))
	}
}

// settleTimers makes interval timers agree with the queue. The kernel starts a
// periodic one again only when its signal is taken: until then it shows no time
// left, and a signal that is queued again by a restore does not start it.
func settleTimers(tc *criu_core.TaskCoreEntry, before, now []sys.Siginfo) {
	has := func(q []sys.Siginfo, sig unix.Signal) bool {
		for i := range q {
			if q[i].Signo() == int(sig) {
				return true
			}
		}
		return false
	}
	for _, x := range []struct {
		it  *timer.ItimerEntry
		sig unix.Signal
	}{{tc.GetTimers().GetReal(), unix.SIGALRM}, {tc.GetTimers().GetVirt(), unix.SIGVTALRM}, {tc.GetTimers().GetProf(), unix.SIGPROF}} {
		periodic := x.it.GetIsec() != 0 || x.it.GetIusec() != 0
		left := x.it.GetVsec() != 0 || x.it.GetVusec() != 0
		queued := has(now, x.sig)
		switch {
		case periodic && !left && queued:
			x.it.Vsec, x.it.Vusec = x.it.Isec, x.it.Iusec
		case periodic && !left:
			x.it.Vusec = proto.Uint64(1)
		case !periodic && left && queued && !has(before, x.sig):
			x.it.Vsec, x.it.Vusec = proto.Uint64(0), proto.Uint64(0)
		}
	}
}

// Close releases the tasks and gives up what the collection held.
func (c *Collector) Close() error {
	first := c.LetGo()
	if err := c.Release(); first == nil {
		first = err
	}
	if c.list != nil {
		c.list.Close()
		c.list = nil
	}
	if c.Files != nil {
		c.Files.Close()
	}
	return first
}

// Collect reads everything but memory. What cannot be saved gathers in Refuse.
func (c *Collector) Collect() error {
	tasks := make([]*Task, len(c.Tree.Processes))
	for i, p := range c.Tree.Processes {
		tasks[i] = &Task{Process: p, facts: facts{pid: p.PID, at: p.At(), alone: len(tasks) == 1}}
		if c.survey.many[p.PID] {
			tasks[i].facts.flags = &c.survey.flags
		}
	}
	defer c.readAhead(tasks)()
	for _, t := range tasks {
		if err := c.describe(t); err != nil {
			return err
		}
		c.Tasks = append(c.Tasks, t)
	}
	traced, err := c.enterTracers()
	if err != nil {
		return err
	}
	for _, t := range c.Tasks {
		if t.traced {
			continue // what its threads are like their tracers tell
		}
		if err := c.task(t); err != nil {
			return fmt.Errorf("pid %d (%s): %w", t.PID, t.Comm, err)
		}
	}
	for _, t := range traced {
		if err := c.tracedTask(t); err != nil {
			return fmt.Errorf("pid %d (%s): %w", t.PID, t.Comm, err)
		}
	}
	if err := c.Files.Complete(); err != nil {
		return err
	}
	if err := c.uringAreas(); err != nil {
		return err
	}
	c.segments()
	if err := c.objects(); err != nil {
		return err
	}
	if err := c.readRings(); err != nil {
		return err
	}
	c.emitShared()
	c.emitFilters()
	return nil
}

// describe reads what orders the tree.
func (c *Collector) describe(t *Task) (err error) {
	if t.Stat, err = procfs.ReadStat(t.PID, 0); err != nil {
		return fmt.Errorf("pid %d: %w", t.PID, err)
	}
	t.Comm, t.Process.Start = t.Stat.Comm, t.Stat.StartTime
	if at := t.At(); at != t.PID {
		// What a leader that has exited has given up, another thread shows.
		st, err := procfs.ReadStat(at, 0)
		if err != nil {
			return fmt.Errorf("thread %d: %w", at, err)
		}
		st.Comm, st.StartTime, st.ExitCode, st.ExitSignal = t.Stat.Comm, t.Stat.StartTime, t.Stat.ExitCode, t.Stat.ExitSignal
		t.Stat = st
	}
	if t.Status, err = procfs.ReadStatus(t.PID, 0); err != nil {
		return fmt.Errorf("pid %d: %w", t.PID, err)
	}
	e := &pstree.PstreeEntry{
		Pid: proto.Uint32(uint32(t.PID)), Ppid: proto.Uint32(uint32(t.Stat.PPid)),
		Pgid: proto.Uint32(uint32(t.Stat.Pgrp)), Sid: proto.Uint32(uint32(t.Stat.Session)),
	}
	if c.Tree.Process(t.Stat.PPid) == nil {
		e.Ppid = proto.Uint32(0) // a root: its parent is outside
	}
	if t.Leader() == nil && !t.Zombie {
		e.Threads = append(e.Threads, uint32(t.PID))
	}
	for _, th := range t.Threads {
		e.Threads = append(e.Threads, uint32(th.TID))
	}
	if t.Zombie {
		e.Threads = []uint32{uint32(t.PID)}
	}
	c.Image.Add("pstree", e)
	return nil
}

// refuse notes a reason about a task.
func (c *Collector) refuse(t *Task, object, why, remedy string) {
	c.Refuse.Add(fault.Reason{PID: t.PID, Comm: t.Comm, Object: object, Why: why, Remedy: remedy})
}

// Clocks gives the clocks as the tree's tasks see them now, in nanoseconds.
func (c *Collector) Clocks() (mono, boot, real int64) {
	var m, b, r unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &m)
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &b)
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &r)
	mono, boot, real = m.Nano(), b.Nano(), r.Nano()
	mine, err1 := procfs.ReadTimensOffsets(os.Getpid())
	for _, t := range c.Tasks {
		if t.Zombie {
			continue
		}
		o, err2 := procfs.ReadTimensOffsets(t.At())
		if err1 == nil && err2 == nil {
			mono += nanos(o.Monotonic) - nanos(mine.Monotonic)
			boot += nanos(o.Boottime) - nanos(mine.Boottime)
		}
		break
	}
	return mono, boot, real
}

// Elapsed gives how long the tree has been frozen.
func (c *Collector) Elapsed() time.Duration { return time.Since(c.Tree.Began()) }

func nanos(t procfs.Timespec) int64 { return t.Sec*int64(time.Second) + t.Nsec }
