package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// A program with locks of all kinds, on files of the directory that the
// environment names. Its peer has inherited two of the files and has locks of
// its own.
const lockDirEnv = "FERMATA_LOCK_DIR"

func lockFile(a *actor, name string, n int) {
	fd, err := unix.Open(filepath.Join(os.Getenv(lockDirEnv), name), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	a.at(fd, err, n)
}

func record(a *actor, fd, cmd int, typ int16, start, length int64) {
	a.must(unix.FcntlFlock(uintptr(fd), cmd, &unix.Flock_t{Type: typ, Start: start, Len: length}))
}

var locksRole = role("locks", func(a *actor) {
	takeLocks(a)
	lockFile(a, "lease", 104)
	_, err := unix.FcntlInt(104, unix.F_SETLEASE, unix.F_WRLCK)
	a.must(err)
	_, err = unix.FcntlInt(104, unix.F_SETSIG, int(unix.SIGUSR2))
	a.must(err)
	lockFile(a, "peers", 105)
	record(a, 100, unix.F_SETLK, unix.F_RDLCK, 600, 7)
	a.must(unix.Sendmsg(3, []byte{0}, unix.UnixRights(100, 102, 105), nil, 0))
	a.say("ready")
})

var thiefRole = role("lock-thief", func(a *actor) {
	takeLocks(a)
	a.say("ready")
})

func takeLocks(a *actor) {
	lockFile(a, "posix", 100)
	record(a, 100, unix.F_SETLK, unix.F_WRLCK, 0, 10)
	record(a, 100, unix.F_SETLK, unix.F_RDLCK, 20, 5)
	record(a, 100, unix.F_SETLK, unix.F_WRLCK, 1<<40, 0)
	lockFile(a, "ofd", 101)
	record(a, 101, unix.F_OFD_SETLK, unix.F_RDLCK, 0, 100)
	record(a, 101, unix.F_OFD_SETLK, unix.F_WRLCK, 1000, 1)
	lockFile(a, "flock", 102)
	a.must(unix.Flock(102, unix.LOCK_EX))
	lockFile(a, "shared", 103)
	a.must(unix.Flock(103, unix.LOCK_SH))
}

var lockPeerRole = role("lock-peer", func(a *actor) {
	oob := make([]byte, unix.CmsgSpace(12))
	_, o, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0)
	a.must(err)
	m, err := unix.ParseSocketControlMessage(oob[:o])
	a.must(err)
	fds, err := unix.ParseUnixRights(&m[0])
	a.at(fds[0], err, 110)
	a.at(fds[1], err, 111)
	a.at(fds[2], err, 112)
	record(a, 110, unix.F_SETLK, unix.F_WRLCK, 500, 7)
	record(a, 110, unix.F_SETLK, unix.F_RDLCK, 600, 7)
	a.must(unix.Flock(112, unix.LOCK_EX))
	a.say("ready")
})

