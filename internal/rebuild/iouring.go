package rebuild

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// uring is an io_uring instance that is being made.
type uring struct {
	*fm.Uring
	b        *builder
	maker    *proc            // whose memory is registered with it
	by       *tracee.Executor // of the thread that made it: the one that submits
	there    int              // its descriptor in the maker
	stays    bool             // which is one of those it had
	fd       int              // and here
	p        sys.UringParams
	rings    sys.Words
	entries  sys.Words
	sqe, cqe uint32 // sizes of entries
}

// urings makes the io_uring instances, in the place of what the tables hold for
// them, and maps them. owners have a table each. Those with a thread of their own
// (IORING_SETUP_SQPOLL) wait for their process's credentials: the thread gets
// them, and uses them for all that it carries out.
func (b *builder) urings(owners []*proc) error {
	all, err := image.All[*fm.Uring](b.im, "urings")
	if err != nil {
		return err
	}
	for _, x := range all {
		if x.GetFlags()&sys.UringSQPoll != 0 {
			b.polled = append(b.polled, x)
		} else if err := b.makeUring(x, owners); err != nil {
			return err
		}
	}
	return nil
}

// polledUrings makes a process's instances with threads of their own.
func (b *builder) polledUrings(p *proc) error {
	for _, x := range b.polled {
		if int(x.GetPid()) != p.pid {
			continue
		}
		// Their numbers are free from here on, so that there is room for one more.
		for _, d := range p.table {
			if d.GetId() == x.GetId() {
				p.exec.Reset()
				if _, err := p.exec.Call(unix.SYS_CLOSE, uint64(d.GetFd())); err != nil {
					return err
				}
			}
		}
		if err := b.makeUring(x, []*proc{p}); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) makeUring(x *fm.Uring, owners []*proc) error {
	u := &uring{Uring: x, b: b, fd: -1, sqe: 64, cqe: 16}
	defer u.unmap()
	if x.GetFlags()&sys.UringSQE128 != 0 {
		u.sqe *= 2
	}
	if x.GetFlags()&sys.UringCQE32 != 0 {
		u.cqe *= 2
	}
	for _, step := range []stepOf{
		{"checking", u.check},
		{"io_uring_setup", u.setup},
		{"going to where its rings were", u.advance},
		{"filling its rings", u.fill},
		{"descriptors", func() error { return u.place(owners) }},
		{"registering", u.register},
		{"mapping", u.mapAreas},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("io_uring instance (file %d): %s: %w", x.GetId(), step.name, err)
		}
	}
	return nil
}

func (u *uring) check() error {
	n, m := u.GetSqEntries(), u.GetCqEntries()
	pow2 := func(n uint32) bool { return n > 0 && n&(n-1) == 0 && n <= 1<<20 }
	array := n
	if u.GetFlags()&sys.UringNoSQArray != 0 {
		array = 0
	}
	if !pow2(n) || !pow2(m) || len(u.GetSqes()) != int(n*u.sqe) || len(u.GetCqes()) != int(m*u.cqe) || len(u.GetArray()) != int(4*array) ||
		u.GetSqTail()-u.GetSqHead() > n || u.GetCqTail()-u.GetCqHead() > m {
		return fault.Errorf(fault.ErrDamaged, "rings of %d and %d entries", n, m)
	}
	if u.maker = u.b.byPID[int(u.GetPid())]; u.maker == nil || u.maker.zombie {
		return fault.Errorf(fault.ErrDamaged, "pid %d, which made it, is not there", u.GetPid())
	}
	u.by = u.maker.exec
	if tid := int(u.GetThread()); tid != 0 {
		for _, p := range u.b.procs {
			for _, t := range p.threads {
				if t.tid == tid && t.exec != nil {
					u.maker, u.by = p, t.exec
				}
			}
		}
	}
	return nil
}

