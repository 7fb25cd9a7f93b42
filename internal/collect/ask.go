package collect

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/rseq"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/siginfo"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

var le = binary.LittleEndian

// question is one call of a batch and what to do with its answer.
type question struct {
	call     int
	name     string
	optional bool // an error means: this kernel has no such thing
	take     func(r int64)
}

// batch gathers a thread's questions.
type batch struct {
	e  *tracee.Executor
	qs []question
}

func (b *batch) ask(name string, optional bool, take func(int64), nr uintptr, args ...uint64) {
	b.qs = append(b.qs, question{b.e.Add(nr, args...), name, optional, take})
}

// prctl asks for a value that the call stores.
func (b *batch) prctlOut(name string, opt uint64, take func(uint64)) {
	addr, data := b.e.Data(8)
	b.ask(name, true, func(int64) { take(le.Uint64(data)) }, unix.SYS_PRCTL, opt, addr, 0, 0, 0)
}

// prctlVal asks for a value that the call returns.
func (b *batch) prctlVal(name string, opt uint64, take func(int64)) {
	b.ask(name, true, take, unix.SYS_PRCTL, opt, 0, 0, 0, 0)
}

func (b *batch) answers() error {
	if err := b.e.Wait(); err != nil {
		return err
	}
	for _, q := range b.qs {
		if err := b.e.Err(q.call); err != nil {
			if q.optional {
				continue
			}
			return fmt.Errorf("%s: %s: %w", q.name, b.e.Describe(q.call), err)
		}
		if q.take != nil {
			q.take(b.e.Result(q.call))
		}
	}
	return nil
}

// ask hands a process its batches: one in every thread, all at once. answered
// waits for them and adds what they say to the image; until then the tracing
// thread does what else there is to do for the process.
func (c *Collector) ask(t *Task, core *criu_core.CoreEntry, x *fm.TaskExtra) error {
	if t.traced {
		return c.askTraced(t, core, x)
	}
	if t.guest == nil {
		return nil // refused before
	}
	var mme *mm.MmEntry
	if t.SharesMM == nil {
		var err error
		if mme, err = c.mmEntry(t); err != nil {
			return err
		}
	}
	// A batch is written before its thread enters, so that it need not be sent for
	// a second time. Only the entrance brings the others their way in.
	if in := t.guest.Entrance(); t.SharesMM == nil && in != t.Threads[0] {
		if _, err := t.guest.Executor(in); err != nil {
			return err
		}
	}
	t.core = core
	var run []*batch
	var done []func() error
	for i, th := range t.Threads {
		if i == 1 {
			if err := run[0].e.Arrive(); err != nil {
				return err
			}
		}
		e, err := t.guest.Seat(th)
		if err != nil {
			return err
		}
		e.Reset()
		b := &batch{e: e}
		var fin func() error
		tcore := core
		if i == 0 {
			c.askProcess(t, b, core.Tc, x, mme)
		}
		if th.TID != t.PID {
			tcore = &criu_core.CoreEntry{}
		}
		t.threads = append(t.threads, tcore)
		fin, err = c.askThread(t, th, b, tcore)
		if err != nil {
			return err
		}
		e.Start()
		run, done = append(run, b), append(done, fin)
	}
	t.answers = func() error {
		for i, b := range run {
			if err := b.answers(); err != nil {
				return fmt.Errorf("thread %d: %w", t.Threads[i].TID, err)
			}
			if err := done[i](); err != nil {
				return err
			}
		}
		if t.Leader() == nil {
			c.exitedLeader(t, core)
		}
		if mme != nil {
			if err := c.askPolicies(t); err != nil {
				return err
			}
			if err := c.lockedFuture(t, t.extra); err != nil {
				return err
			}
			c.Image.Add(image.Of("mm", t.PID), mme)
		}
		return nil
	}
	return nil
}