// locksOf gives the locks that a process's descriptors show.
func locksOf(t *testing.T, pid int) string {
	t.Helper()
	var out []string
	for fd := firstFD; fd <= lastFD; fd++ {
		i, err := procfs.ReadFDInfo(pid, fd)
		if err != nil {
			continue
		}
		for _, l := range i.Locks {
			who := "another"
			if l.PID == pid {
				who = "its own"
			}
			out = append(out, fmt.Sprint(fd, l.Kind, l.Mode, l.State, who, l.Start, l.End))
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// end kills a role and waits until its files are closed.
func (p *actorProc) end() {
	p.t.Helper()
	_ = unix.Kill(p.pid, unix.SIGKILL)
	for range 5000 {
		if st, err := procfs.ReadStat(p.pid, 0); err != nil || st.State == 'Z' {
			return
		}
		time.Sleep(time.Millisecond)
	}
	p.t.Fatal("it does not end")
}

func saveLocks(t *testing.T) (s *saved, p, q *actorProc) {
	t.Helper()
	t.Setenv(lockDirEnv, t.TempDir())
	pair := socketFiles(t)
	p = start(t, locksRole, nil, pair[0])
	q = start(t, lockPeerRole, nil, pair[1])
	return save(t, p.pid, q.pid), p, q
}

func TestLocks(t *testing.T) {
	s, p, q := saveLocks(t)
	wantP, wantQ := locksOf(t, p.pid), locksOf(t, q.pid)
	if n := strings.Count(wantP+"\n"+wantQ, "\n") + 1; n != 14 {
		t.Fatalf("%d locks:\n%s\n\n%s", n, wantP, wantQ)
	}
	p.end()
	q.end()
	r := s.open(t)
	procs := map[int]*rebuilt{p.pid: s.rebuild(t, r, p.pid), q.pid: s.rebuild(t, r, q.pid)}
	// The lease's owner would have to be the process under its old number.
	for _, e := range r.entries {
		if o := FownOf(e); o != nil {
			pid := uint32(procs[int(o.GetPid())].pid)
			o.Pid = &pid
		}
	}
	s.inTask(t, r, map[uint32]bool{}, procs, p.pid, q.pid)
	if got := locksOf(t, procs[p.pid].pid); got != wantP {
		t.Errorf("locks:\n%s\nwere\n%s", got, wantP)
	}
	if got := locksOf(t, procs[q.pid].pid); got != wantQ {
		t.Errorf("the peer's locks:\n%s\nwere\n%s", got, wantQ)
	}
	r.Close()
	if got := locksOf(t, procs[p.pid].pid); got != wantP {
		t.Errorf("with the controller's descriptors closed:\n%s\nwere\n%s", got, wantP)
	}
}

// TestLocksTaken: a lock that somebody else has by now is named before a task
// is made.
func TestLocksTaken(t *testing.T) {
	s, p, q := saveLocks(t)
	p.end()
	q.end()
	thief := start(t, thiefRole, nil)
	r, err := NewRestore(s.im, &fault.Refusals{})
	must(err)
	defer r.Close()
	must(r.Check())
	must(r.OpenAll())
	who := fmt.Sprintf("was taken by pid %d", thief.pid)
	reasons(t, r.Refuse,
		"POSIX write lock on bytes 0-9 "+who, "POSIX write lock from byte 1099511627776 on was",
		"OFD write lock on bytes 1000-1000 was taken by another process", "flock write lock "+who)
}

// TestLeaseTaken: opening a file with another's lease would wait for
// fs.lease-break-time. A verification names it beforehand; a restore finds out by
// opening, and waits for nothing.
func TestLeaseTaken(t *testing.T) {
	s, p, q := saveLocks(t)
	p.end()
	q.end()
	other := start(t, locksRole, nil, socketFiles(t)[0])
	r, err := NewRestore(s.im, &fault.Refusals{})
	must(err)
	defer r.Close()
	why := fmt.Sprintf("/lease: pid %d (exe) holds a lease on it", other.pid)
	must(r.Check())
	must(r.Refuse.Err())
	if err := r.OpenAll(); !errors.Is(err, fault.ErrRefused) {
		t.Fatalf("opening: %v", err)
	}
	reasons(t, r.Refuse, why)

	v, err := NewRestore(s.im, &fault.Refusals{})
	must(err)
	defer v.Close()
	v.Verify = true
	must(v.Check())
	reasons(t, v.Refuse, why)
}

var ownerRole = role("owner", func(a *actor) {
	a.must(unix.Setpgid(0, 0))
	var p [2]int
	a.must(unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	a.at(p[0], nil, 100)
	a.at(p[1], nil, 101)
	_, err := unix.FcntlInt(100, unix.F_SETOWN, os.Getpid())
	a.must(err)
	_, err = unix.FcntlInt(100, unix.F_SETSIG, 34+3)
	a.must(err)
	_, err = unix.Write(101, []byte("before"))
	a.must(err)
	_, err = unix.FcntlInt(100, unix.F_SETFL, unix.O_NONBLOCK|unix.O_ASYNC)
	a.must(err)
	a.must(unix.Setresuid(-1, 4711, 0))
	_, err = unix.FcntlInt(101, unix.F_SETOWN, -unix.Getpgrp())
	a.must(err)
	a.must(unix.Setresuid(0, 0, 0))
	a.say("ready")
})

func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to set another user's id")
	}
	p := start(t, ownerRole, nil)
	s := save(t, p.pid)
	r := s.open(t)
	b := s.rebuild(t, r, p.pid)
	s.inTask(t, r, map[uint32]bool{}, map[int]*rebuilt{p.pid: b}, p.pid)
	for _, n := range []int{100, 101} {
		want, got := ownerAt(t, p.pid, n), ownerAt(t, b.pid, n)
		if got != want || want == "" {
			t.Errorf("fd %d: owner %s, was %s", n, got, want)
		}
	}
	if i, err := procfs.ReadFDInfo(b.pid, 100); err != nil || i.Flags&unix.O_ASYNC == 0 {
		t.Errorf("flags %#o %v", i.Flags, err)
	}
	st, err := procfs.ReadStatus(b.pid, 0)
	if err != nil || st.Uid != [4]uint32{} || st.CapEff == 0 {
		t.Errorf("the task's own credentials have changed: %+v %v", st, err)
	}
}

// ownerAt gives the owner of a process's descriptor as text.
func ownerAt(t *testing.T, pid, n int) string {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	must(err)
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, n, 0)
	must(err)
	defer unix.Close(fd)
	o, err := sys.GetOwner(fd)
	must(err)
	return fmt.Sprintf("%+v", o)
}
