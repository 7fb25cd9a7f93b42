package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fermata-cr/fermata/internal/inherited"
	"golang.org/x/sys/unix"
)

// Real programs through the real command. What the engine saves is tested
// elsewhere; here it is what the command makes of it: names, output, codes,
// signals.

// command runs fermata as a user does.
type command struct {
	t    *testing.T
	repo string
}

func newCommand(t *testing.T) *command {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to choose pids")
	}
	if err := inherited.Drop(); err != nil {
		t.Fatal(err)
	}
	// What is restored with --detach becomes our child, so that it can be reaped.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	return &command{t, filepath.Join(t.TempDir(), "repo")}
}

// start begins a command line; its output is collected.
func (c *command) start(args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	c.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("fermata", args...)
	cmd.Env = append(os.Environ(), "FERMATA_REPO="+c.repo)
	cmd.Stdout, cmd.Stderr = &out, &errs
	// A restored program may hold the pipes of the output for longer.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	return cmd, &out, &errs
}

// run runs a command line to its end and wants an exit code.
func (c *command) run(want int, args ...string) string {
	c.t.Helper()
	cmd, out, errs := c.start(args...)
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != want {
		c.t.Fatalf("fermata %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, out, errs)
	}
	return out.String()
}

// target starts a program for perl, which Debian always has, that nothing ties to the test: no terminal, no
// pipes, a session of its own.
func target(t *testing.T, script string) *program {
	t.Helper()
	cmd := exec.Command("/usr/bin/perl", "-e", script)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{Cmd: cmd, done: make(chan struct{})}
	// Waited for at once, or its pid would not be free after --kill.
	go func() { cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		<-p.done
	})
	await(t, func() bool { return exists(filepath.Join(cmd.Dir, "ready")) })
	return p
}

// program is a target, waited for in the background.
type program struct {
	*exec.Cmd
	done chan struct{}
}

// Wait waits until the program as the test started it has ended.
func (p *program) Wait() { <-p.done }

