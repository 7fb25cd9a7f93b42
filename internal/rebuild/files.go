package rebuild

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// A descriptor reaches a task by SCM_RIGHTS over the transport, a socket pair
// whose one end every task of the tree has inherited from the seed, at a number
// that no task of the tree uses. A received descriptor takes the lowest free
// number, so the numbers can be told beforehand.

const scmMax = 253 // SCM_MAX_FD, include/net/scm.h

// receive queues a recvmsg of n descriptors.
func (b *builder) receive(q *queue, n int) {
	space := unix.CmsgSpace(4 * n)
	q.room(1, 56+16+8+space+32)
	e := q.e
	one, _ := e.Data(8)
	iov, d := e.Data(16)
	le.PutUint64(d, one)
	le.PutUint64(d[8:], 1)
	ctl, _ := e.Data(space)
	msg, d := e.Data(56)
	le.PutUint64(d[16:], iov)
	le.PutUint64(d[24:], 1)
	le.PutUint64(d[32:], ctl)
	le.PutUint64(d[40:], uint64(space))
	q.add("recvmsg of descriptors", unix.SYS_RECVMSG, uint64(b.transportFD), msg, 0)
	q.want(1)
}

func (b *builder) send(fds []int) error {
	return unix.Sendmsg(b.transport[0], []byte{0}, unix.UnixRights(fds...), nil, 0)
}

// sendTemporary gives a task with an empty table descriptors 0 to len(fds)-1.
func (b *builder) sendTemporary(q *queue, fds []int) error {
	defer b.keep()()
	for len(fds) > 0 {
		n := min(len(fds), scmMax)
		if err := b.send(fds[:n]); err != nil {
			return fmt.Errorf("sending descriptors: %w", err)
		}
		b.receive(q, n)
		q.run()
		fds = fds[n:]
	}
	return nil
}

// install gives a task its descriptor table.
func (b *builder) install(p *proc) error {
	defer b.keep()()
	p.exec.Reset()
	q := &queue{b: b, e: p.exec}
	taken := map[int]bool{b.transportFD: true}
	free := 0
	nextFree := func() int {
		for taken[free] {
			free++
		}
		free++
		return free - 1
	}
	for rest := p.table; len(rest) > 0; {
		n := min(len(rest), scmMax)
		fds := make([]int, n)
		for i, d := range rest[:n] {
			fd, err := b.files.Open(d.GetId())
			if err != nil {
				return fmt.Errorf("fd %d: %w", d.GetFd(), err)
			}
			fds[i] = fd
		}
		if err := b.send(fds); err != nil {
			return fmt.Errorf("sending descriptors: %w", err)
		}
		b.receive(q, n)
		slots := make([]int, n)
		for i := range slots {
			slots[i] = nextFree()
		}
		// From the last to the first: a number that is wanted is never still
		// in use for one that has yet to move.
		for i := n - 1; i >= 0; i-- {
			d := rest[i]
			want := int(d.GetFd())
			if want != slots[i] {
				flags := uint64(0)
				if d.GetFlags()&unix.FD_CLOEXEC != 0 {
					flags = unix.O_CLOEXEC
				}
				q.add("dup3", unix.SYS_DUP3, uint64(slots[i]), uint64(want), flags)
				q.want(uint64(want))
				q.add("close", unix.SYS_CLOSE, uint64(slots[i]))
			} else if d.GetFlags()&unix.FD_CLOEXEC != 0 {
				q.add("fcntl(F_SETFD)", unix.SYS_FCNTL, uint64(want), unix.F_SETFD, unix.FD_CLOEXEC)
			}
			taken[want] = true
		}
		free = 0
		rest = rest[n:]
	}
	if err := q.flush(); err != nil {
		return fmt.Errorf("%s: descriptors: %w", p.describe(), err)
	}
	return nil
}

// place sets root, working directory and umask, where they differ from what the
// task inherited.
func (b *builder) place(p, from *proc) error {
	if from != nil && !from.zombie && from.fs.GetCwdId() == p.fs.GetCwdId() && from.fs.GetRootId() == p.fs.GetRootId() && from.fs.GetUmask() == p.fs.GetUmask() {
		return nil
	}
	root, err := b.files.Open(p.fs.GetRootId())
	if err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	cwd, err := b.files.Open(p.fs.GetCwdId())
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	p.exec.Reset()
	q := &queue{b: b, e: p.exec}
	if err := b.sendTemporary(q, []int{root, cwd}); err != nil {
		return err
	}
	// A chroot only where it changes something: it needs privilege.
	if same, err := sameDir(root); err != nil {
		return err
	} else if !same {
		q.add("fchdir to the root", unix.SYS_FCHDIR, 0)
		q.add("chroot", unix.SYS_CHROOT, q.e.PutString("."))
	}
	q.add("fchdir", unix.SYS_FCHDIR, 1)
	q.add("umask", unix.SYS_UMASK, uint64(p.fs.GetUmask()))
	q.add("close", unix.SYS_CLOSE, 0)
	q.add("close", unix.SYS_CLOSE, 1)
	if err := q.flush(); err != nil {
		return fmt.Errorf("placing: %w", err)
	}
	return nil
}

func sameDir(fd int) (bool, error) {
	var a, o unix.Stat_t
	if err := unix.Fstat(fd, &a); err != nil {
		return false, err
	}
	if err := unix.Stat("/", &o); err != nil {
		return false, err
	}
	return a.Dev == o.Dev && a.Ino == o.Ino, nil
}

// setupTransport makes the socket pair.
func (b *builder) setupTransport() error {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	b.transport = p
	return nil
}

// liftTransport moves the seed's end to a number that no table has and that is
// above those of the files which are open only while they are mapped.
func (b *builder) liftTransport() error {
	used := map[int]bool{}
	top := 3
	for _, p := range b.procs {
		files := map[uint32]bool{}
		for i := range p.areas {
			files[p.areas[i].file()] = true
		}
		top = max(top, len(files)+2)
		for _, d := range p.table {
			used[int(d.GetFd())] = true
		}
	}
	top += len(b.shm)
	for used[top] {
		top++
	}
	b.transportFD = top
	e := b.seed.exec
	e.Reset()
	var lim [16]byte
	le.PutUint64(lim[:], b.hardNofile)
	le.PutUint64(lim[8:], b.hardNofile)
	if uint64(top) >= b.hardNofile {
		return fmt.Errorf("descriptor %d is above this process's limit of %d", top, b.hardNofile)
	}
	q := &queue{b: b, e: e}
	q.add("prlimit", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, e.Put(lim[:]), 0)
	q.add("dup3", unix.SYS_DUP3, 0, uint64(top), 0)
	// Whatever this process was started with open, the tree must not have.
	q.add("close_range", unix.SYS_CLOSE_RANGE, 0, uint64(top-1), 0)
	q.add("close_range", unix.SYS_CLOSE_RANGE, uint64(top+1), math.MaxUint32, 0)
	return q.flush()
}
