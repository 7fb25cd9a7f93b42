// Package rebuild brings a checkpoint's tree back: a seed process is driven
// remotely to clone the root with its pid, that one its children, and each
// task, through the same executor as at the checkpoint, makes its own memory,
// descriptors and settings. Nothing runs the program's code before everything
// is in place; until then the death of the controller ends every task made.
package rebuild

import (
	"fmt"
	"sort"
	"strings"
	"sync"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	criu_fs "github.com/checkpoint-restore/go-criu/v8/crit/images/fs"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	criu_seccomp "github.com/checkpoint-restore/go-criu/v8/crit/images/seccomp"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
	"github.com/fermata-cr/fermata/internal/waits"
)

// thread is one thread to be made.
type thread struct {
	regs  sys.Regs
	tid   int
	core  *criu_core.CoreEntry
	extra *fm.ThreadExtra
	exec  *tracee.Executor
	wait  *waits.Wait // the timed call it goes on in
	// raw are the registers that its tracer in the tree gives it.
	raw sys.Regs
	// filters are its seccomp filters, the oldest first.
	filters []*criu_seccomp.SeccompFilter
}

// proc is one process to be made.
type proc struct {
	pid, pgid, sid int
	parent         *proc // nil for a root
	children       []*proc
	core           *criu_core.CoreEntry // of the leader
	extra          *fm.TaskExtra
	threads        []*thread // the leader first
	mm             *mm.MmEntry
	mmx            *fm.MmExtra
	pages          *fm.PageRuns
	areas          []area
	paged          []bool // of its areas: some page of it is in the store
	fs             *criu_fs.FsEntry
	table          []*fdinfo.FdinfoEntry
	zombie         bool

	made    bool
	session int // session it is in so far
	exec    *tracee.Executor
	numbers map[uint32]int
	settled bool
	// lazy are pages left for later, in areas lazyAreas.
	lazy      []piece
	lazyAreas []*area
	vmOwner   *proc // whose address space it shares, or itself
	stopped   int
	b         *builder
}

// exited tells whether the thread is a leader that ends before its process.
func (t *thread) exited() bool { return t.extra.Exited != nil }

// live gives the threads that run when the process is let go.
func (p *proc) live() []*thread {
	if len(p.threads) > 0 && p.threads[0].exited() {
		return p.threads[1:]
	}
	return p.threads
}

// PID implements resource.Task.
func (p *proc) PID() int { return p.host() }

// SavedPID gives the pid in the image, which is the one the task itself sees.
func (p *proc) SavedPID() int { return p.pid }

// Executor implements resource.Task.
func (p *proc) Executor() *tracee.Executor {
	p.exec.Reset()
	return p.exec
}

// host gives the process's pid as this process sees it; it differs from pid in
// a pid namespace.
func (p *proc) host() int { return p.exec.TID }

// FD implements resource.Task.
func (p *proc) FD(id uint32) (int, bool) {
	if p.numbers == nil {
		p.numbers = map[uint32]int{}
		for _, d := range p.table {
			if _, ok := p.numbers[d.GetId()]; !ok {
				p.numbers[d.GetId()] = int(d.GetFd())
			}
		}
	}
	n, ok := p.numbers[id]
	return n, ok
}

func (p *proc) ids() *criu_core.TaskKobjIdsEntry { return p.core.GetIds() }

// load decodes the tasks of an image.
func load(im *image.Image) (procs []*proc, err error) {
	entries, err := image.All[*pstree.PstreeEntry](im, "pstree")
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, fault.Errorf(fault.ErrDamaged, "the image has no tasks")
	}
	byPID := map[int]*proc{}
	for _, e := range entries {
		p := &proc{pid: int(e.GetPid()), pgid: int(e.GetPgid()), sid: int(e.GetSid())}
		if byPID[p.pid] != nil || p.pid <= 0 || len(e.GetThreads()) == 0 {
			return nil, fault.Errorf(fault.ErrDamaged, "pid %d: not a sensible entry of the tree", p.pid)
		}
		if pp := int(e.GetPpid()); pp != 0 {
			if p.parent = byPID[pp]; p.parent == nil {
				return nil, fault.Errorf(fault.ErrDamaged, "pid %d: its parent %d is not in the image before it", p.pid, pp)
			}
			p.parent.children = append(p.parent.children, p)
		}
		byPID[p.pid] = p
		procs = append(procs, p)
	}
	if err := loadAll(im, procs, entries); err != nil {
		return nil, err
	}
	if err := checkTracers(procs); err != nil {
		return nil, err
	}
	owner := map[uint32]*proc{}
	for _, p := range procs {
		if p.zombie {
			continue
		}
		id := p.ids().GetVmId()
		if owner[id] == nil {
			owner[id] = p
			if p.mm == nil {
				return nil, fault.Errorf(fault.ErrDamaged, "pid %d: no memory map in the image", p.pid)
			}
		}
		p.vmOwner = owner[id]
	}
	return procs, nil
}

