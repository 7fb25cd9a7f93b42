package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fermata-cr/fermata/internal/inherited"
	"golang.org/x/sys/unix"
)

// nobody is the uid and gid of the unprivileged user.
const nobody = 65534

func lockedLoop(c chan func()) {
	runtime.LockOSThread()
	for f := range c {
		f()
	}
}

// supervisor carries out one case. It is single-minded: one goroutine, and the
// only place that waits for children, since programs restored by a tool that
// has exited become its children like those it started itself.
type supervisor struct {
	spec   caseSpec
	engine engine
	dead   map[int]unix.WaitStatus
	notes  []string
	before view
	lost   time.Duration // for which the program was nothing but an image
	// checkpointed and restored are how long the last commands took.
	checkpointed, restored time.Duration
}

// failure ends a case from any depth.
type failure struct {
	text string
	busy bool
}

func supervise(raw string) {
	s := &supervisor{dead: map[int]unix.WaitStatus{}}
	r := caseResult{}
	func() {
		defer func() {
			switch p := recover().(type) {
			case nil:
			case failure:
				r.Failure, r.Busy = p.text, p.busy
			default:
				panic(p)
			}
		}()
		if err := json.Unmarshal([]byte(raw), &s.spec); err != nil {
			s.failf("the case: %v", err)
		}
		s.setUp()
		r.Skipped = s.run()
		r.OK = r.Skipped == ""
	}()
	r.Notes, r.Checkpoint, r.Restore = s.notes, s.checkpointed, s.restored
	if !r.OK && r.Skipped == "" {
		if log, err := os.ReadFile(filepath.Join(s.spec.Dir, "log")); err == nil && len(log) > 0 {
			r.Failure += "\nprogram's log: " + tail(string(log))
		}
	}
	s.endAll()
	json.NewEncoder(os.Stdout).Encode(r)
	os.Exit(0)
}

func (s *supervisor) failf(format string, a ...any) {
	panic(failure{text: fmt.Sprintf(format, a...)})
}

func (s *supervisor) notef(format string, a ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, a...))
}

// setUp makes the supervisor's own surroundings.
func (s *supervisor) setUp() {
	if err := inherited.Drop(); err != nil {
		s.failf("%v", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		s.failf("child subreaper: %v", err)
	}
	if s.spec.Isolated {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			s.failf("private mounts: %v", err)
		}
		// Terminals of its own: cases at the same time would take each other's numbers.
		if err := unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
			s.failf("terminals: %v", err)
		}
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			s.failf("proc: %v", err)
		}
		if err := loopbackUp(); err != nil {
			s.failf("loopback: %v", err)
		}
	}
	s.engine = newEngine(s)
}

// run is the case itself; it returns why the program cannot run here, if so.
func (s *supervisor) run() (skipped string) {
	sysv := s.sysv()
	if s.spec.Engine == "dmtcp" {
		return s.runDMTCP()
	}
	root := s.startProgram()
	if why := s.awaitReady(root); why != "" {
		return why
	}
	s.before = s.look()
	img := filepath.Join(s.spec.Img, "a")
	switch s.spec.Mode {
	case "none":
		time.Sleep(20 * time.Millisecond)
		s.compare("left alone")
	case "left":
		s.mustTool(s.engine.checkpoint(root, img, false))
		s.compare("after a checkpoint")
		if s.spec.Engine != "criu" {
			s.mustTool(s.snapshot(root, filepath.Join(s.spec.Img, "b")))
			s.compare("after a checkpoint from a snapshot")
		}
	case "snapshot":
		s.mustTool(s.snapshot(root, img))
		s.mustTool(s.engine.checkpoint(root, filepath.Join(s.spec.Img, "b"), true))
		s.awaitDeath(root)
		s.mustTool(s.engine.restore(root, img))
		s.compare("restored from a snapshot")
	case "refused":
		s.refused(root, img)
	case "restore", "lazy":
		s.cycle(root, img)
	case "twice":
		s.cycle(root, img)
		s.cycle(root, filepath.Join(s.spec.Img, "b"))
	case "chain":
		s.chain(root, img)
	case "tracked":
		s.tracked(root)
	case "copies":
		s.copies(root, img)
		return ""
	case "user":
		s.asUser(root, img)
		return ""
	case "mutate":
		if s.mutated(root, img) {
			return ""
		}
	default:
		s.failf("no mode %q", s.spec.Mode)
	}
	verdict, status := s.finish(root)
	if s.spec.Mode == "mutate" {
		if verdict == "PASS" && status == 0 {
			s.failf("the program passed although %s had been taken out of its image", s.spec.Mutation)
		}
		s.notef("without %s: %s", s.spec.Mutation, tail(verdict))
		return ""
	}
	if verdict != "PASS" {
		s.failf("%s", verdict)
	}
	if status != 0 {
		s.failf("the program passed, but exited with %s", statusText(status))
	}
	s.allGone()
	if now := s.sysv(); now != sysv {
		s.failf("SysV objects left behind:\n%s", now)
	}
	return ""
}