// answered waits for the answers to what ask has asked.
func (t *Task) answered() error {
	answers := t.answers
	if answers == nil {
		return nil
	}
	t.answers = nil
	return answers()
}

// exitedLeader saves what is left of a thread group's leader that has exited
// while other threads run: the process's pid, and its exit status. For all else
// it is made like the first of the others.
func (c *Collector) exitedLeader(t *Task, core *criu_core.CoreEntry) {
	like, err := image.One[*fm.ThreadExtra](c.Image, image.Of("thread-extra", t.Threads[0].TID))
	if err != nil {
		c.refuse(t, "threads", "the first thread has no record", "report this")
		return
	}
	core.Mtype, core.ThreadInfo = t.threads[0].Mtype, t.threads[0].ThreadInfo
	core.ThreadCore = &criu_core.ThreadCoreEntry{
		Comm: proto.String(t.Comm), BlkSigset: proto.Uint64(^uint64(0)), Creds: credsOf(&t.Status),
		FutexRla: proto.Uint64(0), FutexRlaLen: proto.Uint32(0),
		SchedNice: t.threads[0].ThreadCore.SchedNice, SchedPolicy: t.threads[0].ThreadCore.SchedPolicy, SchedPrio: t.threads[0].ThreadCore.SchedPrio,
	}
	c.Image.Add(image.Of("core", t.PID), core)
	c.Image.Add(image.Of("thread-extra", t.PID), &fm.ThreadExtra{
		Tid: proto.Uint32(uint32(t.PID)), Xstate: like.Xstate, Affinity: like.Affinity, Ioprio: like.Ioprio, Sched: like.Sched,
		TidAddress: proto.Uint64(0), TimerSlack: proto.Uint64(0), Exited: proto.Uint32(uint32(t.Stat.ExitCode)),
	})
}

// askProcess adds the questions that one thread answers for its process.
func (c *Collector) askProcess(t *Task, b *batch, tc *criu_core.TaskCoreEntry, x *fm.TaskExtra, mme *mm.MmEntry) {
	sa, sab := b.e.Data(32 * numSignals)
	for s := uint64(1); s <= numSignals; s++ {
		b.ask("rt_sigaction", false, nil, unix.SYS_RT_SIGACTION, s, 0, sa+32*(s-1), 8)
	}
	rl, rlb := b.e.Data(16 * numRlimits)
	for i := uint64(0); i < numRlimits; i++ {
		b.ask("prlimit", false, nil, unix.SYS_PRLIMIT64, 0, i, 0, rl+16*i)
	}
	it, itb := b.e.Data(32 * numItimers)
	for i := uint64(0); i < numItimers; i++ {
		var take func(int64)
		if i == numItimers-1 {
			take = func(int64) {
				setSigactions(tc, sab)
				setRlimits(tc, rlb)
				setItimers(tc, itb)
			}
		}
		b.ask("getitimer", false, take, unix.SYS_GETITIMER, i, it+32*i)
	}
	b.prctlOut("PR_GET_CHILD_SUBREAPER", unix.PR_GET_CHILD_SUBREAPER, func(v uint64) { tc.ChildSubreaper = proto.Bool(uint32(v) != 0) })
	b.ask("PR_TIMER_CREATE_RESTORE_IDS", true, func(v int64) {
		if v != 0 {
			x.TimerIds = proto.Bool(true)
		}
	}, unix.SYS_PRCTL, sys.PrTimerCreateRestoreIDs, sys.TimerCreateRestoreIDsGet, 0, 0, 0)
	b.prctlVal("PR_GET_IO_FLUSHER", unix.PR_GET_IO_FLUSHER, func(v int64) { x.IoFlusher = proto.Uint32(uint32(v)) })
	if mme != nil {
		b.ask("brk", false, func(v int64) { mme.MmBrk = proto.Uint64(uint64(v)) }, unix.SYS_BRK, 0)
		c.askRings(t, b, mme)
		b.prctlVal("PR_GET_DUMPABLE", unix.PR_GET_DUMPABLE, func(v int64) { mme.Dumpable = proto.Int32(int32(v)) })
		b.prctlVal("PR_GET_THP_DISABLE", unix.PR_GET_THP_DISABLE, func(v int64) {
			mme.ThpDisabled = proto.Bool(v != 0)
			if v > 1 { // flags, beside the lowest bit
				t.extra.ThpFlags = proto.Uint32(uint32(v) &^ 1)
			}
		})
		b.prctlVal("PR_GET_MEMORY_MERGE", sys.PrGetMemoryMerge, func(v int64) {
			if v != 0 {
				t.extra.Ksm = proto.Uint32(uint32(v))
			}
		})
		b.ask("PR_FUTEX_HASH", true, func(v int64) { t.extra.FutexSlots = proto.Uint32(uint32(v)) }, unix.SYS_PRCTL, sys.PrFutexHash, sys.FutexHashGet, 0, 0, 0)
		c.askArch(t, b)
		b.prctlVal("PR_GET_MDWE", unix.PR_GET_MDWE, func(v int64) { t.extra.Mdwe = proto.Uint32(uint32(v)) }) // Linux 6.3
	}
	b.ask("membarrier", true, func(v int64) { tc.MembarrierRegistrationMask = proto.Uint32(uint32(v)) }, unix.SYS_MEMBARRIER, membarrierGetRegistrations, 0, 0)
	undos, err := c.Files.Undos(t.PID)
	if err != nil {
		c.refuse(t, "semaphores", fmt.Sprintf("what its end would take back from them (SEM_UNDO) cannot be read: %v", err), "run fermata as the machine's root")
	}
	for _, u := range undos {
		x.Undos = append(x.Undos, &fm.SemUndo{Set: proto.Int32(u.Set), Number: proto.Uint32(uint32(u.Number)), Adjust: proto.Int32(int32(u.Adjust))})
	}
	c.askStops(t, b)
	c.askTimers(t, b, x)
}

