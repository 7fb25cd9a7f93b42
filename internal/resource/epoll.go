package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/eventpoll"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// An epoll instance (epoll(7), fs/eventpoll.c) has members. The key of one is an
// open file description and the number under which it was added; that number
// may by now be closed, or another file's, while the description lives on under
// a duplicate. fdinfo has the number, the event bits and the data (Linux 3.8);
// kcmp(2) tells which description it is.
//
// Which members are ready, and whether an edge was reported, the kernel does not
// show. Ready members become ready again by being added. An edge that had been
// reported would then be reported a second time, which is kept from happening
// where it can be known (see reported).
//
// The schema's eventpoll_tfd_entry has the number only. The part "epoll-targets"
// has, for each instance, a record with two numbers for each member: the id of
// its file, and 1 when its edge had been reported. FileExtra.blob is struct
// epoll_params, where it is not 0.
type epollKind struct{}

func init() { Register(epollKind{}) }

const epollTargets = "epoll-targets"

// epollPrivate are the event bits that say how to report, not what
// (EP_PRIVATE_BITS). A one-shot member that has fired has no others left.
const epollPrivate = unix.EPOLLWAKEUP | unix.EPOLLONESHOT | unix.EPOLLET | unix.EPOLLEXCLUSIVE

func (epollKind) Name() string            { return "epoll" }
func (epollKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_EVENTPOLL} }
func (epollKind) Match(f *File) bool      { return f.Link == "anon_inode:[eventpoll]" }

// Priority makes Complete come last: any kind may find members in flight.
func (epollKind) Priority() int { return 1000 }

func (epollKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	fd, done, err := f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	if p, err := sys.GetEpollParams(fd); err == nil && p != (sys.EpollParams{}) {
		b := binary.LittleEndian.AppendUint32(nil, p.BusyPollUsecs)
		b = binary.LittleEndian.AppendUint16(b, p.BusyPollBudget)
		d.Extra(f).Blob = append(b, p.PreferBusyPoll, 0)
	}
	e := entryOf(fdinfo.FdTypes_EVENTPOLL)
	e.Epfd = &eventpoll.EventpollFileEntry{Id: proto.Uint32(f.ID), Flags: proto.Uint32(f.Flags()), Fown: o}
	for _, m := range f.Info.Epoll {
		e.Epfd.Tfd = append(e.Epfd.Tfd, &eventpoll.EventpollTfdEntry{
			Id: proto.Uint32(f.ID), Tfd: proto.Uint32(uint32(m.FD)),
			Events: proto.Uint32(m.Events), Data: proto.Uint64(m.Data),
			Dev: proto.Uint32(uint32(m.Dev)), Inode: proto.Uint64(m.Ino), Pos: proto.Uint64(uint64(m.Pos)),
		})
	}
	return e, nil
}

// kernelDev gives a device number as the kernel itself writes it.
func kernelDev(dev uint64) uint64 { return uint64(unix.Major(dev))<<20 | uint64(unix.Minor(dev)) }

// epollIndex finds files by a descriptor and by what fdinfo shows of a member.
type epollIndex struct {
	at   map[[2]int]*File
	look map[epollLook][]*File
}

type epollLook struct {
	dev, ino uint64
	pos      int64
}

func (epollKind) Complete(d *Dump) error {
	var x *epollIndex
	for _, f := range d.Files() {
		if f.Entry.GetEpfd() == nil || len(f.Info.Epoll) == 0 {
			continue
		}
		if len(f.Holders) == 0 {
			d.Refusal(f, "an epoll instance with members that is only in flight in a socket", "receive it before the checkpoint")
			continue
		}
		if x == nil {
			x = indexFiles(d)
		}
		if err := x.members(d, f); err != nil {
			return fmt.Errorf("pid %d: %s: %w", f.PID, f, err)
		}
	}
	return nil
}

