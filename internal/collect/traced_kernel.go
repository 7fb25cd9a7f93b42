package collect

import (
	"bufio"
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// What a task can ask about itself alone, read where the kernel keeps it: struct
// task_struct, signal_struct, sighand_struct, mm_struct, cred
// (include/linux/sched.h and sched/signal.h, mm_types.h, cred.h).

const (
	saInternal = 0x00800000 // SA_IMMUTABLE

	pfNoIO      = 0x00080000 // PF_MEMALLOC_NOIO
	pfThrottle  = 0x00100000 // PF_LOCAL_THROTTLE
	mmfDumpable = 3          // MMF_DUMPABLE_MASK
	mmfMDWE     = 1 << 28    // MMF_HAS_MDWE, Linux 6.3
	mmfMDWEOnce = 1 << 29    // MMF_HAS_MDWE_NO_INHERIT, Linux 6.6
	vmLocked    = 0x2000
	vmOnFault   = 0x80000
	tifNoTSC    = 1 << 16
)

// registrations are the bits of mm_struct.membarrier_state, with the command that
// sets each (enum membarrier_cmd).
var registrations = map[uint]uint32{1: 1 << 4, 3: 1 << 2, 5: 1 << 6, 7: 1 << 8}

// kernelProcess is what askProcess asks.
func (c *Collector) kernelProcess(t *Task, tc *criu_core.TaskCoreEntry, x *fm.TaskExtra, mme *mm.MmEntry) error {
	k, task, err := c.Files.KernelTask(t.PID, t.PID)
	if err != nil {
		return err
	}
	// As rt_sigaction(2) gives them: handler, flags, restorer, mask.
	hand := task.Ptr("sighand", "sighand_struct")
	sa := hand.Bytes("action", 32*numSignals)
	for i := range numSignals {
		f := sa[32*i+8:]
		le.PutUint64(f, le.Uint64(f)&^saInternal)
	}
	sig := task.Ptr("signal", "signal_struct")
	rl := sig.Bytes("rlim", 16*numRlimits)
	it, err := c.kernelTimer(t, sig.Uint("real_timer.node.expires"), sig.Uint("real_timer.state")&1 != 0, sig.Uint("it_real_incr"))
	if err != nil {
		return err
	}
	cpu := sig.Bytes("it", 32) // of two timers: when it expires, and again after
	tc.ChildSubreaper = proto.Bool(sig.Uint("is_child_subreaper") != 0)
	if f := t.Stat.Flags; f&pfNoIO != 0 && f&pfThrottle != 0 {
		x.IoFlusher = proto.Uint32(1)
	}
	space := task.Ptr("mm", "mm_struct")
	state := space.Uint("membarrier_state")
	registered := uint32(0)
	for bit, cmd := range registrations {
		if state>>bit&1 != 0 {
			registered |= cmd
		}
	}
	tc.MembarrierRegistrationMask = proto.Uint32(registered)
	flags := le.Uint64(space.Bytes("flags", 8))
	if mme != nil {
		mme.MmBrk = proto.Uint64(space.Uint("brk"))
		mme.Dumpable = proto.Int32(int32(flags & mmfDumpable))
		mme.ThpDisabled = proto.Bool(!t.Status.THPEnabled)
		if flags&mmfMDWE != 0 {
			v := uint32(unix.PR_MDWE_REFUSE_EXEC_GAIN)
			if flags&mmfMDWEOnce != 0 {
				v |= 2 // PR_MDWE_NO_INHERIT
			}
			t.extra.Mdwe = proto.Uint32(v)
		}
		if d := space.Uint("def_flags"); d&vmLocked != 0 {
			f := uint32(unix.MCL_FUTURE)
			if d&vmOnFault != 0 {
				f |= mclOnfault
			}
			t.extra.MlockFuture = proto.Uint32(f)
		}
	}
	if err := k.Err(); err != nil {
		return err
	}
	for i := range 2 {
		if le.Uint64(cpu[16*i:]) != 0 {
			c.refuse(t, "interval timers", "it is traced, and has one of processor time", "end its tracer first")
			return nil
		}
	}
	setSigactions(tc, sa)
	setRlimits(tc, rl)
	setItimers(tc, it)
	return nil
}

// kernelTimer gives the process's interval timer of real time, and none of
// processor time, as getitimer(2) does.
func (c *Collector) kernelTimer(t *Task, expires uint64, active bool, period uint64) ([]byte, error) {
	b := make([]byte, 32*numItimers)
	if !active {
		return b, nil
	}
	now, err := hostMonotonic()
	if err != nil {
		return nil, err
	}
	left := max(int64(expires)-now, 1000)
	for i, v := range []int64{int64(period), left} {
		le.PutUint64(b[16*i:], uint64(v/1e9))
		le.PutUint64(b[16*i+8:], uint64(v%1e9/1000))
	}
	return b, nil
}

// hostMonotonic gives the kernel's own CLOCK_MONOTONIC, without the offset of
// this process's time namespace.
func hostMonotonic() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, err
	}
	b, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return ts.Nano(), nil // a kernel without time namespaces
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var name string
		var sec, nsec int64
		if n, _ := fmt.Sscan(s.Text(), &name, &sec, &nsec); n == 3 && name == "monotonic" {
			return ts.Nano() - sec*1e9 - nsec, nil
		}
	}
	return ts.Nano(), nil
}

// kernelThread is what askThread asks.
func (c *Collector) kernelThread(t *Task, th *tracee.Thread, tce *criu_core.ThreadCoreEntry, x *fm.ThreadExtra) error {
	k, task, err := c.Files.KernelTask(t.PID, th.TID)
	if err != nil {
		return err
	}
	x.TidAddress = proto.Uint64(task.Uint("clear_child_tid"))
	tce.PdeathSig = proto.Uint32(uint32(task.Uint("pdeath_signal")))
	x.TscOff = proto.Bool(task.Uint("thread_info.flags")&tifNoTSC != 0)
	bits := uint32(task.Ptr("cred", "cred").Uint("securebits"))
	tce.Creds.Secbits, x.Securebits = proto.Uint32(bits), proto.Uint32(bits)
	x.TimerSlack = proto.Uint64(task.Uint("timer_slack_ns"))
	tce.Sas = &criu_core.ThreadSasEntry{
		SsSp: proto.Uint64(task.Uint("sas_ss_sp")), SsSize: proto.Uint64(task.Uint("sas_ss_size")), SsFlags: proto.Uint32(uint32(task.Uint("sas_ss_flags"))),
	}
	return k.Err()
}
