package rebuild

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"
	criu_seccomp "github.com/checkpoint-restore/go-criu/v8/crit/images/seccomp"

	"github.com/fermata-cr/fermata/internal/chain"
	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/guardian"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/lazy"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/resource"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
	"github.com/fermata-cr/fermata/internal/waits"
)

var le = binary.LittleEndian

// Options steers a rebuild.
type Options struct {
	Dir     string
	Files   resource.FilesPolicy
	Stopped bool
	// Foreground: see fermata.RestoreOptions.
	Foreground bool
	PidNS      bool // into a new pid namespace
	Cgroups    CgroupPolicy
	Lazy       bool // memory comes when it is touched
	Progress   func(phase string, done, total int64)
	// Store, when set, has the pages in place of the files that the manifest
	// names; the builder closes it. Saved is resource.Restore.Saved.
	Store *pagestore.Store
	Saved func(name string) (io.ReadCloser, error)
	// Inherit is resource.Restore.Inherit.
	Inherit map[string]int
	// TCPClose is resource.Restore.TCPClose.
	TCPClose bool
	// Ready, when set, is called when every task is whole and before the first
	// one runs, with the roots' pids.
	Ready func(pids []int) error
}

// Result is a tree that runs again.
type Result struct {
	PIDs    []int
	Roots   []int
	Threads int
	Bytes   int64
	Notes   []string
	// Later is what is not in place yet, in bytes, and Filling gives what became
	// of it; nil when there is nothing.
	Later   int64
	Filling <-chan error
}

type shmObject struct {
	*fm.ShmObject
	fd int
}

// builder carries one rebuild through. It lives on one locked OS thread.
type builder struct {
	opt      Options
	im       *image.Image
	manifest *fm.Manifest
	procs    []*proc
	byPID    map[int]*proc
	files    *resource.Restore
	store    *pagestore.Store
	shm      map[uint64]*shmObject
	refuse   fault.Refusals
	notes    []string
	room     func() // waits for that of the files' descriptors

	seed        *seed
	donor       *proc // of the memory of copies; nil when there is one tree
	hugeDonor   bool  // pages are to be huge where they can be: see copies.go
	region      *tracee.Region
	scratch     uint64
	slots       int
	transport   [2]int
	transportFD int
	newSession  bool
	session     int // of the seed
	outerGroup  int
	made        []int
	helpers     []helper
	orphans     []*proc // to be made when all others are
	reaper      bool    // this process is a subreaper by itself
	standIn     map[int]*tracee.Executor
	hosts       map[int]bool // with PidNS: the pids, as seen here, of all tasks made
	closedTable map[uint32]bool
	autogroups  map[int]bool // sessions whose autogroup was seen to
	// timeShift is what the tree's clocks are ahead of this process's; nil
	// without a time namespace.
	timeShift map[int]int64
	// ownTerminal: this process has a controlling terminal.
	ownTerminal *bool
	init        int // of the new pid namespace
	bytes       int64
	filledLock  sync.Mutex
	lazy        *lazy.Handler // nil: all memory comes at once
	sharedOff   []span        // parts of the store that several address spaces have
	leftOut     int64
	total       int64

	guard     *guardian.Guardian // of names that are there for a moment
	unguarded bool

	groupSets *groupSets
	segments  map[uint64]*segment
	ipc       ipcObjects
	polled    []*fm.Uring

	filters *criu_seccomp.SeccompEntry
	secure  bool // some task runs under seccomp

	own         *procfs.Status // what tasks inherit
	userNS      bool           // they are in a user namespace of their own
	ownOOM      int
	ownLogin    uint32
	ownSched    sys.SchedAttr
	ownAffinity []byte
	ownIoprio   int
	hard        [16]uint64
	hardNofile  uint64

	noted   sync.WaitGroup
	lanes   []*lane // what is being done side by side
	lane    *lane   // whose turn it is
	alone   int     // how often it has been kept from giving that up
	sharers map[[2]uint32]int
	tracing bool // some tasks of the tree trace others
}