func indexFiles(d *Dump) *epollIndex {
	x := &epollIndex{at: map[[2]int]*File{}, look: map[epollLook][]*File{}}
	for _, f := range d.Files() {
		x.at[[2]int{f.PID, f.FD}] = f
		for _, h := range f.Holders {
			x.at[[2]int{h.PID, h.FD}] = f
		}
		k := epollLook{kernelDev(f.Stat.Dev), f.Stat.Ino, f.Info.Pos}
		x.look[k] = append(x.look[k], f)
	}
	return x
}

// members finds the files of an instance's members.
func (x *epollIndex) members(d *Dump, f *File) error {
	rec := &fm.Record{Id: proto.Uint32(f.ID)}
	idle, err := pollNow(f, unix.POLLIN)
	if err != nil {
		return err
	}
	nth := map[int]int{}
	for _, m := range f.Info.Epoll {
		toff := nth[m.FD]
		nth[m.FD]++
		g, err := x.target(f, m.FD, toff, epollLook{m.Dev, m.Ino, m.Pos})
		if err != nil {
			return fmt.Errorf("member %d: %w", m.FD, err)
		}
		if g == nil {
			d.Refusal(f, fmt.Sprintf("it watches a file that was added as descriptor %d (inode %d) and is not open in any task of the tree", m.FD, m.Ino),
				"checkpoint the process that has the file too, or EPOLL_CTL_DEL it before it is closed")
			continue
		}
		var rep uint64
		if idle == 0 {
			r, err := reported(g, m.Events)
			if err != nil {
				return fmt.Errorf("member %d: %w", m.FD, err)
			}
			if r {
				rep = 1
			}
		}
		rec.Num = append(rec.Num, uint64(g.ID), rep)
	}
	d.Image.Add(epollTargets, rec)
	return nil
}

// target gives the file of a member, nil when none of the collected ones is it.
func (x *epollIndex) target(f *File, tfd, toff int, look epollLook) (*File, error) {
	is := func(g *File, pid, fd int) (bool, error) {
		c, err := sys.KcmpEpollTarget(pid, fd, f.PID, f.FD, tfd, toff)
		if err != nil {
			return false, fmt.Errorf("kcmp with %s of pid %d: %w", g, pid, err)
		}
		return c == 0, nil
	}
	// Nearly always it is still what some holder has under that number.
	for _, h := range f.Holders {
		if g := x.at[[2]int{h.PID, tfd}]; g != nil && g.via == "" {
			if ok, err := is(g, h.PID, tfd); ok || err != nil {
				return g, err
			}
		}
	}
	for _, g := range x.look[look] {
		if g.via != "" {
			continue
		}
		if ok, err := is(g, g.PID, g.FD); ok || err != nil {
			return g, err
		}
	}
	return nil, nil
}

// reported tells, of an instance without ready members, whether a member's edge
// has been reported: when its file is ready all the same. It is asked only of
// files whose readiness nothing outside the tree changes: an edge that came in
// between must not be lost.
func reported(g *File, events uint32) (bool, error) {
	if events&unix.EPOLLET == 0 || events&^uint32(epollPrivate) == 0 {
		return false, nil
	}
	switch g.Entry.GetType() { // of a refused one: UND
	case fdinfo.FdTypes_EVENTFD, fdinfo.FdTypes_PIPE, fdinfo.FdTypes_FIFO, fdinfo.FdTypes_UNIXSK:
	default:
		return false, nil
	}
	n, err := pollNow(g, int16(events&0x7fff))
	return n != 0, err
}

// pollNow gives the poll(2) events of a file that are there.
func pollNow(f *File, events int16) (int16, error) {
	fd, done, err := f.borrow()
	if err != nil {
		return 0, err
	}
	defer done()
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		if _, err := unix.Poll(p, 0); err == nil {
			return p[0].Revents, nil
		} else if err != unix.EINTR {
			return 0, fmt.Errorf("poll: %w", err)
		}
	}
}