// waiting is a program that waits for signals and for files to appear.
const waiting = `
sub touch { open my $f, ">", shift; }
$SIG{USR1} = sub { touch("got-usr1") };
$SIG{TERM} = sub { exit 9 };
$SIG{INT} = "IGNORE";
touch("ready");
select(undef, undef, undef, 0.02) until -e "end";
exit 7;`

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func await(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpointGoesOn: without --kill the program lives on; the REF is the
// last line of stdout and stands for what list, inspect and remove know.
func TestCheckpointGoesOn(t *testing.T) {
	c := newCommand(t)
	p := target(t, waiting)
	pid := strconv.Itoa(p.Process.Pid)
	out := c.run(0, "checkpoint", pid)
	ref := strings.TrimSuffix(out[strings.LastIndex(strings.TrimSuffix(out, "\n"), "\n")+1:], "\n")
	if !strings.HasPrefix(ref, "perl-"+pid+"-") {
		t.Errorf("REF %q", ref)
	}
	if out := c.run(0, "list"); !strings.Contains(out, ref+" ") {
		t.Errorf("list without %s:\n%s", ref, out)
	}
	if out := c.run(0, "inspect", ref); !strings.Contains(out, "process "+pid+" perl") || !strings.Contains(out, "[stack]") || !strings.Contains(out, "/dev/null") {
		t.Errorf("inspect:\n%s", out)
	}
	// Its pid is in use: by itself.
	if out := c.run(exitBusy, "verify", ref); !strings.Contains(out, "in the way now") {
		t.Errorf("verify:\n%s", out)
	}
	c.run(exitBusy, "restore", ref)
	c.run(0, "remove", ref)
	c.run(exitNotFound, "inspect", ref)
	touch(t, filepath.Join(p.Dir, "end"))
	if p.Wait(); p.ProcessState.ExitCode() != 7 {
		t.Errorf("the program ended with %v", p.ProcessState)
	}
}

// TestCheckpointJSON: the record of a checkpoint, by name and by path.
func TestCheckpointJSON(t *testing.T) {
	c := newCommand(t)
	p := target(t, waiting)
	pid := strconv.Itoa(p.Process.Pid)
	dir := filepath.Join(t.TempDir(), "ck")
	for to, want := range map[string]string{"named": filepath.Join(c.repo, "named"), dir: dir} {
		var rec struct {
			Ref, Dir       string
			Pids           []int
			Tasks, Threads int
			Bytes          int64
			FrozenNS       int64 `json:"frozen_ns"`
			TotalNS        int64 `json:"total_ns"`
		}
		out := c.run(0, "checkpoint", "--json", "--to", to, pid)
		if err := json.Unmarshal([]byte(out), &rec); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if rec.Ref != to || rec.Dir != want || rec.Tasks < 1 || rec.Threads < rec.Tasks || rec.Bytes == 0 || rec.FrozenNS <= 0 || rec.TotalNS < rec.FrozenNS || len(rec.Pids) != rec.Tasks || rec.Pids[0] != p.Process.Pid {
			t.Errorf("%s", out)
		}
		// A second one does not replace the first.
		c.run(exitUsage, "checkpoint", "--to", to, pid)
	}
}

// TestCheckpointBadInput: what cannot be saved, or not there, is said at once,
// and nothing comes of it.
func TestCheckpointBadInput(t *testing.T) {
	c := newCommand(t)
	p := target(t, waiting)
	pid := strconv.Itoa(p.Process.Pid)
	touch(t, filepath.Join(p.Dir, "file"))
	// Every ancestor, up to the first process.
	for pid := os.Getpid(); pid > 0; {
		c.run(exitUsage, "checkpoint", strconv.Itoa(pid))
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		pid, _ = strconv.Atoi(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[1])
	}
	c.run(exitUsage, "checkpoint", "--to", filepath.Join(p.Dir, "no", "x"), pid)
	c.run(exitUsage, "checkpoint", "--to", filepath.Join(p.Dir, "file"), pid)
	c.run(exitUsage, "checkpoint", "--to", filepath.Join(p.Dir, "file", "x"), pid)
	z := exec.Command("/bin/true")
	if err := z.Start(); err != nil {
		t.Fatal(err)
	}
	zombie := strconv.Itoa(z.Process.Pid)
	await(t, func() bool { return state(zombie) == "Z" })
	c.run(exitNotFound, "checkpoint", zombie)
	z.Wait()
	if left, err := os.ReadDir(c.repo); err == nil && len(left) > 0 {
		t.Errorf("left in the repository: %v", left)
	}
	touch(t, filepath.Join(p.Dir, "end"))
	if p.Wait(); p.ProcessState.ExitCode() != 7 {
		t.Errorf("the program ended with %v", p.ProcessState)
	}
}

// TestRestoreForeground: the program's signals, its end, and its end by a
// signal.
func TestRestoreForeground(t *testing.T) {
	c := newCommand(t)
	for name, k := range map[string]struct {
		end  func(dir string, fermata, program int)
		want int
	}{
		"exit":     {func(dir string, _, _ int) { touch(t, filepath.Join(dir, "end")) }, 7},
		"term":     {func(_ string, fermata, _ int) { unix.Kill(fermata, unix.SIGTERM) }, 9},
		"sigkill":  {func(_ string, _, program int) { unix.Kill(program, unix.SIGKILL) }, 137},
		"ignored":  {func(dir string, f, _ int) { unix.Kill(f, unix.SIGINT); touch(t, filepath.Join(dir, "end")) }, 7},
		"repeated": {func(dir string, _, _ int) { touch(t, filepath.Join(dir, "end")) }, 7},
	} {
		t.Run(name, func(t *testing.T) {
			c := &command{t, c.repo}
			p := target(t, waiting)
			c.run(0, "checkpoint", "--kill", "--to", name, strconv.Itoa(p.Process.Pid))
			p.Wait()
			times := 1
			if name == "repeated" {
				times = 3
			}
			for range times {
				os.Remove(filepath.Join(p.Dir, "end"))
				os.Remove(filepath.Join(p.Dir, "got-usr1"))
				f, out, errs := c.start("restore", name)
				// From the first process on, signals are caught; those that come
				// before the program runs are kept for it.
				await(t, func() bool { return exists(fmt.Sprintf("/proc/%d", p.Process.Pid)) })
				unix.Kill(f.Process.Pid, unix.SIGUSR1)
				await(t, func() bool { return exists(filepath.Join(p.Dir, "got-usr1")) })
				k.end(p.Dir, f.Process.Pid, p.Process.Pid)
				f.Wait()
				if got := f.ProcessState.ExitCode(); got != k.want {
					t.Errorf("exit code %d, want %d\n%s%s", got, k.want, out, errs)
				}
			}
		})
	}
}

// TestRestoreDetached: it prints the pid, returns, and the program runs.
func TestRestoreDetached(t *testing.T) {
	c := newCommand(t)
	p := target(t, waiting)
	pid := p.Process.Pid
	c.run(0, "checkpoint", "--kill", "--to", "x", strconv.Itoa(pid))
	p.Wait()
	if out := c.run(0, "restore", "--detach", "x"); out != strconv.Itoa(pid)+"\n" {
		t.Errorf("output %q", out)
	}
	touch(t, filepath.Join(p.Dir, "end"))
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 7 {
		t.Errorf("%v, %v", ws, err)
	}
}

// TestCheckpointInterrupted: signals at any instant of a checkpoint end it with
// their code, or it is complete; the program never notices, and nothing else is
// left in the repository.
func TestCheckpointInterrupted(t *testing.T) {
	c := newCommand(t)
	p := target(t, waiting)
	pid := strconv.Itoa(p.Process.Pid)
	interrupted, done := 0, 0
	want := map[string]bool{}
	n := 150
	if testing.Short() {
		n = 20
	}
	for i := range n {
		sig := []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP}[i%3]
		cmd, out, errs := c.start("checkpoint", "--to", fmt.Sprintf("c%d", i), pid)
		time.Sleep(time.Duration(rand.Int64N(int64(30 * time.Millisecond))))
		unix.Kill(cmd.Process.Pid, sig)
		cmd.Wait()
		st := cmd.ProcessState.Sys().(syscall.WaitStatus)
		switch {
		case st.Signaled() && st.Signal() == sig:
			// Before the handler was there: nothing had begun.
		case st.ExitStatus() == 128+int(sig):
			interrupted++
		case st.ExitStatus() == 0:
			done++
			want[fmt.Sprintf("c%d", i)] = true
		default:
			t.Fatalf("signal %v: %v\n%s%s", sig, cmd.ProcessState, out, errs)
		}
	}
	t.Logf("%d interrupted, %d complete of %d", interrupted, done, n)
	left, err := os.ReadDir(c.repo)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range left {
		if !want[l.Name()] {
			t.Errorf("%s was left by an interrupted checkpoint", l.Name())
		}
		delete(want, l.Name())
	}
	for name := range want {
		t.Errorf("%s is missing", name)
	}
	touch(t, filepath.Join(p.Dir, "end"))
	if p.Wait(); p.ProcessState.ExitCode() != 7 {
		t.Errorf("the program ended with %v", p.ProcessState)
	}
}