// Run restores a checkpoint. It must be called on a goroutine whose OS thread
// may be given up: that thread becomes the tracer. When it fails, or ctx ends,
// every task made is gone.
func Run(ctx context.Context, im *image.Image, o Options) (_ *Result, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer sys.QuietStops()()
	b := newBuilder(im, o)
	b.room = sys.ReserveFDs(im.Count("files"))
	im.DecodeAhead()
	defer func() {
		if err != nil {
			b.undo()
		}
		b.close()
	}()
	steps := append([]stepOf{
		{"reading the checkpoint", b.open},
		{"checking", b.check},
		{"lazy pages", b.startLazy},
		{"opening files", b.openFiles},
		{"starting", b.start},
	}, b.middle()...)
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	res := b.result()
	if o.Ready != nil {
		if err := o.Ready(res.Roots); err != nil {
			return nil, err
		}
	}
	if err := b.release(); err != nil {
		return nil, err
	}
	if b.lazy != nil {
		// From here on the program runs, and the handler looks after it.
		h := b.lazy
		b.lazy = nil
		if res.Filling, err = h.Go(); err != nil {
			return nil, err
		}
		res.Later = b.leftOut
	}
	return res, nil
}

// stepOf is a step of a rebuild.
type stepOf struct {
	name string
	do   func() error
}

func newBuilder(im *image.Image, o Options) *builder {
	return &builder{
		room: func() {}, opt: o, im: im, byPID: map[int]*proc{}, shm: map[uint64]*shmObject{}, transport: [2]int{-1, -1},
		standIn: map[int]*tracee.Executor{}, closedTable: map[uint32]bool{},
	}
}

// middle are the steps from the first task to the last but the release.
func (b *builder) middle() []stepOf {
	return []stepOf{
		{"making the tree", b.grow},
		{"process groups", b.groups},
		{"terminals", b.foregrounds},
		{"descriptors", b.descriptors},
		{"ending stand-ins", b.dismiss},
		{"lazy pages", b.handOver},
		{"final state", b.finish},
	}
}

// result describes a tree that is about to be released.
func (b *builder) result() *Result {
	res := &Result{Bytes: b.bytes, Notes: b.notes}
	for _, p := range b.procs {
		res.PIDs = append(res.PIDs, p.pid)
		res.Threads += max(len(p.threads), 1)
		if p.parent == nil {
			res.Roots = append(res.Roots, p.host())
		}
	}
	return res
}

// Check finds out whether a checkpoint could be restored here, and makes
// nothing.
func Check(im *image.Image, o Options) error {
	b := newBuilder(im, o)
	defer b.close()
	if err := b.open(); err != nil {
		return err
	}
	b.files.Verify = true
	return b.check()
}

func (b *builder) note(format string, a ...any) { b.notes = append(b.notes, fmt.Sprintf(format, a...)) }

func (b *builder) progress(phase string, done, total int64) {
	if b.opt.Progress != nil {
		b.opt.Progress(phase, done, total)
	}
}

// filled counts bytes of memory in place; several goroutines call it.
func (b *builder) filled(n int) {
	b.filledLock.Lock()
	defer b.filledLock.Unlock()
	b.bytes += int64(n)
	b.progress("fill", b.bytes, b.total)
}