func (epollKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("epoll_create1: %w", err)
	}
	if b := r.Extra(e.GetId()).GetBlob(); len(b) >= 7 {
		p := sys.EpollParams{
			BusyPollUsecs: binary.LittleEndian.Uint32(b), BusyPollBudget: binary.LittleEndian.Uint16(b[4:]), PreferBusyPoll: b[6],
		}
		if err := sys.SetEpollParams(fd, p); err != nil {
			r.Note("epoll file %d: its busy polling parameters %+v cannot be set here: %v", e.GetId(), p, err)
		}
	}
	return finish(fd, setStatus(fd, e.GetEpfd().GetFlags()))
}

// InTaskEarly: members that were added under another number take it for a
// moment.
func (epollKind) InTaskEarly() {}

type epollDone struct{}

// InTask adds the members, in a task, as the number counts that the file has
// there. Those that must end as reported come first, one by one, so that each is
// alone when it is asked for.
func (k epollKind) InTask(r *Restore, t Task, e *fdinfo.FileEntry, fd int) error {
	done, err := RestoreValue(r, epollDone{}, func() (map[uint32]bool, error) { return map[uint32]bool{}, nil })
	if err != nil {
		return err
	}
	if done[e.GetId()] {
		return nil
	}
	done[e.GetId()] = true
	ms, err := epollMembers(r, e)
	if err != nil {
		return err
	}
	for _, m := range ms {
		// One that is a member of this one must have its own members first.
		if o := r.Entry(m.file); o.GetType() == fdinfo.FdTypes_EVENTPOLL && m.file != e.GetId() {
			if n, ok := t.FD(m.file); ok {
				if err := k.InTask(r, t, o, n); err != nil {
					return err
				}
			}
		}
	}
	a := epollAdder{r: r, t: t, id: e.GetId(), fd: fd, e: t.Executor()}
	for _, first := range []bool{true, false} {
		for i := range ms {
			if ms[i].mute() != first {
				continue
			}
			if err := a.add(&ms[i]); err != nil {
				return fmt.Errorf("epoll member %d: %w", ms[i].tfd, err)
			}
		}
	}
	return a.flush()
}

// epollMember is one member to add.
type epollMember struct {
	file     uint32 // 0: not known, whatever has the number
	tfd      int
	events   uint32
	data     uint64
	reported bool
}

// fired tells of a one-shot member that has been reported and not armed again.
func (m *epollMember) fired() bool {
	return m.events&unix.EPOLLONESHOT != 0 && m.events&^uint32(epollPrivate) == 0
}

func (m *epollMember) mute() bool { return m.fired() || m.reported }

func epollMembers(r *Restore, e *fdinfo.FileEntry) ([]epollMember, error) {
	type key struct{}
	recs, err := RestoreValue(r, key{}, func() (map[uint32][]uint64, error) {
		all, err := image.All[*fm.Record](r.Image, epollTargets)
		m := make(map[uint32][]uint64, len(all))
		for _, x := range all {
			m[x.GetId()] = x.GetNum()
		}
		return m, err
	})
	if err != nil {
		return nil, err
	}
	num, known := recs[e.GetId()]
	tfds := e.GetEpfd().GetTfd()
	if known && len(num) != 2*len(tfds) {
		return nil, fault.Errorf(fault.ErrDamaged, "epoll file %d: %d members and %d targets", e.GetId(), len(tfds), len(num)/2)
	}
	ms := make([]epollMember, len(tfds))
	for i, m := range tfds {
		ms[i] = epollMember{tfd: int(m.GetTfd()), events: m.GetEvents(), data: m.GetData()}
		if known {
			ms[i].file, ms[i].reported = uint32(num[2*i]), num[2*i+1] != 0
			if r.Entry(ms[i].file) == nil {
				return nil, fault.Errorf(fault.ErrDamaged, "epoll file %d: member %d: file %d: %w", e.GetId(), ms[i].tfd, ms[i].file, errNoFile)
			}
		}
	}
	return ms, nil
}

