package sys

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Futexes on memory shared with a tracee (futex(2); include/uapi/linux/futex.h).
const (
	futexWait = 0
	futexWake = 1
	// FutexWaiters and FutexOwnerDied are bits of a robust futex's word.
	FutexWaiters   = 0x80000000
	FutexOwnerDied = 0x40000000
)

// Word gives the 32-bit futex word at an offset of shared memory; the offset
// must be a multiple of 4.
func Word(mem []byte, off int) *uint32 {
	_ = mem[off+3]
	return (*uint32)(unsafe.Pointer(&mem[off]))
}

// Word64 is Word of eight bytes.
func Word64(mem []byte, off int) *uint64 {
	_ = mem[off+7]
	return (*uint64)(unsafe.Pointer(&mem[off]))
}

// Address gives where a mapping of this process begins.
func Address(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }

// FutexWake wakes up to n waiters on a word of shared memory.
func FutexWake(w *uint32, n int) {
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), futexWake, uintptr(n), 0, 0, 0)
}

// FutexWait waits while the word holds val, at most d. It gives EAGAIN when the
// word differed, ETIMEDOUT, EINTR, or nil after a wake. With sched the Go
// scheduler may run other goroutines on this processor meanwhile.
func FutexWait(w *uint32, val uint32, d time.Duration, sched bool) error {
	ts := unix.NsecToTimespec(int64(d))
	var e unix.Errno
	if sched {
		_, _, e = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), futexWait, uintptr(val), uintptr(unsafe.Pointer(&ts)), 0, 0)
	} else {
		_, _, e = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), futexWait, uintptr(val), uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
	if e != 0 {
		return e
	}
	return nil
}

// RobustList is an OS thread's list of robust futexes (set_robust_list(2)):
// when the thread dies, however it dies, the kernel marks each word
// FutexOwnerDied and wakes a waiter. Go itself has none, so the list may be set
// on a locked thread. Its head lives in memory that is not the collector's.
//
// The links of the nodes lie in memory that a tracee may write. So nothing here
// reads them: the order is kept in nodes.
type RobustList struct {
	mem   []byte // one page: the head
	tid   int    // the thread whose list it is
	nodes []*byte
	more  *RobustList   // once this one is full
	done  chan struct{} // ends the thread of a further list
}

const (
	robustHeadSize = 24
	// robustMax: the kernel follows no more nodes than ROBUST_LIST_LIMIT, 2048
	// (include/linux/futex.h).
	robustMax = 2000
)

// NewRobustList sets an empty list for the calling OS thread. futexOffset is
// the distance in bytes from a node's link to its word.
func NewRobustList(futexOffset int) (*RobustList, error) {
	mem, err := unix.Mmap(-1, 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	l := &RobustList{mem: mem, tid: unix.Gettid()}
	head := uint64(uintptr(unsafe.Pointer(&mem[0])))
	nativeEndian.PutUint64(mem[0:], head)
	nativeEndian.PutUint64(mem[8:], uint64(int64(futexOffset)))
	nativeEndian.PutUint64(mem[16:], 0)
	if _, _, e := unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(head), robustHeadSize, 0); e != 0 {
		unix.Munmap(mem)
		return nil, e
	}
	return l, nil
}

// TID gives the thread that the words of this list's nodes must name.
func (l *RobustList) TID() int { return l.tid }

// Room gives a list with room for one more node: this one, or one of a further
// OS thread that lives until Close.
func (l *RobustList) Room() (*RobustList, error) {
	for ; len(l.nodes) >= robustMax; l = l.more {
		if l.more != nil {
			continue
		}
		type made struct {
			l   *RobustList
			err error
		}
		ch := make(chan made)
		offset := int(int64(nativeEndian.Uint64(l.mem[8:])))
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with us
			n, err := NewRobustList(offset)
			if err == nil {
				n.done = make(chan struct{})
			}
			ch <- made{n, err}
			if err == nil {
				<-n.done
			}
		}()
		m := <-ch
		if m.err != nil {
			return nil, m.err
		}
		l.more = m.l
	}
	return l, nil
}

// Add links the node at link (8 bytes of shared memory) in front.
func (l *RobustList) Add(link []byte) {
	nativeEndian.PutUint64(link, l.before(len(l.nodes)))
	l.nodes = append(l.nodes, &link[0])
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&l.mem[0])), l.before(len(l.nodes)))
}

// before gives the address of the node that was added before the nth, or of the
// head.
func (l *RobustList) before(n int) uint64 {
	if n == 0 {
		return uint64(uintptr(unsafe.Pointer(&l.mem[0])))
	}
	return uint64(uintptr(unsafe.Pointer(l.nodes[n-1])))
}

// Remove unlinks a node.
func (l *RobustList) Remove(link []byte) {
	for i, n := range l.nodes {
		if n != &link[0] {
			continue
		}
		from := (*uint64)(unsafe.Pointer(&l.mem[0]))
		if i+1 < len(l.nodes) {
			from = (*uint64)(unsafe.Pointer(l.nodes[i+1]))
		}
		atomic.StoreUint64(from, l.before(i))
		l.nodes = append(l.nodes[:i], l.nodes[i+1:]...)
		return
	}
}

// Close takes the list from the thread again. No node may be linked any more
// that somebody waits on.
func (l *RobustList) Close() {
	if l.more != nil {
		close(l.more.done)
		l.more.Close()
	}
	if l.done == nil {
		unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, 0, robustHeadSize, 0)
		unix.Munmap(l.mem)
	}
	// The thread of a further list may still be on its way out: the page with
	// its head stays.
}