// state gives a process's state letter (proc_pid_stat(5)).
func state(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return after[:1]
}

// TestRestoreInShell: a job of an interactive shell comes back as a job of it.
// Ctrl-Z is typed while it is still being made.
func TestRestoreInShell(t *testing.T) {
	newCommand(t)
	s := newShell(t)
	if err := os.WriteFile(filepath.Join(s.cmd.Dir, "job"), []byte(`select(undef, undef, undef, 0.02) until -e "end"; exit 7`), 0o644); err != nil {
		t.Fatal(err)
	}
	s.write("export FERMATA_REPO=$PWD/repo\n")
	s.write("perl job </dev/null >/dev/null 2>&1 & sleep 0.2; fermata checkpoint --kill --to x $!; echo code=$?= pid=$!=\n")
	pid := s.expect(`code=0= pid=(\d+)=`)[1]
	for _, end := range []struct{ name, typed, code string }{{"interrupt", "\x03", "130"}, {"exit", "", "7"}} {
		s.write("fermata restore x\n")
		await(t, func() bool { return exists("/proc/" + pid) })
		s.write("\x1a")
		s.expect(`Stopped +fermata restore x\r`)
		s.write("fg; echo \"code=$?=\"\n")
		s.expect(`fermata restore x\r`)
		// The shell has given the terminal away when the program has it.
		await(t, func() bool { return state(pid) == "S" })
		if end.typed == "" {
			touch(t, filepath.Join(s.cmd.Dir, "end"))
		}
		s.write(end.typed)
		if got := s.expect(`code=(\d+)=`)[1]; got != end.code {
			t.Errorf("%s: code %s, want %s", end.name, got, end.code)
		}
	}
}

