package rebuild

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Sets of semaphores and message queues of System V that were the tree's: one
// that is gone is made again with its id, one that is there gets what was saved,
// unless a process outside has used it since. Then it stays as it is.

// ipcObjects are those of an image.
type ipcObjects struct {
	sems   []*fm.SysvSem
	queues []*fm.SysvQueue
	made   []func() // what removes those that were made
}

func (b *builder) loadIPC() (err error) {
	if b.ipc.sems, err = image.All[*fm.SysvSem](b.im, "sysv-sems"); err != nil {
		return err
	}
	if b.ipc.queues, err = image.All[*fm.SysvQueue](b.im, "sysv-queues"); err != nil {
		return err
	}
	for _, s := range b.ipc.sems {
		if len(s.GetValues()) == 0 || len(s.GetPids()) != len(s.GetValues()) {
			return fault.Errorf(fault.ErrDamaged, "System V semaphores %d: %d values, %d pids", s.GetId(), len(s.GetValues()), len(s.GetPids()))
		}
	}
	return nil
}

func semObject(s *fm.SysvSem) sys.IPCObject {
	return sys.IPCObject{ID: int(s.GetId()), Key: s.GetKey(), Mode: s.GetMode(), UID: s.GetUid(), GID: s.GetGid(), Count: len(s.GetValues())}
}

func queueObject(q *fm.SysvQueue) sys.IPCObject {
	return sys.IPCObject{ID: int(q.GetId()), Key: q.GetKey(), Mode: q.GetMode(), UID: q.GetUid(), GID: q.GetGid()}
}

// checkIPC finds other objects that have the numbers or keys of those saved.
func (b *builder) checkIPC() error {
	sets, queues, err := b.listIPC()
	if err != nil {
		return err
	}
	check := func(what, remove string, want sys.IPCObject, there []sys.IPCObject, same func(o sys.IPCObject) bool) {
		for _, o := range there {
			switch {
			case o.ID == want.ID && (o.Key != want.Key || !same(o)):
				b.refuse.Add(fault.Reason{Object: fmt.Sprintf("System V %s %d", what, want.ID), Why: "another one has its number now", Remedy: fmt.Sprintf("remove that: ipcrm %s %d", remove, o.ID)})
			case o.ID != want.ID && o.Key == want.Key && want.Key != 0:
				b.refuse.Add(fault.Reason{Object: fmt.Sprintf("System V %s %d", what, want.ID), Why: fmt.Sprintf("its key %#x is another's now", uint32(want.Key)), Remedy: fmt.Sprintf("remove that: ipcrm %s %d", remove, o.ID)})
			}
		}
	}
	for _, s := range b.ipc.sems {
		w := semObject(s)
		check("semaphores", "-s", w, sets, func(o sys.IPCObject) bool { return o.Count == w.Count })
	}
	for _, q := range b.ipc.queues {
		check("message queue", "-q", queueObject(q), queues, func(sys.IPCObject) bool { return true })
	}
	return nil
}

// listIPC lists what is there, as far as it matters.
func (b *builder) listIPC() (sets, queues []sys.IPCObject, err error) {
	if len(b.ipc.sems) > 0 {
		if sets, err = sys.Sems(); err != nil {
			return nil, nil, err
		}
	}
	if len(b.ipc.queues) > 0 {
		queues, err = sys.Msgs()
	}
	return sets, queues, err
}

// systemV brings semaphores and messages back, and to the semaphores what the
// processes would undo. It comes before any task drops its privileges.
func (b *builder) systemV() error {
	sets, queues, err := b.listIPC()
	if err != nil {
		return err
	}
	undos := b.allUndos()
	var own []*fm.SysvSem
	for _, s := range b.ipc.sems {
		ok, err := b.semaphores(s, sets, undos)
		if err != nil {
			return fmt.Errorf("System V semaphores %d: %w", s.GetId(), err)
		}
		if ok {
			own = append(own, s)
		}
	}
	if err := b.redo(undos); err != nil {
		return err
	}
	for _, s := range own {
		if err := b.lastOperations(s); err != nil {
			return fmt.Errorf("System V semaphores %d: %w", s.GetId(), err)
		}
	}
	for _, q := range b.ipc.queues {
		if err := b.messages(q, queues); err != nil {
			return fmt.Errorf("System V message queue %d: %w", q.GetId(), err)
		}
	}
	return nil
}

// stranger gives the first of some pids that is alive and not of the tree.
func (b *builder) stranger(pids ...int) (int, bool) {
	for _, p := range pids {
		if p == 0 || b.byPID[p] != nil {
			continue
		}
		if _, err := procfs.ReadStat(p, 0); err == nil {
			return p, true
		}
	}
	return 0, false
}

// undone is what one process would undo to one semaphore.
type undone struct {
	p *proc
	*fm.SemUndo
}

func (b *builder) allUndos() (all []undone) {
	for _, p := range b.procs {
		for _, u := range p.extra.GetUndos() {
			all = append(all, undone{p, u})
		}
	}
	return all
}

