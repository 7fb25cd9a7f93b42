package apps

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fermata-cr/fermata/internal/inherited"
	"golang.org/x/sys/unix"
)

// The supervisor of a program is a process of its own (this test binary, started
// again), so that what it starts is not mixed up with the tests: it is the child
// subreaper of everything below it, the only place that waits for children, and
// in the end it kills what is left, by pid. Where privilege allows it is the
// first process of a pid namespace, so that no stranger can take a pid between
// a program's death and its restore.

// stage is where a program runs.
type stage struct {
	caseSpec
	app  *App
	dead map[int]unix.WaitStatus

	// Of the run under way:
	Dir    string // the program's working directory
	mode   string // "undisturbed", "once" or "repeated"
	roots  []int  // the processes to be checkpointed
	res    *runResult
	cycles int
	total  int  // progress of the undisturbed run, at its end
	late   bool // the program was at its end before all checkpoints were made
}

// failure ends a run from any depth.
type failure struct{ text string }

func (s *stage) failf(format string, a ...any) {
	panic(failure{fmt.Sprintf(format, a...)})
}

func (s *stage) notef(format string, a ...any) {
	s.res.Notes = append(s.res.Notes, fmt.Sprintf(format, a...))
}

// caught runs f and gives the failure it ended with.
func caught(f func()) (text string) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			text = p.text
		default:
			panic(p)
		}
	}()
	f()
	return ""
}

func supervise(raw string) {
	s := &stage{dead: map[int]unix.WaitStatus{}}
	var r caseResult
	r.Failure = caught(func() {
		if err := json.Unmarshal([]byte(raw), &s.caseSpec); err != nil {
			s.failf("the case: %v", err)
		}
		i := slices.IndexFunc(apps, func(a *App) bool { return a.Name == s.App })
		if i < 0 {
			s.failf("no program %q", s.App)
		}
		s.app = apps[i]
		s.setUp()
		s.prepare()
		var want string
		for _, mode := range []string{"undisturbed", "once", "repeated"} {
			run := runResult{Name: mode}
			got := s.run(mode, &run)
			if s.late {
				// A machine that stood still for a moment says nothing about
				// the program.
				again := runResult{Name: mode, Notes: []string{"once more, after: " + run.Failure}}
				got = s.run(mode, &again)
				run = again
			}
			if run.Failure == "" && mode == "undisturbed" {
				want = got
			} else if run.Failure == "" && got != want {
				run.Failure = difference(want, got)
			}
			r.Runs = append(r.Runs, run)
			if run.Failure != "" && mode == "undisturbed" {
				break
			}
		}
	})
	s.endAll()
	json.NewEncoder(os.Stdout).Encode(r)
	os.Exit(0)
}

// setUp makes the supervisor's own surroundings.
func (s *stage) setUp() {
	if err := inherited.Drop(); err != nil {
		s.failf("%v", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		s.failf("child subreaper: %v", err)
	}
	s.hurry()
	if err := os.Mkdir(s.own(""), 0o755); err != nil {
		s.failf("%v", err)
	}
	if s.Isolated {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			s.failf("private mounts: %v", err)
		}
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			s.failf("proc: %v", err)
		}
		// Terminals of its own: their numbers are wanted back, too.
		if err := unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
			s.failf("devpts: %v", err)
		}
		// A busy disk holds up whoever creates and removes files for hundreds
		// of milliseconds, in which the program would come to its end.
		if err := unix.Mount("tmpfs", s.own(""), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			s.failf("tmpfs: %v", err)
		}
		if err := loopbackUp(); err != nil {
			s.failf("loopback: %v", err)
		}
	}
}

// own is the path of a file of the supervisor's: checkpoints, and what commands
// say.
func (s *stage) own(name string) string { return filepath.Join(s.Top, "own", name) }

// hurry gives the supervisor precedence over the programs, if it may: on a busy
// machine they would be at their end before it looks. Where the scheduler makes
// a group of each session (sched(7), "The autogroup feature"), nice values mean
// something inside a session only, and the group has one of its own.
func (s *stage) hurry() {
	_ = os.WriteFile("/proc/self/autogroup", []byte("-10"), 0)
	tids, _ := os.ReadDir("/proc/self/task")
	for _, t := range tids {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, tid, -10)
		}
	}
}

// loopbackUp brings up lo in a fresh network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// prepare fills the directory that every run gets a copy of.
func (s *stage) prepare() {
	s.Dir = filepath.Join(s.Top, "input")
	s.res = &runResult{}
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		s.failf("%v", err)
	}
	if _, err := os.Stat(s.Data); err == nil {
		if err := os.CopyFS(s.Dir, os.DirFS(s.Data)); err != nil {
			s.failf("%v", err)
		}
	}
	if s.app.Prepare != nil {
		s.app.Prepare(s)
	}
}

