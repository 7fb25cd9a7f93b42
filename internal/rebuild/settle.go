package rebuild

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_sa "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-sa"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/siginfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timer"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/image/wire"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// layout sets the address space's layout (prctl(2), PR_SET_MM_MAP, Linux 3.18),
// the program link and the advice that belongs to the whole of it.
func (b *builder) layout(p, from *proc) error {
	p.exec.Reset()
	q := &queue{b: b, e: p.exec}
	m := p.mm
	if from == nil || !sameLayout(p, from) {
		// The kernel refuses to set a program link while an area maps the file
		// that it points to, even to that file: a child that inherited the right
		// link and areas keeps it.
		exe := uint32(math.MaxUint32)
		if from == nil || from.mm.GetExeFileId() != m.GetExeFileId() {
			fd, err := b.files.Open(m.GetExeFileId())
			if err != nil {
				return fmt.Errorf("program: %w", err)
			}
			if err := b.sendTemporary(q, []int{fd}); err != nil {
				return err
			}
			exe = 0 // the lowest free descriptor
		}
		var aux []byte
		for _, v := range m.GetMmSavedAuxv() {
			aux = le.AppendUint64(aux, v)
		}
		auxAt := q.e.Put(aux)
		at, d := q.e.Data(104)
		for i, v := range limits(m) {
			le.PutUint64(d[8*i:], v)
		}
		le.PutUint64(d[88:], auxAt)
		le.PutUint32(d[96:], uint32(len(aux)))
		le.PutUint32(d[100:], exe)
		q.add("prctl(PR_SET_MM_MAP)", unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_MAP, at, 104, 0)
		if exe != math.MaxUint32 {
			q.add("close", unix.SYS_CLOSE, uint64(exe))
		}
	}
	var had fm.MmExtra
	if from != nil && from.mmx != nil {
		had.Ksm, had.ThpFlags = from.mmx.Ksm, from.mmx.ThpFlags
	}
	if m.GetThpDisabled() != (from != nil && from.mm.GetThpDisabled()) || p.mmx.GetThpFlags() != had.GetThpFlags() {
		v := uint64(0)
		if m.GetThpDisabled() {
			v = 1
		}
		q.add("prctl(PR_SET_THP_DISABLE)", unix.SYS_PRCTL, unix.PR_SET_THP_DISABLE, v, uint64(p.mmx.GetThpFlags()), 0, 0)
	}
	if p.mmx.GetKsm() != had.GetKsm() {
		q.add("prctl(PR_SET_MEMORY_MERGE)", unix.SYS_PRCTL, sys.PrSetMemoryMerge, uint64(p.mmx.GetKsm()), 0, 0, 0)
	}
	if err := q.flush(); err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	if p.mmx.CoredumpFilter != nil && (from == nil || from.mmx.GetCoredumpFilter() != p.mmx.GetCoredumpFilter()) {
		path := fmt.Sprintf("/proc/%d/coredump_filter", p.host())
		if err := os.WriteFile(path, []byte(fmt.Sprintf("%#x", p.mmx.GetCoredumpFilter())), 0); err != nil {
			return err
		}
	}
	return nil
}

// sameLayout tells whether PR_SET_MM_MAP would set for both the same.
func sameLayout(p, from *proc) bool {
	a, c := p.mm, from.mm
	return a.GetExeFileId() == c.GetExeFileId() && limits(a) == limits(c) && slices.Equal(a.GetMmSavedAuxv(), c.GetMmSavedAuxv())
}

// limits gives the addresses of struct prctl_mm_map (include/uapi/linux/prctl.h),
// in its order.
func limits(m *mm.MmEntry) [11]uint64 {
	return [...]uint64{
		m.GetMmStartCode(), m.GetMmEndCode(), m.GetMmStartData(), m.GetMmEndData(), m.GetMmStartBrk(), m.GetMmBrk(),
		m.GetMmStartStack(), m.GetMmArgStart(), m.GetMmArgEnd(), m.GetMmEnvStart(), m.GetMmEnvEnd(),
	}
}

