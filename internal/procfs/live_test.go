package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// These tests hold the readers against what the running kernel says by other
// ways: system calls of this process, and the text of the files themselves.

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// locked gives the test a thread of its own, which dies with it.
func locked(t *testing.T) (tid int) {
	runtime.LockOSThread()
	return syscall.Gettid()
}

func TestSelf(t *testing.T) {
	tid, pid := locked(t), os.Getpid()
	const name = "b) \\Z\n 1 (2"
	if err := os.WriteFile("/proc/thread-self/comm", []byte(name), 0); err != nil {
		t.Fatal(err)
	}
	umask := syscall.Umask(0o31)
	st, err := ReadStat(pid, tid)
	su, err2 := ReadStatus(pid, tid)
	syscall.Umask(umask)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	if st.Comm != name || su.Name != name {
		t.Errorf("name: stat %q, status %q, want %q", st.Comm, su.Name, name)
	}
	if c, err := ReadComm(pid, tid); err != nil || c != name {
		t.Errorf("comm: %q, %v", c, err)
	}
	sid, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
	if st.Pid != tid || su.Pid != tid || su.Tgid != pid || st.PPid != os.Getppid() || su.PPid != os.Getppid() ||
		st.Pgrp != syscall.Getpgrp() || st.Session != int(sid) || su.NSpid[0] != tid || su.NStgid[0] != pid ||
		su.NSpgid[0] != st.Pgrp || su.NSsid[0] != st.Session {
		t.Errorf("ids: %+v %+v", st, su)
	}
	if !su.HasUmask || su.Umask != 0o31 {
		t.Errorf("umask %o", su.Umask)
	}
	if st.State != 'R' || su.State != 'R' || su.Uid[0] != uint32(os.Getuid()) || su.Gid[1] != uint32(os.Getegid()) {
		t.Errorf("%+v", su)
	}
	groups := must(t, must2(os.Getgroups()), nil)
	if len(groups) != len(su.Groups) {
		t.Errorf("groups %v, want %v", su.Groups, groups)
	}
	tasks := must(t, must2(ReadTasks(pid)), nil)
	if !slices.Contains(tasks, tid) || !slices.IsSorted(tasks) || !slices.Contains(tasks, pid) {
		t.Errorf("tasks %v without %d or %d", tasks, tid, pid)
	}
	if st, err := ReadStat(pid, 0); err != nil || st.Pid != pid || st.ExitSignal != int(syscall.SIGCHLD) {
		t.Errorf("process: %+v, %v", st, err)
	}
	if st.ExitSignal != -1 && tid != pid {
		t.Errorf("exit signal of a thread: %d", st.ExitSignal)
	}

	auxv := must(t, must2(ReadAuxv(pid)), nil)
	want := map[uint64]uint64{6: uint64(os.Getpagesize()), 11: uint64(os.Getuid()), 17: 100}
	for i := 0; i+1 < len(auxv); i += 2 {
		if v, ok := want[auxv[i]]; ok && v == auxv[i+1] {
			delete(want, auxv[i])
		}
	}
	if len(want) != 0 || len(auxv) < 2 || auxv[len(auxv)-2] != 0 {
		t.Errorf("auxv %v lacks %v", auxv, want)
	}
	if args := must(t, must2(ReadCmdline(pid)), nil); !slices.Equal(args, os.Args) {
		t.Errorf("cmdline %q, want %q", args, os.Args)
	}
	exe, err := ReadExe(pid, 0)
	if want, err2 := os.Executable(); err != nil || err2 != nil || exe != want {
		t.Errorf("exe %q, %v", exe, err)
	}
	wd, _ := os.Getwd()
	if cwd, err := ReadCwd(pid, tid); err != nil || cwd != wd {
		t.Errorf("cwd %q, %v", cwd, err)
	}
	if root, err := ReadRoot(pid, tid); err != nil || root != "/" {
		t.Errorf("root %q, %v", root, err)
	}
	ns := must(t, must2(ReadNamespaces(pid, tid)), nil)
	for _, kind := range []string{"mnt", "pid", "user", "net"} {
		var sb syscall.Stat_t
		if err := syscall.Stat("/proc/self/ns/"+kind, &sb); err != nil || sb.Ino != ns[kind] || sb.Ino == 0 {
			t.Errorf("namespace %s: %d, want %d", kind, ns[kind], sb.Ino)
		}
	}
}