// epollAdder adds members to one instance through a task, in batches.
type epollAdder struct {
	r     *Restore
	t     Task
	id    uint32
	fd    int // of the instance, in the task
	e     *tracee.Executor
	calls []epollCall
}

// epollCall is an addition of the batch under way.
type epollCall struct {
	m    *epollMember
	ctl  int
	take int // the epoll_pwait behind it, or -1
}

func (a *epollAdder) add(m *epollMember) error {
	here, err := a.here(m)
	if err != nil {
		return err
	}
	if !here {
		return a.displaced(m)
	}
	if !a.e.Room(2, 2*sys.EpollEventSize+16) {
		if err := a.flush(); err != nil {
			return err
		}
	}
	a.queue(m)
	return nil
}

// here tells whether the task has the member's file under its number.
func (a *epollAdder) here(m *epollMember) (bool, error) {
	if m.file == 0 {
		return true, nil
	}
	fd, err := a.r.Open(m.file)
	if err != nil {
		return false, err
	}
	c, err := sys.Kcmp(a.t.PID(), os.Getpid(), sys.KcmpFile, m.tfd, fd)
	if errors.Is(err, unix.EBADF) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("kcmp with descriptor %d of pid %d: %w", m.tfd, a.t.PID(), err)
	}
	return c == 0, nil
}

func (a *epollAdder) ctl(op int, m *epollMember, events uint32) int {
	p, b := a.e.Data(sys.EpollEventSize)
	sys.PutEpollEvent(b, events, m.data)
	return a.e.Add(unix.SYS_EPOLL_CTL, uint64(a.fd), uint64(op), uint64(m.tfd), p)
}

// epollAll are all events that a file can report.
const epollAll = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDNORM | unix.EPOLLRDBAND |
	unix.EPOLLWRNORM | unix.EPOLLWRBAND | unix.EPOLLMSG | unix.EPOLLRDHUP

// queue appends the addition of a member to the batch. One that has fired is
// added for everything its file may be ready for, and taken out: as the kernel
// adds EPOLLERR and EPOLLHUP to every mask it is given, firing is the only way
// to a mask without them.
func (a *epollAdder) queue(m *epollMember) {
	events := m.events
	if m.fired() {
		events |= epollAll
	}
	c := epollCall{m: m, ctl: a.ctl(unix.EPOLL_CTL_ADD, m, events), take: -1}
	if m.mute() {
		p, _ := a.e.Data(sys.EpollEventSize)
		c.take = a.e.Add(unix.SYS_EPOLL_PWAIT, uint64(a.fd), p, 1, 0, 0, 8)
	}
	a.calls = append(a.calls, c)
}

// flush runs the batch.
func (a *epollAdder) flush() error {
	if a.e.Len() == 0 {
		return nil
	}
	if err := a.e.Run(); err != nil {
		return err
	}
	return a.check()
}

// check takes the results of the batch that was run, and empties it.
func (a *epollAdder) check() error {
	calls := a.calls
	a.calls = nil
	var armed []*epollMember
	for _, c := range calls {
		if err := a.e.Err(c.ctl); err != nil {
			return fmt.Errorf("member %d: epoll_ctl: %w", c.m.tfd, err)
		}
		if c.take < 0 {
			continue
		}
		if err := a.e.Err(c.take); err != nil {
			return fmt.Errorf("member %d: epoll_pwait: %w", c.m.tfd, err)
		}
		if c.m.fired() && a.e.Result(c.take) == 0 {
			armed = append(armed, c.m)
		}
	}
	a.e.Reset()
	// Not ready for anything: it stays armed for errors and hang-up.
	for _, m := range armed {
		n := a.ctl(unix.EPOLL_CTL_MOD, m, m.events)
		if err := a.e.Run(); err != nil {
			return err
		}
		if err := a.e.Err(n); err != nil {
			return fmt.Errorf("member %d: epoll_ctl: %w", m.tfd, err)
		}
		a.r.Note("epoll file %d: its one-shot member %d had fired; it will report an error or hang-up of its file all the same", a.id, m.tfd)
		a.e.Reset()
	}
	return nil
}

