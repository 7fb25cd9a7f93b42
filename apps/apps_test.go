package apps

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	flagTool     = flag.String("tool", os.Getenv("FERMATA"), "the fermata command to test (default: built from ../cmd/fermata)")
	flagIsolate  = flag.Bool("isolate", true, "run each program in pid, mount, ipc and network namespaces of its own")
	flagKeep     = flag.Bool("keep", false, "keep the directories of failed programs")
	flagCycles   = flag.Int("cycles", 10, "checkpoints and restores in a row of the repeated run")
	flagDeadline = flag.Duration("deadline", 30*time.Second, "longest time of one step of a program")
)

// App is one real program with work to do.
//
// It is carried out three times, in a directory with the same name and the same
// content: never disturbed; checkpointed, killed and restored once, in the
// middle; and so ten times in a row. What the disturbed runs produce must be
// what the undisturbed one did, byte for byte.
type App struct {
	Name string
	// Short: it belongs to the few that -short runs.
	Short bool
	// Needs are the commands it uses, each with the package that has it.
	Needs []Need
	// Command starts it, in a directory holding a copy of testdata/NAME. It is
	// done when that process ends.
	Command []string
	// Prepare makes what else must be in the directory. It runs once.
	Prepare func(s *stage)
	// Progress tells how far the work is; it only grows. By default it is the
	// number of lines in the file "progress".
	Progress func(s *stage) int
	// Results are the files that hold what it produced, beside its stdout,
	// stderr and exit status.
	Results []string
	// Result, if set, makes the result instead of Results.
	Result func(s *stage) string
	// Drive, if set, runs the work instead of waiting for progress: a program
	// that is talked to. It calls s.point n times, at points well apart, and
	// returns after the program's end.
	Drive func(s *stage, n int)
}

// Need is a command and the Debian package that brings it.
type Need struct{ Command, Package string }

// apps are all of them; each file of a program adds its own.
var apps []*App

func register(a *App) *App {
	apps = append(apps, a)
	return a
}

const caseEnv = "FERMATA_APPS_CASE"

func TestMain(m *testing.M) {
	if spec := os.Getenv(caseEnv); spec != "" {
		os.Unsetenv(caseEnv)
		supervise(spec)
		return
	}
	os.Exit(m.Run())
}

// TestApps carries every program through.
func TestApps(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: programs are given their pids back outside any namespace of their own user")
	}
	if out, err := exec.Command("./install.sh").CombinedOutput(); err != nil {
		t.Fatalf("the programs cannot be installed (%v): %s", err, out)
	}
	tool := buildTool(t)
	for _, a := range apps {
		if testing.Short() && !a.Short {
			continue
		}
		t.Run(a.Name, func(t *testing.T) { runApp(t, a, tool) })
	}
}

func buildTool(t *testing.T) string {
	if *flagTool != "" {
		return *flagTool
	}
	tool := filepath.Join(t.TempDir(), "fermata")
	cmd := exec.Command("go", "build", "-o", tool, "../cmd/fermata")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building fermata: %v\n%s", err, out)
	}
	return tool
}

// caseSpec is what a supervisor is told, caseResult what it reports.
type caseSpec struct {
	App      string
	Top      string // a directory of the case's own
	Data     string // absolute path of testdata/NAME
	Tool     string
	Cycles   int
	Deadline time.Duration
	Isolated bool
}

type caseResult struct {
	Runs []runResult
	// Failure is what went wrong outside any run.
	Failure string
}

// runResult is one run of a program.
type runResult struct {
	Name    string
	Failure string
	Notes   []string
	Took    time.Duration
	// Checkpoint and Restore are the longest of each, whole command.
	Checkpoint, Restore time.Duration
}

func runApp(t *testing.T, a *App, tool string) {
	for _, n := range a.Needs {
		if _, err := exec.LookPath(n.Command); err != nil {
			t.Fatalf("%s is missing: apt-get install %s", n.Command, n.Package)
		}
	}
	top, err := os.MkdirTemp("", "fermata-"+a.Name+".")
	if err != nil {
		t.Fatal(err)
	}
	data, err := filepath.Abs(filepath.Join("testdata", a.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if *flagKeep && t.Failed() {
			t.Logf("kept: %s", top)
			return
		}
		if err := os.RemoveAll(top); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	began := time.Now()
	r := supervised(t, caseSpec{
		App: a.Name, Top: top, Data: data, Tool: tool,
		Cycles: *flagCycles, Deadline: *flagDeadline, Isolated: *flagIsolate,
	})
	for _, run := range r.Runs {
		t.Run(run.Name, func(t *testing.T) {
			for _, n := range run.Notes {
				t.Log(n)
			}
			t.Logf("%.2f s; longest checkpoint %d ms, longest restore %d ms", run.Took.Seconds(), run.Checkpoint.Milliseconds(), run.Restore.Milliseconds())
			if run.Failure != "" {
				t.Error(run.Failure)
			}
		})
	}
	if r.Failure != "" {
		t.Error(r.Failure)
	}
	t.Logf("%.1f s in all", time.Since(began).Seconds())
}

// supervised starts the supervisor of a case and takes what it reports.
func supervised(t *testing.T, spec caseSpec) (r caseResult) {
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	report, err := os.Create(filepath.Join(spec.Top, "report"))
	if err != nil {
		t.Fatal(err)
	}
	defer report.Close()
	said, err := os.Create(filepath.Join(spec.Top, "supervisor.err"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), caseEnv+"="+string(raw))
	cmd.Stdout, cmd.Stderr = report, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if spec.Isolated {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET
	}
	if err := startLocked(cmd); err != nil {
		t.Fatalf("starting the supervisor: %v", err)
	}
	// The supervisor bounds each step; this bounds the supervisor.
	limit := time.AfterFunc(10*spec.Deadline, func() { cmd.Process.Kill() })
	defer limit.Stop()
	werr := cmd.Wait()
	out, err := os.ReadFile(report.Name())
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		msg, _ := os.ReadFile(said.Name())
		return caseResult{Failure: fmt.Sprintf("the supervisor did not report (%v): %s", errors.Join(werr, err), tail(string(msg)))}
	}
	return r
}

// starter is the thread that starts supervisors: their parent-death signal is
// bound to the thread, so it must live as long as the tests.
var starter = sync.OnceValue(func() chan func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

func startLocked(cmd *exec.Cmd) error {
	done := make(chan error)
	starter() <- func() { done <- cmd.Start() }
	return <-done
}

// tail is the end of a text, some lines of it.
func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > 25 {
		lines = lines[len(lines)-25:]
	}
	return strings.Join(lines, "\n")
}