// startProgram starts the program as its user, in a session of its own, by the
// launcher's command line if there is one.
func (s *supervisor) startProgram(launcher ...string) int {
	log, err := os.OpenFile(filepath.Join(s.spec.Dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		s.failf("%v", err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.failf("%v", err)
	}
	defer null.Close()
	attr := &syscall.ProcAttr{
		Dir:   s.spec.Dir,
		Env:   []string{"PATH=/usr/bin:/bin", "LANG=C", "CONFORMANCE=1"},
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if s.peer() {
		attr.Env = append(attr.Env, "CONFORMANCE_EINTR=1")
	}
	if s.spec.Mode == "mutate" {
		attr.Env = append(attr.Env, "CONFORMANCE_PATIENCE_MS=1500")
	}
	if s.spec.User == "nobody" {
		if err := log.Chown(nobody, nobody); err != nil {
			s.failf("%v", err)
		}
		attr.Sys.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	argv := append(launcher, s.spec.Binary, s.spec.Dir)
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		s.failf("starting the program: %v", err)
	}
	return pid
}

// peer tells whether CRIU has a part in the case. It interrupts calls that
// fermata lets go on, and what it leaves out is no failure of ours.
func (s *supervisor) peer() bool {
	return s.spec.Engine == "criu" || s.spec.Engine == "dmtcp" || s.spec.Engine == "exchange" && (s.spec.Tool != s.spec.Restorer || s.spec.Tool == os.Getenv("CRIU"))
}

// awaitReady waits until the program's state is set up.
func (s *supervisor) awaitReady(root int) (skipped string) {
	for end := time.Now().Add(s.spec.Deadline); ; time.Sleep(time.Millisecond) {
		if s.exists("ready") {
			return ""
		}
		if st, ok := s.reaped(root); ok {
			v := s.verdict()
			if why, ok := strings.CutPrefix(v, "SKIP "); ok {
				return why
			}
			s.failf("ended before it was ready (%s): %s", statusText(st), v)
		}
		if time.Now().After(end) {
			s.failf("not ready after %v:\n%s", s.spec.Deadline, s.whereabouts())
		}
	}
}

// cycle is one checkpoint, death and restore.
func (s *supervisor) cycle(root int, img string) {
	t := s.engine.checkpoint(root, img, true)
	s.mustTool(t)
	s.checkpointed = t.took
	s.awaitDeath(root)
	s.pause()
	t = s.engine.restore(root, img)
	s.mustTool(t)
	s.restored = t.took
	if s.spec.Mode == "lazy" {
		s.awaitFilled()
	}
	s.compare("restored")
}

// chain restores a compressed checkpoint that builds upon a plain one that has
// gone, and another that builds upon that, made a full one before.
func (s *supervisor) chain(root int, first string) {
	s.mustTool(s.engine.checkpoint(root, first, false))
	second, third := filepath.Join(s.spec.Img, "b"), filepath.Join(s.spec.Img, "c")
	build := func(on, to, how string) {
		args := append([]string{s.spec.Tool, "checkpoint", "--to", to, "--parent", on, "--compress=" + how, "--kill"}, s.spec.Program.Checkpoint...)
		s.mustTool(s.command(append(args, itoa(root))...))
		s.awaitDeath(root)
		if err := os.RemoveAll(on); err != nil {
			s.failf("%v", err)
		}
		s.pause()
	}
	build(first, second, "fast")
	s.mustTool(s.engine.restore(root, second))
	s.compare("restored from a chain")
	build(second, third, "zstd")
	s.mustTool(s.command(s.spec.Tool, "squash", third))
	s.mustTool(s.engine.restore(root, third))
	s.compare("restored from a squashed chain")
}

// tracked makes a chain of checkpoints of a program that goes on, whose writes are
// tracked in between, the last one with --kill, and restores every one of them: each
// must find everything as it was. Where two runs of the program would meet in files
// only the last one is run to its end.
func (s *supervisor) tracked(root int) {
	names := []string{"a", "b", "c", "d"}
	dir := func(i int) string { return filepath.Join(s.spec.Img, names[i]) }
	for i := range names {
		args := append([]string{s.spec.Tool, "checkpoint", "--json", "--to", dir(i)}, s.spec.Program.Checkpoint...)
		want := "tracked"
		switch i {
		case 0:
			args, want = append(args, "--track"), "full"
		case 2:
			args = append(args, "--parent", dir(i-1), "--snapshot=always")
		case 3:
			args = append(args, "--parent", dir(i-1), "--kill")
		default:
			args = append(args, "--parent", dir(i-1))
		}
		t := s.command(append(args, itoa(root))...)
		t.stderr += t.stdout // of --json
		s.mustTool(t)
		var r struct{ Mode string }
		if err := json.Unmarshal([]byte(t.stdout), &r); err != nil || r.Mode != want && !strings.Contains(t.stdout, "is not tracked: it has a context of Linux AIO") {
			s.failf("checkpoint %s: not %s, but %s", names[i], want, t.stdout)
		}
		if i == len(names)-1 {
			break
		}
		tracking = true
		s.compare("while its writes are tracked")
		tracking = false
		time.Sleep(30 * time.Millisecond) // it may write
	}
	s.awaitDeath(root)
	for i := range names {
		if i < len(names)-1 && s.spec.Program.NoCopies != "" {
			continue
		}
		s.pause()
		s.mustTool(s.engine.restore(root, dir(i)))
		s.compare("restored: " + names[i])
		if i == len(names)-1 {
			return
		}
		log := filepath.Join(s.spec.Dir, "log")
		was, err := os.Stat(log)
		if err != nil {
			s.failf("%v", err)
		}
		if verdict, status := s.finish(root); verdict != "PASS" || status != 0 {
			s.failf("restored from %s: %s; %s", names[i], verdict, statusText(status))
		}
		s.allGone()
		err = errors.Join(os.Truncate(log, was.Size()), os.Chtimes(log, was.ModTime(), was.ModTime()))
		for _, f := range []string{"go", "verdict"} {
			err = errors.Join(err, os.Remove(filepath.Join(s.spec.Dir, f)))
		}
		if err != nil {
			s.failf("%v", err)
		}
	}
}

// keeper tells whether a process keeps the tracking of a program's writes: it is
// fermata's, and none of the program.
func keeper(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.HasPrefix(string(b), "fermata-keeper\x00")
}

// pause leaves a program that wants it dead for a while, and tells it for how
// long it was.
func (s *supervisor) pause() {
	if s.spec.Program.Pause == 0 {
		return
	}
	began := time.Now()
	time.Sleep(s.spec.Program.Pause)
	s.lost += time.Since(began)
	if err := os.WriteFile(filepath.Join(s.spec.Dir, "dead"), []byte(strconv.FormatInt(int64(s.lost), 10)), 0o644); err != nil {
		s.failf("%v", err)
	}
}

// copies restores two copies at once; both must find everything as it was. They
// share the program's directory, but not its memory.
func (s *supervisor) copies(root int, img string) {
	s.mustTool(s.engine.checkpoint(root, img, true))
	s.awaitDeath(root)
	t := s.engine.restore(root, img)
	s.mustTool(t)
	pids := strings.Fields(t.stdout)
	if len(pids) != 2 {
		s.failf("two copies, but %q", t.stdout)
	}
	for _, f := range pids {
		pid, err := strconv.Atoi(f)
		if err != nil {
			s.failf("%q is no pid", f)
		}
		verdict, status := s.finish(pid)
		if verdict != "PASS" || status != 0 {
			s.failf("copy %d: %s; %s", pid, verdict, statusText(status))
		}
	}
	s.allGone()
}

// asUser is a checkpoint and a restore by the user himself, without privilege:
// the pids are those of a new namespace. What he cannot save, and root can, is
// refused in words that say so.
func (s *supervisor) asUser(root int, img string) {
	t := s.engine.checkpoint(root, img, true)
	if want := s.spec.Program.User; want != "" {
		if t.status == 0 {
			s.awaitDeath(root)
			t = s.engine.restore(root, img)
		}
		if t.status == 0 || !strings.Contains(t.stderr, want) {
			s.failf("an ordinary user is not refused with %q, but: %s\n%s", want, statusText(t.status), t.stderr)
		}
		return
	}
	s.mustTool(t)
	s.awaitDeath(root)
	s.pause()
	t = s.engine.restore(root, img)
	s.mustTool(t)
	pid, err := strconv.Atoi(strings.TrimSpace(t.stdout))
	if err != nil {
		s.failf("%q is no pid", t.stdout)
	}
	if verdict, status := s.finish(pid); verdict != "PASS" || status != 0 {
		s.failf("%s; %s", verdict, statusText(status))
	}
	s.allGone()
}

// awaitFilled waits until nothing brings pages to the program any more.
func (s *supervisor) awaitFilled() {
	lazy := func() bool {
		return slices.ContainsFunc(descendants(os.Getpid()), func(pid int) bool {
			c, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			return strings.HasPrefix(string(c), "fermata-lazy")
		})
	}
	for end := time.Now().Add(s.spec.Deadline); s.drain() && lazy(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.failf("pages do not all come:\n%s", s.whereabouts())
		}
	}
}

// snapshot makes a checkpoint whose memory comes from snapshots, however little
// it is, and lets the program go on.
func (s *supervisor) snapshot(root int, img string) tool {
	args := append([]string{s.spec.Tool, "checkpoint", "--to", img, "--snapshot=always"}, s.spec.Program.Checkpoint...)
	t := s.command(append(args, itoa(root))...)
	if t.status == 0 && strings.Contains(t.stderr, "stood still") {
		s.notef("no snapshot: %s", tail(t.stderr))
	}
	return t
}

// mutated is cycle with a part of the image taken out; it reports whether the
// restore was refused.
func (s *supervisor) mutated(root int, img string) bool {
	s.mustTool(s.engine.checkpoint(root, img, true))
	s.awaitDeath(root)
	n, err := s.engine.mutate(img, s.spec.Mutation)
	if err != nil {
		s.failf("mutation %s: %v", s.spec.Mutation, err)
	}
	if n == 0 {
		s.failf("mutation %s: the image has nothing of the kind", s.spec.Mutation)
	}
	s.pause()
	t := s.engine.restore(root, img)
	if t.status != 0 {
		if strings.TrimSpace(t.stderr) == "" {
			s.failf("restore without %s failed (%s) and said nothing", s.spec.Mutation, statusText(t.status))
		}
		s.allGone()
		s.notef("restore without %s is refused: %s", s.spec.Mutation, tail(t.stderr))
		return true
	}
	return false
}

// refused checks a refusal, with --kill and where a snapshot of the memory would
// be made: its words, that nothing was written, and that the program can't tell.
func (s *supervisor) refused(root int, img string) {
	for _, t := range []tool{s.engine.checkpoint(root, img, true), s.snapshot(root, img)} {
		switch {
		case t.status == 0:
			s.failf("the checkpoint was made, but should have been refused with %q", s.spec.Program.Refused)
		case !strings.Contains(t.stderr, s.spec.Program.Refused):
			s.failf("the refusal does not say %q, but:\n%s", s.spec.Program.Refused, t.stderr)
		}
	}
	left, err := os.ReadDir(s.spec.Img)
	if err != nil {
		s.failf("%v", err)
	}
	if len(left) > 0 {
		s.failf("a refused checkpoint left %s", left[0].Name())
	}
	s.compare("after a refused checkpoint")
}

// finish says go and waits for the verdict and the program's end.
func (s *supervisor) finish(root int) (string, unix.WaitStatus) {
	if err := os.WriteFile(filepath.Join(s.spec.Dir, "go"), nil, 0o644); err != nil {
		s.failf("%v", err)
	}
	deadline := s.spec.Deadline
	if s.spec.Mode == "mutate" && deadline > 8*time.Second {
		deadline = 8 * time.Second // a program without its state may well hang
	}
	for end := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) {
		if st, ok := s.reaped(root); ok {
			v := s.verdict()
			if v == "" {
				v = "ended without a verdict: " + statusText(st)
			}
			return v, st
		}
		if v := s.verdict(); v != "" && v != "PASS" {
			return v, 0
		}
		if time.Now().After(end) {
			why := fmt.Sprintf("no end %v after go; verdict %q", deadline, s.verdict())
			if s.spec.Mode != "mutate" {
				why += "\n" + s.whereabouts()
			}
			return why, 0
		}
	}
}

func (s *supervisor) exists(name string) bool {
	_, err := os.Stat(filepath.Join(s.spec.Dir, name))
	return err == nil
}

func (s *supervisor) verdict() string {
	b, _ := os.ReadFile(filepath.Join(s.spec.Dir, "verdict"))
	return string(b)
}

// family are the processes of the case, parents first, but for one that the
// program has put outside its tree (conf_outside), and keepers.
func (s *supervisor) family() []int {
	return slices.DeleteFunc(descendants(os.Getpid()), func(pid int) bool { return pid == s.outside() || keeper(pid) })
}

// outside is the pid of the process outside the tree, 0 when there is none.
func (s *supervisor) outside() int {
	b, err := os.ReadFile(filepath.Join(s.spec.Dir, "outside"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// drain takes every dead child there is. It reports false when there are no
// children at all, but for one outside the tree.
func (s *supervisor) drain() bool {
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return false
		case pid == 0:
			return s.outside() == 0 || len(s.family()) > 0
		default:
			s.dead[pid] = st
		}
	}
}

// reaped reports a child's end, once.
func (s *supervisor) reaped(pid int) (unix.WaitStatus, bool) {
	s.drain()
	st, ok := s.dead[pid]
	delete(s.dead, pid)
	return st, ok
}

// awaitDeath waits for the end of the killed tree.
func (s *supervisor) awaitDeath(root int) {
	for end := time.Now().Add(s.spec.Deadline); s.drain(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			s.failf("still there after its checkpoint with --kill:\n%s", s.whereabouts())
		}
	}
	if _, ok := s.dead[root]; !ok {
		s.failf("pid %d was never reaped by its parent", root)
	}
	clear(s.dead)
}

// allGone checks that nothing is left of the program.
func (s *supervisor) allGone() {
	for end := time.Now().Add(20 * time.Second); s.drain(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.failf("tasks left behind:\n%s", s.whereabouts())
		}
	}
}