// must2 packs two results, so that they can be an argument.
func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSelfAttributes(t *testing.T) {
	tid, pid := locked(t), os.Getpid()
	text := func(name string) string {
		return strings.TrimSpace(string(must2(os.ReadFile("/proc/thread-self/" + name))))
	}
	if v, err := ReadOOMScoreAdj(pid); err != nil || fmt.Sprint(v) != text("oom_score_adj") {
		t.Error("oom_score_adj:", v, err)
	}
	if v, err := ReadPersonality(pid, tid); err != nil || fmt.Sprintf("%08x", v) != text("personality") {
		t.Error("personality:", v, err)
	}
	const prSetTimerslack = 29
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerslack, 77777, 0); e != 0 {
		t.Fatal(e)
	}
	if v, err := ReadTimerSlack(tid); err != nil || v != 77777 {
		t.Error("timer slack:", v, err)
	}
	if v, err := ReadCoredumpFilter(pid); err != nil || fmt.Sprintf("%08x", v) != strings.TrimSpace(string(must2(os.ReadFile("/proc/self/coredump_filter")))) {
		t.Error("coredump_filter:", v, err)
	}
	if v, err := ReadLoginUID(pid); isAbsent(err) {
		t.Log("no loginuid in this kernel")
	} else if err != nil || fmt.Sprint(v) != text("loginuid") {
		t.Error("loginuid:", v, err)
	}
	if v, err := ReadAutogroup(pid); isAbsent(err) {
		t.Log("no autogroup in this kernel")
	} else if err != nil || v.Present && !strings.HasPrefix(string(must2(os.ReadFile("/proc/self/autogroup"))), fmt.Sprintf("/autogroup-%d nice %d\n", v.ID, v.Nice)) {
		t.Error("autogroup:", v, err)
	}
	if v, err := ReadCgroup(pid, tid); err != nil || lines(v, renderCgroup) != text("cgroup")+"\n" {
		t.Errorf("cgroup: %+v, %v", v, err)
	}
	if v, err := ReadTimensOffsets(pid); err != nil {
		t.Errorf("timens: %+v, %v", v, err)
	}
	mounts, err := ReadMountInfo(pid)
	if err != nil || len(mounts) == 0 || lines(mounts, renderMount) != string(must2(os.ReadFile("/proc/self/mountinfo"))) {
		t.Errorf("mountinfo: %+v, %v", mounts, err)
	}
	if c, err := ReadSyscall(pid, tid); err != nil || c.Running || c.Nr != syscall.SYS_READ || c.Args[2] < 4096 || c.SP == 0 {
		t.Errorf("syscall of the reader itself: %+v, %v", c, err)
	}
	if timers, err := ReadTimers(pid); err != nil {
		t.Error("timers:", timers, err)
	}
	before, err := ReadSchedExecStart(pid, tid)
	if isAbsent(err) {
		t.Skip("no sched file in this kernel")
	}
	for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); {
	}
	after, err2 := ReadSchedExecStart(pid, tid)
	if err != nil || err2 != nil || after <= before || after-before > int64(10*time.Second) {
		t.Errorf("exec_start %d, then %d: %v %v", before, after, err, err2)
	}
}