// loadAll decodes what belongs to each process, on two processors where they are
// many. The error is that of the first that has one.
func loadAll(im *image.Image, procs []*proc, entries []*pstree.PstreeEntry) error {
	const few = 16
	half := len(procs)
	if half > few {
		half /= 2
	}
	some := func(from, to int) error {
		for i := from; i < to; i++ {
			if err := procs[i].load(im, entries[i].GetThreads()); err != nil {
				return fmt.Errorf("pid %d: %w", procs[i].pid, err)
			}
		}
		return nil
	}
	var others error
	var wg sync.WaitGroup
	if half < len(procs) {
		wg.Go(func() { others = some(half, len(procs)) })
	}
	err := some(0, half)
	wg.Wait()
	if err != nil {
		return err
	}
	return others
}

func (p *proc) load(im *image.Image, tids []uint32) (err error) {
	if p.extra, err = image.One[*fm.TaskExtra](im, image.Of("task-extra", p.pid)); err != nil {
		return err
	}
	if p.core, err = image.One[*criu_core.CoreEntry](im, image.Of("core", p.pid)); err != nil {
		return err
	}
	if p.core.GetTc().GetTaskState() == collect.StateDead {
		p.zombie = true
		return nil
	}
	for _, t := range tids {
		th := &thread{tid: int(t)}
		if th.core, err = image.One[*criu_core.CoreEntry](im, image.Of("core", th.tid)); err != nil {
			return err
		}
		if th.extra, err = image.One[*fm.ThreadExtra](im, image.Of("thread-extra", th.tid)); err != nil {
			return err
		}
		if th.tid == p.pid {
			p.threads = append([]*thread{th}, p.threads...)
		} else {
			p.threads = append(p.threads, th)
		}
	}
	if p.threads[0].tid != p.pid {
		return fault.Errorf(fault.ErrDamaged, "no leader among the threads")
	}
	for i, t := range p.threads {
		if t.exited() && (i > 0 || len(p.threads) == 1) {
			return fault.Errorf(fault.ErrDamaged, "thread %d: has exited, but is not the leader of others", t.tid)
		}
	}
	if p.fs, err = image.One[*criu_fs.FsEntry](im, image.Of("fs", p.pid)); err != nil {
		return err
	}
	if p.table, err = image.All[*fdinfo.FdinfoEntry](im, image.Of("fdinfo", int(p.ids().GetFilesId()))); err != nil {
		return err
	}
	sort.Slice(p.table, func(i, j int) bool { return p.table[i].GetFd() < p.table[j].GetFd() })
	mms, err := image.All[*mm.MmEntry](im, image.Of("mm", p.pid))
	if err != nil || len(mms) == 0 {
		return err
	}
	p.mm = mms[0]
	if p.mmx, err = image.One[*fm.MmExtra](im, image.Of("mm-extra", p.pid)); err != nil {
		return err
	}
	if p.pages, err = image.One[*fm.PageRuns](im, image.Of("pages", p.pid)); err != nil {
		return err
	}
	if len(p.mmx.GetVmas()) != len(p.mm.GetVmas()) || len(p.pages.GetVaddr()) != len(p.pages.GetPages()) || len(p.pages.GetVaddr()) != len(p.pages.GetOff()) {
		return fault.Errorf(fault.ErrDamaged, "memory map and its details differ in length")
	}
	return p.loadAreas()
}

func (p *proc) loadAreas() error {
	var prev uint64
	for i, e := range p.mm.GetVmas() {
		a := area{VmaEntry: e, extra: p.mmx.GetVmas()[i]}
		if e.GetStart() < prev || e.GetEnd() <= e.GetStart() || e.GetStart()%4096 != 0 || e.GetEnd()%4096 != 0 || e.GetEnd() > 1<<56 {
			return fault.Errorf(fault.ErrDamaged, "area %#x-%#x: not in order", e.GetStart(), e.GetEnd())
		}
		prev = e.GetEnd()
		p.areas = append(p.areas, a)
	}
	return nil
}

// describe gives the command name for messages.
func (p *proc) describe() string {
	return fmt.Sprintf("pid %d (%s)", p.pid, strings.TrimSpace(p.core.GetTc().GetComm()))
}