func (b *builder) open() (err error) {
	if b.manifest, err = image.One[*fm.Manifest](b.im, "manifest"); err != nil {
		return err
	}
	if b.manifest.GetArch() != runtime.GOARCH {
		return fault.Errorf(fault.ErrRefused, "the checkpoint is of a %s machine, this one is %s", b.manifest.GetArch(), runtime.GOARCH)
	}
	if b.procs, err = load(b.im); err != nil {
		return err
	}
	for _, p := range b.procs {
		b.byPID[p.pid] = p
		p.b = b
	}
	if err := b.loadFilters(); err != nil {
		return err
	}
	if err := b.loadCgroups(); err != nil {
		return err
	}
	if b.store = b.opt.Store; b.store == nil {
		if b.store, err = pagestore.Open(b.opt.Dir, b.manifest.GetStores()); err != nil {
			return err
		}
	}
	runs, err := chain.Runs(b.im)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if err := chain.Check(r, b.store); err != nil {
			return err
		}
	}
	b.total = int64(b.manifest.GetPageBytes())
	objs, err := image.All[*fm.ShmObject](b.im, "shm")
	if err != nil {
		return err
	}
	for _, o := range objs {
		b.shm[shmKey(o)] = &shmObject{o, -1}
	}
	if err := b.loadIPC(); err != nil {
		return err
	}
	if b.files, err = resource.NewRestore(b.im, &b.refuse); err != nil {
		return err
	}
	b.files.Dir, b.files.Files, b.files.Note = b.opt.Dir, b.opt.Files, b.note
	b.files.Saved, b.files.Inherit = b.opt.Saved, b.opt.Inherit
	b.files.Task, b.files.TCPClose = b.task, b.opt.TCPClose
	b.files.Clock, b.files.Foreground = b.clock, b.opt.Foreground
	b.files.PID, b.files.GuardName = b.hostPID, b.guardName
	b.files.MemfdFill = func(m *memfd.MemfdInodeEntry, fd int) error {
		o := b.shm[memfdKey(m.GetInodeId())]
		if o == nil {
			return nil // empty, or left out
		}
		if m.GetHugetlbFlag() != 0 {
			o.HugeShift = proto.Uint32(max(m.GetHugetlbFlag()>>mapHugeShift, 21))
		}
		if err := b.fillObject(o.ShmObject, fd); err != nil || !resource.RestoredMemfd(m.GetName()) {
			return err
		}
		return countRestore(fd)
	}
	if err := b.heedNames(); err != nil {
		return err
	}
	b.count()
	return b.readOwn()
}

// Shared objects and memfds are numbered each by themselves.
func shmKey(o *fm.ShmObject) uint64 {
	if o.GetKind() == 1 {
		return memfdKey(o.GetId())
	}
	return o.GetId()
}

func memfdKey(inode uint64) uint64 { return inode | 1<<63 }

// readOwn notes what tasks inherit from this process.
func (b *builder) readOwn() (err error) {
	st, err := procfs.ReadStatus(os.Getpid(), unix.Gettid())
	if err != nil {
		return err
	}
	b.own = &st
	if b.ownOOM, err = procfs.ReadOOMScoreAdj(os.Getpid()); err != nil {
		return err
	}
	if b.ownLogin, err = procfs.ReadLoginUID(os.Getpid()); err != nil {
		b.ownLogin = math.MaxUint32
	}
	if b.ownSched, err = sys.SchedGetattr(unix.Gettid()); err != nil {
		return err
	}
	if b.ownAffinity, err = sys.SchedAffinity(unix.Gettid()); err != nil {
		return err
	}
	if b.ownIoprio, err = sys.IoprioGet(unix.Gettid()); err != nil {
		return err
	}
	for i := range b.hard {
		var l unix.Rlimit
		if err := unix.Getrlimit(i, &l); err != nil {
			return err
		}
		b.hard[i] = l.Max
	}
	b.hardNofile = b.hard[unix.RLIMIT_NOFILE]
	if b.session, err = unix.Getsid(0); err != nil {
		return err
	}
	b.outerGroup = unix.Getpgrp()
	return nil
}

