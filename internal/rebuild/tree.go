package rebuild

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// clonePtrace lets the child begin traced and stopped, with no stop of its
// parent.
const clonePtrace = unix.CLONE_PTRACE

// clone makes a task with a chosen id (clone3(2), set_tid: Linux 5.5), or any for
// 0, out of one that runs the executor, and starts the executor in it.
func (b *builder) clone(from *tracee.Executor, id int, flags, exitSignal uint64) (*tracee.Executor, error) {
	e, err := b.bear(from, id, flags, exitSignal)
	if err != nil {
		return nil, err
	}
	e.Start() // with nothing to do
	return e, e.Wait()
}

// bear is clone that does not wait for the task: its executor begins with its
// first batch.
func (b *builder) bear(from *tracee.Executor, id int, flags, exitSignal uint64) (*tracee.Executor, error) {
	from.Reset()
	call := addClone(from, id, flags, exitSignal)
	if err := from.Run(); err != nil {
		return nil, err
	}
	if err := cloneError(from.Err(call), id, flags); err != nil {
		return nil, err
	}
	host := id
	if id == 0 || b.donor != nil && (from == b.seed.exec || from == b.donor.exec) {
		host = int(from.Result(call)) // it is outside the namespaces, as this process is
		if b.hosts != nil {
			b.hosts[host] = true
		}
	} else if b.opt.PidNS && b.hosts != nil {
		var err error
		if host, err = b.findHost(from.TID, id, flags); err != nil {
			return nil, err
		}
		b.hosts[host] = true
	}
	e, err := b.region.Seat(host, b.slot(), func() error {
		b.pause()
		return b.awaitStop(host)
	})
	if err != nil {
		return nil, err
	}
	e.Yield = b.pause
	return e, nil
}

// cloneData is how many bytes of a batch's data a clone3 takes, at most.
const cloneData = 88 + 16

// addClone adds a clone3(2) with a chosen pid (Linux 5.5) to a batch.
func addClone(e *tracee.Executor, id int, flags, exitSignal uint64) (call int) {
	set := e.Put(le.AppendUint32(nil, uint32(id)))
	args, d := e.Data(88)
	put64 := func(o int, v uint64) { le.PutUint64(d[o:], v) }
	put64(0, flags|clonePtrace)
	put64(32, exitSignal)
	if id != 0 {
		put64(64, set)
		put64(72, 1)
	}
	return e.Add(unix.SYS_CLONE3, args, 88)
}

// cloneError says what its failure means.
func cloneError(err error, id int, flags uint64) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return fault.Errorf(fault.ErrBusy, "pid %d is in use", id)
	case errors.Is(err, unix.EPERM):
		return fault.Errorf(fault.ErrPermission, "choosing pid %d: %w (needs CAP_CHECKPOINT_RESTORE)", id, err)
	}
	return fmt.Errorf("clone3 of %d (flags %#x): %w", id, flags, err)
}

// grow makes every process of the tree.
func (b *builder) grow() error {
	if err := b.makeCgroups(); err != nil {
		return err
	}
	for _, p := range b.procs {
		if p.parent != nil {
			continue
		}
		if err := b.root(p); err != nil {
			return fmt.Errorf("%s: %w", p.describe(), err)
		}
	}
	for len(b.orphans) > 0 {
		p := b.orphans[0]
		b.orphans = b.orphans[1:]
		if err := b.orphan(p); err != nil {
			return fmt.Errorf("%s: %w", p.describe(), err)
		}
	}
	return nil
}