// setup makes the instance, as large and of the same kind.
func (u *uring) setup() error {
	u.p = sys.UringParams{}
	u.p[sys.UringCQEntries] = u.GetCqEntries()
	u.p[sys.UringFlags] = u.GetFlags()&^(sys.UringClamp|sys.UringAttachWQ) | sys.UringCQSize
	u.p[sys.UringIdle], u.p[sys.UringCPU] = u.GetIdleMs(), u.GetCpu()
	u.by.Reset()
	at, d := u.by.Data(4 * len(u.p))
	for i, v := range u.p {
		le.PutUint32(d[4*i:], v)
	}
	r, err := u.by.Call(unix.SYS_IO_URING_SETUP, uint64(u.GetSqEntries()), at)
	if err != nil {
		if err == unix.EPERM {
			return fmt.Errorf("%w (the sysctl kernel.io_uring_disabled?)", err)
		}
		return err
	}
	for i := range u.p {
		u.p[i] = le.Uint32(d[4*i:])
	}
	u.there = int(r)
	if u.p[sys.UringSQEntries] != u.GetSqEntries() || u.p[sys.UringCQEntries] != u.GetCqEntries() ||
		u.p[sys.UringArray] != u.GetArrayOff() && len(u.GetArray()) > 0 || u.p[sys.UringCQEs] != u.GetCqesOff() {
		return fault.Errorf(fault.ErrRefused, "this kernel lays it out differently: the program was checkpointed under another one")
	}
	pid, err := unix.PidfdOpen(u.maker.host(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(pid)
	if u.fd, err = unix.PidfdGetfd(pid, u.there, 0); err != nil {
		return err
	}
	if err := u.b.files.SetUring(u.GetId(), u.fd); err != nil {
		return err
	}
	size := max(int(u.GetCqesOff())+len(u.GetCqes()), int(u.GetArrayOff())+len(u.GetArray()))
	if u.rings, err = sys.MapUring(u.fd, sys.UringRings, size, true); err != nil {
		return err
	}
	u.entries, err = sys.MapUring(u.fd, sys.UringEntries, len(u.GetSqes()), true)
	return err
}

func (u *uring) unmap() {
	for _, m := range []sys.Words{u.rings, u.entries} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
}

func (u *uring) word(off int) uint32 { return u.rings.Load(u.p[off]) }

// advance makes the kernel count to where it was: by as many requests that do
// nothing. Programs keep a count of what they have submitted (liburing does), so
// that it must be the same; the kernel lets nobody set it. Some tens of millions
// go in a second.
//
// Completions are counted by programs only in the ring itself. Where there were
// more of them than submissions, they begin at the count of these.
func (u *uring) advance() error {
	head, tail := u.GetSqHead(), u.GetCqTail()
	if head == 0 {
		return nil
	}
	n := u.GetSqEntries()
	clear(u.entries) // IORING_OP_NOP is 0
	for i := uint32(0); i < n && len(u.GetArray()) > 0; i++ {
		u.rings.Store(u.p[sys.UringArray]+4*i, i)
	}
	silent := func(flag byte) {
		for i := uint32(0); i < n; i++ {
			u.entries[i*u.sqe+1] = flag
		}
	}
	if tail > head {
		tail = head // see above
	}
	silent(sys.UringSkipCQE)
	if err := u.submit(head-tail, 1<<30); err != nil {
		return err
	}
	silent(0)
	return u.submit(tail, u.GetCqEntries())
}

// submit submits count entries, whatever they are, and takes their completions
// after every room of them.
func (u *uring) submit(count, room uint32) error {
	for count > 0 {
		part := min(count, room)
		target := u.word(sys.UringSQTail) + part
		u.rings.Store(u.p[sys.UringSQTail], target)
		for last, stuck := u.word(sys.UringSQHead), 0; last != target; {
			if err := u.enter(part); err != nil {
				return err
			}
			now := u.word(sys.UringSQHead)
			if now == last {
				if stuck++; stuck > 20000 {
					return fmt.Errorf("entries %d to %d are not taken", now, target)
				}
				sys.Nap(100 * time.Microsecond)
				continue
			}
			last, stuck = now, 0
		}
		u.rings.Store(u.p[sys.UringCQHead], u.word(sys.UringCQTail))
		count -= part
	}
	return nil
}

// enter has entries submitted: by this process, or by the thread that alone may.
func (u *uring) enter(n uint32) error {
	flags := uint32(0)
	if u.GetFlags()&sys.UringSQPoll != 0 {
		flags = sys.UringSQWakeup
	}
	if u.GetFlags()&sys.UringSingleIssuer == 0 {
		_, err := sys.UringEnter(u.fd, n, 0, flags)
		return err
	}
	u.by.Reset()
	for done := uint32(0); done < n && u.by.Room(1, 0); done += u.GetSqEntries() {
		u.by.Add(unix.SYS_IO_URING_ENTER, uint64(u.there), uint64(u.GetSqEntries()), 0, uint64(flags), 0, 0)
	}
	if err := u.by.Run(); err != nil {
		return err
	}
	return u.by.Err(0)
}

// fill puts into the rings what was in them.
func (u *uring) fill() error {
	shift := u.word(sys.UringCQTail) - u.GetCqTail() // 0 but for what advance says
	if u.GetCqHead() != u.GetCqTail() || shift == 0 {
		mask := u.GetCqEntries() - 1
		for i := range u.GetCqEntries() {
			from := u.GetCqes()[i*u.cqe:][:u.cqe]
			copy(u.rings[u.p[sys.UringCQEs]+(i+shift)&mask*u.cqe:], from)
		}
	}
	copy(u.entries, u.GetSqes())
	copy(u.rings[u.p[sys.UringArray]:], u.GetArray())
	u.rings.Store(u.p[sys.UringDropped], u.GetDropped())
	u.rings.Store(u.p[sys.UringOverflow], u.GetOverflow())
	u.rings.Store(u.p[sys.UringCQFlags], u.GetCqFlags())
	u.rings.Store(u.p[sys.UringCQHead], u.GetCqHead()+shift)
	u.rings.Store(u.p[sys.UringSQTail], u.GetSqTail())
	return nil
}

// place gives the descriptor to every table that had it.
func (u *uring) place(owners []*proc) error {
	for _, p := range owners {
		from := -1
		e := p.exec
		for _, d := range p.table {
			if d.GetId() != u.GetId() {
				continue
			}
			if from < 0 {
				var err error
				if from, err = u.in(p); err != nil {
					return err
				}
			}
			e.Reset()
			if int(d.GetFd()) == from { // it is its own: made there by chance
				u.stays = true
				if _, err := e.Call(unix.SYS_FCNTL, uint64(from), unix.F_SETFD, uint64(d.GetFlags()&unix.FD_CLOEXEC)); err != nil {
					return err
				}
				continue
			}
			if _, err := e.Call(unix.SYS_DUP3, uint64(from), uint64(d.GetFd()), cloexec(d)); err != nil {
				return fmt.Errorf("pid %d: fd %d: %w", p.pid, d.GetFd(), err)
			}
		}
		if from < 0 {
			continue
		}
		if err := u.drop(p, from); err != nil {
			return err
		}
	}
	return nil
}

func cloexec(d *fdinfo.FdinfoEntry) uint64 {
	if d.GetFlags()&unix.FD_CLOEXEC != 0 {
		return unix.O_CLOEXEC
	}
	return 0
}

// in gives the process a descriptor of the instance at a number that was free:
// the one it was made at, or one that it takes from the maker.
func (u *uring) in(p *proc) (int, error) {
	if p.ids().GetFilesId() == u.maker.ids().GetFilesId() {
		return u.there, nil
	}
	e := p.exec
	e.Reset()
	pid, err := e.Call(unix.SYS_PIDFD_OPEN, uint64(u.maker.pid), 0)
	if err != nil {
		return -1, fmt.Errorf("pid %d: pidfd_open: %w", p.pid, err)
	}
	e.Reset()
	fd, err := e.Call(unix.SYS_PIDFD_GETFD, uint64(pid), uint64(u.there), 0)
	e.Reset()
	if _, cerr := e.Call(unix.SYS_CLOSE, uint64(pid)); err == nil {
		err = cerr
	}
	if err != nil {
		return -1, fmt.Errorf("pid %d: taking the descriptor: %w", p.pid, err)
	}
	return int(fd), nil
}

// drop closes what in gave, unless the maker still needs it.
func (u *uring) drop(p *proc, fd int) error {
	if p.ids().GetFilesId() == u.maker.ids().GetFilesId() {
		return nil
	}
	p.exec.Reset()
	_, err := p.exec.Call(unix.SYS_CLOSE, uint64(fd))
	return err
}

// register registers files, buffers, an eventfd and limits, and gives threads
// their indices.
func (u *uring) register() error {
	q := &queue{b: u.b, e: u.by}
	u.by.Reset()
	call := func(name string, what uint64, n int, data []byte) {
		q.room(1, len(data)+16)
		at := q.e.Put(data)
		q.add(name, unix.SYS_IO_URING_REGISTER, uint64(u.there), what, at, uint64(n))
	}
	table := func(n uint32) []byte { // struct io_uring_rsrc_register
		d := make([]byte, 32)
		le.PutUint32(d, n)
		le.PutUint32(d[4:], sys.UringSparse)
		return d
	}
	update := func(name string, what uint64, s *fm.UringSlot, value []byte) { // struct io_uring_rsrc_update2
		q.room(1, 128)
		v, t := q.e.Put(value), q.e.Put(le.AppendUint64(nil, s.GetTag()))
		at, d := q.e.Data(32)
		le.PutUint32(d, s.GetIndex())
		le.PutUint64(d[8:], v)
		le.PutUint64(d[16:], t)
		le.PutUint32(d[24:], 1)
		q.add(name, unix.SYS_IO_URING_REGISTER, uint64(u.there), what, at, 32)
	}
	if n := u.GetFileSlots(); n > 0 {
		call("registering files", sys.UringRegisterFiles2, 32, table(n))
		if err := q.flush(); err != nil {
			return err
		}
		for _, s := range u.GetFiles() {
			fd, temporary, err := u.give(s.GetFile())
			if err != nil {
				return err
			}
			update("registering a file", sys.UringRegisterFilesUpdate2, s, le.AppendUint32(nil, uint32(fd)))
			if temporary {
				q.add("close", unix.SYS_CLOSE, uint64(fd))
			}
			if err := q.flush(); err != nil {
				return err
			}
		}
		if u.GetAllocStart() != 0 || u.GetAllocEnd() != n {
			r := make([]byte, 16) // struct io_uring_file_index_range
			le.PutUint32(r, u.GetAllocStart())
			le.PutUint32(r[4:], u.GetAllocEnd()-u.GetAllocStart())
			call("range of files", sys.UringRegisterAllocRange, 0, r)
		}
	}
	if n := u.GetBufferSlots(); n > 0 {
		call("registering buffers", sys.UringRegisterBuffers2, 32, table(n))
		for _, s := range u.GetBuffers() {
			update("registering a buffer", sys.UringRegisterBuffersUpdate2, s, le.AppendUint64(le.AppendUint64(nil, s.GetAddr()), s.GetLen()))
		}
	}
	if w := u.GetWorkers(); len(w) == 2 {
		call("limits of workers", sys.UringRegisterMaxWorkers, 2, le.AppendUint32(le.AppendUint32(nil, w[0]), w[1]))
	}
	if c := u.GetClock(); c != 0 && c != unix.CLOCK_MONOTONIC {
		call("clock", sys.UringRegisterClock, 0, le.AppendUint32(nil, uint32(c))[:4:4])
	}
	if u.Eventfd != nil {
		fd, temporary, err := u.give(u.GetEventfd())
		if err != nil {
			return err
		}
		what := uint64(sys.UringRegisterEventfd)
		if u.GetEventfdAsync() {
			what = sys.UringRegisterEventfdAsync
		}
		call("registering an eventfd", what, 1, le.AppendUint32(nil, uint32(fd)))
		if temporary {
			q.add("close", unix.SYS_CLOSE, uint64(fd))
		}
	}
	if err := q.flush(); err != nil {
		return err
	}
	return u.threads()
}

// give gives the maker a descriptor of a file: its own, or one for a moment.
func (u *uring) give(id uint32) (fd int, temporary bool, err error) {
	if n, ok := u.maker.FD(id); ok {
		return n, false, nil
	}
	here, err := u.b.files.Open(id)
	if err != nil {
		return -1, false, err
	}
	fd, err = u.maker.Send(here)
	return fd, true, err
}

// threads gives threads their indices of the instance.
func (u *uring) threads() error {
	for _, x := range u.GetThreads() {
		found := false
		for _, p := range u.b.procs {
			for _, t := range p.threads {
				if t.tid != int(x.GetTid()) || t.exec == nil {
					continue
				}
				found = true
				fd := u.there
				if n, ok := p.FD(u.GetId()); ok {
					fd = n
				}
				t.exec.Reset()
				d := make([]byte, 16) // struct io_uring_rsrc_update
				le.PutUint32(d, x.GetIndex())
				le.PutUint64(d[8:], uint64(fd))
				if _, err := t.exec.Call(unix.SYS_IO_URING_REGISTER, uint64(fd), sys.UringRegisterRingFDs, t.exec.Put(d), 1); err != nil {
					return fmt.Errorf("thread %d: registering the ring: %w", t.tid, err)
				}
			}
		}
		if !found {
			return fault.Errorf(fault.ErrDamaged, "thread %d is not there", x.GetTid())
		}
	}
	return nil
}

// mapAreas maps the instance in every address space where it was, and closes the
// descriptor it was made at.
func (u *uring) mapAreas() error {
	for _, p := range u.b.procs {
		if p.zombie || p.vmOwner != p {
			continue
		}
		var areas []*area
		for i := range p.areas {
			if a := &p.areas[i]; a.is(collect.VMAUring) && a.GetShmid() == uint64(u.GetId()) {
				areas = append(areas, a)
			}
		}
		if len(areas) == 0 {
			continue
		}
		fd, err := u.in(p)
		if err != nil {
			return err
		}
		if err := u.b.mapUnasked(p, areas, fd); err != nil {
			return fmt.Errorf("pid %d: %w", p.pid, err)
		}
		if err := u.drop(p, fd); err != nil {
			return err
		}
	}
	if u.stays {
		return nil
	}
	u.maker.exec.Reset()
	if _, err := u.maker.exec.Call(unix.SYS_CLOSE, uint64(u.there)); err != nil {
		return errors.Join(errors.New("closing it where it was made"), err)
	}
	return nil
}

// mapUnasked maps a file that lets nobody say where (io_uring_get_unmapped_area,
// io_uring/memmap.c, since Linux 6.4): for as long as that takes, nothing else is
// free in the address space.
func (b *builder) mapUnasked(p *proc, areas []*area, fd int) error {
	maps, err := procfs.ReadMaps(p.host())
	if err != nil {
		return err
	}
	p.exec.Reset()
	q := &queue{b: b, e: p.exec}
	var gaps []span
	at := uint64(mmapMin)
	for _, v := range maps {
		if v.Start > at && at < taskSize {
			gaps = append(gaps, span{at, min(v.Start, taskSize) - at})
		}
		at = max(at, v.End)
	}
	if at < taskSize {
		gaps = append(gaps, span{at, taskSize - at})
	}
	const reserve = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE | unix.MAP_FIXED_NOREPLACE
	for _, g := range gaps {
		q.add("mmap of what is free", unix.SYS_MMAP, g.at, g.len, unix.PROT_NONE, reserve, ^uint64(0), 0)
	}
	for _, a := range areas {
		n := a.GetEnd() - a.GetStart()
		q.add("munmap", unix.SYS_MUNMAP, a.GetStart(), n)
		q.add("mmap", unix.SYS_MMAP, 0, n, uint64(a.GetProt()), unix.MAP_SHARED|unix.MAP_POPULATE, uint64(fd), a.GetPgoff())
		q.want(a.GetStart())
	}
	// What was free is so again, but for the areas.
	for _, g := range gaps {
		at := g.at
		for _, a := range areas { // in ascending order
			if a.GetStart() >= at && a.GetEnd() <= g.at+g.len {
				if a.GetStart() > at {
					q.add("munmap", unix.SYS_MUNMAP, at, a.GetStart()-at)
				}
				at = a.GetEnd()
			}
		}
		if end := g.at + g.len; end > at {
			q.add("munmap", unix.SYS_MUNMAP, at, end-at)
		}
	}
	for _, a := range areas {
		if m := a.GetMadv(); m != 0 {
			b.advise(q, a, m)
		}
	}
	return q.flush()
}

// mmapMin is the lowest address that any kernel lets be mapped (vm.mmap_min_addr).
const mmapMin = 1 << 16
