package track

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// kept starts a keeper for a userfaultfd of this process, said to be that of a
// child's, and gives both.
func kept(t *testing.T) (*Record, *exec.Cmd) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	dir = t.TempDir()
	child := exec.Command("sleep", "60")
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	st, err := procfs.ReadStat(child.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := sys.Userfaultfd(unix.O_CLOEXEC | sys.UffdUserModeOnly)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSpace(child.Process.Pid, st.StartTime, fd)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := &Record{ID: "id", Ref: "/ref", Since: time.Now()}
	if err := Keep(r, []*Space{s}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	return r, child
}

// count gives how many records are believed.
func count(t *testing.T) int {
	t.Helper()
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func gone(t *testing.T, what string, pid int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if st, err := procfs.ReadStat(pid, 0); err != nil || st.State == 'Z' {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: the keeper is still there", what)
		}
	}
}

// TestKeeper: a keeper gives what it holds, is small and idle, and can be stopped.
func TestKeeper(t *testing.T) {
	open, err := unix.FcntlInt(0, unix.F_DUPFD, 100) // as a shell may leave one open
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(open)
	r, child := kept(t)
	of, err := Of(map[int]bool{child.Process.Pid: true})
	if err != nil || len(of) != 1 || of[0].ID != "id" || of[0].Ref != "/ref" {
		t.Fatalf("records of the process: %v %v", of, err)
	}
	if other, err := Of(map[int]bool{1: true}); err != nil || len(other) != 0 {
		t.Errorf("records of another: %v %v", other, err)
	}
	spaces, err := of[0].Take()
	if err != nil || len(spaces) != 1 || spaces[0].PID != child.Process.Pid {
		t.Fatalf("taken: %v %v", spaces, err)
	}
	if link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", spaces[0].fd)); err != nil || !strings.Contains(link, "userfaultfd") {
		t.Errorf("taken: %s %v", link, err)
	}
	spaces[0].Close()
	st, err := procfs.ReadStatus(r.Keeper, 0)
	if err != nil || st.VmRSS > 64<<10 {
		t.Errorf("it has %d bytes of memory, %v", st.VmRSS, err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := procfs.ReadComm(r.Keeper, 0)
		fds, err2 := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.Keeper))
		if c == Name && len(fds) == 4 {
			break
		}
		if err != nil || err2 != nil || time.Now().After(end) {
			t.Fatalf("its name: %q %v; %d descriptors, %v", c, err, len(fds), err2)
		}
	}
	if err := of[0].Stop(); err != nil {
		t.Fatal(err)
	}
	gone(t, "stopped", r.Keeper)
	if n := count(t); n != 0 {
		t.Errorf("%d records after that", n)
	}
}

// TestKeeperEnds: it ends with the program.
func TestKeeperEnds(t *testing.T) {
	r, child := kept(t)
	child.Process.Kill()
	child.Wait()
	gone(t, "the program has ended", r.Keeper)
	if n := count(t); n != 0 {
		t.Errorf("%d records after that", n)
	}
}

// TestKeeperDied: the record of a keeper that died is not believed, nor is one whose
// pid is another process's by now.
func TestKeeperDied(t *testing.T) {
	r, child := kept(t)
	unix.Kill(r.Keeper, unix.SIGKILL)
	gone(t, "killed", r.Keeper)
	if _, err := r.Take(); err == nil {
		t.Error("taken from a dead keeper")
	}
	if n := count(t); n != 0 {
		t.Errorf("%d records after that", n)
	}
	r.Keeper = child.Process.Pid
	if err := r.save(); err != nil {
		t.Fatal(err)
	}
	if n := count(t); n != 0 {
		t.Error("the record of a process that is no keeper is believed")
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if st, err := procfs.ReadStat(child.Process.Pid, 0); err != nil || st.State == 'Z' {
		t.Error("another process was ended in place of the keeper")
	}
}

// TestKeeperReused: what is kept of a pid that is another process's by now is not
// given.
func TestKeeperReused(t *testing.T) {
	r, _ := kept(t)
	r.Spaces[0].Start++
	spaces, err := r.Take()
	if err != nil || len(spaces) != 0 {
		t.Errorf("taken: %v %v", spaces, err)
	}
}