// endAll kills whatever the case still has.
func (s *supervisor) endAll() {
	os.Remove(filepath.Join(s.spec.Dir, "outside")) // which ends with the others
	for i := 0; s.drain() && i < 2000; i++ {
		for _, pid := range descendants(os.Getpid()) {
			unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
}

// whereabouts describes every task of the case, for failures.
func (s *supervisor) whereabouts() string {
	var b strings.Builder
	for _, pid := range descendants(os.Getpid()) {
		tids, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, t := range tids {
			dir := fmt.Sprintf("/proc/%d/task/%s/", pid, t.Name())
			read := func(name string) string {
				c, _ := os.ReadFile(dir + name)
				return strings.TrimSpace(string(c))
			}
			st := read("stat")
			if i := strings.LastIndex(st, ")"); i >= 0 && len(st) > i+2 {
				st = st[i+2:]
			}
			f := strings.Fields(st)
			state := ""
			if len(f) > 4 {
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

// sysv is what the ipc namespace holds; empty without one of our own.
func (s *supervisor) sysv() string {
	if !s.spec.Isolated {
		return ""
	}
	var b strings.Builder
	for _, n := range []string{"shm", "sem", "msg"} {
		c, _ := os.ReadFile("/proc/sysvipc/" + n)
		_, rest, _ := strings.Cut(string(c), "\n")
		b.WriteString(rest)
	}
	return b.String()
}

// tool is how a command ended.
type tool struct {
	args   []string
	status unix.WaitStatus
	stdout string
	stderr string
	busy   bool
	took   time.Duration
}

// command runs one to its end, reaping whatever else ends meanwhile.
func (s *supervisor) command(args ...string) tool {
	t := tool{args: args}
	dir, err := os.MkdirTemp(filepath.Dir(s.spec.Dir), "tool")
	if err != nil {
		s.failf("%v", err)
	}
	defer os.RemoveAll(dir)
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.failf("%v", err)
	}
	defer null.Close()
	stdout, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		s.failf("%v", err)
	}
	defer stdout.Close()
	stderr, err := os.Create(filepath.Join(dir, "err"))
	if err != nil {
		s.failf("%v", err)
	}
	defer stderr.Close()
	began := time.Now()
	attr := &syscall.ProcAttr{
		Dir: dir, Env: os.Environ(), Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if s.spec.Mode == "user" {
		attr.Dir = s.spec.Img
		attr.Sys.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	pid, err := syscall.ForkExec(args[0], args, attr)
	if err != nil {
		s.failf("%s: %v", args[0], err)
	}
	for end := time.Now().Add(s.spec.Deadline); ; time.Sleep(200 * time.Microsecond) {
		if st, ok := s.reaped(pid); ok {
			t.status, t.took = st, time.Since(began)
			break
		}
		if time.Now().After(end) {
			where := s.whereabouts()
			unix.Kill(pid, unix.SIGKILL)
			said, _ := os.ReadFile(stderr.Name())
			s.failf("%s: no end after %v\n%s\n%s", strings.Join(args, " "), s.spec.Deadline, tail(string(said)), where)
		}
	}
	out, _ := os.ReadFile(stdout.Name())
	said, _ := os.ReadFile(stderr.Name())
	t.stdout, t.stderr = string(out), string(said)
	return t
}

// mustTool fails the case unless the command succeeded.
func (s *supervisor) mustTool(t tool) {
	if t.status == 0 {
		return
	}
	panic(failure{
		text: fmt.Sprintf("%s: %s\n%s", strings.Join(t.args, " "), statusText(t.status), tail(t.stderr)),
		busy: t.busy,
	})
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

// tail is the end of a text, some lines of it.
func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return strings.Join(lines, "\n")
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
