package faults

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// other is a program of another kind that counts its progress and its errors in
// a file.
type other struct {
	*target
	read func() (progress, wrong uint64)
	said string // the file that its stderr goes to
	more func() string
	// many: it passes most points many times, so any of them comes first.
	many bool
}

func startOther(t *testing.T, read func([]byte) (uint64, uint64), argv ...string) *other {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], append([]string{path}, argv[1:]...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(os.Environ(), "GOMAXPROCS=3")
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stderr = said
	if err := launch(cmd); err != nil {
		t.Fatal(err)
	}
	o := &other{target: &target{t: t, cmd: cmd, pids: []int{cmd.Process.Pid}, masks: map[string]uint64{}}, said: said.Name()}
	o.await()
	o.read = func() (uint64, uint64) {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, 0
		}
		return read(b)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if n, _ := o.read(); n > 3 {
			return o
		}
		if time.Now().After(end) {
			t.Fatalf("%v does not begin", argv)
		}
	}
}

func (o *other) health() string {
	from, _ := o.read()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if !o.alive() {
			b, _ := os.ReadFile(o.said)
			return "dead: " + string(b[:min(len(b), 3000)])
		}
		n, wrong := o.read()
		if wrong != 0 {
			b, _ := os.ReadFile(o.said)
			return fmt.Sprintf("%d self-checks failed: %s", wrong, b[:min(len(b), 1000)])
		}
		if n > from+3 {
			break
		}
		if time.Now().After(end) {
			return "no progress"
		}
	}
	for _, tid := range tasks(o.pid()) {
		key := fmt.Sprintf("%d/%d", o.pid(), tid)
		if s := field(key, "State"); s != "gone" && (s[0] == 'T' || s[0] == 't') {
			return "state " + s
		}
	}
	if o.more != nil {
		return o.more()
	}
	return ""
}

// below gives a check that what lies below the stack pointer of a program that
// is always in the same system call does not change: bytes are lent there.
func (o *other) below() func() string {
	look := func() []byte {
		for range 1000 {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", o.pid()))
			f := strings.Fields(string(b))
			if len(f) != 9 {
				time.Sleep(100 * time.Microsecond)
				continue
			}
			sp, err := strconv.ParseUint(f[7], 0, 64)
			if err != nil {
				o.t.Fatal(err)
			}
			mem := make([]byte, 4096)
			l, r := []unix.Iovec{{Base: &mem[0], Len: 4096}}, []unix.RemoteIovec{{Base: uintptr(sp) - 4096, Len: 4096}}
			if n, err := unix.ProcessVMReadv(o.pid(), l, r, 0); n == 4096 && err == nil {
				return mem
			}
		}
		return nil
	}
	was := look()
	return func() string {
		if now := look(); was == nil || !bytes.Equal(now, was) {
			for i := range now {
				if now[i] != was[i] {
					return fmt.Sprintf("%d bytes below its stack pointer: % x, was % x", 4096-i, now[i:min(i+16, 4096)], was[i:min(i+16, 4096)])
				}
			}
			return "the stack cannot be read"
		}
		return ""
	}
}

func words(b []byte) (uint64, uint64) {
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
}

func text(b []byte) (p, w uint64) {
	fmt.Sscan(string(b), &p, &w)
	return p, w
}

// killAll kills fermata at all points of an other's checkpoint, n times.
func killAll(t *testing.T, n int, begin func() *other) { t.Helper(); killAt(t, "", n, begin) }

