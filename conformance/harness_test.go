package conformance

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The harness. Every case (program, user, mode) is carried out by a process of
// its own, the supervisor: this test binary started again with the case in its
// environment. The supervisor is the parent of everything in its case, and
// reaps it. Where privilege allows, it lives in a pid namespace of its own, so
// that no pid of a killed program can be taken by a stranger before it is
// restored, and so that nothing at all survives the case.

var (
	flagEngine   = flag.String("engine", envOr("CONFORMANCE_ENGINE", "fermata"), "what checkpoints and restores: fermata or criu (its path in $CRIU)")
	flagModes    = flag.String("modes", os.Getenv("CONFORMANCE_MODES"), "comma separated modes to run: none, restore, left, snapshot, twice, chain, tracked, lazy, copies, user, mutate (default: all the engine has, but none)")
	flagUsers    = flag.String("users", "", "comma separated users to run as (default: those of the program)")
	flagIsolate  = flag.Bool("isolate", os.Geteuid() == 0, "run each case in pid, mount, ipc and network namespaces of its own")
	flagTool     = flag.String("tool", os.Getenv("FERMATA"), "the fermata command to test (default: built from ../cmd/fermata)")
	flagKeep     = flag.Bool("keep", false, "keep the directories of failed cases")
	flagDeadline = flag.Duration("deadline", 60*time.Second, "longest time of one step of a case")
	flagAll      = flag.Bool("all", false, "try the peer with what it is known to fail, too")
	flagJobs     = flag.Int("jobs", 2, "cases at a time")
)

const caseEnv = "FERMATA_CONFORMANCE_CASE"

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

func TestMain(m *testing.M) {
	if spec := os.Getenv(caseEnv); spec != "" {
		os.Unsetenv(caseEnv)
		supervise(spec)
		return
	}
	os.Exit(m.Run())
}

// allModes in the order they run. "refused" is the only mode of programs that
// must be refused.
var allModes = []string{"none", "restore", "left", "snapshot", "twice", "chain", "tracked", "lazy", "copies", "user", "mutate", "refused"}

func modesOf(t testing.TB, p *Program, engine, user string) []string {
	var def []string
	switch {
	case p.Refused != "":
		def = []string{"none", "refused"}
	case engine == "criu":
		def = []string{"none", "restore", "left", "mutate"}
	default:
		def = []string{"restore", "left", "snapshot", "twice", "mutate"}
		if p.Kind == "memory" || p.Kind == "trees" {
			def = append(def, "lazy")
		}
		if p.Kind == "memory" {
			def = append(def, "chain")
		}
		if p.Kind == "memory" && p.NoTrack == "" {
			def = append(def, "tracked")
		}
		if p.Kind == "memory" && p.NoCopies == "" {
			def = append(def, "copies")
		}
		if user == "nobody" && p.NoUser == "" {
			def = append(def, "user")
		}
	}
	if *flagModes != "" {
		var out []string
		for _, m := range strings.Split(*flagModes, ",") {
			if !slices.Contains(allModes, m) {
				t.Fatalf("-modes: no mode %q; there are %s", m, strings.Join(allModes, ", "))
			}
			if m == "none" || slices.Contains(def, m) && p.runsIn(m) {
				out = append(out, m)
			}
		}
		return out
	}
	return slices.DeleteFunc(def, func(m string) bool { return !p.runsIn(m) && m != "none" })
}

func usersOf(p *Program) []string {
	if *flagUsers != "" {
		want := strings.Split(*flagUsers, ",")
		return slices.DeleteFunc(slices.Clone(p.Users), func(u string) bool { return !slices.Contains(want, u) })
	}
	return p.Users
}

// TestConformance runs every program as each of its users in each mode.
func TestConformance(t *testing.T) {
	h := newHarness(t)
	all, err := Programs("programs")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if testing.Short() && !p.Short {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel() // most of them only wait; -jobs bounds them
			if *flagEngine == "criu" && p.Refused != "" && *flagModes != "none" {
				t.Skip("what fermata must refuse is no question to a peer")
			}
			for _, user := range usersOf(p) {
				t.Run(user, func(t *testing.T) {
					if user != "root" && os.Geteuid() != 0 {
						user = "" // already someone else: run as that
					}
					if user == "root" && os.Geteuid() != 0 {
						t.Skip("needs root: " + p.UserWhy)
					}
					for _, mode := range modesOf(t, p, *flagEngine, user) {
						t.Run(mode, func(t *testing.T) {
							if why := p.CRIUCannot(mode); why != "" && *flagEngine == "criu" && !*flagAll {
								t.Skip("CRIU cannot: " + why)
							}
							if mode == "mutate" {
								for _, m := range p.Mutate {
									t.Run(m, func(t *testing.T) {
										t.Parallel()
										h.run(t, p, user, mode, m)
									})
								}
								return
							}
							t.Parallel()
							h.run(t, p, user, mode, "")
						})
					}
				})
			}
		})
	}
}

type harness struct {
	dir  string // programs and cases; world-readable
	tool string
	// engine and restorer of an exchange.
	engine, restorer string
	// server is the page server that an exchange's memory goes through, or "".
	server string
	shared *harness // whose programs are used
	jobs   chan struct{}

	mu    sync.Mutex
	built map[string]func() (string, error)
}

