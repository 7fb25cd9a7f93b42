package resource

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// server listens by path and accepts one connection; told to, it makes a pair.
var _ = role("cred-server", func(a *actor) {
	a.must(unix.Chdir(os.Getenv("CRED_DIR")))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	a.at(fd, err, 100)
	a.must(unix.Bind(100, &unix.SockaddrUnix{Name: "server"}))
	a.must(unix.Chmod("server", 0o777))
	a.must(unix.Setregid(-1, 4321))
	a.must(unix.Setreuid(-1, 1234))
	a.must(unix.Listen(100, 3))
	a.must(unix.Setreuid(-1, 0))
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	a.at(p[0], err, 102)
	a.at(p[1], nil, 103)
	a.say("listening")
	fd, _, err = unix.Accept(100)
	a.at(fd, err, 101)
	a.say("accepted")
})

var _ = role("cred-client", func(a *actor) {
	a.must(unix.Chdir(os.Getenv("CRED_DIR")))
	for n := 110; n < 112; n++ { // the second is not accepted
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		a.at(fd, err, n)
		a.must(unix.Connect(n, &unix.SockaddrUnix{Name: "server"}))
	}
	a.say("connected")
})

// TestUnixPeerCred has the sockets made by the tasks that shall be seen.
func TestUnixPeerCred(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs two users")
	}
	dir := t.TempDir()
	must(os.Chmod(dir, 0o755))
	t.Setenv("CRED_DIR", dir)
	server := start(t, "cred-server", nil)
	client := start(t, "cred-client", nil)
	server.ask("go on", nil)
	s := save(t, server.pid, client.pid)
	if err := s.refuse.Err(); err != nil {
		t.Fatal(err)
	}

	// Two processes to make them again; the old ones go, with the names.
	procs := map[int]*rebuilt{}
	var pids []int
	for _, p := range []*actorProc{server, client} {
		pair := socketFiles(t)
		b := &rebuilt{sock: int(pair[0].Fd()), fds: map[uint32]int{}, actorProc: start(t, "taker", nil, pair[1])}
		procs[p.pid] = b
		pids = append(pids, b.pid)
	}
	for _, p := range []*actorProc{server, client} {
		must(unix.Kill(p.pid, unix.SIGKILL))
		for procfsAlive(p.pid) {
			runtime.Gosched()
		}
	}
	r, err := NewRestore(s.im, &fault.Refusals{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Note = func(f string, a ...any) { t.Errorf("note: "+f, a...) }
	r.Task = func(saved int) Task {
		if b := procs[saved]; b != nil {
			return b
		}
		return nil
	}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	list, err := sys.NewRobustList(tracee.RobustOffset)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	tr, err := tracee.Freeze(pids, tracee.FreezeOptions{Exclude: tracee.Self()})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Thaw()
	for _, b := range procs {
		maps, err := procfs.ReadMaps(b.pid)
		if err != nil {
			t.Fatal(err)
		}
		gad, _ := tracee.FindGadgets(b.pid, maps)
		p := tr.Process(b.pid)
		g, err := tracee.Inject(b.pid, p.Threads[0], 1, maps, gad, 0, 0, list)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Release()
		if b.exec, err = g.Executor(p.Threads[0]); err != nil {
			t.Fatal(err)
		}
	}
	before := map[int]string{}
	for _, b := range procs {
		before[b.pid] = state(t, b.pid)
	}
	if err := r.OpenAll(); err != nil {
		t.Fatal(err)
	}
	if err := r.OpenLate(); err != nil {
		t.Fatal(err)
	}
	must(r.Commit())
	// Nothing of it stays in the tasks.
	for _, b := range procs {
		if now := state(t, b.pid); now != before[b.pid] {
			t.Errorf("pid %d: %s, was %s", b.pid, now, before[b.pid])
		}
	}
	sp, cp := procs[server.pid].pid, procs[client.pid].pid
	is := func(fd int, want unix.Ucred) {
		t.Helper()
		c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || *c != want {
			t.Errorf("%+v %v, not %+v", c, err, want)
		}
	}
	listened := unix.Ucred{Pid: int32(sp), Uid: 1234, Gid: 4321}
	is(s.fd(t, r, server.pid, 100), listened)
	is(s.fd(t, r, client.pid, 110), listened)
	is(s.fd(t, r, client.pid, 111), listened)
	is(s.fd(t, r, server.pid, 101), unix.Ucred{Pid: int32(cp), Uid: 0, Gid: 0})
	is(s.fd(t, r, server.pid, 102), unix.Ucred{Pid: int32(sp), Uid: 0, Gid: 4321})
	n, _, err := unix.Accept(s.fd(t, r, server.pid, 100))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(n)
	is(n, unix.Ucred{Pid: int32(cp), Uid: 0, Gid: 0})
}

func procfsAlive(pid int) bool {
	st, err := procfs.ReadStat(pid, 0)
	return err == nil && st.State != 'Z'
}

// state is what a task shows of its ids, directory and descriptors.
func state(t *testing.T, pid int) string {
	t.Helper()
	st, err := procfs.ReadStatus(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	cwd, _ := procfs.ReadCwd(pid, 0)
	fds, err := procfs.ReadFDs(pid)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(st.Uid, st.Gid, st.CapEff, cwd, fds)
}