// semaphores gives a set the values it had before its processes did what they
// would undo; ok is false when the set is not touched.
func (b *builder) semaphores(s *fm.SysvSem, there []sys.IPCObject, undos []undone) (ok bool, err error) {
	w := semObject(s)
	if slices.ContainsFunc(there, func(o sys.IPCObject) bool { return o.ID == w.ID }) {
		for i := range s.GetValues() {
			_, p, err := sys.Sem(w.ID, i)
			if err != nil {
				return false, err
			}
			if pid, others := b.stranger(p); others {
				b.note("System V semaphores %d were used by pid %d, outside the tree: they stay as they are", w.ID, pid)
				return false, nil
			}
		}
	} else {
		if err := sys.MakeSem(w); err != nil {
			return false, fault.Errorf(fault.ErrRefused, "cannot be made again: %w", err)
		}
		b.ipc.made = append(b.ipc.made, func() { _ = sys.RemoveSem(w.ID) })
	}
	for i, v := range s.GetValues() {
		n := int(v)
		for _, u := range undos {
			if int(u.GetSet()) == w.ID && int(u.GetNumber()) == i {
				n += int(u.GetAdjust())
			}
		}
		const most = 32767 // SEMVMX
		if err := sys.SetSem(w.ID, i, min(max(n, 0), most)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// redo does again to semaphores what is taken back at the end of each process
// (semop(2), SEM_UNDO): they get their values and it its adjustments. What adds
// comes first, so that nothing has to wait.
func (b *builder) redo(undos []undone) error {
	const undo = 0x1000 // SEM_UNDO
	for _, adds := range []bool{true, false} {
		for _, u := range undos {
			if n := int16(-u.GetAdjust()); (n > 0) == adds && n != 0 {
				if err := semop(u.p, u.GetSet(), semOp{uint16(u.GetNumber()), n, undo}); err != nil {
					return fmt.Errorf("%s: System V semaphores %d: %w", u.p.describe(), u.GetSet(), err)
				}
			}
		}
	}
	return nil
}

// semOp is struct sembuf.
type semOp struct {
	number uint16
	op     int16
	flags  uint16
}

// semop has a process operate on a set without waiting.
func semop(p *proc, set int32, ops ...semOp) error {
	const noWait = 0o4000 // IPC_NOWAIT
	e := p.Executor()
	var d []byte
	for _, o := range ops {
		d = le.AppendUint16(le.AppendUint16(le.AppendUint16(d, o.number), uint16(o.op)), o.flags|noWait)
	}
	if _, err := e.Call(unix.SYS_SEMOP, uint64(uint32(set)), e.Put(d), uint64(len(ops))); err != nil {
		return fmt.Errorf("semop: %w", err)
	}
	return nil
}

// lastOperations makes those who operated last on semaphores (GETPID) do so
// again, to no effect.
func (b *builder) lastOperations(s *fm.SysvSem) error {
	for i, pid := range s.GetPids() {
		v, last, err := sys.Sem(int(s.GetId()), i)
		if err != nil {
			return err
		}
		p := b.byPID[int(pid)]
		if p == nil || p.zombie || last == int(pid) {
			continue
		}
		up, down := semOp{uint16(i), 1, 0}, semOp{uint16(i), -1, 0}
		if v > 0 {
			up, down = down, up
		}
		if err := semop(p, int32(s.GetId()), up, down); err != nil {
			return err
		}
	}
	return nil
}

// messages fills a queue.
func (b *builder) messages(q *fm.SysvQueue, there []sys.IPCObject) error {
	w := queueObject(q)
	if i := slices.IndexFunc(there, func(o sys.IPCObject) bool { return o.ID == w.ID }); i >= 0 {
		if pid, others := b.stranger(there[i].Sender, there[i].Receiver); others {
			b.note("System V message queue %d was used by pid %d, outside the tree: it stays as it is", w.ID, pid)
			return nil
		}
		for {
			err := sys.MsgTake(w.ID)
			if err == unix.ENOMSG {
				break
			}
			if err != nil {
				return err
			}
		}
	} else {
		if err := sys.MakeMsg(w, q.GetRoom()); err != nil {
			return fault.Errorf(fault.ErrRefused, "cannot be made again: %w", err)
		}
		b.ipc.made = append(b.ipc.made, func() { _ = sys.RemoveMsg(w.ID) })
	}
	for _, m := range q.GetMessages() {
		if err := sys.MsgSend(w.ID, m.GetType(), m.GetData()); err != nil {
			return fmt.Errorf("message of %d bytes: %w", len(m.GetData()), err)
		}
	}
	return b.lastUsers(q)
}

// lastUsers makes those who sent and received last do so again, with an empty
// message of a type that no other has.
func (b *builder) lastUsers(q *fm.SysvQueue) error {
	s, r := b.byPID[int(q.GetSender())], b.byPID[int(q.GetReceiver())]
	if s == nil || s.zombie {
		s = r
	}
	if r == nil || r.zombie {
		r = s
	}
	typ := int64(math.MaxInt64)
	for slices.ContainsFunc(q.GetMessages(), func(m *fm.SysvMessage) bool { return m.GetType() == typ }) {
		typ--
	}
	if s == nil {
		return nil
	}
	const noWait = 0o4000 // IPC_NOWAIT
	e := s.Executor()
	at := e.Put(le.AppendUint64(nil, uint64(typ)))
	if _, err := e.Call(unix.SYS_MSGSND, uint64(q.GetId()), at, 0, noWait); err == unix.EAGAIN {
		return nil // full to the last message
	} else if err != nil {
		return fmt.Errorf("msgsnd: %w", err)
	}
	e = r.Executor()
	at, _ = e.Data(8)
	if _, err := e.Call(unix.SYS_MSGRCV, uint64(q.GetId()), at, 0, uint64(typ), noWait); err != nil {
		return fmt.Errorf("msgrcv: %w", err)
	}
	return nil
}

// keepIPC makes those that were made the tree's own.
func (b *builder) keepIPC() { b.ipc.made = nil }

// closeIPC removes what was made for a tree that there will not be.
func (b *builder) closeIPC() {
	for _, f := range b.ipc.made {
		f()
	}
	b.ipc.made = nil
}