// TestMapsLive maps files of awkward names, and enough areas that the text
// needs many reads and a larger buffer.
func TestMapsLive(t *testing.T) {
	dir := must(t, must2(filepath.EvalSymlinks(t.TempDir())), nil)
	want := map[string]VMA{}
	for name, unlink := range map[string]bool{"n\nl": false, "gone": true, "odd (deleted)": true, " blank ": false, `back\slash`: false} {
		path := filepath.Join(dir, name)
		f := must(t, must2(os.Create(path)), nil)
		f.Truncate(1 << 16)
		b := must(t, must2(syscall.Mmap(int(f.Fd()), 4096*4, 1<<14, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)), nil)
		defer syscall.Munmap(b)
		var sb syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &sb); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if unlink {
			os.Remove(path)
		}
		want[path] = VMA{Offset: 1 << 14, Ino: sb.Ino, Path: path, DevMajor: uint32(sb.Dev >> 8 & 0xfff), DevMinor: uint32(sb.Dev & 0xff),
			Read: true, Write: true, Shared: true, Deleted: unlink, Escaped: strings.Contains(name, "\n")}
	}
	const areas = 3000
	big := must(t, must2(syscall.Mmap(-1, 0, areas*2*4096, syscall.PROT_READ, syscall.MAP_PRIVATE|syscall.MAP_ANON)), nil)
	defer syscall.Munmap(big)
	for i := range areas {
		if err := syscall.Mprotect(big[i*2*4096:(i*2+1)*4096], syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}

	// The runtime may map something between two looks.
	var maps []VMA
	for range 20 {
		text := must2(os.ReadFile("/proc/self/maps"))
		maps = must(t, must2(ReadMaps(os.Getpid())), nil)
		smaps := must(t, must2(ReadSmapsFlags(os.Getpid())), nil)
		again := must2(os.ReadFile("/proc/self/maps"))
		if string(text) != string(again) {
			continue
		}
		if got := lines(maps, renderVMA); got != string(text) {
			t.Error("maps differ from the file")
		}
		if len(maps) != len(smaps) || len(maps) < 2*areas {
			t.Fatalf("%d areas in maps, %d in smaps", len(maps), len(smaps))
		}
		for i := range maps {
			s := &smaps[i]
			if maps[i] != s.VMA || maps[i].Read != s.Flags.Has(VMRead) && maps[i].Start>>63 == 0 || maps[i].Shared != s.Flags.Has(VMMayShare) ||
				s.KernelPageSize != uint64(os.Getpagesize()) && !s.Flags.Has(VMHugeTLB) || s.Flags.Has(VMUnknown) {
				t.Fatalf("%+v\n%+v %v", maps[i], s, s.Flags)
			}
		}
		break
	}
	for _, v := range maps {
		w, ok := want[v.Path]
		if !ok || v.Offset != 1<<14 {
			continue
		}
		if w.Start, w.End = v.Start, v.Start+4096*4; v != w {
			t.Errorf("\n got %+v\nwant %+v", v, w)
		}
		delete(want, v.Path)
	}
	if len(want) != 0 {
		t.Errorf("not found: %v", want)
	}
}

