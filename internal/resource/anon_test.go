package resource

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// The tests of the kinds here start this binary again in a role: a program that
// makes some state under descriptors from firstFD on, or one that is given
// restored descriptors and looks at them.

const (
	roleEnv = "FERMATA_RESOURCE_TEST_ROLE"
	firstFD = 100
	lastFD  = 199 // what lies above came from whoever runs the tests
)

var roles = map[string]func(*actor){}

// role declares a role, in a variable of the test file.
func role(name string, f func(*actor)) string {
	roles[name] = f
	return name
}

func init() {
	if n := os.Getenv(roleEnv); n != "" {
		runtime.LockOSThread()
		a := &actor{in: bufio.NewScanner(os.Stdin)}
		roles[n](a)
		os.Exit(0)
	}
}

// actor is the side of a role.
type actor struct{ in *bufio.Scanner }

// say answers with a value and waits for the next line.
func (a *actor) say(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", b)
	if !a.in.Scan() {
		os.Exit(0)
	}
	return a.in.Text()
}

// must ends the role with what went wrong.
func (a *actor) must(err error, what ...any) {
	if err != nil {
		fmt.Fprintln(os.Stderr, append(what, err)...)
		os.Exit(1)
	}
}

// at moves a descriptor to a number.
func (a *actor) at(fd int, err error, n int) {
	a.must(err)
	if fd != n {
		a.must(unix.Dup3(fd, n, unix.O_CLOEXEC))
		unix.Close(fd)
	}
}

// actorProc is a process in a role.
type actorProc struct {
	t   *testing.T
	pid int
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// start starts a role with extra files from descriptor 3 on and waits for what
// it says first, into v.
func start(t *testing.T, name string, v any, extra ...*os.File) *actorProc {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), roleEnv+"="+name)
	c.Stderr = os.Stderr
	c.ExtraFiles = extra
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		c.Process.Kill()
		c.Wait()
	})
	p := &actorProc{t: t, pid: c.Process.Pid, cmd: c, in: in, out: bufio.NewScanner(out)}
	p.out.Buffer(nil, 1<<24)
	p.hear(v)
	return p
}

// quit ends the role and waits until its pid and terminals are free.
func (p *actorProc) quit() {
	p.t.Helper()
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Error(err)
	}
}

func (p *actorProc) hear(v any) {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("role of pid %d ended", p.pid)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(p.out.Bytes(), v); err != nil {
		p.t.Fatalf("%s: %v", p.out.Text(), err)
	}
}

// ask sends a line and takes the answer into v.
func (p *actorProc) ask(line string, v any) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
	p.hear(v)
}

// saved is what a collection gave.
type saved struct {
	im     *image.Image
	tables map[int][]*fdinfo.FdinfoEntry
	refuse fault.Refusals
}

// save collects the descriptors firstFD to lastFD of some processes and takes the
// image through its encoding.
func save(t *testing.T, pids ...int) *saved {
	t.Helper()
	s := &saved{im: image.New(), tables: map[int][]*fdinfo.FdinfoEntry{}}
	d := NewDump(s.im, &s.refuse)
	defer d.Close()
	d.InTree = func(pid int) bool {
		for _, p := range pids {
			if p == pid {
				return true
			}
		}
		return false
	}
	for _, pid := range pids {
		if st, err := procfs.ReadStat(pid, 0); err == nil && st.State == 'Z' {
			continue
		}
		fds, err := procfs.ReadFDs(pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if fd < firstFD || fd > lastFD {
				continue
			}
			f, cloexec, err := d.File(pid, fd)
			if err != nil {
				t.Fatal(err)
			}
			if f == nil || f.Entry == nil {
				continue
			}
			f.Holders = append(f.Holders, Holder{pid, fd, cloexec})
			id, n, fl := f.ID, uint32(fd), uint32(0)
			if cloexec {
				fl = unix.FD_CLOEXEC
			}
			s.tables[pid] = append(s.tables[pid], &fdinfo.FdinfoEntry{Id: &id, Flags: &fl, Type: f.Entry.Type, Fd: &n})
		}
	}
	if err := d.Complete(); err != nil {
		t.Fatal(err)
	}
	if s.refuse.Err() == nil {
		if err := d.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := s.im.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if s.im, err = image.Decode(b); err != nil {
		t.Fatal(err)
	}
	return s
}

// open restores the files; the cleanup closes them.
func (s *saved) open(t *testing.T) *Restore {
	t.Helper()
	if err := s.refuse.Err(); err != nil {
		t.Fatal(err)
	}
	r, err := NewRestore(s.im, &s.refuse)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.Note = func(f string, a ...any) { t.Logf("note: "+f, a...) }
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	if err := s.refuse.Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.OpenAll(); err != nil {
		t.Fatal(err)
	}
	return r
}

// fd gives the restored descriptor of what a process had at a number.
func (s *saved) fd(t *testing.T, r *Restore, pid, n int) int {
	t.Helper()
	for _, e := range s.tables[pid] {
		if int(e.GetFd()) == n {
			fd, err := r.Open(e.GetId())
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}
	}
	t.Fatalf("pid %d has no fd %d in the image", pid, n)
	return -1
}

// taker is a role that receives descriptors on a socket, under the numbers that
// come with them, until the line "done", and then runs another role with them.
var _ = role("taker", func(a *actor) {
	for line := a.say("ready"); ; line = a.say("ready") {
		if name, ok := strings.CutPrefix(line, "run "); ok {
			roles[name](a)
			os.Exit(0)
		}
		var n, cloexec int
		_, err := fmt.Sscan(line, &n, &cloexec)
		a.must(err)
		oob := make([]byte, unix.CmsgSpace(4))
		_, o, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0)
		a.must(err)
		m, err := unix.ParseSocketControlMessage(oob[:o])
		a.must(err)
		fds, err := unix.ParseUnixRights(&m[0])
		a.at(fds[0], err, n)
		_, err = unix.FcntlInt(uintptr(n), unix.F_SETFD, cloexec)
		a.must(err)
	}
})

