package resource

import (
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// The plain files of a large table are looked at ahead, by several threads: a
// copy, stat, flags, offset and link are five calls for each, and none of them
// needs the tracing thread.

// seen is what was seen of a descriptor.
type seen struct {
	stat  unix.Stat_t
	flags uint32
	pos   int64
	link  string
	plain bool // but for locks; if not, the rest means nothing
}

const (
	aheadPiece = 64 // descriptors that a thread takes at a time
	aheadMost  = 16 // pieces that wait to be taken
)

// ahead looks at a table.
type ahead struct {
	d     *Dump
	pidfd int
	fds   []int
	next  atomic.Int64
	done  []chan []seen
	room  chan struct{}
	stop  chan struct{}
	all   sync.WaitGroup
	now   []seen      // the piece that is being taken
	used  chan []seen // those that were

	locked    map[uint64]bool
	lockedErr error
	locks     chan struct{}
}

// lookAhead begins to look at descriptors of a task. close must be called.
func (d *Dump) lookAhead(pid int, fds []int) (*ahead, error) {
	pidfd, err := d.pidfd(pid)
	if err != nil {
		return nil, err
	}
	n := (len(fds) + aheadPiece - 1) / aheadPiece
	a := &ahead{
		d: d, pidfd: pidfd, fds: fds, done: make([]chan []seen, n),
		room: make(chan struct{}, aheadMost), stop: make(chan struct{}), locks: make(chan struct{}),
		used: make(chan []seen, aheadMost),
	}
	for i := range a.done {
		a.done[i] = make(chan []seen, 1)
	}
	a.all.Go(func() {
		defer close(a.locks)
		a.locked, a.lockedErr = readLocked()
	})
	for range min(runtime.GOMAXPROCS(0), 4) {
		a.all.Go(a.work)
	}
	return a, nil
}

func (a *ahead) close() {
	close(a.stop)
	a.all.Wait()
}

// at gives what was seen of descriptor i, nil when it must be looked at anew. It
// is called for one after the other, and valid until the next call.
func (a *ahead) at(i int) *seen {
	if i%aheadPiece == 0 {
		select {
		case a.used <- a.now:
		default:
		}
		a.now = <-a.done[i/aheadPiece]
		<-a.room
	}
	s := &a.now[i%aheadPiece]
	if !s.plain {
		return nil
	}
	<-a.locks
	if a.lockedErr != nil || a.locked[s.stat.Ino] {
		return nil
	}
	return s
}

func (a *ahead) work() {
	self, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(self)
	}
	w := looker{a: a, self: self, buf: make([]byte, 8<<10)}
	for {
		select {
		case <-a.stop:
			return
		case a.room <- struct{}{}:
		}
		i := int(a.next.Add(1)) - 1
		if i >= len(a.done) {
			return
		}
		fds := a.fds[i*aheadPiece : min((i+1)*aheadPiece, len(a.fds))]
		var out []seen
		select {
		case out = <-a.used:
		default:
		}
		if out == nil {
			out = make([]seen, aheadPiece)
		}
		out = out[:len(fds)]
		for k, fd := range fds {
			// What fails here fails where it is looked at anew.
			out[k].plain = err == nil && w.look(fd, &out[k]) == nil
		}
		a.done[i] <- out
	}
}

// looker is one thread's tools.
type looker struct {
	a    *ahead
	self int // /proc/self/fd
	buf  []byte
	last string // link
}

var errNotPlain = errors.New("not a plain file")

// look looks at a descriptor; an error says that more must be known of it.
func (w *looker) look(fd int, s *seen) error {
	dup, err := unix.PidfdGetfd(w.a.pidfd, fd, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dup)
	if err := unix.Fstat(dup, &s.stat); err != nil {
		return err
	}
	if !w.a.d.plainKind(&s.stat, dup) {
		return errNotPlain
	}
	if s.flags, s.pos, err = flagsAndOffset(dup, s.stat.Mode); err != nil {
		return err
	}
	n, err := unix.Readlinkat(w.self, strconv.Itoa(dup), w.buf)
	if err != nil {
		return err
	}
	if string(w.buf[:n]) != w.last { // many are of one file
		w.last = string(w.buf[:n])
	}
	s.link = w.last
	return nil
}

// flagsAndOffset gives what fdinfo would show of a plain file, but for locks.
func flagsAndOffset(fd int, mode uint32) (flags uint32, pos int64, err error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && n&unix.O_PATH == 0 && mode&unix.S_IFMT != unix.S_IFCHR {
		pos, err = unix.Seek(fd, 0, unix.SEEK_CUR)
	}
	return uint32(n), pos, err
}

// readLocked gives the inodes that have locks or leases.
func readLocked() (map[uint64]bool, error) {
	all, err := procfs.ReadLocks()
	m := map[uint64]bool{}
	for _, l := range all {
		m[l.Ino] = true
	}
	return m, err
}
