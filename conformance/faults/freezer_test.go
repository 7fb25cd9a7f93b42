package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is a control group made for a test, of one of the two versions.
type cgroup struct {
	t               *testing.T
	dir, file       string
	frozen, running string // what its freezer file says
}

// cgroups makes one of every version that this machine has.
func cgroups(t *testing.T) (all []*cgroup) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	v1, v2 := "", ""
	for line := range strings.Lines(string(b)) {
		head, tail, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		switch {
		case g[0] == "cgroup2":
			v2 = f[4]
		case g[0] == "cgroup" && strings.Contains(","+g[2]+",", ",freezer,"):
			v1 = f[4]
		}
	}
	if v2 == "" {
		dir := filepath.Join(t.TempDir(), "cgroup2")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("fermata-test", dir, "cgroup2", 0, ""); err == nil {
			v2 = dir
			t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		}
	}
	for _, c := range []*cgroup{{t, v2, "cgroup.freeze", "1", "0"}, {t, v1, "freezer.state", "FROZEN", "THAWED"}} {
		if c.dir == "" {
			continue
		}
		c.dir = filepath.Join(c.dir, "fermata-test-"+strconv.Itoa(os.Getpid()))
		if err := os.Mkdir(c.dir, 0o755); err != nil {
			t.Logf("no groups can be made: %v", err)
			continue
		}
		t.Cleanup(func() {
			for range 500 { // while the last of its tasks ends
				if err = os.Remove(c.dir); err == nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Error(err)
		})
		all = append(all, c)
	}
	if len(all) == 0 {
		t.Skip("no cgroup hierarchy with a freezer can be written here")
	}
	return all
}

func (c *cgroup) write(file, s string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(s), 0); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cgroup) add(pids ...int) {
	c.t.Helper()
	for _, p := range pids {
		c.write("cgroup.procs", strconv.Itoa(p))
	}
}

func (c *cgroup) state() string {
	b, _ := os.ReadFile(filepath.Join(c.dir, c.file))
	return strings.TrimSpace(string(b))
}

// freeze freezes the group and waits until it is.
func (c *cgroup) freeze() {
	c.t.Helper()
	c.write(c.file, c.frozen)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		events, _ := os.ReadFile(filepath.Join(c.dir, "cgroup.events"))
		if c.state() == c.frozen && (c.file != "cgroup.freeze" || strings.Contains(string(events), "frozen 1")) {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s: %s", c.dir, c.state())
		}
	}
}

func (c *cgroup) thaw() { c.write(c.file, c.running) }

// grouped starts a target in the group.
func grouped(t *testing.T, c *cgroup) *target {
	t.Helper()
	g := startTarget(t)
	g.page.slackMS = 20000 // it is held still for long
	c.add(g.pids...)
	return g
}

// end ends a target in a group that may be frozen.
func (c *cgroup) end(g *target) {
	c.write(c.file, c.running)
	g.kill()
}

// still tells whether no thread of the target gets on.
func (g *target) still() bool {
	sum := func() (n uint64) {
		for i := range g.page.progress {
			n += atomic.LoadUint64(&g.page.progress[i])
		}
		return n
	}
	was := sum()
	time.Sleep(50 * time.Millisecond)
	return sum() == was
}

// healthy is health, but for what the freezer of version 2 does by itself: it
// breaks off every call.
func (g *target) healthy() string {
	why := g.health()
	if strings.HasPrefix(why, "EINTR") {
		return ""
	}
	return why
}