// run carries one run through and gives its result.
func (s *stage) run(mode string, res *runResult) (result string) {
	began := time.Now()
	s.mode, s.res, s.cycles, s.roots, s.late = mode, res, 0, nil, false
	clear(s.dead)
	// Always the same path, which some results name.
	s.Dir = filepath.Join(s.Top, "work")
	res.Failure = caught(func() {
		if err := os.RemoveAll(s.Dir); err != nil {
			s.failf("%v", err)
		}
		if err := os.CopyFS(s.Dir, os.DirFS(filepath.Join(s.Top, "input"))); err != nil {
			s.failf("%v", err)
		}
		drive := s.app.Drive
		if drive == nil {
			drive = byProgress
		}
		n := map[string]int{"undisturbed": 0, "once": 1, "repeated": s.Cycles}[mode]
		drive(s, n)
		if s.cycles != n {
			s.failf("%d checkpoints were made where %d were meant", s.cycles, n)
		}
		s.allGone()
		result = s.result()
	})
	res.Took = time.Since(began)
	if res.Failure != "" {
		res.Failure += s.said()
		s.endAll()
	}
	if res.Failure == "" || mode != "repeated" {
		if err := os.RemoveAll(s.Dir); err != nil && res.Failure == "" {
			res.Failure = err.Error()
		}
	}
	return result
}

// byProgress starts the program's command and checkpoints it at n points evenly
// spread over the first 70 % of its work: a checkpoint takes a moment to begin,
// and must find the program at work.
func byProgress(s *stage, n int) {
	progress := s.app.Progress
	if progress == nil {
		progress = func(s *stage) int { return strings.Count(s.read("progress"), "\n") }
	}
	root := s.start(s.app.Command...)
	s.roots = []int{root}
	last := 0
	for i := range n {
		at := max(last+1, s.total*(i+1)*7/(n+1)/10)
		s.await(fmt.Sprintf("progress %d of %d", at, s.total), func() bool {
			last = progress(s)
			if last >= at {
				return true
			}
			if st, ok := s.dead[root]; ok {
				s.late = st == 0
				s.failf("ended (%s) at progress %d of %d: before checkpoint %d", statusText(st), last, s.total, i+1)
			}
			return false
		})
		s.point()
	}
	st := s.awaitEnd(root)
	if s.mode == "undisturbed" {
		if st != 0 {
			s.failf("ended with %s", statusText(st))
		}
		if s.total = progress(s); s.total < 4*(s.Cycles+1) {
			s.failf("a progress of %d in all is too coarse for %d checkpoints", s.total, s.Cycles)
		}
	}
	s.note("status", statusText(st))
}

// point is one checkpoint, death and restore of the program as it stands.
func (s *stage) point() {
	s.cycles++
	img := s.own(fmt.Sprintf("%s-%d", s.mode, s.cycles))
	args := []string{s.Tool, "checkpoint", "--kill", "--to", img}
	for _, r := range s.roots {
		args = append(args, strconv.Itoa(r))
	}
	began := time.Now()
	t := s.tool(args...)
	s.res.Checkpoint = max(s.res.Checkpoint, time.Since(began))
	if t.status != 0 {
		// Not found: it has ended, and well.
		s.late = t.status.ExitStatus() == exitNotFound && s.ended()
		s.failf("checkpoint %d: %s\n%s", s.cycles, statusText(t.status), tail(t.stderr))
	}
	if t.stderr != "" {
		s.notef("checkpoint %d: %s", s.cycles, tail(t.stderr))
	}
	s.awaitDeath()
	began = time.Now()
	t = s.tool(s.Tool, "restore", "--detach", img)
	for try := 1; t.status.ExitStatus() == exitBusy && !s.Isolated && try < 20; try++ {
		// A stranger has the pid; perhaps not for long.
		time.Sleep(500 * time.Millisecond)
		t = s.tool(s.Tool, "restore", "--detach", img)
	}
	s.res.Restore = max(s.res.Restore, time.Since(began))
	if t.status != 0 {
		s.failf("restore %d: %s\n%s", s.cycles, statusText(t.status), tail(t.stderr))
	}
	if t.stderr != "" {
		s.notef("restore %d: %s", s.cycles, tail(t.stderr))
	}
	if err := os.RemoveAll(img); err != nil {
		s.failf("%v", err)
	}
}

// fermata's documented exit codes: no such process; a pid is taken.
const (
	exitNotFound = 4
	exitBusy     = 5
)

// ended tells whether the program's first process has come to a good end.
func (s *stage) ended() bool {
	s.drain()
	st, ok := s.dead[s.roots[0]]
	return ok && st == 0
}