// check finds every conflict before the first task is made.
func (b *builder) check() error {
	if err := b.mayChoose(); err != nil {
		return err
	}
	var busy []error
	for _, p := range b.procs {
		if b.opt.PidNS {
			break // all numbers are free there
		}
		ids := []int{p.pid}
		for _, t := range p.threads {
			if t.tid != p.pid {
				ids = append(ids, t.tid)
			}
		}
		for _, id := range ids {
			if err := taken(id); err != nil {
				busy = append(busy, err)
			}
		}
	}
	if len(busy) > 0 {
		return fault.Wrap(fault.ErrBusy, errors.Join(busy...))
	}
	if v := b.manifest.GetVdsoSha256(); len(v) > 0 && b.manifest.GetBootId() != BootID() {
		own, err := tracee.OwnVdso()
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(own); string(sum[:]) != string(v) {
			b.refuse.Add(fault.Reason{Object: "vdso", Why: "the checkpoint was made under kernel " + b.manifest.GetKernel() + ", whose vdso differs from this one's", Remedy: "restore it under that kernel"})
		}
	}
	if err := b.checkIPC(); err != nil {
		return err
	}
	if err := b.files.Check(); err != nil {
		return err
	}
	return b.refuse.Err()
}

// taken tells who has an id that is needed, nil when it is free.
func taken(id int) error {
	if unix.Kill(id, 0) == unix.ESRCH {
		// A thread's id is not found by kill.
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", id)); err != nil {
			return nil
		}
	}
	st, err := procfs.ReadStat(id, 0)
	if err != nil {
		if procfs.IsGone(err) {
			if unix.Kill(-id, 0) == nil {
				return fmt.Errorf("pid %d is in use: as the number of a process group", id)
			}
			return nil
		}
		return err
	}
	if st.State == 'Z' {
		return fmt.Errorf("pid %d is in use: by a zombie (%s) that its parent, pid %d, has not waited for", id, st.Comm, st.PPid)
	}
	return fmt.Errorf("pid %d is in use: by %s", id, st.Comm)
}

// BootID names the running boot of the kernel.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(b) < 36 {
		return ""
	}
	return string(b[:36])
}

func (b *builder) openFiles() error {
	defer b.dismissGuard()
	b.room()
	if err := b.files.OpenAll(); err != nil {
		return err
	}
	return b.refuse.Err()
}

// start starts the seed and brings the region in.
func (b *builder) start() error {
	if err := b.begin(); err != nil {
		return err
	}
	if b.opt.PidNS {
		return b.pidNamespace()
	}
	return nil
}

// begin is start without a pid namespace.
func (b *builder) begin() error {
	if err := b.setupTransport(); err != nil {
		return err
	}
	if err := b.startSeed(); err != nil {
		return err
	}
	n := 8
	for _, p := range b.procs {
		n += 2 + len(p.threads)
	}
	if err := b.placeRegion(n); err != nil {
		return err
	}
	if err := b.liftTransport(); err != nil {
		return err
	}
	if b.opt.PidNS && !b.privileged() {
		if err := b.userNamespace(); err != nil {
			return err
		}
	}
	return b.timeNamespace()
}

// timeNamespace makes the monotonic clocks of the tree go on from where they
// stopped (time_namespaces(7), Linux 5.6).
func (b *builder) timeNamespace() error {
	b.seed.exec.Reset()
	if _, err := b.seed.exec.Call(unix.SYS_UNSHARE, unix.CLONE_NEWTIME); err != nil {
		b.note("no time namespace (%v): monotonic clocks jump by the time the program was away", err)
		return nil
	}
	mine, err := procfs.ReadTimensOffsets(os.Getpid())
	if err != nil {
		return err
	}
	var mono, boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return err
	}
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return err
	}
	// The coarse clocks lag behind by up to their resolution, now perhaps by more
	// than then: so that they do not go back, all go on from that much later.
	var coarse unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &coarse); err != nil {
		return err
	}
	off := func(saved int64, now unix.Timespec, own procfs.Timespec) (int64, int64) {
		d := saved + coarse.Nano() - (now.Nano() - own.Sec*1e9 - own.Nsec)
		s := d / 1e9
		n := d % 1e9
		if n < 0 {
			s, n = s-1, n+1e9
		}
		return s, n
	}
	ms, mn := off(b.manifest.GetMonotonicNs(), mono, mine.Monotonic)
	bs, bn := off(b.manifest.GetBoottimeNs(), boot, mine.Boottime)
	b.timeShift = map[int]int64{
		unix.CLOCK_MONOTONIC: ms*1e9 + mn - mine.Monotonic.Sec*1e9 - mine.Monotonic.Nsec,
		unix.CLOCK_BOOTTIME:  bs*1e9 + bn - mine.Boottime.Sec*1e9 - mine.Boottime.Nsec,
	}
	text := fmt.Sprintf("monotonic %d %d\nboottime %d %d\n", ms, mn, bs, bn)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", b.seed.pid), []byte(text), 0); err != nil {
		return fmt.Errorf("time namespace offsets (%q): %w", text, err)
	}
	return nil
}