// orphan makes a process that lost the parent it was born of, and has another by
// now, with which it shares nothing, not even the session. It is born again in
// its session: of a stand-in, which its leader makes. When that is dismissed,
// the process becomes its parent's, who is a subreaper for the moment (prctl(2),
// PR_SET_CHILD_SUBREAPER). It is made when all others are there.
func (b *builder) orphan(p *proc) error {
	l := b.byPID[p.sid]
	if l == nil || !l.made || l.zombie || l.exec == nil {
		return fault.Errorf(fault.ErrRefused, "session %d cannot be reached from its parent", p.sid)
	}
	for _, o := range b.procs {
		if o != p && !p.zombie && sharing(o, p) != 0 {
			return fault.Errorf(fault.ErrRefused, "it shares memory, files or signal handlers with pid %d, and is in session %d, which cannot be reached from there", o.pid, p.sid)
		}
	}
	h, err := b.clone(l.exec, 0, 0, uint64(unix.SIGCHLD))
	if err != nil {
		return fmt.Errorf("stand-in: %w", err)
	}
	b.helpers = append(b.helpers, helper{exec: h, pid: h.TID, parent: l, orphan: p})
	e, err := b.clone(h, p.pid, 0, uint64(p.extra.GetExitSignal()))
	if err != nil {
		return err
	}
	return b.raise(p, e, l, p.sid)
}

// adopt makes a process, nil for this one, the parent of what its descendants
// leave, or no longer.
func (b *builder) adopt(p *proc, on uint64) error {
	if p != nil {
		e := p.Executor()
		_, err := e.Call(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, on, 0, 0, 0)
		return err
	}
	if on == 1 {
		is, err := sys.ChildSubreaper()
		if err != nil {
			return err
		}
		b.reaper = is
	}
	if b.reaper {
		return nil
	}
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, uintptr(on), 0, 0, 0)
}

// root makes a process whose parent is outside the tree: a child of this one.
func (b *builder) root(p *proc) error {
	creator := b.founder()
	session := b.session
	if p.sid != p.pid && b.byPID[p.sid] == nil && b.lostSession(p.sid) {
		// The session outlived its leader: a stand-in leads it until the
		// members are born.
		h, err := b.clone(creator, p.sid, unix.CLONE_PARENT, 0)
		if err != nil {
			return fmt.Errorf("session %d: %w", p.sid, err)
		}
		h.Reset()
		if _, err := h.Call(unix.SYS_SETSID); err != nil {
			return fmt.Errorf("session %d: %w", p.sid, err)
		}
		b.helpers = append(b.helpers, helper{exec: h, pid: p.sid})
		b.standIn[p.sid] = h
		creator, session = h, p.sid
	} else if h := b.standIn[p.sid]; h != nil {
		creator, session = h, p.sid
	} else if l := b.byPID[p.sid]; l != nil && l != p {
		// An orphan of a session in the tree: a brother of its leader when
		// that is a root too.
		if l.parent != nil && !b.opt.PidNS {
			b.orphans = append(b.orphans, p)
			return nil
		}
		if !l.made || l.parent != nil {
			return fault.Errorf(fault.ErrRefused, "%s: an orphan of session %d, whose leader is not a root of the tree: it cannot be made here; checkpoint that session alone (--session), or restore without --pidns", p.describe(), p.sid)
		}
		creator, session = l.exec, p.sid
	}
	e, err := b.clone(creator, p.pid, unix.CLONE_PARENT, 0)
	if err != nil {
		return err
	}
	var from *proc
	if l := b.byPID[p.sid]; l != nil && l != p && creator == l.exec {
		from = l
	}
	return b.raise(p, e, from, session)
}

// lostSession tells whether a session id's leader is dead and its number free,
// and the session is to be made again.
func (b *builder) lostSession(sid int) bool {
	if b.ours(sid) {
		return false
	}
	if b.opt.PidNS {
		return sid > 0
	}
	return sid > 0 && sid != b.session && unix.Kill(sid, 0) == unix.ESRCH
}

