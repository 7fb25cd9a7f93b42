package resource

import (
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// The role's answer is the pids of its children: a sleeper, a zombie.
var pidfdRole = role("pidfd", func(a *actor) {
	open := func(pid, flags, n int) {
		fd, err := unix.PidfdOpen(pid, flags)
		a.at(fd, err, n)
	}
	run := func(argv ...string) int {
		c := exec.Command(argv[0], argv[1:]...)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		a.must(c.Start())
		return c.Process.Pid
	}
	wait := func(pid, flags int) {
		for {
			err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|flags, nil)
			if err != unix.EINTR {
				a.must(err)
				return
			}
		}
	}
	sleeper := run("sleep", "1000")
	open(sleeper, 0, 100)
	open(sleeper, unix.PIDFD_NONBLOCK, 101)
	zombie := run("false")
	open(zombie, 0, 102)
	wait(zombie, unix.WNOWAIT)
	gone := run("sh", "-c", "exit 7")
	open(gone, 0, 103)
	open(gone, unix.PIDFD_NONBLOCK, 104)
	wait(gone, 0)
	killed := run("sleep", "1000")
	open(killed, 0, 105)
	a.must(unix.Kill(killed, unix.SIGTERM))
	wait(killed, 0)
	open(unix.Getpid(), 0, 106)
	open(unix.Gettid(), sys.PidfdThread, 107)
	a.say([]int{sleeper, zombie})
})

func pidfdState(t *testing.T, pid, fd int) (id int, flags uint32) {
	t.Helper()
	i, err := procfs.ReadFDInfo(pid, fd)
	if err != nil {
		t.Fatal(err)
	}
	return i.Pidfd.Pid, i.Flags & (unix.O_NONBLOCK | unix.O_EXCL)
}

func TestPidfd(t *testing.T) {
	var children []int
	p := start(t, pidfdRole, &children)
	s := save(t, append(children, p.pid)...)
	r := s.open(t)
	for n := 100; n <= 107; n++ {
		late := n == 100 || n == 101 || n == 102 || n >= 106
		for _, e := range s.tables[p.pid] {
			if int(e.GetFd()) == n && r.Late(e.GetId()) != late {
				t.Errorf("%d: late %v", n, !late)
			}
		}
	}
	// The tasks are still there, so it can follow at once.
	if err := r.OpenLate(); err != nil {
		t.Fatal(err)
	}
	for n := 100; n <= 107; n++ {
		fd := s.fd(t, r, p.pid, n)
		wantID, wantFlags := pidfdState(t, p.pid, n)
		gotID, gotFlags := pidfdState(t, unix.Getpid(), fd)
		if gotID != wantID || gotFlags != wantFlags {
			t.Errorf("%d: pid %d flags %#o, want %d %#o", n, gotID, gotFlags, wantID, wantFlags)
		}
		if ended := n >= 102 && n <= 105; readable(t, fd, 0) != ended {
			t.Errorf("%d: readable %v", n, !ended)
		}
	}
	ino := func(n int) uint64 {
		var st unix.Stat_t
		if err := unix.Fstat(s.fd(t, r, p.pid, n), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	if ino(103) != ino(104) || ino(103) == ino(105) || ino(100) != ino(101) {
		t.Error("inodes do not tell processes apart as they did")
	}
	if st, ok := sys.PidfdExitStatus(s.fd(t, r, p.pid, 103)); ok && st != 7<<8 {
		t.Errorf("status %#x, want exit 7", st)
	}
	if st, ok := sys.PidfdExitStatus(s.fd(t, r, p.pid, 105)); ok && st != uint32(unix.SIGTERM) {
		t.Errorf("status %#x, want SIGTERM", st)
	}
}

func TestPidfdPID(t *testing.T) {
	var children []int
	p := start(t, pidfdRole, &children)
	s := save(t, append(children, p.pid)...)
	r := s.open(t)
	r.PID = func(saved int) int { return unix.Getpid() }
	if id, _ := pidfdState(t, unix.Getpid(), s.fd(t, r, p.pid, 100)); id != unix.Getpid() {
		t.Errorf("pid %d", id)
	}
}

func TestPidfdOutside(t *testing.T) {
	var children []int
	p := start(t, pidfdRole, &children)
	s := save(t, p.pid)
	s.refused(t, "outside the tree")
	s.refused(t, "(sleep)")
}

// TestEnded makes sure that nothing is left of the child.
func TestEnded(t *testing.T) {
	var pid int
	err := sys.Ended(3<<8, func(p int) error {
		pid = p
		st, err := procfs.ReadStatus(p, 0)
		if err == nil && st.PPid != unix.Getpid() {
			t.Errorf("parent %d", st.PPid)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("pid %d: %v", pid, err)
	}
}