// displaced adds a member under a number that is closed in the task or has
// another file: the number is the member's for a moment.
func (a *epollAdder) displaced(m *epollMember) error {
	if err := a.flush(); err != nil {
		return err
	}
	file, have := a.t.FD(m.file)
	if !have {
		s, ok := a.t.(Sender)
		if !ok {
			return fmt.Errorf("its file %d is not open in pid %d", m.file, a.t.PID())
		}
		fd, err := a.r.Open(m.file)
		if err != nil {
			return err
		}
		if file, err = s.Send(fd); err != nil {
			return fmt.Errorf("giving file %d to pid %d: %w", m.file, a.t.PID(), err)
		}
		a.e = a.t.Executor()
	}
	back, err := a.occupy(m.tfd, file)
	if err != nil {
		return err
	}
	a.queue(m)
	if err := a.flush(); err != nil {
		return err
	}
	back()
	if !have && file != m.tfd {
		a.e.Add(unix.SYS_CLOSE, uint64(file))
	}
	if err := a.e.Run(); err != nil {
		return err
	}
	for i := range a.e.Len() {
		if err := a.e.Err(i); err != nil {
			return fmt.Errorf("putting descriptor %d of pid %d back: %s: %w", m.tfd, a.t.PID(), a.e.Describe(i), err)
		}
	}
	a.e.Reset()
	return nil
}

// occupy puts a duplicate of descriptor file at a number; back adds to the batch
// what puts the number's own file there again.
func (a *epollAdder) occupy(tfd, file int) (back func(), err error) {
	n := uint64(tfd)
	if file == tfd { // what was sent came to this very number
		return func() { a.e.Add(unix.SYS_CLOSE, n) }, nil
	}
	flags := a.e.Add(unix.SYS_FCNTL, n, unix.F_GETFD)
	dup := a.e.Add(unix.SYS_FCNTL, n, unix.F_DUPFD_CLOEXEC, 0)
	a.e.StopOnError(dup)
	move := a.e.Add(unix.SYS_DUP3, uint64(file), n, unix.O_CLOEXEC)
	if err := a.e.Run(); err != nil {
		return nil, err
	}
	defer a.e.Reset()
	if a.e.Err(dup) == unix.EBADF { // nothing to set aside
		a.e.Reset()
		move = a.e.Add(unix.SYS_DUP3, uint64(file), n, unix.O_CLOEXEC)
		if err := a.e.Run(); err != nil {
			return nil, err
		}
		if err := a.e.Err(move); err != nil {
			return nil, fmt.Errorf("descriptor %d of pid %d: dup3: %w", tfd, a.t.PID(), err)
		}
		return func() { a.e.Add(unix.SYS_CLOSE, n) }, nil
	}
	if err := a.e.Err(dup); err != nil {
		return nil, fmt.Errorf("setting descriptor %d of pid %d aside: %w", tfd, a.t.PID(), err)
	}
	if err := a.e.Err(move); err != nil {
		return nil, fmt.Errorf("descriptor %d of pid %d: dup3: %w", tfd, a.t.PID(), err)
	}
	aside := uint64(a.e.Result(dup))
	var cloexec uint64
	if a.e.Result(flags)&unix.FD_CLOEXEC != 0 {
		cloexec = unix.O_CLOEXEC
	}
	return func() {
		a.e.Add(unix.SYS_DUP3, aside, n, cloexec)
		a.e.Add(unix.SYS_CLOSE, aside)
	}, nil
}