func newHarness(t *testing.T) *harness {
	allowHugePages(t)
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &harness{dir: dir, engine: *flagEngine, jobs: make(chan struct{}, max(1, *flagJobs)), built: map[string]func() (string, error){}}
	t.Cleanup(func() {
		if *flagKeep && t.Failed() {
			t.Logf("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	switch {
	case *flagEngine == "criu":
		h.tool = envOr("CRIU", "criu")
	case *flagEngine != "fermata":
		t.Fatalf("-engine: no engine %q", *flagEngine)
	case *flagModes == "none": // needs no tool
	case *flagTool != "":
		h.tool = *flagTool
	default:
		h.tool = filepath.Join(dir, "fermata")
		cmd := exec.Command("go", "build", "-o", h.tool, "../cmd/fermata")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building fermata: %v\n%s", err, out)
		}
	}
	return h
}

// build compiles a program once.
func (h *harness) build(p *Program) (string, error) {
	if h.shared != nil {
		return h.shared.build(p)
	}
	h.mu.Lock()
	f := h.built[p.Name]
	if f == nil {
		f = sync.OnceValues(func() (string, error) {
			bin := filepath.Join(h.dir, p.Name)
			args := []string{"-O1", "-g", "-Wall", "-pthread", "-I", "programs"}
			args = append(args, p.CFlags...)
			args = append(args, "-o", bin, p.Path)
			args = append(args, p.Libs...)
			out, err := exec.Command("gcc", args...).CombinedOutput()
			if err == nil && len(out) > 0 {
				err = errors.New("warnings")
			}
			if err != nil {
				return "", fmt.Errorf("gcc %s: %w\n%s", p.Path, err, out)
			}
			return bin, nil
		})
		h.built[p.Name] = f
	}
	h.mu.Unlock()
	return f()
}

// caseSpec is what a supervisor is told, caseResult what it reports.
type caseSpec struct {
	Program  *Program
	Binary   string
	Dir      string // the program's own
	Img      string // parent of the images
	User     string // "root", "nobody", "" for the caller
	Mode     string
	Mutation string
	Engine   string
	Tool     string
	Restorer string // another tool than the one that dumps
	Server   string // a page server's program, for an exchange
	Deadline time.Duration
	Isolated bool
}

type caseResult struct {
	OK bool
	// Checkpoint and Restore are how long the commands took.
	Checkpoint, Restore time.Duration
	Skipped             string // the program's own reason
	Busy                bool   // a pid was taken: worth another try
	Failure             string
	Notes               []string
}

func (h *harness) run(t *testing.T, p *Program, user, mode, mutation string) {
	h.jobs <- struct{}{}
	defer func() { <-h.jobs }()
	bin, err := h.build(p)
	if err != nil {
		t.Fatal(err)
	}
	var r caseResult
	for try := 0; try < 2; try++ {
		r = h.once(t, p, bin, user, mode, mutation)
		if !r.Busy {
			break
		}
		t.Log("a pid of the program was taken; once more")
	}
	for _, n := range r.Notes {
		t.Log(n)
	}
	switch {
	case r.Skipped != "":
		t.Skip(r.Skipped)
	case !r.OK:
		t.Error(r.Failure)
	}
}

func (h *harness) once(t *testing.T, p *Program, bin, user, mode, mutation string) caseResult {
	top, err := os.MkdirTemp(h.dir, p.Name+".")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := caseSpec{
		Program: p, Binary: bin, Dir: filepath.Join(top, "run"), Img: filepath.Join(top, "img"), User: user,
		Mode: mode, Mutation: mutation, Engine: h.engine, Tool: h.tool, Restorer: h.restorer, Server: h.server, Deadline: *flagDeadline, Isolated: *flagIsolate,
	}
	for _, d := range []string{spec.Dir, spec.Img} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if user == "nobody" {
		if err := os.Chown(spec.Dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if mode == "user" {
		if err := os.Chown(spec.Img, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	r := h.supervised(t, spec)
	if r.OK || r.Skipped != "" || !*flagKeep {
		if err := os.RemoveAll(top); err != nil {
			t.Errorf("left behind: %v", err)
		}
	} else {
		r.Notes = append(r.Notes, "kept: "+top)
	}
	return r
}

// supervised starts the supervisor and takes its result; whatever goes wrong
// with the supervisor itself becomes a failure of the case.
func (h *harness) supervised(t *testing.T, spec caseSpec) (r caseResult) {
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	rd, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	stderr, err := os.Create(filepath.Join(filepath.Dir(spec.Dir), "supervisor.err"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), caseEnv+"="+string(raw))
	cmd.Stdout, cmd.Stderr = wr, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if spec.Isolated {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET
	}
	err = startLocked(cmd)
	wr.Close()
	if err != nil {
		return caseResult{Failure: fmt.Sprintf("starting the supervisor: %v", err)}
	}
	// The supervisor bounds each step; this bounds the supervisor.
	limit := time.AfterFunc(8*spec.Deadline, func() { cmd.Process.Kill() })
	defer limit.Stop()
	out, _ := io.ReadAll(rd)
	err = cmd.Wait()
	if uerr := json.Unmarshal(out, &r); uerr != nil {
		msg, _ := os.ReadFile(stderr.Name())
		return caseResult{Failure: fmt.Sprintf("the supervisor said nothing (%v): %s", err, msg)}
	}
	return r
}

// starter is the thread that starts supervisors: their parent-death signal is
// bound to the thread, so it must live as long as the tests.
var starter = sync.OnceValue(func() chan func() {
	c := make(chan func())
	go lockedLoop(c)
	return c
})

func startLocked(cmd *exec.Cmd) error {
	done := make(chan error)
	starter() <- func() { done <- cmd.Start() }
	return <-done
}