// killAt kills fermata up to 60 µs behind one point of an other's checkpoint, n
// times.
func killAt(t *testing.T, at string, n int, begin func() *other) {
	t.Helper()
	dir := t.TempDir()
	o := begin()
	defer func() { o.kill() }()
	points, _, times := trace(t, o.target, dir)
	if at != "" {
		if points = []string{at}; times[at] == 0 {
			t.Fatalf("%s: no point of this run", at)
		}
	}
	if n < len(points) { // those at the begin say least
		rand.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	}
	harmed := 0
	for i := range n {
		p := points[i%len(points)]
		nth := 1
		if i >= len(points) || o.many {
			nth += rand.IntN(times[p])
		}
		fault := fmt.Sprintf("FERMATA_FAULT=kill:%s:%d", p, nth)
		if i%3 == 2 || at != "" {
			fault += fmt.Sprintf(":%d", rand.IntN(60))
		}
		r := start(t, o.target, dir, []string{fault})
		r.wait()
		why := clean(o.target, r.cmd.Process.Pid, dir)
		if why == "" {
			why = o.health()
		}
		if why != "" {
			t.Errorf("%s: %s\n%s", fault, why, r.out.String())
			harmed++
			o.kill()
			o = begin()
		}
		os.RemoveAll(r.dir)
	}
	t.Logf("%d kills at %d points, %d harmed", n, len(points), harmed)
}

// TestKillWithoutSigreturn: a program without libc, and so without the code that
// a session borrows where there is any.
func TestKillWithoutSigreturn(t *testing.T) {
	bin := filepath.Join(buildDir, "bare")
	if out, err := exec.Command("gcc", "-nostdlib", "-static", "-o", bin, "testdata/bare.s").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	// In the middle of a computation; its sleeps would begin anew, which is
	// all that is lost there.
	for _, how := range []string{"spin", "sleep"} {
		t.Run(how, func(t *testing.T) {
			killAll(t, count(40), func() *other {
				o := startOther(t, words, bin, how)
				if how == "sleep" {
					o.more = o.below()
				}
				return o
			})
		})
	}
}

// TestKillGo: a Go program, whose stacks lie among the memory of others.
func TestKillGo(t *testing.T) {
	bin := filepath.Join(buildDir, "gotarget")
	if out, err := exec.Command("go", "build", "-o", bin, "./testdata/gotarget").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	killAll(t, count(60), func() *other { return startOther(t, text, bin) })
}

// stopped waits until every thread is in a job-control stop. One that a tracer
// lets go in such a stop must run to get back to it.
func (g *target) stopped() bool {
	end := time.Now().Add(patience)
	for key := range g.masks {
		for s := ""; s == "" || s[0] != 'T'; time.Sleep(time.Millisecond) {
			if s = field(key, "State"); s == "gone" || time.Now().After(end) {
				return false
			}
		}
	}
	return true
}

// TestKillStopped: a program in a job-control stop stays in it, and goes on
// unharmed when it is continued.
func TestKillStopped(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	points, _, _ := trace(t, g, dir)
	if testing.Short() {
		points = points[:5]
	}
	for i := range 2 * len(points) {
		p := points[i/2]
		for _, pid := range g.pids {
			unix.Kill(pid, unix.SIGSTOP)
		}
		if !g.stopped() {
			t.Fatal("it does not stop")
		}
		r := start(t, g, dir, []string{"FERMATA_FAULT=kill:" + p + ":1"})
		r.wait()
		why := ""
		// Every second time it is continued at once, before the guardian is done.
		if i%2 == 0 {
			if why = clean(g, r.cmd.Process.Pid, dir); why == "" && !g.stopped() {
				why = "it is not stopped any more"
			}
		}
		for _, pid := range g.pids {
			unix.Kill(pid, unix.SIGCONT)
		}
		if why == "" {
			if why = clean(g, r.cmd.Process.Pid, dir); why == "" {
				why = g.health()
			}
		}
		if why != "" {
			t.Errorf("killed at %s: %s", p, why)
			g.kill()
			g = startTarget(t)
		}
		os.RemoveAll(r.dir)
	}
}

