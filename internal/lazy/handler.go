package lazy

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tree"
)

// The handler and the watch are this program under another name: whatever
// program uses the package, they never get as far as its main.
func init() {
	if len(os.Args) != 1 || os.Getenv(mark) != "1" {
		return
	}
	switch os.Args[0] {
	case Name:
		(&handler{restorer: 0}).run()
	case NameWatch:
		watch(0)
	default:
		return
	}
	os.Exit(0)
}

// alone makes the process one that lives for as long as it is needed.
func alone(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name[:min(len(name), 15)]), 0)
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGPIPE)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	debug.SetGCPercent(400)
}

const (
	// window is how many pages a fault brings in.
	window = 16
	// stride is how many pages the background puts at once: events, and with
	// them forks of the program, wait for one stride at most.
	stride = 64
	// headStart is for how long, at most, the background leaves the processors to
	// the program and to the restoring process, which has only its end before it.
	headStart = 10 * time.Millisecond
)

// handler is what the process has at hand.
type handler struct {
	restorer int // socket to the restoring process; -1 when that has gone
	watcher  int // socket to the watch
	watchPID int
	plan     *Plan
	store    *pagestore.Store
	epoll    int

	mu     sync.Mutex
	spaces []*space
	err    error // of the background
}

// run serves a tree until all its memory is there.
func (h *handler) run() {
	alone(Name)
	// The watch starts while the tree is being made.
	err := h.startWatch()
	if err == nil {
		err = h.takePlan()
	}
	if err == nil && h.plan != nil {
		err = h.briefWatch()
	}
	if err != nil {
		_ = send(h.restorer, msgFailed, []byte(err.Error()))
		return
	}
	if h.plan == nil { // not needed
		h.dismissWatch()
		return
	}
	if send(h.restorer, msgReady, nil) != nil {
		h.dismissWatch()
		return
	}
	// Not before: a new session has another share of a busy processor.
	_, _ = unix.Setsid()
	err = h.serve()
	if errors.Is(err, errNeverRan) {
		h.dismissWatch()
		return
	}
	if err != nil {
		report(err)
		tree.End(h.pidfds())
		_ = send(h.restorer, msgFailed, []byte(err.Error()))
		h.dismissWatch()
		outlive(h.uffds())
		return
	}
	// The watch lets go first: the program must not lose a page between the
	// two, and now it cannot.
	h.dismissWatch()
	for _, fd := range h.uffds() {
		unix.Close(fd) // unregisters everything, and wakes who waits
	}
	_ = send(h.restorer, msgDone, nil)
}

// errNeverRan: the restoring process has gone before the program ran, and the
// program with it.
var errNeverRan = errors.New("the program was not restored")

// takePlan receives the plan and its descriptors.
func (h *handler) takePlan() error {
	kind, _, fds, err := receive(h.restorer)
	if err != nil || kind != msgPlan || len(fds) != 1 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fds[0], &st); err != nil {
		return err
	}
	b := make([]byte, st.Size)
	for done := 0; done < len(b); {
		n, err := unix.Pread(fds[0], b[done:], int64(done))
		if err != nil || n == 0 {
			return errors.Join(errPlan, err)
		}
		done += n
	}
	unix.Close(fds[0])
	p, err := decode(b)
	if err != nil {
		return err
	}
	var got []int
	for len(got) < len(p.Stores)+len(p.Spaces) {
		kind, _, fds, err := receive(h.restorer)
		if err != nil || kind != msgFiles {
			return errors.Join(errPlan, err)
		}
		got = append(got, fds...)
	}
	i := 0
	h.store, err = pagestore.OpenWith(p.Stores, func(name string) (*os.File, error) {
		f := os.NewFile(uintptr(got[i]), name)
		i++
		return f, nil
	})
	if err != nil {
		return err
	}
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	for k := range p.Spaces {
		p.Spaces[k].Uffd = got[len(p.Stores)+k]
		if err := h.add(newSpace(&p.Spaces[k])); err != nil {
			return err
		}
		p.Spaces[k].Runs = nil
	}
	h.plan = p
	return nil
}

// add begins to look after an address space.
func (h *handler) add(s *space) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spaces = append(h.spaces, s)
	return unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, s.uffd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.uffd)})
}

func (h *handler) list() []*space {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.spaces[:len(h.spaces):len(h.spaces)]
}

func (h *handler) uffds() (fds []int) {
	for _, s := range h.list() {
		fds = append(fds, s.uffd)
	}
	return fds
}

// pidfds opens the processes of the tree.
func (h *handler) pidfds() (fds []int) {
	for _, pid := range h.plan.PIDs {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// startWatch starts a watch that holds nothing yet.
func (h *handler) startWatch() (err error) {
	if h.watchPID, h.watcher, err = spawn(NameWatch); err != nil {
		return fmt.Errorf("the watch: %w", err)
	}
	return nil
}

// briefWatch gives the watch what it must hold.
func (h *handler) briefWatch() error {
	fds := h.pidfds()
	err := sendFiles(h.watcher, append(fds, h.uffds()...))
	for _, fd := range fds {
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("the watch: %w", err)
	}
	return unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, h.watcher, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(h.watcher)})
}

// dismissWatch waits until the watch has let go of everything.
func (h *handler) dismissWatch() {
	_ = send(h.watcher, msgDone, nil)
	unix.Close(h.watcher)
	reap(h.watchPID)
}