// rebuilt is a taker with restored descriptors, to be driven by an executor.
type rebuilt struct {
	*actorProc
	sock int
	exec *tracee.Executor
	fds  map[uint32]int
	was  int // its pid in the image
}

func (b *rebuilt) SavedPID() int { return b.was }

func (b *rebuilt) PID() int { return b.pid }
func (b *rebuilt) Executor() *tracee.Executor {
	b.exec.Reset()
	return b.exec
}
func (b *rebuilt) FD(id uint32) (int, bool) {
	n, ok := b.fds[id]
	return n, ok
}

// Send has the task receive a descriptor through its executor.
func (b *rebuilt) Send(fd int) (int, error) {
	if err := unix.Sendmsg(b.sock, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return -1, err
	}
	return receive(b.Executor(), 3)
}

// receive runs recvmsg(2) for one descriptor.
func receive(e *tracee.Executor, sock int) (int, error) {
	hdr, h := e.Data(56)
	iov, v := e.Data(16)
	buf, _ := e.Data(8)
	ctl, c := e.Data(24)
	put := func(b []byte, off int, x uint64) {
		for i := range 8 {
			b[off+i] = byte(x >> (8 * i))
		}
	}
	put(v, 0, buf)
	put(v, 8, 1)
	put(h, 16, iov)
	put(h, 24, 1)
	put(h, 32, ctl)
	put(h, 40, 24)
	n := e.Add(unix.SYS_RECVMSG, uint64(sock), hdr, unix.MSG_CMSG_CLOEXEC)
	if err := e.Run(); err != nil {
		return -1, err
	}
	if err := e.Err(n); err != nil {
		return -1, err
	}
	return int(c[16]) | int(c[17])<<8, nil
}

// rebuild starts a taker that is given the files of pid as they were there.
func (s *saved) rebuild(t *testing.T, r *Restore, pid int) *rebuilt {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	b := &rebuilt{was: pid, sock: pair[0], fds: map[uint32]int{}, actorProc: start(t, "taker", nil, theirs)}
	theirs.Close()
	t.Cleanup(func() { unix.Close(pair[0]) })
	for _, e := range s.tables[pid] {
		fd, err := r.Open(e.GetId())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendmsg(b.sock, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
			t.Fatal(err)
		}
		b.ask(fmt.Sprint(e.GetFd(), e.GetFlags()), nil)
		if _, ok := b.fds[e.GetId()]; !ok {
			b.fds[e.GetId()] = int(e.GetFd())
		}
	}
	return b
}

// inTask freezes some rebuilt processes and does the work in them, then that of
// the end.
func (s *saved) inTask(t *testing.T, r *Restore, done map[uint32]bool, procs map[int]*rebuilt, order ...int) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	list, err := sys.NewRobustList(tracee.RobustOffset)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	var pids []int
	for _, saved := range order {
		pids = append(pids, procs[saved].pid)
	}
	tr, err := tracee.Freeze(pids, tracee.FreezeOptions{Exclude: tracee.Self()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tr.Thaw(); err != nil {
			t.Error(err)
		}
	}()
	for _, saved := range order {
		b := procs[saved]
		maps, err := procfs.ReadMaps(b.pid)
		if err != nil {
			t.Fatal(err)
		}
		gad, ok := tracee.FindGadgets(b.pid, maps)
		if !ok {
			t.Fatal("no gadgets")
		}
		p := tr.Process(b.pid)
		g, err := tracee.Inject(b.pid, p.Threads[0], 1, maps, gad, uint32(os.Getuid()), uint32(os.Getgid()), list)
		if err != nil {
			t.Fatal(err)
		}
		if b.exec, err = g.Executor(p.Threads[0]); err == nil {
			err = r.InTask(b, s.tables[saved], done)
		}
		if err != nil {
			t.Error(err)
		}
		if err := g.Release(); err != nil {
			t.Error(err)
		}
	}
	if err := r.Finish(); err != nil {
		t.Error(err)
	}
}

// refused checks that a collection was refused with a reason.
func (s *saved) refused(t *testing.T, want string) {
	t.Helper()
	err := s.refuse.Err()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("refusal %v, want %q in it", err, want)
	}
}

func readable(t *testing.T, fd int, d time.Duration) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, int(d.Milliseconds()))
	if err != nil && err != unix.EINTR {
		t.Fatal(err)
	}
	return n == 1
}

// socketFiles gives a pair of sockets to pass on to roles.
func socketFiles(t *testing.T) (f [2]*os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range p {
		f[i] = os.NewFile(uintptr(p[i]), "pair")
		t.Cleanup(func() { f[i].Close() })
	}
	return f
}
