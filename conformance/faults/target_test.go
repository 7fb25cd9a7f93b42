package faults

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// page is the shared page of testdata/target.c.
type page struct {
	progress [32]uint64
	errors   [64]uint64
	eintr    [32]uint64
	deaf     [32]uint64
	tid      [32]uint64
	slackMS  uint64
	over     [4]uint64
	ran      [2]uint64
	mask     [32]uint64
	waited   [4]uint64
}

// The counters of a target's threads, in the order of the C enum. Those that
// wait for a second are asked for less.
var threadNames = []string{"main", "hold1", "hold2", "nanosleep", "pipe", "futex", "signal queue", "long sleep", "epoll", "ppoll", "child", "alarm", "poll"}

var slow = map[string]bool{"long sleep": true, "poll": true}

// target is a running self-checking program.
type target struct {
	t     *testing.T
	cmd   *exec.Cmd
	page  *page
	masks map[string]uint64 // "pid/tid" to SigBlk
	pids  []int
	opens map[string]uint64 // signals that a thread lets in while it waits
	over  chan struct{}     // closed when the program has been waited for
	kin   []string          // of each process: its family, as kin gives it
}

// await waits for the program in the background, so that its pid becomes free
// as soon as it ends.
func (g *target) await() {
	g.over = make(chan struct{})
	go func() {
		g.cmd.Wait()
		ours.Delete(g.cmd.Process.Pid)
		close(g.over)
	}()
}

// compile builds a C program of testdata once.
func compile(t *testing.T, name string, flags ...string) string {
	t.Helper()
	bin := filepath.Join(buildDir, name)
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	args := append([]string{"-O2", "-Wall", "-Werror", "-Wno-return-type", "-pthread", "-o", bin, filepath.Join("testdata", name+".c")}, flags...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return bin
}

func startTarget(t *testing.T) *target {
	t.Helper()
	g := startUnawaited(t)
	g.await()
	return g
}

// startUnawaited starts a target that nobody waits for, so that a thread of this
// very process can be its tracer: to wait for a child takes its stops too.
func startUnawaited(t *testing.T) *target {
	t.Helper()
	bin := compile(t, "target")
	// In memory: a write to a page that is just on its way to a disk waits.
	f, err := os.CreateTemp("/dev/shm", "fermata-faults-")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path := f.Name()
	t.Cleanup(func() { os.Remove(path) })
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	g := &target{t: t, page: (*page)(unsafe.Pointer(&mem[0])), masks: map[string]uint64{}}
	g.page.slackMS = 400
	g.cmd = exec.Command(bin, path)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := launch(g.cmd); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("target: %q %v", line, err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		born := 0
		for i, name := range threadNames {
			if slow[name] && g.page.tid[i] != 0 || atomic.LoadUint64(&g.page.progress[i]) > 2 {
				born++
			}
		}
		if born == len(threadNames) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("target: only %d of %d threads run", born, len(threadNames))
		}
	}
	g.pids = []int{g.cmd.Process.Pid, int(g.page.tid[10])}
	for _, pid := range g.pids {
		g.kin = append(g.kin, kin(pid))
	}
	// ppoll and sigtimedwait open the mask for as long as they wait.
	const usr1, rtmin1 = 1 << (unix.SIGUSR1 - 1), 1 << (35 - 1)
	g.opens = map[string]uint64{
		fmt.Sprintf("%d/%d", g.pids[0], g.page.tid[9]): usr1,
		fmt.Sprintf("%d/%d", g.pids[0], g.page.tid[6]): rtmin1,
	}
	// Each says by itself what its mask is: seen from outside it may be another
	// just now (pthread_kill blocks all signals for a moment).
	for i, tid := range g.page.tid {
		pid := g.pids[0]
		if i == 10 {
			pid = g.pids[1]
		}
		if tid != 0 {
			g.masks[fmt.Sprintf("%d/%d", pid, tid)] = g.page.mask[i]
		}
	}
	if n := len(tasks(g.pids[0])) + len(tasks(g.pids[1])); n != len(g.masks) {
		t.Fatalf("target: %d threads, %d of them known", n, len(g.masks))
	}
	g.look()
	return g
}

// look notes for how long the sleepers have waited for a processor: what
// comes on top of that is no fault of fermata.
func (g *target) look() {
	if g.page == nil {
		return
	}
	for which, who := range []int{3, 7, 12, 5} { // the order of over
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", g.pids[0], g.page.tid[who]))
		var on, waited uint64
		if _, err := fmt.Sscan(string(b), &on, &waited); err == nil {
			g.page.waited[which] = waited
		}
	}
}

func (g *target) pid() int { return g.cmd.Process.Pid }

func (g *target) kill() {
	g.cmd.Process.Kill()
	if g.over == nil {
		g.await()
	}
	<-g.over
	for _, pid := range g.pids[1:] {
		unix.Kill(pid, unix.SIGKILL)
	}
}

func tasks(pid int) (out []int) {
	d, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, e := range d {
		n, _ := strconv.Atoi(e.Name())
		out = append(out, n)
	}
	return out
}