// dispositions sets how signals are handled, unless they were inherited so.
func (b *builder) dispositions(p, from *proc) error {
	sa := p.core.GetTc().GetSigactions()
	var had []*criu_sa.SaEntry
	if from != nil && !from.zombie {
		had = from.core.GetTc().GetSigactions()
	}
	if len(had) == len(sa) && slices.EqualFunc(had, sa, func(x, y *criu_sa.SaEntry) bool {
		return x.GetSigaction() == y.GetSigaction() && x.GetFlags() == y.GetFlags() && x.GetMask() == y.GetMask() && x.GetRestorer() == y.GetRestorer()
	}) {
		return nil
	}
	p.exec.Reset()
	q := &queue{b: b, e: p.exec}
	i := 0
	for s := uint64(1); s <= 64; s++ {
		if s == uint64(unix.SIGKILL) || s == uint64(unix.SIGSTOP) {
			continue
		}
		if i >= len(sa) {
			break
		}
		x := sa[i]
		i++
		if had == nil && x.GetSigaction() == 0 && x.GetFlags() == 0 && x.GetMask() == 0 {
			continue // as the seed has it
		}
		q.room(1, 40)
		at, d := q.e.Data(32)
		le.PutUint64(d, x.GetSigaction())
		le.PutUint64(d[8:], x.GetFlags())
		le.PutUint64(d[16:], x.GetRestorer())
		le.PutUint64(d[24:], x.GetMask())
		q.add("rt_sigaction", unix.SYS_RT_SIGACTION, s, at, 0, 8)
	}
	return q.flush()
}