// raise brings up a process that has just been cloned from another (nil: from
// the seed): its memory, its place in the file system, its session, its
// children, its threads.
func (b *builder) raise(p *proc, e *tracee.Executor, from *proc, session int) error {
	p.exec, p.made, p.session = e, true, session
	b.made = append(b.made, p.host())
	b.progress("rebuild", int64(len(b.made)), int64(len(b.procs)))
	if p.zombie {
		// Its end comes when its parent can take the signal.
		if p.sid == p.pid {
			e.Reset()
			if _, err := e.Call(unix.SYS_SETSID); err != nil {
				return fmt.Errorf("setsid: %w", err)
			}
			p.session = p.pid
		}
		return nil
	}
	p.threads[0].exec = e
	b.joinProcess(p, from)
	if from == nil || from.vmOwner != p.vmOwner {
		src := ownerOf(from)
		if src == nil {
			src = b.donor // which has memory and nothing else
		}
		if err := b.buildMM(p, src); err != nil {
			return err
		}
		if err := b.layout(p, ownerOf(from)); err != nil {
			return err
		}
	}
	if err := b.place(p, from); err != nil {
		return err
	}
	if err := b.dispositions(p, from); err != nil {
		return err
	}
	leads := p.sid == p.pid
	var later []*proc
	for _, c := range p.children {
		if leads && c.sid == session && c.sid != c.pid && c.sid != p.sid {
			if err := b.child(p, c); err != nil {
				return err
			}
			continue
		}
		later = append(later, c)
	}
	if err := b.gather(); err != nil {
		return err
	}
	if leads {
		e.Reset()
		if _, err := e.Call(unix.SYS_SETSID); err != nil {
			return fmt.Errorf("setsid: %w", err)
		}
		p.session = p.pid
	} else if b.byPID[p.sid] != nil && p.session != p.sid {
		return fault.Errorf(fault.ErrRefused, "%s: session %d cannot be reached from its parent", p.describe(), p.sid)
	}
	if err := b.terminal(p); err != nil {
		return err
	}
	for _, c := range later {
		if err := b.child(p, c); err != nil {
			return err
		}
	}
	if err := b.gather(); err != nil {
		return err
	}
	return b.threads(p, e)
}

// threads makes the further threads of a process: many with one call to the
// executor of its leader, then all of them enter at once.
func (b *builder) threads(p *proc, e *tracee.Executor) error {
	const flags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	rest := p.threads[1:]
	if b.opt.PidNS { // each is to be found under another number, one by one
		for _, t := range rest {
			x, err := b.clone(e, t.tid, flags, 0)
			if err != nil {
				return fmt.Errorf("thread %d: %w", t.tid, err)
			}
			t.exec = x
		}
		return nil
	}
	for len(rest) > 0 {
		e.Reset()
		var calls []int
		for e.Room(1, cloneData) && len(calls) < len(rest) {
			calls = append(calls, addClone(e, rest[len(calls)].tid, flags, 0))
		}
		if err := e.Run(); err != nil {
			return err
		}
		made := rest[:len(calls)]
		rest = rest[len(calls):]
		for i, t := range made {
			if err := cloneError(e.Err(calls[i]), t.tid, flags); err != nil {
				return fmt.Errorf("thread %d: %w", t.tid, err)
			}
			if err := b.awaitStop(t.tid); err != nil {
				return err
			}
			x, err := b.region.Begin(t.tid, b.slot())
			if err != nil {
				return fmt.Errorf("thread %d: %w", t.tid, err)
			}
			t.exec = x
		}
		for _, t := range made {
			if err := t.exec.Wait(); err != nil {
				return err
			}
		}
	}
	return nil
}

func ownerOf(p *proc) *proc {
	if p == nil {
		return nil
	}
	return p.vmOwner
}

// sharing gives the clone flags for what two processes have in common.
func sharing(a, c *proc) (flags uint64) {
	if c.zombie || a.zombie {
		return 0
	}
	x, y := a.ids(), c.ids()
	if x.GetVmId() == y.GetVmId() {
		flags |= unix.CLONE_VM
	}
	if x.GetFilesId() == y.GetFilesId() {
		flags |= unix.CLONE_FILES
	}
	if x.GetFsId() == y.GetFsId() {
		flags |= unix.CLONE_FS
	}
	if x.GetSighandId() == y.GetSighandId() {
		flags |= unix.CLONE_SIGHAND
	}
	return flags
}

