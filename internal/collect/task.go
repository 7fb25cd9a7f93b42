package collect

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	criu_sa "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-sa"
	criu_fs "github.com/checkpoint-restore/go-criu/v8/crit/images/fs"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/rlimit"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timer"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Task states of the interchange schema (task_core_entry.task_state).
const (
	StateAlive   = 1
	StateDead    = 2
	StateStopped = 3
)

const numSignals = 64

// task collects one process: what it has of its own, its address space unless
// an earlier task shares it, its threads.
func (c *Collector) task(t *Task) error {
	x := &fm.TaskExtra{
		Pid: proto.Uint32(uint32(t.PID)), StartTime: proto.Uint64(t.Stat.StartTime),
		ExitSignal: proto.Uint32(uint32(max(t.Stat.ExitSignal, 0))),
		TtyNr:      proto.Uint32(uint32(t.Stat.TtyNr)), TtyPgrp: proto.Int32(int32(t.Stat.TtyPgrp)),
	}
	if t.Zombie {
		return c.zombie(t, x)
	}
	if ok, err := c.begin(t); !ok || err != nil {
		return err
	}
	ids := t.kobjs
	core := &criu_core.CoreEntry{Ids: ids}
	tc := &criu_core.TaskCoreEntry{
		TaskState: proto.Uint32(StateAlive), ExitCode: proto.Uint32(0),
		Flags: proto.Uint32(t.Stat.Flags), Comm: proto.String(t.Comm),
	}
	core.Tc = tc
	if s := groupStop(t); s != 0 {
		tc.TaskState = proto.Uint32(StateStopped)
		tc.StopSigno = proto.Uint32(uint32(s))
		x.StopSignal = proto.Uint32(uint32(s))
		x.StoppedUnreported = proto.Bool(c.unreported[t.PID])
	}
	if err := c.taskFiles(t, tc, x); err != nil {
		return err
	}
	if err := c.ask(t, core, x); err != nil {
		return err
	}
	tc.SignalsS = queue(t.Pending)
	tc.BlkSigset = proto.Uint64(t.Threads[0].Mask)
	if !c.tables[ids.GetFilesId()] {
		c.tables[ids.GetFilesId()] = true
		if err := c.descriptors(t, int(ids.GetFilesId())); err != nil {
			return err
		}
	}
	if err := c.fs(t, ids.GetFsId()); err != nil {
		return err
	}
	if err := t.answered(); err != nil {
		return err
	}
	c.Image.Add(image.Of("task-extra", t.PID), x)
	return nil
}

// begin looks at what decides whether a task can be saved, reads its memory map
// and brings the executor in. ok is false when it was refused.
func (c *Collector) begin(t *Task) (ok bool, err error) {
	if t.begun {
		return t.kobjs != nil, nil
	}
	t.begun = true
	if ok, err := c.supported(t); !ok || err != nil {
		return false, err
	}
	ids, err := c.kobjIDs(t.At())
	if err != nil {
		return false, fmt.Errorf("kcmp: %w", err)
	}
	t.VM = ids.GetVmId()
	t.SharesMM = c.sharing[t.VM]
	if t.SharesMM == nil {
		c.sharing[t.VM] = t
		if err := c.readAreas(t); err != nil {
			return false, err
		}
	}
	if !t.traced {
		for _, th := range t.Threads {
			if err := c.shorten(th); err != nil {
				return false, fmt.Errorf("thread %d: %w", th.TID, err)
			}
		}
		if err := c.enter(t); err != nil {
			return false, err
		}
	}
	t.kobjs = ids
	return true, nil
}

func groupStop(t *Task) int {
	for _, th := range t.Threads {
		if th.GroupStop != 0 {
			return th.GroupStop
		}
	}
	return 0
}