// clock gives what the tree's tasks read from a clock that the time namespace
// shifts.
func (b *builder) clock(id int) (int64, bool) {
	d, ok := b.timeShift[id]
	var t unix.Timespec
	if !ok || unix.ClockGettime(int32(id), &t) != nil {
		return 0, false
	}
	return t.Nano() + d, true
}

// descriptors gives every table its descriptors.
func (b *builder) descriptors() error {
	if err := b.files.OpenLate(); err != nil {
		return err
	}
	seen := map[uint32]bool{}
	var owners []*proc
	for _, p := range b.procs {
		if p.zombie || seen[p.ids().GetFilesId()] {
			continue
		}
		seen[p.ids().GetFilesId()] = true
		if err := b.install(p); err != nil {
			return err
		}
		owners = append(owners, p)
	}
	if err := b.urings(owners); err != nil {
		return err
	}
	done := map[uint32]bool{}
	for _, p := range owners {
		if err := b.files.InTask(p, p.table, done); err != nil {
			return err
		}
	}
	return nil
}

// finish gives every process its last state, children before their parents:
// what a child's end or stop sends its parent can still be taken there.
func (b *builder) finish() error {
	for i := len(b.procs) - 1; i >= 0; i-- {
		if p := b.procs[i]; p.zombie {
			if err := b.die(p); err != nil {
				return fmt.Errorf("%s: %w", p.describe(), err)
			}
		}
	}
	if err := b.files.Finish(); err != nil {
		return err
	}
	if err := b.keepSegments(); err != nil {
		return err
	}
	if err := b.systemV(); err != nil {
		return err
	}
	if err := b.files.Commit(); err != nil {
		return err
	}
	var insns = map[*proc]uint64{}
	for _, p := range b.settling() {
		if b.plain(p) {
			// Its parent comes later: what its end sends that is drained then.
			if err := b.beside(func() error { return b.finishPlain(p) }); err != nil {
				return err
			}
			continue
		}
		if err := b.gather(); err != nil {
			return err
		}
		insn, ok := insns[p.vmOwner]
		if !ok {
			var err error
			if insn, err = p.vmOwner.syscallInsn(p.host()); err != nil {
				return fmt.Errorf("%s: %w", p.describe(), err)
			}
			insns[p.vmOwner] = insn
		}
		if err := b.settle(p); err != nil {
			return fmt.Errorf("%s: %w", p.describe(), err)
		}
		p.settled = true
		if err := b.traceAgain(p, insns); err != nil {
			return fmt.Errorf("%s: %w", p.describe(), err)
		}
		if err := b.leave(p, insn); err != nil {
			return fmt.Errorf("%s: %w", p.describe(), err)
		}
		if p.traced() {
			if err := b.park(p, insn); err != nil {
				return fmt.Errorf("%s: %w", p.describe(), err)
			}
			continue
		}
		if s := int(p.extra.GetStopSignal()); s != 0 || b.opt.Stopped {
			if s == 0 {
				s = int(unix.SIGSTOP)
			}
			if s != int(unix.SIGSTOP) && b.orphaned(p) {
				// The kernel discards the terminal's stop signals there.
				s = int(unix.SIGSTOP)
			}
			// Nothing else that is pending may be delivered on the way.
			for _, t := range p.live() {
				if err := sys.SetSigmask(t.exec.TID, ^uint64(1<<(s-1))); err != nil {
					return fmt.Errorf("thread %d: mask: %w", t.tid, err)
				}
			}
			if err := b.stop(p, s); err != nil {
				return fmt.Errorf("%s: stopping: %w", p.describe(), err)
			}
			if p.parent != nil && p.extra.GetStopSignal() != 0 && !p.extra.GetStoppedUnreported() {
				// The parent has been told before.
				e := p.parent.Executor()
				at, _ := e.Data(128)
				if _, err := e.Call(unix.SYS_WAITID, unix.P_PID, uint64(p.pid), at, unix.WSTOPPED|unix.WNOHANG, 0); err != nil {
					return fmt.Errorf("%s: stop report: %w", p.describe(), err)
				}
			}
		}
		if err := b.unmask(p); err != nil {
			return err
		}
	}
	return b.gather()
}