// askStops asks, of each stopped child, whether its stop is still to be
// reported: waitid(2) with WNOWAIT looks without taking.
func (c *Collector) askStops(t *Task, b *batch) {
	for _, o := range c.Tasks {
		if o.Stat.PPid != t.PID || groupStop(o) == 0 || !b.e.Room(1, 136) {
			continue
		}
		pid := o.PID
		at, info := b.e.Data(128)
		b.ask("waitid", true, func(int64) {
			if le.Uint32(info[16:]) == uint32(pid) { // si_pid
				c.unreported[pid] = true
			}
		}, unix.SYS_WAITID, unix.P_PID, uint64(pid), at, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, 0)
	}
}

const membarrierGetRegistrations = 1 << 9 // Linux 6.3

// askTimers adds the process's POSIX timers. /proc/PID/timers has no overrun
// and no time left; timer_gettime(2) and timer_getoverrun(2) do.
func (c *Collector) askTimers(t *Task, b *batch, x *fm.TaskExtra) {
	timers, err := procfs.ReadTimers(t.At())
	if err != nil {
		return // a kernel without the file has no way to restore them either
	}
	for _, tm := range timers {
		if !b.e.Room(4, 64) {
			c.refuse(t, fmt.Sprintf("POSIX timer %d", tm.ID), "the process has more timers than can be asked for at once", "delete timers it does not need")
			return
		}
		p := &fm.PosixTimer{
			Id: proto.Int32(int32(tm.ID)), Clock: proto.Int32(int32(tm.ClockID)), Signo: proto.Int32(int32(tm.Signal)),
			Sigval: proto.Uint64(tm.Sigval), Notify: proto.Int32(int32(tm.Notify)),
			Overrun: proto.Uint32(0), ValueNs: proto.Uint64(0), IntervalNs: proto.Uint64(0),
		}
		if tm.ToTID {
			p.Thread = proto.Uint32(uint32(tm.Target))
			if !slices.ContainsFunc(t.Threads, func(th *tracee.Thread) bool { return th.TID == tm.Target }) {
				// The thread has ended: the timer tells nobody any more, and none
				// can be made for such a thread.
				p.Thread, p.Notify = nil, proto.Int32(sigevNone)
			}
		}
		a, d := b.e.Data(32)
		b.ask("timer_gettime", false, func(int64) {
			p.IntervalNs = proto.Uint64(le.Uint64(d)*1e9 + le.Uint64(d[8:]))
			p.ValueNs = proto.Uint64(le.Uint64(d[16:])*1e9 + le.Uint64(d[24:]))
		}, unix.SYS_TIMER_GETTIME, uint64(tm.ID), a)
		b.ask("timer_getoverrun", false, func(r int64) { p.Overrun = proto.Uint32(uint32(r)) }, unix.SYS_TIMER_GETOVERRUN, uint64(tm.ID))
		x.Timers = append(x.Timers, p)
		t.timers = append(t.timers, p)
	}
}