// TestStopDuringCheckpoint: a SIGSTOP that comes in the middle stops the program
// afterwards, whether fermata lives or not; one that a SIGCONT followed does not.
func TestStopDuringCheckpoint(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		cont, kill bool
	}{{false, false}, {true, false}, {false, true}} {
		g := startTarget(t)
		// It stands still in the middle of a batch for as long as it is stopped.
		env := []string{"FERMATA_FAULT=stop:executor.started:3"}
		r := start(t, g, dir, env)
		pid := r.cmd.Process.Pid
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if s := field(fmt.Sprintf("%d/%d", pid, pid), "State"); s != "" && s[0] == 'T' {
				break
			}
			if time.Now().After(end) {
				t.Fatal("it does not get there")
			}
		}
		unix.Kill(g.pid(), unix.SIGSTOP)
		unix.Kill(pid, unix.SIGCONT)
		if c.cont {
			// Not before the executor has seen it, nor after the end.
			unix.Kill(pid, unix.SIGSTOP)
			unix.Kill(g.pid(), unix.SIGCONT)
			unix.Kill(pid, unix.SIGCONT)
		}
		if c.kill {
			time.Sleep(time.Millisecond)
			unix.Kill(pid, unix.SIGKILL)
		}
		r.wait()
		if why := clean(g, pid, dir); why != "" {
			t.Errorf("%+v: %s", c, why)
		}
		want := "T"
		if c.cont {
			want = "RS"
		}
		ok := false
		for end := time.Now().Add(patience); time.Now().Before(end); {
			s := field(fmt.Sprintf("%d/%d", g.pid(), g.pid()), "State")
			if ok = s != "" && strings.Contains(want, s[:1]); ok {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if !ok {
			t.Errorf("%+v: it is in state %s, not %s", c, field(fmt.Sprintf("%d/%d", g.pid(), g.pid()), "State"), want)
		}
		unix.Kill(g.pid(), unix.SIGCONT)
		if why := g.health(); why != "" {
			t.Errorf("%+v: %s", c, why)
		}
		if _, err := os.Stat(r.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		os.RemoveAll(r.dir)
		g.kill()
	}
}

// TestSeccompIsRefused: a thread whose system calls are filtered, beside others
// whose are not, is not made to do any of ours.
func TestSeccompIsRefused(t *testing.T) {
	bin := compile(t, "seccomp")
	dir := t.TempDir()
	for _, how := range []string{"strict", "filter"} {
		o := startOther(t, words, bin, how)
		for range 3 {
			r := start(t, o.target, dir, nil)
			if r.wait(); r.cmd.ProcessState.ExitCode() != 3 || !strings.Contains(r.out.String(), "seccomp") {
				t.Errorf("%s: %v\n%s", how, r.cmd.ProcessState, r.out.String())
			}
			why := clean(o.target, r.cmd.Process.Pid, dir)
			if why == "" {
				why = o.health()
			}
			if why != "" {
				t.Fatalf("%s: %s", how, why)
			}
		}
		o.kill()
	}
}

// TestSnapshotIsEnded ends the snapshot of the target's memory while it is being
// saved, as the kernel does where memory runs out: the checkpoint is made
// without one, and says so.
func TestSnapshotIsEnded(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer g.kill()
	r := start(t, g, dir, []string{"FERMATA_FAULT=stop:snapshot.thawed:1"}, "--snapshot=always")
	ended := 0
	for end := time.Now().Add(10 * time.Second); ended == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !strings.HasPrefix(field(fmt.Sprintf("%d/%d", r.cmd.Process.Pid, r.cmd.Process.Pid), "State"), "T") {
			continue
		}
		for _, s := range strangers() {
			if pid, name, _ := strings.Cut(s, " "); name == "fermata-memory" {
				n, _ := strconv.Atoi(pid)
				unix.Kill(n, unix.SIGKILL)
				ended++
			}
		}
	}
	r.cmd.Process.Signal(unix.SIGCONT)
	err := r.wait()
	if ended == 0 {
		t.Fatalf("no snapshot was seen: %v\n%s", err, r.out.String())
	}
	if err != nil || !r.published() || !strings.Contains(r.out.String(), "stood still") {
		t.Errorf("%d snapshots ended: %v\n%s", ended, err, r.out.String())
	}
	if why := g.after(r, dir); why != "" {
		t.Error(why)
	}
}
