package procfs

// LockKind is what a line of /proc/locks is about.
type LockKind uint8

// The kinds that the kernel prints (lock_get_status in fs/locks.c).
const (
	LockUnknown LockKind = iota
	LockPosix            // fcntl F_SETLK
	LockOFD              // fcntl F_OFD_SETLK
	LockFlock            // flock
	LockLease            // fcntl F_SETLEASE
	LockDeleg            // delegation of a file server
	LockAccess           // flock LOCK_MAND of older kernels
)

var lockKinds = [...]string{"UNKNOWN", "POSIX", "OFDLCK", "FLOCK", "LEASE", "DELEG", "ACCESS"}

// String gives the kernel's word.
func (k LockKind) String() string {
	if int(k) < len(lockKinds) {
		return lockKinds[k]
	}
	return lockKinds[0]
}

// LockAccessMode is what a lock, or a lease, allows its holder.
type LockAccessMode uint8

// The modes; LockUnlock appears for a lease that is being given up.
const (
	LockNone LockAccessMode = iota
	LockRead
	LockWrite
	LockReadWrite
	LockUnlock
)

// Lock is one line of /proc/locks or one lock: line of fdinfo (proc_locks(5)).
type Lock struct {
	ID      int  // the number of the line: a blocked one has its blocker's
	Blocked bool // waits for the lock with the same ID ("->")
	Depth   int  // how many it waits behind, 0 for a lock that is held
	Kind    LockKind
	// State is the second word: "ADVISORY"; "MANDATORY" in older kernels; "*NOINODE*"; for a
	// lease "ACTIVE", "BREAKING" or "BREAKER".
	State string
	Mode  LockAccessMode
	// PID is the process that took the lock, in the reader's pid namespace: -1
	// for an OFD lock, 0 for a process outside of the namespace.
	PID                int
	DevMajor, DevMinor uint32 // of the file's super block; 0 with Ino 0 for "<none>"
	Ino                uint64
	Start              uint64
	End                uint64 // last byte, inclusive; EndOfFile for "to the end"
}

// EndOfFile is Lock.End of a lock without an end.
const EndOfFile = ^uint64(0)

// ReadLocks gives all locks that /proc/locks shows: those of the reader's pid
// namespace.
func ReadLocks() ([]Lock, error) {
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	if err := slurp("/proc/locks", stream, buf); err != nil {
		return nil, fileError("/proc/locks", err)
	}
	return ParseLocks(*buf)
}

// ParseLocks parses /proc/locks.
func ParseLocks(b []byte) ([]Lock, error) {
	var out []Lock
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		l, err := ParseLock(line)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// ParseLock parses one line such as
// "1: POSIX  ADVISORY  WRITE 513 fe:00:9978694 0 EOF".
func ParseLock(line []byte) (Lock, error) {
	var l Lock
	s := scanner{b: line}
	l.ID = s.int()
	s.lit(':')
	at := s.i
	s.blanks()
	if s.prefix("->") {
		// Each further level of waiting moves the arrow one column right.
		l.Blocked, l.Depth = true, s.i-at-len(" ->")+1
		if l.Depth < 1 {
			l.Depth = 1
		}
		s.blanks()
	}
	l.Kind = lockKind(s.word())
	s.blanks()
	l.State = lockState(s.word())
	s.blanks()
	switch string(s.word()) {
	case "READ":
		l.Mode = LockRead
	case "WRITE":
		l.Mode = LockWrite
	case "RW":
		l.Mode = LockReadWrite
	case "UNLCK":
		l.Mode = LockUnlock
	case "NONE":
		l.Mode = LockNone
	default:
		s.bad = true
	}
	s.blanks()
	l.PID = s.int()
	s.blanks()
	if s.prefix("<none>:0") {
		// a lock whose inode is not known any more
	} else {
		l.DevMajor = s.hex32()
		s.lit(':')
		l.DevMinor = s.hex32()
		s.lit(':')
		l.Ino = s.dec()
	}
	s.blanks()
	l.Start = s.dec()
	s.blanks()
	if s.prefix("EOF") {
		l.End = EndOfFile
	} else {
		l.End = s.dec()
	}
	if s.bad || !s.done() {
		return Lock{}, badLine("lock", line)
	}
	return l, nil
}

func lockKind(w []byte) LockKind {
	for i, k := range lockKinds {
		if string(w) == k {
			return LockKind(i)
		}
	}
	return LockUnknown
}

// lockState makes a string without allocating for the usual words.
func lockState(w []byte) string {
	switch string(w) {
	case "ADVISORY":
		return "ADVISORY"
	case "ACTIVE":
		return "ACTIVE"
	}
	return string(w)
}