// finishPlain is finish of a process that has nothing to do with others.
func (b *builder) finishPlain(p *proc) error {
	insn, err := p.syscallInsn(p.host())
	if err == nil {
		err = b.settle(p)
	}
	if err == nil {
		p.settled = true
		err = b.leave(p, insn)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.describe(), err)
	}
	return b.unmask(p)
}

// syscallInsn finds a `syscall` in the address space of p, which pid has: in the
// vdso, whose place is known, or anywhere.
func (p *proc) syscallInsn(pid int) (uint64, error) {
	var maps []procfs.VMA
	for i := range p.areas {
		if a := &p.areas[i]; a.is(collect.VMAVdso) {
			maps = append(maps, procfs.VMA{Start: a.GetStart(), End: a.GetEnd(), Path: "[vdso]"})
		}
	}
	if at, ok := tracee.FindSyscall(pid, maps); ok {
		return at, nil
	}
	maps, err := procfs.ReadMaps(pid)
	if err != nil {
		return 0, err
	}
	at, ok := tracee.FindSyscall(pid, maps)
	if !ok {
		return 0, errors.New("no system call instruction")
	}
	return at, nil
}

// lastOf tells whether no other process still needs the region in p's address
// space: p is the last of those that share it.
func (b *builder) lastOf(p *proc) bool {
	for _, o := range b.procs {
		if o != p && !o.zombie && o.vmOwner == p.vmOwner && !o.settled {
			return false
		}
	}
	return true
}

// stop puts a process into a job-control stop.
func (b *builder) stop(p *proc, sig int) error {
	if err := sys.Tgkill(p.host(), p.live()[0].exec.TID, sig); err != nil {
		return err
	}
	// The first alone takes the signal; the others follow when the stop is under
	// way, so that none of them gets to run the program.
	for _, t := range p.live() {
		if err := sys.Cont(t.exec.TID, 0); err != nil {
			return err
		}
		for {
			st, err := sys.WaitSched(t.exec.TID)
			if err != nil {
				return err
			}
			if st.Exited() || st.Signaled() {
				return fmt.Errorf("thread %d ended", t.tid)
			}
			if sys.IsEventStop(st) && st.StopSignal() != unix.SIGTRAP {
				break
			}
			deliver := 0
			if !sys.IsEventStop(st) {
				deliver = int(st.StopSignal())
			}
			if err := sys.Cont(t.exec.TID, deliver); err != nil {
				return err
			}
		}
	}
	return nil
}

// orphaned tells whether a process is in an orphaned process group: no member's
// parent is of another group of the same session (setpgid(2)).
func (b *builder) orphaned(p *proc) bool {
	group, err1 := unix.Getpgid(p.host())
	session, err2 := unix.Getsid(p.host())
	if err1 != nil || err2 != nil {
		return true
	}
	for _, o := range b.procs {
		if g, err := unix.Getpgid(o.host()); err != nil || g != group {
			continue
		}
		parent := os.Getpid()
		if o.parent != nil {
			parent = o.parent.host()
		}
		pg, err1 := unix.Getpgid(parent)
		ps, err2 := unix.Getsid(parent)
		if err1 == nil && err2 == nil && pg != group && ps == session {
			return false
		}
	}
	return true
}