// TestRestoreInterrupted: SIGTERM at any instant of a restore either undoes it
// or reaches the program; no task is left in any case.
func TestRestoreInterrupted(t *testing.T) {
	c := newCommand(t)
	p := target(t, waiting)
	pid := strconv.Itoa(p.Process.Pid)
	c.run(0, "checkpoint", "--kill", "--to", "x", pid)
	p.Wait()
	undone, reached := 0, 0
	n := 100
	if testing.Short() {
		n = 15
	}
	for range n {
		cmd, out, errs := c.start("restore", "x")
		time.Sleep(time.Duration(rand.Int64N(int64(30 * time.Millisecond))))
		unix.Kill(cmd.Process.Pid, unix.SIGTERM)
		cmd.Wait()
		st := cmd.ProcessState.Sys().(syscall.WaitStatus)
		switch {
		case st.Signaled() && st.Signal() == unix.SIGTERM:
			// Before the handler was there: nothing had begun.
		case st.ExitStatus() == 143:
			undone++
		case st.ExitStatus() == 9:
			reached++
		default:
			t.Fatalf("%v\n%s%s", cmd.ProcessState, out, errs)
		}
		if exists("/proc/" + pid) {
			t.Fatalf("pid %s is there (%s) after %v", pid, state(pid), cmd.ProcessState)
		}
	}
	t.Logf("%d undone, %d reached the program of %d", undone, reached, n)
}

// TestRemoveTakesLinks: a name that a checkpoint has given to a file goes with
// it, and no other checkpoint's.
func TestRemoveTakesLinks(t *testing.T) {
	c := newCommand(t)
	p := target(t, `mkdir "hid"; open F, "+>", "a"; link "a", "hid/b"; unlink "a";`+waiting)
	// What is in there cannot be found any more.
	hid := filepath.Join(p.Dir, "hid")
	if err := unix.Mount("fermata-test", hid, "tmpfs", 0, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer unix.Unmount(hid, unix.MNT_DETACH)
	pid := strconv.Itoa(p.Process.Pid)
	links := func() int {
		l, err := filepath.Glob(filepath.Join(p.Dir, ".fermata-link-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	c.run(exitUsage, "checkpoint", "--to", "", pid)
	for i, to := range []string{"one", "two"} {
		c.run(0, "checkpoint", "--to", to, pid)
		// Nor does a guardian take it for something that was left.
		for range 50 {
			if n := links(); n != i+1 {
				t.Fatalf("%d names after %d checkpoints", n, i+1)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	for i, to := range []string{"one", "two"} {
		c.run(0, "remove", to)
		if n := links(); n != 1-i {
			t.Errorf("%d names when %s is removed", n, to)
		}
	}
}