// serve answers faults and events, and fills once the program runs, until
// everything is there.
func (h *handler) serve() error {
	runtime.LockOSThread()
	if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, h.restorer, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(h.restorer)}); err != nil {
		return err
	}
	rd := h.store.NewReader()
	defer rd.Close()
	var wake [2]int // the background has something to say
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return err
	}
	if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, wake[0], &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake[0])}); err != nil {
		return err
	}
	running := false
	ended := make(chan struct{}) // the restoring process has
	var waiting []fault          // put off until an event was read
	events := make([]unix.EpollEvent, 16)
	for {
		timeout := -1
		if len(waiting) > 0 {
			timeout = 1
		}
		n, err := unix.EpollWait(h.epoll, events, timeout)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		faults := waiting
		waiting = nil
		for _, e := range events[:max(n, 0)] {
			switch fd := int(e.Fd); fd {
			case h.restorer:
				kind, _, _, err := receive(fd)
				if err == nil && kind == msgGo {
					running = true
					go func() {
						select {
						case <-ended:
						case <-time.After(headStart):
						}
						h.background(wake[1])
					}()
					continue
				}
				if !running {
					return errNeverRan
				}
				// It has gone, and may: nothing is said to it any more.
				_ = unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, fd, nil)
				close(ended)
			case h.watcher:
				unix.Close(fd)
				reap(h.watchPID)
				if err := errors.Join(h.startWatch(), h.briefWatch()); err != nil {
					return err
				}
			case wake[0]:
				var b [16]byte
				_, _ = unix.Read(fd, b[:])
			default:
				f, err := h.read(fd)
				if err != nil {
					return err
				}
				faults = append(faults, f...)
			}
		}
		for _, f := range faults {
			again, err := f.serve(rd)
			if err != nil {
				return err
			}
			if again {
				waiting = append(waiting, f)
			}
		}
		if err := h.failure(); err != nil {
			return err
		}
		if running && h.complete() {
			return nil
		}
	}
}

// fault is a page that somebody waits for.
type fault struct {
	s  *space
	at uint64
}

// serve brings the page in; again: an event is to be read first.
func (f *fault) serve(rd *pagestore.Reader) (again bool, err error) {
	o, err := f.s.bring(rd, f.at, window)
	if o == absent && err == nil {
		o, err = f.s.zero(f.at)
	}
	if err == unix.ENOMEM {
		time.Sleep(time.Millisecond) // the program's memory limit, perhaps
		return true, nil
	}
	return o == changes, err
}

// read takes what an address space has queued, and applies the events.
func (h *handler) read(uffd int) (faults []fault, err error) {
	var s *space
	for _, x := range h.list() {
		if x.uffd == uffd {
			s = x
		}
	}
	if s == nil {
		return nil, nil
	}
	var msgs [16]sys.UffdMsg
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := sys.UffdRead(uffd, msgs[:])
	if err != nil {
		if err == unix.EAGAIN || err == unix.EINTR {
			return nil, nil
		}
		return nil, fmt.Errorf("reading a userfaultfd: %w", err)
	}
	for _, m := range msgs[:n] {
		switch m.Event {
		case sys.UffdMsgPagefault:
			faults = append(faults, fault{s, m.Arg[1] &^ (pageSize - 1)})
		case sys.UffdMsgFork:
			fd := int(m.Arg[0])
			if err := h.add(s.forked(fd)); err != nil {
				return nil, err
			}
			_ = sendFiles(h.watcher, []int{fd})
		case sys.UffdMsgRemap:
			s.move(m.Arg[0], m.Arg[1], m.Arg[2])
		case sys.UffdMsgRemove, sys.UffdMsgUnmap:
			s.drop(m.Arg[0], m.Arg[1])
		}
	}
	return faults, nil
}

// background fills all address spaces, by several goroutines.
func (h *handler) background(wake int) {
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 8) {
		wg.Go(func() {
			yieldToOthers()
			rd := h.store.NewReader()
			defer rd.Close()
			for !h.complete() && h.failure() == nil {
				if err := h.round(rd); err != nil {
					h.mu.Lock()
					h.err = err
					h.mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	_, _ = unix.Write(wake, []byte{1})
}

// yieldToOthers gives this goroutine a thread of its own that is not scheduled in
// real time, even where the restoring process was: nothing else would run until
// all memory was there, not even the program. Faults are answered as before.
func yieldToOthers() {
	runtime.LockOSThread() // it ends with the goroutine
	a, err := sys.SchedGetattr(0)
	if err == nil && a.Policy != unix.SCHED_NORMAL && a.Policy != unix.SCHED_BATCH && a.Policy != unix.SCHED_IDLE {
		_ = sys.SchedSetattr(0, &sys.SchedAttr{Policy: unix.SCHED_NORMAL})
	}
}

// round goes through the spaces once.
func (h *handler) round(rd *pagestore.Reader) error {
	for _, s := range h.list() {
		for {
			at, n := s.claim()
			if n == 0 {
				break
			}
			for ; n > 0; at, n = at+stride*pageSize, n-stride {
				o, err := s.bring(rd, at, min(n, stride))
				if err != nil && err != unix.ENOMEM {
					return err
				}
				if err != nil || o == changes {
					time.Sleep(100 * time.Microsecond) // the event is read elsewhere
				}
			}
			if h.failure() != nil {
				return nil
			}
		}
	}
	return nil
}

func (h *handler) failure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

func (h *handler) complete() bool {
	for _, s := range h.list() {
		if !s.complete() {
			return false
		}
	}
	return true
}