func TestDescriptorsLive(t *testing.T) {
	tid, pid := locked(t), os.Getpid()
	path := filepath.Join(must2(filepath.EvalSymlinks(t.TempDir())), "file")
	f := must(t, must2(os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)), nil)
	defer f.Close()
	f.WriteString("1234567")
	fd := int(f.Fd())
	var sb syscall.Stat_t
	syscall.Fstat(fd, &sb)
	info, err := ReadFDInfo(pid, fd)
	if err != nil || info.Pos != 7 || info.Flags&syscall.O_APPEND == 0 || info.Flags&syscall.O_CLOEXEC == 0 ||
		info.Flags&syscall.O_ACCMODE != syscall.O_RDWR || info.Ino != sb.Ino || info.Locks != nil || info.Extra != nil {
		t.Errorf("file: %+v, %v", info, err)
	}
	mounts := must(t, must2(ReadMountInfo(pid)), nil)
	if !slices.ContainsFunc(mounts, func(m Mount) bool { return m.ID == info.MntID }) {
		t.Errorf("mount %d is not in mountinfo", info.MntID)
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := syscall.FcntlFlock(uintptr(fd), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_RDLCK, Start: 2, Len: 3}); err != nil {
		t.Fatal(err)
	}
	info, err = ReadFDInfo(pid, fd)
	locks := must(t, must2(ReadLocks()), nil)
	for _, from := range [][]Lock{info.Locks, locks} {
		var mine []Lock
		for _, l := range from {
			if l.ID = 0; l.Ino == sb.Ino {
				mine = append(mine, l)
			}
		}
		slices.SortFunc(mine, func(a, b Lock) int { return int(a.Kind) - int(b.Kind) })
		w := Lock{Kind: LockPosix, State: "ADVISORY", Mode: LockRead, PID: pid, DevMajor: uint32(sb.Dev >> 8 & 0xfff),
			DevMinor: uint32(sb.Dev & 0xff), Ino: sb.Ino, Start: 2, End: 4}
		w2 := w
		w2.Kind, w2.Mode, w2.Start, w2.End = LockFlock, LockWrite, 0, EndOfFile
		if !reflect.DeepEqual(mine, []Lock{w, w2}) {
			t.Errorf("locks: %+v\nwant %+v", mine, []Lock{w, w2})
		}
	}

	efd, _, e := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC, 0)
	if e != 0 {
		t.Fatal(e)
	}
	defer syscall.Close(int(efd))
	syscall.Write(int(efd), []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	info, err = ReadFDInfo(pid, int(efd))
	if err != nil || info.Eventfd == nil || info.Eventfd.Count != 1<<64-2 || info.Eventfd.Semaphore {
		t.Errorf("eventfd: %+v %v", info.Eventfd, err)
	}
	ep := must(t, must2(syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)), nil)
	defer syscall.Close(ep)
	syscall.EpollCtl(ep, syscall.EPOLL_CTL_ADD, int(efd), &syscall.EpollEvent{Events: syscall.EPOLLIN | 1<<31, Fd: -2, Pad: 0x12345678})
	info, err = ReadFDInfo(pid, ep)
	if err != nil || len(info.Epoll) != 1 || info.Epoll[0].FD != int(efd) || info.Epoll[0].Data != 0x12345678_fffffffe ||
		info.Epoll[0].Events&^(syscall.EPOLLERR|syscall.EPOLLHUP) != 1<<31|syscall.EPOLLIN {
		t.Errorf("epoll: %+v %v", info.Epoll, err)
	}
	in := must(t, must2(syscall.InotifyInit1(syscall.IN_CLOEXEC)), nil)
	defer syscall.Close(in)
	wd := must(t, must2(syscall.InotifyAddWatch(in, path, syscall.IN_MODIFY|syscall.IN_DELETE_SELF)), nil)
	info, err = ReadFDInfo(pid, in)
	if err != nil || len(info.Inotify) != 1 || info.Inotify[0].WD != wd || info.Inotify[0].Ino != sb.Ino ||
		info.Inotify[0].Mask != syscall.IN_MODIFY|syscall.IN_DELETE_SELF || len(info.Inotify[0].Handle.Data) == 0 {
		t.Errorf("inotify: %+v %v", info.Inotify, err)
	}

	for n, want := range map[int]string{fd: path, int(efd): "anon_inode:[eventfd]", ep: "anon_inode:[eventpoll]", in: "anon_inode:inotify"} {
		if got, err := ReadLink(pid, n); err != nil || got != want && strings.Trim(got, "[]") != want {
			t.Errorf("link of %d: %q, %v; want %q", n, got, err, want)
		}
	}
	os.Remove(path)
	link := must(t, must2(ReadTaskLink(pid, tid, fd)), nil)
	if p, deleted := TrimDeleted(link); p != path || !deleted {
		t.Errorf("deleted: %q", link)
	}

	// Many descriptors, so that the directory needs several reads.
	high := []int{}
	for range 2000 {
		n, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		high = append(high, n)
	}
	fds := must(t, must2(ReadFDs(pid)), nil)
	for _, n := range append(high, fd, ep, in) {
		if _, ok := slices.BinarySearch(fds, n); !ok {
			t.Fatalf("descriptor %d is missing", n)
		}
	}
	if !slices.IsSorted(fds) || len(fds) > len(high)+100 {
		t.Error(len(fds), "descriptors, sorted:", slices.IsSorted(fds))
	}
	if more := must(t, must2(ReadTaskFDs(pid, tid)), nil); len(more) != len(fds) {
		t.Error(len(more), "descriptors of the thread,", len(fds), "of the process")
	}
	for _, n := range high {
		syscall.Close(n)
	}
	for _, err := range []error{second(ReadFDInfo(pid, high[0])), second(ReadLink(pid, high[0]))} {
		if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrGone) {
			t.Errorf("a closed descriptor of a live task: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// readers are all readers of a task's files.
var readers = map[string]func(pid int) error{
	"stat":            func(p int) error { return second(ReadStat(p, 0)) },
	"thread stat":     func(p int) error { return second(ReadStat(p, p)) },
	"status":          func(p int) error { return second(ReadStatus(p, 0)) },
	"maps":            func(p int) error { return second(ReadMaps(p)) },
	"smaps":           func(p int) error { return second(ReadSmapsFlags(p)) },
	"children":        func(p int) error { return second(ReadChildren(p, 0)) },
	"tasks":           func(p int) error { return second(ReadTasks(p)) },
	"fds":             func(p int) error { return second(ReadFDs(p)) },
	"link":            func(p int) error { return second(ReadLink(p, 0)) },
	"fdinfo":          func(p int) error { return second(ReadFDInfo(p, 0)) },
	"timers":          func(p int) error { return second(ReadTimers(p)) },
	"mountinfo":       func(p int) error { return second(ReadMountInfo(p)) },
	"cmdline":         func(p int) error { return second(ReadCmdline(p)) },
	"comm":            func(p int) error { return second(ReadComm(p, p)) },
	"auxv":            func(p int) error { return second(ReadAuxv(p)) },
	"cgroup":          func(p int) error { return second(ReadCgroup(p, p)) },
	"syscall":         func(p int) error { return second(ReadSyscall(p, p)) },
	"sched":           func(p int) error { return second(ReadSchedExecStart(p, p)) },
	"oom_score_adj":   func(p int) error { return second(ReadOOMScoreAdj(p)) },
	"loginuid":        func(p int) error { return second(ReadLoginUID(p)) },
	"personality":     func(p int) error { return second(ReadPersonality(p, p)) },
	"timerslack":      func(p int) error { return second(ReadTimerSlack(p)) },
	"autogroup":       func(p int) error { return second(ReadAutogroup(p)) },
	"coredump_filter": func(p int) error { return second(ReadCoredumpFilter(p)) },
	"timens_offsets":  func(p int) error { return second(ReadTimensOffsets(p)) },
	"namespaces":      func(p int) error { return second(ReadNamespaces(p, p)) },
	"exe":             func(p int) error { return second(ReadExe(p, p)) },
	"cwd":             func(p int) error { return second(ReadCwd(p, 0)) },
	"root":            func(p int) error { return second(ReadRoot(p, 0)) },
}

// TestLifeOfATask follows a child from life to death to nothing.
func TestLifeOfATask(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	cmd.Stdin = strings.NewReader("")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer cmd.Process.Kill()

	state := func(want byte) Stat {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			st, err := ReadStat(pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			if st.State == want && (want == 'Z' || st.Comm == "sleep") {
				return st
			}
			if time.Now().After(end) {
				t.Fatalf("%c, want %c", st.State, want)
			}
		}
	}
	st := state('S')
	if st.PPid != os.Getpid() || st.ArgStart == 0 || st.StartStack == 0 || st.StartTime == 0 {
		t.Errorf("%+v", st)
	}
	var children []int
	for _, tid := range must2(ReadTasks(os.Getpid())) {
		children = append(children, must2(ReadChildren(os.Getpid(), tid))...)
	}
	if !slices.Contains(children, pid) {
		t.Errorf("children %v without %d", children, pid)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := ReadSyscall(pid, pid)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Running && c.Nr > 0 && c.SP != 0 && c.PC != 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", c)
		}
	}
	optional := map[string]bool{"sched": true, "loginuid": true, "autogroup": true}
	// Without privilege the slack is closed, and a zombie, which counts as not
	// dumpable, more.
	user := os.Geteuid() != 0
	for name, read := range readers {
		if err := read(pid); err != nil && !(optional[name] && isAbsent(err)) && !(user && name == "timerslack" && errors.Is(err, fs.ErrPermission)) {
			t.Errorf("%s of a live task: %v", name, err)
		}
	}
	if exe := must(t, must2(ReadExe(pid, 0)), nil); filepath.Base(exe) != "sleep" && filepath.Base(exe) != "coreutils" && filepath.Base(exe) != "busybox" {
		t.Error("exe:", exe)
	}

	// A zombie: no address space, no descriptors, no file system.
	cmd.Process.Kill()
	if st := state('Z'); st.ExitCode != int(syscall.SIGKILL) {
		t.Errorf("exit code of the zombie: %#x", st.ExitCode)
	}
	su, err := ReadStatus(pid, 0)
	if err != nil || su.HasMM || su.HasUmask || su.State != 'Z' {
		t.Errorf("zombie: %+v %v", su, err)
	}
	for name, err := range map[string]error{
		"maps": second(ReadMaps(pid)), "smaps": second(ReadSmapsFlags(pid)), "auxv": second(ReadAuxv(pid)), "fds": second(ReadFDs(pid)),
		"cmdline": second(ReadCmdline(pid)), "timers": second(ReadTimers(pid)), "stat": second(ReadStat(pid, pid)), "children": second(ReadChildren(pid, 0)),
	} {
		if err != nil && !(user && (name == "auxv" || name == "fds") && errors.Is(err, fs.ErrPermission)) {
			t.Errorf("%s of a zombie: %v", name, err)
		}
	}
	if v := must(t, must2(ReadMaps(pid)), nil); v != nil {
		t.Errorf("areas of a zombie: %v", v)
	}
	if _, err := ReadCoredumpFilter(pid); !errors.Is(err, ErrNoMM) {
		t.Errorf("coredump_filter of a zombie: %v", err)
	}
	for name, read := range readers {
		if err := read(pid); errors.Is(err, ErrGone) {
			t.Errorf("%s of a zombie: %v", name, err)
		}
	}

	cmd.Wait()
	for name, read := range readers {
		err := read(pid)
		if !errors.Is(err, ErrGone) || !IsGone(err) || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s of a task that is gone: %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprint(pid)) {
			t.Errorf("%s: the error does not say whose: %v", name, err)
		}
	}
}

