package procfs

import (
	"strconv"
)

// FDInfo is /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)). What only some kinds of
// file print is nil, or has a Has field that is false, for the others.
type FDInfo struct {
	Pos   int64
	Flags uint32 // open flags with O_CLOEXEC; of the kernel, so with O_LARGEFILE
	MntID int    // mount id in /proc/PID/mountinfo
	Ino   uint64 // line since 5.14
	Locks []Lock // on this open file description, or by this process on the file

	Eventfd  *Eventfd
	Epoll    []EpollTarget // nil too for an empty epoll instance
	Timerfd  *Timerfd
	Inotify  []InotifyWatch // nil too without watches
	Fanotify *Fanotify
	Pidfd    *Pidfd
	IOUring  *IOUring

	HasSigmask  bool // a signalfd
	HasSCMFDs   bool // a unix socket
	HasTTYIndex bool // the master of a pseudo terminal
	SigMask     uint64
	SCMFDs      int // descriptors in flight in its receive queue
	TTYIndex    int // number of the terminal below /dev/pts

	// Extra has all other lines (bpf, tun, drm, userfaultfd, …), nil without
	// any: by their key, the values of a key that is there several times
	// joined by newlines, lines without a colon under "".
	Extra map[string]string
}

// Eventfd is the state of an eventfd.
type Eventfd struct {
	Count        uint64
	ID           int
	Semaphore    bool // EFD_SEMAPHORE
	HasSemaphore bool // the line exists since 6.5; before, only a read can tell
}

// EpollTarget is one entry of an epoll instance.
type EpollTarget struct {
	FD     int    // the number at the time it was added
	Events uint32 // EPOLL* bits
	Data   uint64
	Pos    int64 // of the file, now
	Ino    uint64
	Dev    uint64 // the kernel's own dev_t: major<<20 | minor
}

// Timespec is a time in seconds and nanoseconds.
type Timespec struct{ Sec, Nsec int64 }

// Timerfd is the state of a timerfd.
type Timerfd struct {
	ClockID      int
	Ticks        uint64   // expirations that have not been read
	SettimeFlags uint32   // TFD_TIMER_*
	Value        Timespec // time to the next expiry, 0 0 when disarmed
	Interval     Timespec
}

// Pidfd is the state of a pidfd.
type Pidfd struct {
	Pid   int   // in the reader's pid namespace; 0 for one outside, -1 when it is reaped
	NSpid []int // the ids in the namespaces below, as in Status
}

// IOUring is the state of an io_uring instance. Newer kernels print nothing
// of it while the ring's lock is taken, so only the link ("anon_inode:[io_uring]")
// tells reliably what a descriptor is. There are the counters and, in Keys, each
// line as it is (empty sections, and the lists of requests, files and buffers,
// joined by newlines).
type IOUring struct {
	SqMask, CqMask      uint64
	SqHead, SqTail      uint64
	CqHead, CqTail      uint64
	SQEs, CQEs          uint64
	SqThread            int // -1 without IORING_SETUP_SQPOLL
	SqThreadCPU         int
	UserFiles, UserBufs uint64
	Keys                map[string]string
}

// ReadFDInfo reads the fdinfo file of one descriptor of a process. One that is
// not open, of a task that exists, is fs.ErrNotExist and not ErrGone.
func ReadFDInfo(pid, fd int) (FDInfo, error) { return ReadTaskFDInfo(pid, 0, fd) }

// ReadTaskFDInfo is ReadFDInfo in the descriptor table of one thread.
func ReadTaskFDInfo(pid, tid, fd int) (FDInfo, error) {
	return parseFile(pid, tid, numbered("fdinfo/", fd), whole, ParseFDInfo)
}

// numbered gives dir followed by n.
func numbered(dir string, n int) string {
	var a [32]byte
	return string(strconv.AppendInt(append(a[:0], dir...), int64(n), 10))
}

// ParseFDInfo parses an fdinfo file. For a plain file it does not allocate.
//
// The first lines (pos, flags, mnt_id, ino) are the kernel's own and stand in
// this order. What follows is written by the kind of file, and a few kinds let a
// program put a name into it, newlines included (a dma-buf): only ReadLink tells
// what kind a descriptor is, not the presence of a line.
func ParseFDInfo(b []byte) (FDInfo, error) {
	var f FDInfo
	var seen int
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		s := scanner{b: line}
		switch {
		case seen == 0 && s.prefix("pos:\t"):
			f.Pos = s.sdec()
			seen++
		case seen == 1 && s.prefix("flags:\t"):
			f.Flags = s.narrow(s.oct())
			seen++
		case seen == 2 && s.prefix("mnt_id:\t"):
			f.MntID = s.int()
			seen++
		case seen == 3 && s.prefix("ino:\t"):
			f.Ino = s.dec()
			seen++
		default:
			if !f.special(line) {
				return FDInfo{}, badLine("fdinfo", line)
			}
			continue
		}
		if s.bad || s.i != len(line) {
			return FDInfo{}, badLine("fdinfo", line)
		}
	}
	if seen < 3 {
		return FDInfo{}, badLine("fdinfo: no pos, flags or mnt_id line", b)
	}
	return f, nil
}