// child makes c, a child of p: cloned from p, or from a brother when it shares
// with that what it does not share with p.
func (b *builder) child(p, c *proc) error {
	if c.made {
		return nil
	}
	creator, flags, exit := p, sharing(p, c), uint64(c.extra.GetExitSignal())
	for _, s := range p.children {
		if s == c || !s.made || s.zombie || s.exec == nil {
			continue
		}
		if f := sharing(s, c); f&^flags != 0 && flags&^f == 0 {
			creator, flags, exit = s, f, 0
		}
	}
	if creator != p {
		flags |= unix.CLONE_PARENT
	}
	e, session := creator.exec, creator.session
	if l := b.byPID[c.sid]; l != nil && l != c && l.zombie && c.sid != session && l.parent == p {
		// The session's leader is a brother that has ended: as long as it is
		// still a stand-in for itself, members are born of it.
		if !l.made {
			if err := b.child(p, l); err != nil {
				return err
			}
		}
		e, session, flags, exit = l.exec, l.pid, flags|unix.CLONE_PARENT, 0
	}
	if c.sid != c.pid && c.sid != session && b.byPID[c.sid] == nil && (b.standIn[c.sid] != nil || b.lostSession(c.sid)) {
		h := b.standIn[c.sid]
		if h == nil {
			var err error
			if h, err = b.clone(e, c.sid, flags&^unix.CLONE_PARENT, exit); err != nil {
				return fmt.Errorf("session %d: %w", c.sid, err)
			}
			h.Reset()
			if _, err := h.Call(unix.SYS_SETSID); err != nil {
				return fmt.Errorf("session %d: %w", c.sid, err)
			}
			b.helpers = append(b.helpers, helper{exec: h, pid: c.sid, parent: p})
			b.standIn[c.sid] = h
		}
		e, session, flags, exit = h, c.sid, flags|unix.CLONE_PARENT, 0
	}
	if l := b.byPID[c.sid]; l != nil && l != c && c.sid != session && !b.opt.PidNS {
		b.orphans = append(b.orphans, c)
		return nil
	}
	x, err := b.bear(e, c.pid, flags, exit)
	if err != nil {
		return err
	}
	if c.zombie {
		x.Start() // its only batch is its end
		if err := x.Wait(); err != nil {
			return err
		}
	}
	raise := func() error {
		if err := b.raise(c, x, creator, session); err != nil {
			return fmt.Errorf("%s: %w", c.describe(), err)
		}
		return nil
	}
	if b.plain(c) {
		return b.beside(raise)
	}
	return raise()
}

// outerParent gives the pid of a process's parent as this process sees it.
func (p *proc) outerParent() int {
	if p.parent == nil {
		return os.Getpid()
	}
	return p.parent.host()
}

// helper is a process that exists only while the tree is made.
type helper struct {
	exec   *tracee.Executor
	pid    int
	parent *proc // nil: this process
	orphan *proc // whom it leaves to its parent
}

// groups puts every process into its process group. A group whose leader has
// gone is founded by a stand-in.
func (b *builder) groups() error {
	for _, p := range b.procs { // founders first
		if p.pgid != p.pid || p.session == p.pid {
			continue
		}
		if b.inGroup(p, p.pid) {
			continue
		}
		p.exec.Reset()
		if _, err := p.exec.Call(unix.SYS_SETPGID, 0, 0); err != nil {
			return fmt.Errorf("%s: setpgid: %w", p.describe(), err)
		}
	}
	for _, p := range b.procs {
		if p.pgid == p.pid || p.pgid == 0 || b.inGroup(p, p.pgid) {
			continue
		}
		if b.byPID[p.pgid] == nil && b.standIn[p.pgid] == nil {
			if !b.opt.PidNS && (unix.Kill(p.pgid, 0) != unix.ESRCH || b.groupTaken(p.pgid)) {
				// The group's leader runs outside the tree (the shell that
				// started the job): the restoring process's own takes its place.
				if p.pgid != b.outerGroup {
					b.note("process group %d lives outside the checkpoint: pid %d is in that of the restoring process", p.pgid, p.pid)
				}
				continue
			}
			h, err := b.clone(p.exec, p.pgid, 0, uint64(unix.SIGCHLD))
			if err != nil {
				return fmt.Errorf("process group %d: %w", p.pgid, err)
			}
			h.Reset()
			if _, err := h.Call(unix.SYS_SETPGID, 0, 0); err != nil {
				return fmt.Errorf("process group %d: %w", p.pgid, err)
			}
			b.helpers = append(b.helpers, helper{exec: h, pid: p.pgid, parent: p})
			b.standIn[p.pgid] = h
		}
		p.exec.Reset()
		if _, err := p.exec.Call(unix.SYS_SETPGID, 0, uint64(p.pgid)); err != nil {
			return fmt.Errorf("%s: setpgid %d: %w", p.describe(), p.pgid, err)
		}
	}
	return nil
}