// zombie saves an exited process that its parent has not waited for.
func (c *Collector) zombie(t *Task, x *fm.TaskExtra) error {
	x.ExitStatus = proto.Uint32(uint32(t.Stat.ExitCode))
	core := &criu_core.CoreEntry{Tc: &criu_core.TaskCoreEntry{
		TaskState: proto.Uint32(StateDead), ExitCode: proto.Uint32(uint32(t.Stat.ExitCode)),
		Flags: proto.Uint32(t.Stat.Flags), Comm: proto.String(t.Comm),
	}, ThreadCore: &criu_core.ThreadCoreEntry{FutexRla: proto.Uint64(0), FutexRlaLen: proto.Uint32(0), Creds: credsOf(&t.Status)}}
	c.Image.Add(image.Of("core", t.PID), core)
	c.Image.Add(image.Of("task-extra", t.PID), x)
	return nil
}

// supported refuses, by name, what the engine cannot carry.
func (c *Collector) supported(t *Task) (bool, error) {
	ok := true
	no := func(object, why, remedy string) {
		c.refuse(t, object, why, remedy)
		ok = false
	}
	if err := t.facts.readBase(); err != nil {
		return false, err
	}
	ns := t.facts.base.namespaces
	names := make([]string, 0, len(ns))
	for n := range ns {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if n == "time" || n == "time_for_children" {
			continue // restored tasks have one; the clocks' offsets are saved
		}
		if own, known := c.own[n]; known && own != ns[n] {
			no(n+" namespace", "the task is in another one than fermata", "run fermata inside that namespace")
		}
	}
	for _, th := range t.Threads {
		if compat(&th.Regs) {
			no(fmt.Sprintf("thread %d", th.TID), "it runs 32-bit code", "only 64-bit programs can be saved")
			break
		}
	}
	for _, th := range t.Threads {
		if th.Dispatch {
			no(fmt.Sprintf("thread %d", th.TID), "its system calls are dispatched to a handler of its own (PR_SET_SYSCALL_USER_DISPATCH)", "switch that off before the checkpoint")
		}
	}
	privs := false // given up by some thread
	// Before any thread is entered: a filter judges the executor's calls, and a
	// thread in strict mode would not survive the first.
	t.status = map[int]*procfs.Status{t.PID: &t.Status}
	for _, th := range t.Threads {
		st := t.status[th.TID]
		if st == nil {
			s, err := procfs.ReadStatus(t.PID, th.TID)
			if err != nil {
				return false, fmt.Errorf("thread %d: %w", th.TID, err)
			}
			st = &s
			t.status[th.TID] = st
		}
		if st.Seccomp != 0 && t.traced {
			no("seccomp", "it is traced by another task of the tree, and runs under seccomp", "end its tracer first")
		} else if st.Seccomp != 0 && ok {
			var err error
			if ok, err = c.seccomp(t, th, st); err != nil {
				return false, err
			}
		}
		privs = privs || st.NoNewPrivs
		switch {
		case strings.Contains(st.X86ThreadFeatures, "shstk"):
			no(fmt.Sprintf("thread %d", th.TID), "it has a shadow stack", "start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off")
		}
	}
	if privs {
		switch in, err := c.Files.Landlocked(t.At()); {
		case errors.Is(err, kmem.ErrUnavailable):
			c.Notes = append(c.Notes, fmt.Sprintf("pid %d (%s): whether it is in a Landlock domain cannot be told; a restored program would be in none (%v)", t.PID, t.Comm, err))
		case err != nil:
			return false, err
		case in:
			no("threads", "it is in a Landlock domain, which nobody can read out: restored, it would be free of it", "start it without that sandbox")
		}
	}
	return ok, nil
}

// enter makes what the executor needs in a task; ask brings it in.
func (c *Collector) enter(t *Task) error {
	if t.SharesMM != nil {
		// The address space has its region already; this task's threads have
		// slots in it.
		t.guest = t.SharesMM.guest
		t.maps = t.SharesMM.maps
	} else {
		gad, ok := tracee.FindGadgets(t.At(), t.maps)
		if !ok {
			c.refuse(t, "address space", "it has no `syscall; ret` (its vdso is gone)", "do not unmap the vdso")
			return nil
		}
		g, err := tracee.Prepare(t.At(), t.Threads[0], c.slots(t), t.maps, gad, t.Status.Uid[1], t.Status.Gid[1], c.list)
		if err != nil {
			return err
		}
		t.guest = g
		c.guests = append(c.guests, g)
	}
	return nil
}

