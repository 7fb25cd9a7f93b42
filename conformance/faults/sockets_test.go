package faults

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/netlock"
)

// socketsPage is the shared page of testdata/sockets.c.
type socketsPage struct {
	child      uint64
	progress   [2]uint64
	received   [4]uint64
	errors     uint64
	what, err  uint64
	connection uint64
}

// talker is a program that talks over TCP without a pause, inside its tree and
// with this process.
type talker struct {
	target
	talk *socketsPage
	// peer says what this end of a connection saw that it should not.
	peer atomic.Value
}

func startTalker(t *testing.T) *talker {
	t.Helper()
	bin := compile(t, "sockets")
	f, err := os.CreateTemp("/dev/shm", "fermata-faults-")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Cleanup(func() { os.Remove(f.Name()) })
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := &talker{target: target{t: t}, talk: (*socketsPage)(unsafe.Pointer(&mem[0]))}
	g.cmd = exec.Command(bin, f.Name(), strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := launch(g.cmd); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		kind := make([]byte, 1)
		if _, err := c.Read(kind); err != nil {
			t.Fatal(err)
		}
		if kind[0] == 'q' {
			if _, err := c.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		go g.say(c)
		go g.listen(c)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("sockets: %q %v", line, err)
	}
	for end := time.Now().Add(patience); atomic.LoadUint64(&g.talk.progress[0]) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("sockets: it does not begin")
		}
	}
	g.pids = []int{g.cmd.Process.Pid, int(g.talk.child)}
	g.await()
	return g
}