// groupTaken tells whether any process outside is in a group whose leader has
// gone: it could not be founded again.
func (b *builder) groupTaken(pgid int) bool { return unix.Kill(-pgid, 0) == nil }

// dismiss ends the stand-ins.
func (b *builder) dismiss() error {
	for _, h := range b.helpers {
		if h.orphan != nil {
			if err := b.adopt(h.orphan.parent, 1); err != nil {
				return fmt.Errorf("%s: %w", h.orphan.describe(), err)
			}
		}
		h.exec.Reset()
		h.exec.Add(unix.SYS_EXIT_GROUP, 0)
		h.exec.Start()
		if err := b.buried(h.exec.TID, h.pid, h.parent); err != nil {
			return err
		}
		if h.orphan != nil {
			if err := b.adopt(h.orphan.parent, 0); err != nil {
				return fmt.Errorf("%s: %w", h.orphan.describe(), err)
			}
			st, err := procfs.ReadStat(h.orphan.host(), 0)
			if want := h.orphan.outerParent(); err != nil || st.PPid != want {
				return fmt.Errorf("%s: its parent is %d, not %d (%v)", h.orphan.describe(), st.PPid, want, err)
			}
		}
	}
	b.helpers = nil
	return nil
}

// buried waits until a task has ended and lets its parent in the tree, if it
// has one, wait for it too.
func (b *builder) buried(host, pid int, parent *proc) error {
	for {
		st, err := sys.WaitSched(host)
		if err != nil {
			return fmt.Errorf("pid %d: wait: %w", pid, err)
		}
		if st.Exited() || st.Signaled() {
			break
		}
		if err := sys.Cont(host, int(st.StopSignal())); err != nil {
			return fmt.Errorf("pid %d: %w", pid, err)
		}
	}
	if parent == nil {
		return nil
	}
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		parent.exec.Reset()
		r, err := parent.exec.Call(unix.SYS_WAIT4, uint64(pid), 0, unix.WALL|unix.WNOHANG, 0)
		if err != nil || int(r) == pid {
			return err
		}
		if time.Now().After(end) {
			return fault.Errorf(fault.ErrDamaged, "pid %d: pid %d is not its child: the tree contradicts itself", parent.pid, pid)
		}
	}
}

// die gives a zombie the end it had; its parent finds it unreaped.
func (b *builder) die(p *proc) error {
	status := unix.WaitStatus(p.extra.GetExitStatus())
	e := p.exec
	e.Reset()
	if c := p.core.GetThreadCore().GetCreds(); c != nil {
		q := &queue{b: b, e: e}
		b.setCreds(q, c)
		if err := q.flush(); err != nil {
			return err
		}
	}
	if status.Signaled() {
		sig := uint64(status.Signal())
		// The executor blocks everything, and no core is to be written.
		e.Add(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, e.Put(make([]byte, 16)), 0)
		sa := e.Put(make([]byte, 32))
		e.Add(unix.SYS_RT_SIGACTION, sig, sa, 0, 8)
		e.Add(unix.SYS_KILL, uint64(p.pid), sig)
		e.Add(unix.SYS_RT_SIGPROCMASK, unix.SIG_UNBLOCK, e.Put(le.AppendUint64(nil, 1<<(sig-1))), 0, 8)
	} else {
		name := append([]byte(p.core.GetTc().GetComm()), 0)
		e.Add(unix.SYS_PRCTL, unix.PR_SET_NAME, e.Put(name))
		e.Add(unix.SYS_EXIT_GROUP, uint64(status.ExitStatus()))
	}
	e.Start()
	return b.buried(p.host(), p.pid, nil)
}