// note keeps a fact that belongs to the result.
func (s *stage) note(name, fact string) {
	if err := os.WriteFile(filepath.Join(s.Dir, ".result-"+name), []byte(fact), 0o644); err != nil {
		s.failf("%v", err)
	}
}

// result is what the program produced.
func (s *stage) result() string {
	var b strings.Builder
	show := func(name string) {
		c, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			s.failf("no result: %v", err)
		}
		fmt.Fprintf(&b, "--- %s\n%s\n", name, c)
	}
	facts, _ := filepath.Glob(filepath.Join(s.Dir, ".result-*"))
	for _, f := range facts {
		show(filepath.Base(f))
	}
	for _, name := range append([]string{"stdout", "stderr"}, s.app.Results...) {
		if _, err := os.Stat(filepath.Join(s.Dir, name)); err != nil && (name == "stdout" || name == "stderr") {
			continue // a program that was started in another way
		}
		show(name)
	}
	if s.app.Result != nil {
		fmt.Fprintf(&b, "--- result\n%s\n", s.app.Result(s))
	}
	return b.String()
}

// difference shows where two results part.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := 0; i < max(len(w), len(g)); i++ {
		at := func(l []string) string {
			if i >= len(l) {
				return "(end)"
			}
			if len(l[i]) > 200 {
				return l[i][:200] + "..."
			}
			return l[i]
		}
		if at(w) != at(g) || i >= len(w) || i >= len(g) {
			from := func(l []string) string {
				if len(l) > i+14 {
					l = l[:i+14]
				}
				return strings.Join(l[min(i, len(l)):], "\n")
			}
			return fmt.Sprintf("the result is not that of the undisturbed run; from line %d on:\nundisturbed:\n%s\nrestored:\n%s", i+1, from(w), from(g))
		}
	}
	return "the results differ in length only"
}

// read gives a file of the program's directory, "" if it is not there.
func (s *stage) read(name string) string {
	b, _ := os.ReadFile(filepath.Join(s.Dir, name))
	return string(b)
}

// write makes a file in the program's directory.
func (s *stage) write(name string, content []byte) {
	if err := os.WriteFile(filepath.Join(s.Dir, name), content, 0o644); err != nil {
		s.failf("%v", err)
	}
}

// said shows what a failed program said.
func (s *stage) said() string {
	var b strings.Builder
	for _, n := range []string{"stdout", "stderr"} {
		if t := tail(s.read(n)); t != "" {
			fmt.Fprintf(&b, "\n--- %s:\n%s", n, t)
		}
	}
	return b.String()
}

// environment is the same for every run, wherever the tests are started.
func (s *stage) environment() []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" + s.Dir, "TMPDIR=" + s.Dir, "TERM=screen"}
}

// start starts a program as a user does from a shell, in a session of its own;
// its output goes to the files "stdout" and "stderr".
func (s *stage) start(args ...string) int {
	return s.launch(s.Dir, filepath.Join(s.Dir, "stdout"), filepath.Join(s.Dir, "stderr"), args...)
}

func (s *stage) launch(dir, stdout, stderr string, args ...string) int {
	var files []uintptr
	for i, name := range []string{os.DevNull, stdout, stderr} {
		flags := os.O_RDONLY
		if i > 0 {
			flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		}
		f, err := os.OpenFile(name, flags, 0o644)
		if err != nil {
			s.failf("%v", err)
		}
		defer f.Close()
		files = append(files, f.Fd())
	}
	path := args[0]
	if !strings.Contains(path, "/") {
		for _, d := range []string{"/usr/local/bin", "/usr/bin", "/bin"} {
			if unix.Access(filepath.Join(d, path), unix.X_OK) == nil {
				path = filepath.Join(d, path)
				break
			}
		}
	}
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Dir: dir, Env: s.environment(), Files: files,
		// fermata belongs to the supervisor, and has its precedence.
		Sys: &syscall.SysProcAttr{Setsid: args[0] != s.Tool},
	})
	if err != nil {
		s.failf("starting %s: %v", args[0], err)
	}
	if args[0] != s.Tool {
		_ = unix.Setpriority(unix.PRIO_PROCESS, pid, 0)
	}
	return pid
}

// command runs one to its successful end, and gives its stdout.
func (s *stage) command(args ...string) string {
	t := s.tool(args...)
	if t.status != 0 {
		s.failf("%s: %s\n%s%s", strings.Join(args, " "), statusText(t.status), tail(t.stdout), tail(t.stderr))
	}
	return t.stdout
}

// outcome is how a command ended.
type outcome struct {
	status         unix.WaitStatus
	stdout, stderr string
}