// TestFreezer: the freezer of a group that the program has to itself is used,
// and left as it was; a group that its user has frozen stays so.
func TestFreezer(t *testing.T) {
	for _, c := range cgroups(t) {
		t.Run(c.file, func(t *testing.T) {
			dir := t.TempDir()
			g := grouped(t, c)
			defer func() { c.end(g) }()
			_, _, times := trace(t, g, dir)
			if times["freezer.done"] != 2 {
				t.Errorf("the freezer was used %d times", times["freezer.done"])
			}
			if s := c.state(); s != c.running {
				t.Errorf("afterwards it is %s", s)
			}
			if why := g.health(); why != "" {
				t.Error(why)
			}
			// Not of a group that holds somebody else.
			other := exec.Command("sleep", "100")
			if err := launch(other); err != nil {
				t.Fatal(err)
			}
			defer func() { c.thaw(); other.Process.Kill(); other.Wait(); ours.Delete(other.Process.Pid) }()
			c.add(other.Process.Pid)
			if _, _, times := trace(t, g, dir); times["freezer.set"] != 0 {
				t.Error("the freezer of a group with others in it was used")
			}

			c.freeze()
			r := start(t, g, dir, nil)
			err := r.wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(r.out.String(), "--cgroup "+c.dir) {
				t.Errorf("a frozen group with others in it: %v\n%s", err, r.out.String())
			}
			if s := c.state(); s != c.frozen {
				t.Errorf("it is %s", s)
			}
			// The other goes elsewhere.
			c.thaw()
			other.Process.Kill()
			other.Wait()
			c.freeze()
			if !g.still() {
				t.Fatal("a frozen program gets on")
			}
			r = start(t, g, dir, nil)
			if err := r.wait(); err != nil {
				t.Fatalf("frozen: %v\n%s", err, r.out.String())
			}
			if s := c.state(); s != c.frozen || !g.still() {
				t.Errorf("it was frozen, now it is %s", s)
			}
			if why := leftovers(g, r.cmd.Process.Pid, dir); why != "" {
				t.Errorf("left behind: %s", why)
			}
			c.thaw()
			if why := g.healthy(); why != "" {
				t.Error(why)
			}
			// --kill: in a frozen group of version 1 nothing ends by itself.
			c.freeze()
			r = start(t, g, dir, nil, "--kill")
			if err := r.wait(); err != nil {
				t.Fatalf("frozen: %v\n%s", err, r.out.String())
			}
			if g.alive() {
				t.Error("it was not ended")
			}
			if s := c.state(); s != c.frozen {
				t.Errorf("its group was frozen, now it is %s", s)
			}
		})
	}
}

// TestFreezerAfterDeath: a group is not left frozen, nor one left running that
// its user has frozen, whenever fermata dies.
func TestFreezerAfterDeath(t *testing.T) {
	for _, c := range cgroups(t) {
		for _, frozen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/frozen=%v", c.file, frozen), func(t *testing.T) {
				dir := t.TempDir()
				g := grouped(t, c)
				defer func() { c.end(g) }()
				for _, fault := range []string{
					"kill:freezer.set:1", "kill:freezer.done:1", "kill:freezer.set:2", "kill:freezer.done:2",
					"kill:freeze.interrupt:3", "kill:executor.started:1", "kill:draft.meta:1", "stop:freezer.done:1",
					"fail:freezer.set:1", "fail:freezer.set:2",
				} {
					want := c.running
					if frozen {
						c.freeze()
						want = c.frozen
					}
					r := start(t, g, dir, []string{"FERMATA_FAULT=" + fault, "FERMATA_PATIENCE_MS=300"})
					// Where freezing it again fails, that is tried once more.
					if err := r.wait(); err == nil && !(frozen && fault == "fail:freezer.set:2") {
						t.Errorf("%s: it ended well", fault)
					}
					why := clean(g, r.cmd.Process.Pid, dir)
					if why != "" {
						t.Errorf("%s: left behind: %s", fault, why)
					}
					// FREEZING, until the last task has run into it.
					for end := time.Now().Add(patience); c.state() == "FREEZING" && time.Now().Before(end); {
						time.Sleep(time.Millisecond)
					}
					if s := c.state(); s != want {
						t.Errorf("%s: the group is %s, was %s", fault, s, want)
					}
					if frozen && !g.still() {
						t.Errorf("%s: a frozen program gets on", fault)
					}
					c.thaw()
					if why := g.healthy(); why != "" {
						t.Errorf("%s: %s", fault, why)
						c.end(g)
						g = grouped(t, c)
					}
					os.RemoveAll(r.dir)
				}
			})
		}
	}
}