// release lets every task go.
func (b *builder) release() error {
	if err := b.releaseInit(); err != nil {
		return fmt.Errorf("init of the pid namespace: %w", err)
	}
	if err := b.files.Release(); err != nil {
		return err
	}
	if b.seed != nil && !b.opt.PidNS {
		_ = unix.Kill(b.seed.pid, unix.SIGKILL) // close waits for that
	}
	for _, p := range b.procs {
		for _, t := range p.live() {
			if t.extra.Traced != nil {
				continue // its tracer has it
			}
			if err := sys.Detach(t.exec.TID, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("thread %d: detach: %w", t.tid, err)
			}
		}
	}
	b.made = nil
	b.keepIPC()
	for _, p := range b.procs {
		if !p.zombie && !p.traced() && (b.opt.Stopped || p.extra.GetStopSignal() != 0) {
			awaitStopped(p.live()[0].exec.TID)
		}
	}
	b.noted.Go(b.noteWaits)
	b.progress("release", int64(len(b.procs)), int64(len(b.procs)))
	return nil
}

// noteWaits writes down when the timed calls end that were begun again, while the
// rest is cleared away.
func (b *builder) noteWaits() {
	for _, p := range b.procs {
		var w []waits.Wait
		for _, t := range p.threads {
			if t.wait != nil {
				t.wait.Noted = waits.Now()
				w = append(w, *t.wait)
			}
		}
		if len(w) > 0 {
			_ = waits.Save(p.host(), w) // without it the next checkpoint only knows less
		}
	}
}

// awaitStopped waits until a process that was let go into its stop has got
// there: on a busy machine that takes a moment.
func awaitStopped(pid int) {
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if st, err := procfs.ReadStat(pid, 0); err != nil || st.State == 'T' {
			return
		}
	}
}

// undo ends every task made so far.
func (b *builder) undo() {
	kill := func(pid int) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	for _, h := range b.helpers {
		kill(h.exec.TID)
	}
	for _, pid := range b.made {
		kill(pid)
	}
	for len(b.lanes) > 0 {
		_ = b.advance(0) // they find their tasks gone
	}
	end := time.Now().Add(2 * time.Second)
	for _, h := range b.helpers {
		reap(h.exec.TID, end)
	}
	for i := len(b.made) - 1; i >= 0; i-- {
		reap(b.made[i], end)
	}
}

// reap takes a task's end as its tracer, and as its parent where it is that.
func reap(pid int, end time.Time) {
	for range 2 {
		for time.Now().Before(end) {
			st, changed, err := sys.Poll(pid)
			if err != nil {
				return
			}
			if changed && (st.Exited() || st.Signaled()) {
				break
			}
			if !changed {
				sys.Nap(200 * time.Microsecond)
			}
		}
	}
}

func (b *builder) close() {
	defer b.noted.Wait()
	b.room()
	b.dismissGuard()
	if b.seed != nil {
		_ = unix.Kill(b.seed.pid, unix.SIGKILL)
		for {
			st, err := sys.WaitSched(b.seed.pid)
			if err != nil || st.Exited() || st.Signaled() {
				break
			}
		}
	}
	if b.region != nil {
		b.region.Close()
	}
	for _, o := range b.shm {
		if o.fd >= 0 {
			unix.Close(o.fd)
		}
	}
	if b.files != nil {
		b.files.Close()
	}
	b.groupSets.close()
	b.lazy.Close()
	b.closeSegments()
	b.closeIPC()
	if b.store != nil {
		b.store.Close()
	}
	for _, fd := range b.transport {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