// say sends numbers until the connection ends, as fast as they are taken.
func (g *talker) say(c net.Conn) {
	for n := uint32(0); ; {
		var b []byte
		for range 256 {
			b = binary.NativeEndian.AppendUint32(b, n)
			n++
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// listen reads numbers, slowly.
func (g *talker) listen(c net.Conn) {
	b, have := make([]byte, 4096), 0
	for want := uint32(0); ; time.Sleep(2 * time.Millisecond) {
		n, err := c.Read(b[have:])
		if err != nil {
			return // whether the program has closed it, it knows itself
		}
		have += n
		i := 0
		for ; i+4 <= have; i += 4 {
			if v := binary.NativeEndian.Uint32(b[i:]); v != want {
				g.peer.CompareAndSwap(nil, fmt.Sprintf("the number %d in place of %d", v, want))
				return
			}
			want++
		}
		have = copy(b, b[i:have])
	}
}

// errorName says what a program of sockets.c has noted.
func (p *socketsPage) errorName() string {
	what := map[uint64]string{1: "send", 2: "receive", 3: "peek", 4: "numbers that differ by", 5: "option", 6: "end"}[p.what]
	which := map[uint64]string{1: "inside the tree", 2: "to the outside", 3: "to the outside, at rest", 4: "unix datagrams", 5: "UDP"}[p.connection]
	return fmt.Sprintf("%d errors, the first on the connection %s: %s: %d (%v)", atomic.LoadUint64(&p.errors), which, what, p.err, syscall.Errno(p.err))
}

// wellBeing says what is wrong with a program, or "".
func (g *talker) wellBeing() string {
	read := func() (all [5]uint64) {
		for i := range all {
			if all[i] = atomic.LoadUint64(&g.talk.received[min(i, 3)]); i == 4 {
				all[i] = atomic.LoadUint64(&g.talk.progress[1])
			}
		}
		return all
	}
	from := read()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if why := g.peer.Load(); why != nil {
			return "the peer read " + why.(string)
		}
		if atomic.LoadUint64(&g.talk.errors) != 0 {
			return g.talk.errorName()
		}
		if !g.alive() {
			return "dead"
		}
		now, slow := read(), false
		for i := range now {
			slow = slow || now[i] < from[i]+50
		}
		if !slow {
			return ""
		}
		if time.Now().After(end) {
			return fmt.Sprintf("no progress: %v, was %v", now, from)
		}
	}
}

// afterKill says what is wrong after a run of fermata that was killed. A lock on
// the connections stays if, and only if, the program was ended for its checkpoint.
func (g *talker) afterKill(r *run, dir string) string {
	if why := clean(&g.target, r.cmd.Process.Pid, dir); why != "" {
		return "left behind: " + why
	}
	killed := slices.Contains(r.cmd.Args, "--kill") && r.published()
	why := g.wellBeing()
	if why == "dead" && killed {
		for end := time.Now().Add(patience); !g.ended(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return "only a part of it was ended"
			}
		}
		locks, err := netlock.List()
		if err != nil || len(locks) != 1 {
			return fmt.Sprintf("the program has ended, and the locks on its connections are %q (%v)", locks, err)
		}
		if out, err := exec.Command(fermata, "remove", r.dir).CombinedOutput(); err != nil {
			return fmt.Sprintf("remove: %v\n%s", err, out)
		}
		if locks, err := netlock.List(); err != nil || len(locks) != 0 {
			return fmt.Sprintf("the checkpoint is removed, and the locks on its connections are %q (%v)", locks, err)
		}
		g.kill()
		*g = *startTalker(g.t)
		return ""
	}
	if locks, err := netlock.List(); why == "" && (err != nil || len(locks) != 0) {
		return fmt.Sprintf("the program goes on, and there are locks: %q (%v)", locks, err)
	}
	return why
}

// TestKillWithConnections kills fermata while it saves connections inside the
// tree and to the outside, at each of its steps and at any instant: the program
// sees no error in any of its calls, nor its peer.
func TestKillWithConnections(t *testing.T) {
	dir := t.TempDir()
	g := startTalker(t)
	defer func() { g.kill() }()
	flags := []string{"--tcp-established"}
	modes := [][]string{flags, append([]string{"--kill"}, flags...), append([]string{"--snapshot=always"}, flags...)}
	type point struct {
		name string
		mode int
		nth  int
	}
	var points []point
	var spans []time.Duration
	for i, mode := range modes {
		file := filepath.Join(dir, "trace")
		r := start(t, &g.target, dir, []string{"FERMATA_FAULT=trace:" + file}, mode...)
		began := time.Now()
		if err := r.wait(); err != nil {
			t.Fatalf("%v: %v\n%s", mode, err, r.out.String())
		}
		spans = append(spans, time.Since(began))
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(file)
		times := map[string]int{}
		for _, l := range strings.Fields(string(b)) {
			times[l]++
		}
		for name, n := range times {
			if name[0] != '?' {
				points = append(points, point{name, i, n})
			}
		}
		for _, name := range []string{"tcp.look", "queue.look"} {
			if times[name] == 0 {
				t.Errorf("%v: %s is not passed", mode, name)
			}
		}
		if why := g.afterKill(r, dir); why != "" {
			t.Fatalf("%v, not killed: %s", mode, why)
		}
		os.RemoveAll(r.dir)
	}
	slices.SortFunc(points, func(a, b point) int { return strings.Compare(a.name, b.name) })
	n := count(120)
	bad, late := 0, 0
	for i := range n {
		var fault string
		mode := i % len(modes)
		env := []string(nil)
		at := time.Duration(0)
		if i%2 == 0 {
			p := points[rand.IntN(len(points))]
			if i/2 < len(points) {
				p = points[i/2] // each once
			}
			mode = p.mode
			fault = fmt.Sprintf("FERMATA_FAULT=kill:%s:%d:%d", p.name, 1+rand.IntN(p.nth), rand.IntN(60))
			env = append(env, fault)
		} else {
			at = time.Duration(rand.Int64N(int64(spans[mode])))
			fault = fmt.Sprint("killed after ", at)
		}
		r := start(t, &g.target, dir, env, modes[mode]...)
		if at > 0 {
			time.Sleep(at)
			r.cmd.Process.Signal(unix.SIGKILL)
		}
		if r.wait() == nil {
			late++
		}
		if why := g.afterKill(r, dir); why != "" {
			t.Errorf("%s %v: %s\n%s", fault, modes[mode], why, r.out.String())
			bad++
			g.kill()
			g = startTalker(t)
		}
		os.RemoveAll(r.dir)
	}
	t.Logf("%d kills, %d too late, %d programs harmed; %d points", n, late, bad, len(points))
}