// slots gives how many slots the region of a task needs.
func (c *Collector) slots(t *Task) int {
	n := c.threadsIn(t.VM)
	if t.large {
		n += tracee.SnapshotRoom
	}
	if t.tracer {
		n += t.tracingThreads(c.tracers) // for what each owes
	}
	return n
}

// threadsIn counts the threads that run in an address space.
func (c *Collector) threadsIn(vm uint32) int {
	if c.threads == nil {
		c.threads = map[uint32]int{}
		for _, p := range c.Tree.Processes {
			// One that cannot be asked is refused, or fails, by itself.
			if id, err := c.ids[0].id(p.At()); err == nil && !p.Zombie {
				c.threads[id] += len(p.Threads)
			}
		}
	}
	return c.threads[vm]
}

// taskFiles reads what /proc has of a process.
func (c *Collector) taskFiles(t *Task, tc *criu_core.TaskCoreEntry, x *fm.TaskExtra) error {
	if err := t.facts.readBase(); err != nil {
		return err
	}
	f := &t.facts.base
	tc.Personality = proto.Uint32(f.personal)
	tc.OomScoreAdj = proto.Int32(int32(f.oomAdj))
	tc.Loginuid, x.Autogroup = f.loginUID, f.autogroup
	return nil
}

// fs saves working directory, root and umask.
func (c *Collector) fs(t *Task, id uint32) error {
	cwd, err := c.Files.PathFile(t.At(), "cwd")
	if err != nil {
		return err
	}
	root, err := c.Files.PathFile(t.At(), "root")
	if err != nil {
		return err
	}
	c.Image.Add(image.Of("fs", t.PID), &criu_fs.FsEntry{
		CwdId: proto.Uint32(cwd), RootId: proto.Uint32(root), Umask: proto.Uint32(t.Status.Umask),
	})
	return nil
}

// rlimits and interval timers, in the order of their numbers
// (include/uapi/asm-generic/resource.h, include/uapi/linux/time.h).
const (
	numRlimits = 16
	numItimers = 3
)

func setRlimits(tc *criu_core.TaskCoreEntry, raw []byte) {
	tc.Rlimits = &criu_core.TaskRlimitsEntry{}
	for i := range numRlimits {
		tc.Rlimits.Rlimits = append(tc.Rlimits.Rlimits, &rlimit.RlimitEntry{
			Cur: proto.Uint64(le.Uint64(raw[16*i:])), Max: proto.Uint64(le.Uint64(raw[16*i+8:])),
		})
	}
}

func setItimers(tc *criu_core.TaskCoreEntry, raw []byte) {
	it := func(i int) *timer.ItimerEntry {
		b := raw[32*i:]
		return &timer.ItimerEntry{
			Isec: proto.Uint64(le.Uint64(b)), Iusec: proto.Uint64(le.Uint64(b[8:])),
			Vsec: proto.Uint64(le.Uint64(b[16:])), Vusec: proto.Uint64(le.Uint64(b[24:])),
		}
	}
	if tc.Timers == nil {
		tc.Timers = &timer.TaskTimersEntry{}
	}
	tc.Timers.Real, tc.Timers.Virt, tc.Timers.Prof = it(0), it(1), it(2)
}

func setSigactions(tc *criu_core.TaskCoreEntry, raw []byte) {
	for s := 1; s <= numSignals; s++ {
		if s == int(unix.SIGKILL) || s == int(unix.SIGSTOP) {
			continue
		}
		b := raw[32*(s-1):]
		tc.Sigactions = append(tc.Sigactions, &criu_sa.SaEntry{
			Sigaction: proto.Uint64(le.Uint64(b)), Flags: proto.Uint64(le.Uint64(b[8:])),
			Restorer: proto.Uint64(le.Uint64(b[16:])), Mask: proto.Uint64(le.Uint64(b[24:])),
		})
	}
}