const sigevNone = 1 // SIGEV_NONE

// askThread adds a thread's own questions; the function it gives fills the
// image once they are answered.
func (c *Collector) askThread(t *Task, th *tracee.Thread, b *batch, core *criu_core.CoreEntry) (func() error, error) {
	st := t.status[th.TID]
	x := &fm.ThreadExtra{Tid: proto.Uint32(uint32(th.TID)), Xstate: th.Xstate}
	tce := &criu_core.ThreadCoreEntry{Comm: proto.String(st.Name), BlkSigset: proto.Uint64(th.Mask)}
	core.ThreadCore = tce
	if err := threadOutside(th, tce, x); err != nil {
		return nil, err
	}
	tce.Creds = credsOf(st)
	c.saveSeccomp(th.TID, tce)
	var tc *criu_core.TaskCoreEntry
	if th == t.Threads[0] {
		tc = t.core.GetTc() // of the process
	}
	if err := c.cgroupSets(t, th, tc, tce); err != nil {
		return nil, err
	}
	x.Restart = c.restartBlock(t, th)
	tce.SignalsP = queue(th.Pending)

	b.prctlOut("PR_GET_TID_ADDRESS", sys.PrGetTidAddress, func(v uint64) { x.TidAddress = proto.Uint64(v) })
	b.prctlOut("PR_GET_PDEATHSIG", unix.PR_GET_PDEATHSIG, func(v uint64) { tce.PdeathSig = proto.Uint32(uint32(v)) })
	b.prctlOut("PR_GET_TSC", unix.PR_GET_TSC, func(v uint64) { x.TscOff = proto.Bool(uint32(v) == unix.PR_TSC_SIGSEGV) })
	b.prctlVal("PR_GET_SECUREBITS", unix.PR_GET_SECUREBITS, func(v int64) {
		tce.Creds.Secbits = proto.Uint32(uint32(v))
		x.Securebits = proto.Uint32(uint32(v))
	})
	b.prctlVal("PR_MCE_KILL_GET", sys.PrMCEKillGet, func(v int64) {
		if v != sys.MCEKillDefault {
			x.MceKill = proto.Uint32(uint32(v))
		}
	})
	askPolicy(b, 0, func(p *fm.NumaPolicy) { x.Policy = p })
	c.askKeyrings(t, th, b)
	b.prctlVal("PR_GET_TIMERSLACK", unix.PR_GET_TIMERSLACK, func(v int64) { x.TimerSlack = proto.Uint64(uint64(v)) })
	return func() error {
		if x.TidAddress == nil {
			x.TidAddress = proto.Uint64(0)
		}
		if x.TimerSlack == nil {
			x.TimerSlack = proto.Uint64(0)
		}
		sp, size, flags := b.e.AltStack()
		tce.Sas = &criu_core.ThreadSasEntry{SsSp: proto.Uint64(sp), SsSize: proto.Uint64(size), SsFlags: proto.Uint32(flags)}
		setArch(core, &th.Regs, x.GetTidAddress())
		c.Image.Add(image.Of("core", th.TID), core)
		c.Image.Add(image.Of("thread-extra", th.TID), x)
		return nil
	}, nil
}