// settle gives a process everything that is left, and each of its threads its
// own state, up to the registers; the threads are stopped afterwards.
func (b *builder) settle(p *proc) error {
	p.exec.Reset()
	q := &queue{b: b, e: p.exec}
	q.add("close", unix.SYS_CLOSE, uint64(b.transportFD))
	if b.closedTable[p.ids().GetFilesId()] {
		q.names[len(q.names)-1].optional = true
	}
	b.closedTable[p.ids().GetFilesId()] = true
	tc := p.core.GetTc()
	q.add("personality", unix.SYS_PERSONALITY, uint64(tc.GetPersonality()))
	if tc.GetChildSubreaper() {
		q.add("prctl(PR_SET_CHILD_SUBREAPER)", unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	if p.extra.GetIoFlusher() != 0 {
		q.add("prctl(PR_SET_IO_FLUSHER)", unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0)
	}
	if p.vmOwner == p {
		b.lockMemory(q, p)
		b.seal(q, p)
	}
	if r := tc.GetMembarrierRegistrationMask(); r != 0 {
		for bit := uint64(0); bit < 32; bit++ {
			if r>>bit&1 != 0 {
				q.optional("membarrier", unix.SYS_MEMBARRIER, 1<<bit, 0, 0)
			}
		}
	}
	if err := q.flush(); err != nil {
		return err
	}
	if err := b.outside(p); err != nil {
		return err
	}
	if err := b.timers(p); err != nil {
		return err
	}
	if err := b.drain(p); err != nil {
		return err
	}
	if err := b.signals(p); err != nil {
		return err
	}
	// Timers and queued signals were there before the limits that admit no more.
	p.exec.Reset()
	b.futexHash(q, p)
	b.rlimits(q, p)
	if err := q.flush(); err != nil {
		return err
	}
	if err := b.seccomp(p); err != nil {
		return err
	}
	if err := b.settleThreads(p); err != nil {
		return err
	}
	if err := b.polledUrings(p); err != nil {
		return err
	}
	if d := p.vmOwner.mm; b.lastOf(p) && d.GetDumpable() <= 1 {
		// Every thread of every task of the address space resets it with its
		// credentials, so it comes after the last.
		p.exec.Reset()
		if _, err := p.exec.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, uint64(d.GetDumpable()), 0, 0, 0); err != nil {
			return fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
		}
	}
	return b.itimers(p)
}

// futexHash gives private futexes a hash of the size that they had, unless it
// came by itself (prctl(2), PR_FUTEX_HASH, Linux 6.16).
func (b *builder) futexHash(q *queue, p *proc) {
	if p.vmOwner != p || p.mmx.FutexSlots == nil {
		return
	}
	want := int64(p.mmx.GetFutexSlots())
	now := want
	q.optional("prctl(PR_FUTEX_HASH)", unix.SYS_PRCTL, sys.PrFutexHash, sys.FutexHashGet, 0, 0, 0)
	q.take(func(v int64) { now = v })
	q.run()
	if now != want {
		q.optional("prctl(PR_FUTEX_HASH)", unix.SYS_PRCTL, sys.PrFutexHash, sys.FutexHashSet, uint64(want), 0, 0)
	}
}

// lockMemory locks what was locked; locks are not inherited.
func (b *builder) lockMemory(q *queue, p *proc) {
	for i := range p.areas {
		a := &p.areas[i]
		f := a.flags()
		if f&procfs.VMLocked == 0 || a.special() {
			continue
		}
		flags := uint64(0)
		if f&procfs.VMLockOnFault != 0 {
			flags = 1 // MLOCK_ONFAULT
		}
		q.add("mlock2", unix.SYS_MLOCK2, a.GetStart(), a.GetEnd()-a.GetStart(), flags)
	}
}

// seal forbids changes of areas that were sealed (mseal(2), Linux 6.10) and
// memory that is writable and executable (prctl(2), PR_SET_MDWE, Linux 6.3), and
// makes what is mapped from now on locked (mlockall(2), MCL_FUTURE).
func (b *builder) seal(q *queue, p *proc) {
	if f := p.mmx.GetMlockFuture(); f != 0 {
		q.add("mlockall", unix.SYS_MLOCKALL, uint64(f))
	}
	if f := p.mmx.GetMdwe(); f != 0 {
		q.add("prctl(PR_SET_MDWE)", unix.SYS_PRCTL, unix.PR_SET_MDWE, uint64(f), 0, 0, 0)
	}
	for i := range p.areas {
		if a := &p.areas[i]; a.flags()&procfs.VMSealed != 0 && !a.special() {
			q.add("mseal", unix.SYS_MSEAL, a.GetStart(), a.GetEnd()-a.GetStart(), 0)
		}
	}
}

// rlimits sets the resource limits. A hard limit above this process's own needs
// CAP_SYS_RESOURCE.
func (b *builder) rlimits(q *queue, p *proc) {
	for i, l := range tcRlimits(p) {
		q.room(1, 24)
		at, d := q.e.Data(16)
		le.PutUint64(d, l[0])
		le.PutUint64(d[8:], l[1])
		q.optional("prlimit", unix.SYS_PRLIMIT64, 0, uint64(i), at, 0)
		if l[1] > b.hard[i] {
			b.note("pid %d: resource limit %d: its hard limit %d is above fermata's own (%d) and cannot be raised without CAP_SYS_RESOURCE", p.pid, i, l[1], b.hard[i])
		}
	}
}

func tcRlimits(p *proc) (out [][2]uint64) {
	for _, l := range p.core.GetTc().GetRlimits().GetRlimits() {
		out = append(out, [2]uint64{l.GetCur(), l.GetMax()})
	}
	return out
}

// outside sets what the controller can set for a process.
func (b *builder) outside(p *proc) error {
	if adj := int(p.core.GetTc().GetOomScoreAdj()); adj != b.ownOOM {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.host()), []byte(strconv.Itoa(adj)), 0); err != nil {
			b.note("pid %d: oom_score_adj %d: %v", p.pid, adj, err)
		}
	}
	if p.core.GetTc().Loginuid != nil && p.core.GetTc().GetLoginuid() != b.ownLogin {
		if err := b.loginUID(p, p.core.GetTc().GetLoginuid()); err != nil {
			b.note("pid %d: login uid: %v", p.pid, err)
		}
	}
	b.joinThreads(p)
	b.autogroup(p)
	for _, t := range p.threads {
		if err := b.schedule(p, t); err != nil {
			return err
		}
	}
	return nil
}