// TestDeathBetween opens files of a living task and reads them when it is gone.
func TestDeathBetween(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	open := map[string]int{}
	for _, name := range []string{"stat", "status", "maps", "comm", "cgroup", "timers", "mountinfo"} {
		fd, err := openRead(path(pid, 0, name), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		open[name] = fd
	}
	cmd.Process.Kill()
	cmd.Wait()
	buf := make([]byte, 0, 4096)
	for name, fd := range open {
		err := slurpFD(fd, stream, &buf)
		if err == nil {
			continue // what the file holds is still there: maps, mountinfo
		}
		if err := taskError(pid, 0, name, err); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadStat(os.Getpid(), pid); !errors.Is(err, ErrGone) {
		t.Errorf("a thread that is not of the process: %v", err)
	}
}

// TestReaderGrows reads a file that is longer than the buffer, from a buffer
// that is filled exactly, and one that must not keep what it held.
func TestReaderGrows(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	for _, n := range []int{0, 1, 4095, 4096, 4097, 8192, 16384, 100000} {
		want := strings.Repeat("x", n)
		if err := os.WriteFile(name, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 100, 4096, 8192, 1 << 17} {
			for _, sh := range []shape{whole, stream} {
				buf := append(make([]byte, 0, size+4), "left"...)
				if err := slurp(name, sh, &buf); err != nil || string(buf) != want {
					t.Errorf("%d bytes into %d: got %d, %v", n, size, len(buf), err)
				}
			}
		}
	}
}

// TestNumbersSorted lists a directory whose order is not numeric.
func TestNumbersSorted(t *testing.T) {
	dir := t.TempDir()
	var want []int
	for i := range 1500 {
		n := i * 7
		want = append(want, n)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"x", "5x", "-5", "2147483648", "99999999999999999999"} {
		os.WriteFile(filepath.Join(dir, name), nil, 0o600)
	}
	if got, err := numbersIn(dir); err != nil || !slices.Equal(got, want) {
		t.Errorf("%d numbers, want %d; %v", len(got), len(want), err)
	}
}

func Benchmark(b *testing.B) {
	pid := os.Getpid()
	f, err := os.Open("/dev/null")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	maps := []byte(strings.Repeat("7f3e5186a000-7f3e5187d000 r-xp 00003000 fe:00 326956                     /usr/lib/x86_64-linux-gnu/libz.so.1.2.13\n"+
		"7f3e51886000-7f3e51bc7000 rw-p 00000000 00:00 0 \n", 5000))
	one := must2(os.ReadFile("testdata/linux-6.18/smaps"))
	smaps := []byte(strings.Repeat(string(one), 10000/strings.Count(string(one), "VmFlags")))
	b.Run("ParseMaps10000", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(maps)))
		for b.Loop() {
			ParseMaps(maps)
		}
	})
	b.Run("ParseSmaps10000", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(smaps)))
		for b.Loop() {
			ParseSmaps(smaps)
		}
	})
	for name, read := range map[string]func() error{
		"stat":   func() error { return second(ReadStat(pid, 0)) },
		"status": func() error { return second(ReadStatus(pid, 0)) },
		"fdinfo": func() error { return second(ReadFDInfo(pid, fd)) },
		"link":   func() error { return second(ReadLink(pid, fd)) },
		"ns":     func() error { return second(ReadNamespaces(pid, pid)) },
		"tasks":  func() error { return second(ReadTasks(pid)) },
	} {
		b.Run("Read/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestSmapsInPieces reads a file much longer than a piece, and finds every area.
func TestSmapsInPieces(t *testing.T) {
	const areas, page = 2000, 4096
	m, err := syscall.Mmap(-1, 0, areas*page, syscall.PROT_READ, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(m)
	for i := 0; i < areas; i += 2 {
		if err := syscall.Mprotect(m[i*page:(i+1)*page], syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadSmapsFlags(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	start := uint64(uintptr(unsafe.Pointer(&m[0])))
	n := 0
	for _, a := range got {
		if a.Start < start || a.End > start+areas*page {
			continue
		}
		want := start + uint64(n)*page
		if a.Start != want || a.End != want+page || a.Write != (n%2 == 0) || a.Flags&VMRead == 0 || a.KernelPageSize != page {
			t.Fatalf("area %d: %+v, want one at %#x", n, a, want)
		}
		n++
	}
	if n != areas {
		t.Errorf("%d areas of %d", n, areas)
	}
	if got, err := ReadSmapsFlags(1 << 30); !errors.Is(err, ErrGone) {
		t.Errorf("no such process: %v, %v", got, err)
	}
}