// threadOutside reads what the kernel tells of a thread from outside.
func threadOutside(th *tracee.Thread, tce *criu_core.ThreadCoreEntry, x *fm.ThreadExtra) error {
	head, size, err := sys.GetRobustList(th.TID)
	if err != nil {
		return fmt.Errorf("thread %d: robust list: %w", th.TID, err)
	}
	tce.FutexRla, tce.FutexRlaLen = proto.Uint64(head), proto.Uint32(uint32(size))
	if r := &th.Rseq; r.Pointer != 0 {
		tce.RseqEntry = &rseq.RseqEntry{
			RseqAbiPointer: proto.Uint64(r.Pointer), RseqAbiSize: proto.Uint32(r.Size), Signature: proto.Uint32(r.Signature),
		}
		x.RseqFlags = proto.Uint32(r.Flags)
	}
	a, err := sys.SchedGetattr(th.TID)
	if err != nil {
		return fmt.Errorf("thread %d: sched_getattr: %w", th.TID, err)
	}
	x.Sched = &fm.SchedAttr{
		Policy: proto.Uint32(a.Policy), Flags: proto.Uint64(a.Flags), Nice: proto.Int32(a.Nice), Priority: proto.Uint32(a.Priority),
		Runtime: proto.Uint64(a.Runtime), Deadline: proto.Uint64(a.Deadline), Period: proto.Uint64(a.Period),
		UtilMin: proto.Uint32(a.UtilMin), UtilMax: proto.Uint32(a.UtilMax),
	}
	tce.SchedNice, tce.SchedPolicy, tce.SchedPrio = proto.Int32(a.Nice), proto.Uint32(a.Policy), proto.Uint32(a.Priority)
	if x.Affinity, err = sys.SchedAffinity(th.TID); err != nil {
		return fmt.Errorf("thread %d: sched_getaffinity: %w", th.TID, err)
	}
	prio, err := sys.IoprioGet(th.TID)
	if err != nil {
		return fmt.Errorf("thread %d: ioprio_get: %w", th.TID, err)
	}
	x.Ioprio = proto.Uint32(uint32(prio))
	return nil
}

// credsOf takes credentials from the kernel's own file, never from the task.
func credsOf(st *procfs.Status) *creds.CredsEntry {
	u := proto.Uint32
	caps := func(v uint64) []uint32 { return []uint32{uint32(v), uint32(v >> 32)} }
	e := &creds.CredsEntry{
		Uid: u(st.Uid[0]), Euid: u(st.Uid[1]), Suid: u(st.Uid[2]), Fsuid: u(st.Uid[3]),
		Gid: u(st.Gid[0]), Egid: u(st.Gid[1]), Sgid: u(st.Gid[2]), Fsgid: u(st.Gid[3]),
		CapInh: caps(st.CapInh), CapPrm: caps(st.CapPrm), CapEff: caps(st.CapEff), CapBnd: caps(st.CapBnd), CapAmb: caps(st.CapAmb),
		Secbits: u(0), Groups: append([]uint32(nil), st.Groups...), NoNewPrivs: u(0),
	}
	if st.NoNewPrivs {
		e.NoNewPrivs = u(1)
	}
	return e
}

func queue(sig []sys.Siginfo) *siginfo.SignalQueueEntry {
	q := &siginfo.SignalQueueEntry{}
	for i := range sig {
		q.Signals = append(q.Signals, &siginfo.SiginfoEntry{Siginfo: append([]byte(nil), sig[i][:]...)})
	}
	return q
}