// loginUID sets the login uid, which a task may do only for itself.
func (b *builder) loginUID(p *proc, uid uint32) error {
	p.exec.Reset()
	fd, err := p.exec.Call(unix.SYS_OPENAT, unix.AT_FDCWD&math.MaxUint32, p.exec.PutString("/proc/self/loginuid"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	p.exec.Reset()
	text := strconv.FormatUint(uint64(uid), 10)
	_, err = p.exec.Call(unix.SYS_WRITE, uint64(fd), p.exec.PutString(text), uint64(len(text)))
	p.exec.Reset()
	if _, cerr := p.exec.Call(unix.SYS_CLOSE, uint64(fd)); err == nil {
		err = cerr
	}
	return err
}

// autogroup gives the autogroup of a session that was made here its nice value
// (sched(7)); a new one has 0. One process of the session does it for all. That
// of a session from outside the tree is its own affair.
func (b *builder) autogroup(p *proc) {
	nice := p.extra.GetAutogroup()
	if nice == 0 || p.session != p.sid || p.sid == b.session || b.autogroups[p.sid] {
		return
	}
	if b.autogroups == nil {
		b.autogroups = map[int]bool{}
	}
	b.autogroups[p.sid] = true
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", p.host()), []byte(strconv.Itoa(int(nice))), 0); err != nil {
		b.note("session %d: nice value %d of its autogroup: %v", p.sid, nice, err)
	}
}

// schedule sets a thread's scheduling, where it differs from this process's.
func (b *builder) schedule(p *proc, t *thread) error {
	s := t.extra.GetSched()
	a := sys.SchedAttr{
		Policy: s.GetPolicy(), Flags: s.GetFlags(), Nice: s.GetNice(), Priority: s.GetPriority(),
		Runtime: s.GetRuntime(), Deadline: s.GetDeadline(), Period: s.GetPeriod(),
		UtilMin: s.GetUtilMin(), UtilMax: s.GetUtilMax(),
	}
	own := b.ownSched
	own.Size = 0
	if a != own {
		if err := sys.SchedSetattr(t.exec.TID, &a); err != nil {
			return fmt.Errorf("thread %d: scheduling policy %d, nice %d, priority %d: %w", t.tid, a.Policy, a.Nice, a.Priority, err)
		}
	}
	if m := t.extra.GetAffinity(); len(m) > 0 && !slices.Equal(m, b.ownAffinity) {
		if err := sys.SetSchedAffinity(t.exec.TID, m); err != nil {
			b.note("thread %d: CPU affinity: %v", t.tid, err)
		}
	}
	if prio := int(t.extra.GetIoprio()); prio != b.ownIoprio {
		if err := sys.IoprioSet(t.exec.TID, prio); err != nil {
			return fmt.Errorf("thread %d: I/O priority %#x: %w", t.tid, prio, err)
		}
	}
	return nil
}

// drain takes signals that the rebuilding itself has caused: ends and stops of
// children. None of the program's own is queued yet.
func (b *builder) drain(p *proc) error {
	for {
		p.exec.Reset()
		all := p.exec.Put(le.AppendUint64(nil, ^uint64(0)))
		zero, _ := p.exec.Data(16)
		_, err := p.exec.Call(unix.SYS_RT_SIGTIMEDWAIT, all, 0, zero, 8)
		switch err {
		case nil:
		case unix.EAGAIN:
			return nil
		case unix.EINTR:
		default:
			return fmt.Errorf("pid %d: taking signals: %w", p.pid, err)
		}
	}
}

// signals queues what was pending, for the process and for each thread.
func (b *builder) signals(p *proc) error {
	if err := b.queueStops(p); err != nil {
		return err
	}
	if err := b.queueSignals(p, p.threads[0], p.core.GetTc().GetSignalsS(), true); err != nil {
		return err
	}
	for _, t := range p.threads {
		if err := b.queueSignals(p, t, t.core.GetThreadCore().GetSignalsP(), false); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) queueSignals(p *proc, t *thread, s *siginfo.SignalQueueEntry, shared bool) error {
	if len(s.GetSignals()) == 0 {
		return nil
	}
	t.exec.Reset()
	q := &queue{b: b, e: t.exec}
	for _, x := range s.GetSignals() {
		si := x.GetSiginfo()
		if len(si) < 128 {
			return fmt.Errorf("pid %d: a pending signal of %d bytes", p.pid, len(si))
		}
		if timerOf(p, si) != nil {
			continue // the timer queues its own (itimers)
		}
		q.room(1, 136)
		at := q.e.Put(si[:128])
		signo := uint64(le.Uint32(si))
		// A task may queue itself any code, which nobody else may.
		if shared {
			q.add("rt_sigqueueinfo", unix.SYS_RT_SIGQUEUEINFO, uint64(p.pid), signo, at)
		} else {
			q.add("rt_tgsigqueueinfo", unix.SYS_RT_TGSIGQUEUEINFO, uint64(p.pid), uint64(t.tid), signo, at)
		}
	}
	return q.flush()
}

// timers makes the POSIX timers, with the ids they had.
func (b *builder) timers(p *proc) error {
	p.exec.Reset()
	if len(p.extra.GetTimers()) == 0 {
		if !p.extra.GetTimerIds() {
			return nil
		}
		_, err := p.exec.Call(unix.SYS_PRCTL, sys.PrTimerCreateRestoreIDs, 1, 0, 0, 0)
		return err
	}
	q := &queue{b: b, e: p.exec}
	// Linux 6.15 lets a process choose ids; before, they count up.
	on, _ := p.exec.Call(unix.SYS_PRCTL, sys.PrTimerCreateRestoreIDs, 1, 0, 0, 0)
	choose := on == 0
	p.exec.Reset()
	next := int32(0)
	// The kernel lists the newest first.
	list := slices.Clone(p.extra.GetTimers())
	slices.Reverse(list)
	for _, t := range list {
		for {
			q.room(2, 160)
			ev, d := q.e.Data(64)
			le.PutUint64(d, t.GetSigval())
			le.PutUint32(d[8:], uint32(t.GetSigno()))
			notify := uint32(t.GetNotify())
			if t.Thread != nil {
				notify |= 4 // SIGEV_THREAD_ID
				le.PutUint32(d[16:], t.GetThread())
			}
			le.PutUint32(d[12:], notify)
			idAt, id := q.e.Data(8)
			le.PutUint32(id, uint32(t.GetId()))
			clock := uint64(uint32(t.GetClock()))
			var got int32
			q.add("timer_create", unix.SYS_TIMER_CREATE, clock, ev, idAt)
			q.take(func(int64) { got = int32(le.Uint32(id)) })
			if err := q.flush(); err != nil {
				return fmt.Errorf("timer %d: %w", t.GetId(), err)
			}
			if got == t.GetId() {
				break
			}
			if choose || got > t.GetId() || next > t.GetId() {
				return fmt.Errorf("timer %d: the kernel gave id %d", t.GetId(), got)
			}
			next = got
			p.exec.Reset()
			if _, err := p.exec.Call(unix.SYS_TIMER_DELETE, uint64(uint32(got))); err != nil {
				return fmt.Errorf("timer %d: %w", got, err)
			}
			p.exec.Reset()
		}
	}
	if choose && !p.extra.GetTimerIds() {
		p.exec.Reset()
		if _, err := p.exec.Call(unix.SYS_PRCTL, sys.PrTimerCreateRestoreIDs, 0, 0, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// timerOf gives the POSIX timer that a pending signal comes from, or nil.
func timerOf(p *proc, si []byte) *fm.PosixTimer {
	const siTimer = -2 // SI_TIMER
	if int32(le.Uint32(si[8:])) != siTimer {
		return nil
	}
	for _, t := range p.extra.GetTimers() {
		if t.GetId() == int32(le.Uint32(si[16:])) {
			return t
		}
	}
	return nil
}

// firedTimers gives the timers whose signal is pending.
func firedTimers(p *proc) map[int32]bool {
	out := map[int32]bool{}
	look := func(s *siginfo.SignalQueueEntry) {
		for _, x := range s.GetSignals() {
			if si := x.GetSiginfo(); len(si) >= 128 {
				if t := timerOf(p, si); t != nil {
					out[t.GetId()] = true
				}
			}
		}
	}
	look(p.core.GetTc().GetSignalsS())
	for _, t := range p.threads {
		look(t.core.GetThreadCore().GetSignalsP())
	}
	return out
}

// itimers starts every timer; it comes last, for they run from here on.
func (b *builder) itimers(p *proc) error {
	tm := p.core.GetTc().GetTimers()
	p.exec.Reset()
	q := &queue{b: b, e: p.exec}
	for i, t := range []*timer.ItimerEntry{tm.GetReal(), tm.GetVirt(), tm.GetProf()} {
		if t.GetVsec() == 0 && t.GetVusec() == 0 {
			continue
		}
		q.room(1, 40)
		at, d := q.e.Data(32)
		le.PutUint64(d, t.GetIsec())
		le.PutUint64(d[8:], t.GetIusec())
		le.PutUint64(d[16:], t.GetVsec())
		le.PutUint64(d[24:], t.GetVusec())
		q.add("setitimer", unix.SYS_SETITIMER, uint64(i), at, 0)
	}
	fired := firedTimers(p)
	left := map[int32]int64{}
	for _, t := range p.extra.GetTimers() {
		if t.GetValueNs() == 0 && !fired[t.GetId()] {
			continue
		}
		if fired[t.GetId()] {
			// Its signal is pending: it expires at once, while everything is
			// blocked, and the signal is its own again.
			t = wire.Clone(t)
			left[t.GetId()] = int64(t.GetValueNs())
			t.ValueNs = proto.Uint64(1)
		}
		flags := uint64(0)
		if fired[t.GetId()] && t.GetMissed() > 0 {
			// It began to expire so long ago: at the delivery of its signal the
			// kernel counts how often it would have.
			now, err := b.clockOf(q, t.GetClock())
			if err != nil {
				return err
			}
			back := t.GetMissed()*int64(t.GetIntervalNs()) - left[t.GetId()]
			t.ValueNs = proto.Uint64(uint64(max(1, now-max(0, back))))
			flags = timerAbstime
		}
		q.room(1, 40)
		at, d := q.e.Data(32)
		le.PutUint64(d, t.GetIntervalNs()/1e9)
		le.PutUint64(d[8:], t.GetIntervalNs()%1e9)
		le.PutUint64(d[16:], t.GetValueNs()/1e9)
		le.PutUint64(d[24:], t.GetValueNs()%1e9)
		q.add("timer_settime", unix.SYS_TIMER_SETTIME, uint64(uint32(t.GetId())), flags, at, 0)
	}
	return q.flush()
}

const timerAbstime = 1 // TIMER_ABSTIME

// clockOf reads a clock as the process sees it, in nanoseconds.
func (b *builder) clockOf(q *queue, clock int32) (ns int64, err error) {
	if err := q.flush(); err != nil {
		return 0, err
	}
	at, d := q.e.Data(16)
	q.add("clock_gettime", unix.SYS_CLOCK_GETTIME, uint64(uint32(clock)), at)
	q.take(func(int64) { ns = int64(le.Uint64(d))*1e9 + int64(le.Uint64(d[8:])) })
	return ns, q.flush()
}

// settleThreads gives each thread what is its own; all are at it at once.
func (b *builder) settleThreads(p *proc) error {
	qs := make([]*queue, len(p.threads))
	for i, t := range p.threads {
		qs[i] = b.settleThread(t)
		qs[i].start()
	}
	var first error
	for i, q := range qs {
		if err := q.finish(); err != nil && first == nil {
			first = fmt.Errorf("thread %d: %w", p.threads[i].tid, err)
		}
	}
	return first
}

// settleThread queues what gives a thread what is its own and not in registers.
func (b *builder) settleThread(t *thread) *queue {
	t.exec.Reset()
	q := &queue{b: b, e: t.exec}
	tce := t.core.GetThreadCore()
	q.add("prctl(PR_SET_NAME)", unix.SYS_PRCTL, unix.PR_SET_NAME, q.e.PutString(tce.GetComm()))
	if t.extra.GetTimerSlack() != 0 {
		q.add("prctl(PR_SET_TIMERSLACK)", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, t.extra.GetTimerSlack())
	}
	if t.extra.GetTscOff() {
		q.add("prctl(PR_SET_TSC)", unix.SYS_PRCTL, unix.PR_SET_TSC, unix.PR_TSC_SIGSEGV)
	}
	if t.extra.MceKill != nil {
		q.add("prctl(PR_MCE_KILL)", unix.SYS_PRCTL, sys.PrMCEKill, sys.MCEKillSet, uint64(t.extra.GetMceKill()), 0, 0)
	}
	if m := t.extra.GetPolicy(); m != nil {
		q.add("set_mempolicy", unix.SYS_SET_MEMPOLICY, uint64(m.GetMode()), nodes(q, m), nodeBits(m))
	}
	q.add("set_robust_list", unix.SYS_SET_ROBUST_LIST, tce.GetFutexRla(), uint64(tce.GetFutexRlaLen()))
	if tce.GetFutexRlaLen() == 0 {
		q.names[len(q.names)-1].optional = true
	}
	q.add("set_tid_address", unix.SYS_SET_TID_ADDRESS, t.extra.GetTidAddress())
	const onStack = 1
	if s := tce.GetSas(); s != nil && s.GetSsFlags()&2 == 0 {
		at, d := q.e.Data(24)
		le.PutUint64(d, s.GetSsSp())
		le.PutUint32(d[8:], s.GetSsFlags()&^onStack)
		le.PutUint64(d[16:], s.GetSsSize())
		q.add("sigaltstack", unix.SYS_SIGALTSTACK, at, 0)
	}
	if r := tce.GetRseqEntry(); r.GetRseqAbiPointer() != 0 {
		q.add("rseq", unix.SYS_RSEQ, r.GetRseqAbiPointer(), uint64(r.GetRseqAbiSize()), 0, uint64(r.GetSignature()))
	}
	b.setCreds(q, tce.GetCreds())
	if s := tce.GetPdeathSig(); s != 0 {
		// Changing credentials clears it, so it comes after them.
		q.add("prctl(PR_SET_PDEATHSIG)", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uint64(s))
	}
	return q
}

// restartFor gives the call whose restart block a thread needs, with the
// arguments that make it last for the remaining time; ok is false when it is
// simply issued again.
func restartFor(r *fm.RestartBlock, args [6]uint64, timespecAt uint64) (nr uint64, out [6]uint64, ts []byte, ok bool) {
	if r == nil || r.GetRemainingNs() < 0 {
		return 0, args, nil, false
	}
	d := time.Duration(r.GetRemainingNs())
	ts = le.AppendUint64(nil, uint64(d/time.Second))
	ts = le.AppendUint64(ts, uint64(d%time.Second))
	out = args
	nr = uint64(r.GetNr())
	switch nr {
	case unix.SYS_NANOSLEEP:
		out[0] = timespecAt
	case unix.SYS_CLOCK_NANOSLEEP:
		out[2] = timespecAt
	case unix.SYS_FUTEX:
		out[3] = timespecAt
	case sys.NrPoll:
		out[2] = uint64((d + time.Millisecond - 1) / time.Millisecond)
		if out[2] == 0 {
			out[2] = 1
		}
	default:
		return 0, args, nil, false
	}
	return nr, out, ts, true
}

// nodes puts the mask of a NUMA policy, nodeBits is its length as calls want it:
// one more than there are bits.
func nodes(q *queue, m *fm.NumaPolicy) uint64 {
	if len(m.GetNodes()) == 0 {
		return 0
	}
	return q.e.Put(append(append([]byte{}, m.GetNodes()...), make([]byte, 8)...))
}

func nodeBits(m *fm.NumaPolicy) uint64 {
	if len(m.GetNodes()) == 0 {
		return 0
	}
	return uint64(8*len(m.GetNodes())) + 1
}