// special takes a line that only some kinds of file have; false when it knows
// the line but does not understand it.
func (f *FDInfo) special(line []byte) bool {
	s := scanner{b: line}
	switch {
	case s.prefix("lock:\t"):
		l, err := ParseLock(line[s.i:])
		if err != nil {
			return false
		}
		f.Locks = append(f.Locks, l)
		return true
	case s.prefix("eventfd-count:"):
		s.blanks()
		f.eventfd().Count = s.hex()
	case s.prefix("eventfd-id:"):
		s.blanks()
		f.eventfd().ID = s.int()
	case s.prefix("eventfd-semaphore:"):
		s.blanks()
		e := f.eventfd()
		e.Semaphore, e.HasSemaphore = s.bool(), true
	case s.prefix("tfd:"):
		return f.epollLine(line)
	case s.prefix("sigmask:"):
		s.blanks()
		f.SigMask, f.HasSigmask = s.hex(), true
	case s.prefix("clockid:"):
		s.blanks()
		f.timerfd().ClockID = s.int()
	case s.prefix("ticks:"):
		s.blanks()
		f.timerfd().Ticks = s.dec()
	case s.prefix("settime flags:"):
		s.blanks()
		f.timerfd().SettimeFlags = s.narrow(s.oct())
	case s.prefix("it_value:"):
		f.timerfd().Value = s.pair()
	case s.prefix("it_interval:"):
		f.timerfd().Interval = s.pair()
	case s.prefix("inotify "):
		return f.inotifyLine(line[s.i:])
	case s.prefix("fanotify "):
		return f.fanotifyLine(line[s.i:])
	case s.prefix("Pid:"):
		s.blanks()
		f.pidfd().Pid = s.int()
	case s.prefix("NSpid:"):
		s.blanks()
		f.pidfd().NSpid = s.ints()
	case s.prefix("scm_fds:"):
		s.blanks()
		f.SCMFDs, f.HasSCMFDs = s.int(), true
	case s.prefix("tty-index:"):
		s.blanks()
		f.TTYIndex, f.HasTTYIndex = s.int(), true
	default:
		return f.other(line)
	}
	return !s.bad && s.done()
}

func (f *FDInfo) eventfd() *Eventfd {
	if f.Eventfd == nil {
		f.Eventfd = new(Eventfd)
	}
	return f.Eventfd
}

func (f *FDInfo) timerfd() *Timerfd {
	if f.Timerfd == nil {
		f.Timerfd = new(Timerfd)
	}
	return f.Timerfd
}

func (f *FDInfo) pidfd() *Pidfd {
	if f.Pidfd == nil {
		f.Pidfd = new(Pidfd)
	}
	return f.Pidfd
}

// pair takes " (3, 500)".
func (s *scanner) pair() (t Timespec) {
	s.blanks()
	s.lit('(')
	t.Sec = s.sdec()
	s.lit(',')
	s.blanks()
	t.Nsec = s.sdec()
	s.lit(')')
	return t
}

// epollLine takes "tfd: 3 events: 19 data: 3  pos:0 ino:40c sdev:10".
func (f *FDInfo) epollLine(line []byte) bool {
	var e EpollTarget
	s := scanner{b: line}
	for s.blanks(); s.i < len(line) && !s.bad; s.blanks() {
		key := s.until(':')
		s.blanks()
		switch string(key) {
		case "tfd":
			e.FD = s.int()
		case "events":
			e.Events = s.hex32()
		case "data":
			e.Data = s.hex()
		case "pos":
			e.Pos = s.sdec()
		case "ino":
			e.Ino = s.hex()
		case "sdev":
			e.Dev = s.hex()
		default:
			s.word()
		}
	}
	f.Epoll = append(f.Epoll, e)
	return !s.bad
}

// other takes the lines of io_uring and, into Extra, unknown ones.
func (f *FDInfo) other(line []byte) bool {
	key, v, ok := cutKey(line)
	if !ok || len(key) > 0 && (key[0] == ' ' || key[0] == '\t') {
		// A line of a list, "  op=6, task_works=0" or "    0: file".
		key, v = nil, line
	}
	if f.IOUring == nil && (string(key) == "SqMask" || string(key) == "SqThread") {
		// The first line since 5.16, and before.
		f.IOUring = &IOUring{Keys: make(map[string]string, 24)}
	}
	m := &f.Extra
	if f.IOUring != nil {
		m = &f.IOUring.Keys
		if key != nil && !f.IOUring.line(key, v) {
			return false
		}
	}
	if *m == nil {
		*m = make(map[string]string)
	}
	text := string(v)
	if old, again := (*m)[string(key)]; again {
		text = old + "\n" + text
	}
	(*m)[string(key)] = text
	return true
}

// line takes one "Key: number" of io_uring.
func (u *IOUring) line(key, v []byte) bool {
	s := scanner{b: v}
	switch string(key) {
	case "SqMask":
		u.SqMask = s.hex0x()
	case "CqMask":
		u.CqMask = s.hex0x()
	case "SqHead":
		u.SqHead = s.dec()
	case "SqTail":
		u.SqTail = s.dec()
	case "CqHead":
		u.CqHead = s.dec()
	case "CqTail":
		u.CqTail = s.dec()
	case "SQEs":
		u.SQEs = s.dec()
	case "CQEs":
		u.CQEs = s.dec()
	case "SqThread":
		u.SqThread = s.int()
	case "SqThreadCpu":
		u.SqThreadCPU = s.int()
	case "UserFiles":
		u.UserFiles = s.dec()
	case "UserBufs":
		u.UserBufs = s.dec()
	default:
		return true
	}
	return !s.bad && s.done()
}