// field gives a line of a thread's status; key is "pid/tid".
func field(key, name string) string {
	pid, tid, _ := strings.Cut(key, "/")
	b, err := os.ReadFile("/proc/" + pid + "/task/" + tid + "/status")
	if err != nil {
		return "gone"
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// kin is what a process has of children: who they are, what those that it had
// took (cminflt, cmajflt, cutime, cstime of proc_pid_stat(5)), and what it does
// with SIGCHLD.
func kin(pid int) string {
	var b strings.Builder
	for _, tid := range tasks(pid) {
		c, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, tid))
		fmt.Fprintf(&b, "%s", c)
	}
	st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := strings.LastIndexByte(string(st), ')'); i >= 0 {
		if f := strings.Fields(string(st[i+1:])); len(f) > 15 {
			fmt.Fprintf(&b, "; %s %s %s %s", f[8], f[10], f[13], f[14])
		}
	}
	for _, name := range []string{"SigIgn", "SigCgt", "ShdPnd"} {
		n, _ := strconv.ParseUint(field(fmt.Sprintf("%d/%d", pid, pid), name), 16, 64)
		fmt.Fprintf(&b, "; %s of SIGCHLD %d", name, n>>(unix.SIGCHLD-1)&1)
	}
	return b.String()
}

// alive tells whether every process of the target lives.
func (g *target) alive() bool {
	for _, pid := range g.pids {
		if s := field(fmt.Sprintf("%d/%d", pid, pid), "State"); s == "gone" || s[0] == 'Z' {
			return false
		}
	}
	return true
}

// patience is how long what must happen may take on a machine that has other
// things to do. Only what goes wrong takes that long.
const patience = 30 * time.Second

// maskIs tells whether a thread's mask is what it should be.
func (g *target) maskIs(key string, want uint64) (got uint64, ok bool) {
	got, err := strconv.ParseUint(field(key, "SigBlk"), 16, 64)
	return got, err == nil && (got == want || got == want&^g.opens[key])
}

// ended tells whether no process of the target lives.
func (g *target) ended() bool {
	for _, pid := range g.pids {
		if s := field(fmt.Sprintf("%d/%d", pid, pid), "State"); s != "gone" && s[0] != 'Z' {
			return false
		}
	}
	return true
}

// health says what is wrong with the target, or "". Every thread must make
// progress.
func (g *target) health() string {
	var from [32]uint64
	for i := range from {
		from[i] = atomic.LoadUint64(&g.page.progress[i])
	}
	end := time.Now().Add(patience)
	for {
		if !g.alive() {
			return "dead: " + strings.Join(strings.Fields(fmt.Sprint(field(fmt.Sprintf("%d/%d", g.pids[0], g.pids[0]), "State"), " ", field(fmt.Sprintf("%d/%d", g.pids[1], g.pids[1]), "State"))), " ")
		}
		why := ""
		for i, name := range threadNames {
			want := from[i] + 2
			if slow[name] {
				want = 0
			}
			if atomic.LoadUint64(&g.page.progress[i]) < want {
				why = fmt.Sprintf("thread %q (%d) makes no progress: %s, wchan %s", name, g.page.tid[i],
					field(fmt.Sprintf("%d/%d", g.pids[0], g.page.tid[i]), "State"), wchan(int(g.page.tid[i])))
				break
			}
		}
		if why == "" {
			break
		}
		if time.Now().After(end) {
			return why
		}
		time.Sleep(2 * time.Millisecond)
	}
	for i := range g.page.errors {
		if n := atomic.LoadUint64(&g.page.errors[i]); n != 0 {
			return fmt.Sprintf("self-check %d failed %d times (excess of sleeps in ms of its own time: %v)", i, n, g.page.over)
		}
	}
	for i := range g.page.eintr {
		if n := atomic.LoadUint64(&g.page.eintr[i]); n != 0 {
			return fmt.Sprintf("EINTR from call %d, %d times", i, n)
		}
	}
	for i, pid := range g.pids {
		if now := kin(pid); now != g.kin[i] {
			return fmt.Sprintf("pid %d: its children are %q, were %q", pid, now, g.kin[i])
		}
	}
	for key, mask := range g.masks {
		if s := field(key, "State"); s == "gone" || s[0] == 'T' || s[0] == 't' || s[0] == 'Z' {
			return fmt.Sprintf("thread %s: state %s", key, s)
		}
		if p := field(key, "TracerPid"); p != "0" {
			return fmt.Sprintf("thread %s: traced by %s", key, p)
		}
		// A handler may be running, with its signal blocked.
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			got, ok := g.maskIs(key, mask)
			if ok {
				break
			}
			if time.Now().After(end) {
				return fmt.Sprintf("thread %s: mask %016x, was %016x", key, got, mask)
			}
		}
	}
	return ""
}

func wchan(tid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", tid))
	c, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", tid))
	return string(b) + " " + strings.TrimSpace(string(c))
}

// regions gives the areas of segments that are mapped in the target.
func (g *target) regions() (out []string) {
	for _, pid := range g.pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "/SYSV") {
				out = append(out, strings.TrimSpace(line))
			}
		}
	}
	return out
}