// tool runs a command in the program's directory, reaping whatever else ends
// meanwhile.
func (s *stage) tool(args ...string) (t outcome) {
	out, said := s.own("out"), s.own("err")
	pid := s.launch(s.Dir, out, said, args...)
	end := time.Now().Add(s.Deadline)
	for {
		s.drain()
		if st, ok := s.dead[pid]; ok {
			t.status = st
			delete(s.dead, pid)
			break
		}
		if time.Now().After(end) {
			where := s.whereabouts()
			unix.Kill(pid, unix.SIGKILL)
			b, _ := os.ReadFile(said)
			s.failf("%s: no end after %v\n%s\n%s", strings.Join(args, " "), s.Deadline, tail(string(b)), where)
		}
		time.Sleep(200 * time.Microsecond)
	}
	a, _ := os.ReadFile(out)
	b, _ := os.ReadFile(said)
	t.stdout, t.stderr = string(a), string(b)
	return t
}

// await waits for something to come true.
func (s *stage) await(what string, f func() bool) { s.awaitFor(s.Deadline, what, f) }

func (s *stage) awaitFor(long time.Duration, what string, f func() bool) {
	end := time.Now().Add(long)
	for {
		s.drain()
		if f() {
			return
		}
		if time.Now().After(end) {
			s.failf("no %s after %v:\n%s", what, long, s.whereabouts())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// awaitEnd waits for a process's end.
func (s *stage) awaitEnd(pid int) (st unix.WaitStatus) {
	// This may be all the work there is.
	s.awaitFor(4*s.Deadline, fmt.Sprintf("end of pid %d", pid), func() (ok bool) {
		st, ok = s.dead[pid]
		return ok
	})
	delete(s.dead, pid)
	return st
}

// drain takes every dead child there is. It reports false when there are no
// children at all.
func (s *stage) drain() bool {
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return false
		case pid == 0:
			return true
		default:
			s.dead[pid] = st
		}
	}
}

// awaitDeath waits for the end of the killed program: nothing at all is left.
func (s *stage) awaitDeath() {
	for end := time.Now().Add(s.Deadline); s.drain(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			s.failf("still there after its checkpoint with --kill:\n%s", s.whereabouts())
		}
	}
	for _, r := range s.roots {
		if st, ok := s.dead[r]; !ok || !st.Signaled() || st.Signal() != unix.SIGKILL {
			s.failf("pid %d ended otherwise than by the checkpoint's kill: %s", r, statusText(st))
		}
	}
	clear(s.dead)
}

// allGone checks that nothing is left of the program.
func (s *stage) allGone() {
	for end := time.Now().Add(2 * time.Second); s.drain(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.failf("tasks left behind:\n%s", s.whereabouts())
		}
	}
}

// endAll kills whatever is left.
func (s *stage) endAll() {
	for i := 0; s.drain() && i < 2000; i++ {
		for _, pid := range descendants(os.Getpid()) {
			unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
}

// whereabouts describes every task, for failures.
func (s *stage) whereabouts() string {
	var b strings.Builder
	for _, pid := range descendants(os.Getpid()) {
		tids, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for i, t := range tids {
			if i == 12 {
				fmt.Fprintf(&b, "  and %d more threads\n", len(tids)-i)
				break
			}
			dir := fmt.Sprintf("/proc/%d/task/%s/", pid, t.Name())
			read := func(name string) string {
				c, _ := os.ReadFile(dir + name)
				return strings.TrimSpace(string(c))
			}
			st := read("stat")
			if i := strings.LastIndex(st, ")"); i >= 0 && len(st) > i+2 {
				st = st[i+2:]
			}
			state := ""
			if f := strings.Fields(st); len(f) > 4 {
				state = fmt.Sprintf("%s ppid %s pgrp %s session %s", f[0], f[1], f[2], f[3])
			}
			fmt.Fprintf(&b, "  pid %d tid %s %s: %s; %s; syscall %s\n", pid, t.Name(), read("comm"), state, read("wchan"), read("syscall"))
		}
	}
	return b.String()
}

// descendants are the pids below one, parents first.
func descendants(pid int) []int {
	var all []int
	tids, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, t := range tids {
		kids, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for _, f := range strings.Fields(string(kids)) {
			if k, err := strconv.Atoi(f); err == nil {
				all = append(all, k)
				all = append(all, descendants(k)...)
			}
		}
	}
	return all
}

func statusText(st unix.WaitStatus) string {
	switch {
	case st.Signaled():
		return "killed by " + unix.SignalName(st.Signal())
	case st.Exited():
		return fmt.Sprintf("exit status %d", st.ExitStatus())
	}
	return fmt.Sprintf("status %#x", uint32(st))
}
