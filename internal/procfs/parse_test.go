package procfs

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func equal[T any](t *testing.T, what string, got T, err error, want T) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func TestStat(t *testing.T) {
	got, err := ParseStat(golden(t, "linux-5.15/stat"))
	equal(t, "stat", got, err, Stat{
		Pid: 1234, Comm: "nginx: worker ", State: 'S', PPid: 1, Pgrp: 1234, Session: 1234,
		TtyNr: 34816, TtyPgrp: 1234, Flags: 1077936448, Priority: 39, Nice: 19, NumThreads: 5,
		StartTime: 18446744, StartCode: 94304213229568, EndCode: 94304214135805,
		StartStack: 140725163462288, ExitSignal: 17, Processor: 3, RtPriority: 10, Policy: 2,
		StartData: 94304214418256, EndData: 94304214529164, StartBrk: 94304238710784,
		ArgStart: 140725163466605, ArgEnd: 140725163466640, EnvStart: 140725163466640,
		EnvEnd: 140725163470814,
	})
	got, err = ParseStat(golden(t, "linux-6.18/stat"))
	if err != nil || got.Comm != "a) S \\1\n\t x" || got.State != 'R' || got.TtyPgrp != -1 || got.ExitSignal != 17 {
		t.Errorf("a name with parenthesis and newline: %+v, %v", got, err)
	}
	got, err = ParseStat(golden(t, "linux-6.18/zombie-stat"))
	if err != nil || got.State != 'Z' || got.ExitCode != 7<<8 || got.StartCode != 0 || got.Flags&PFExiting == 0 {
		t.Errorf("zombie: %+v, %v", got, err)
	}
	for _, k := range []string{"linux-5.15", "linux-6.18"} {
		got, err = ParseStat(golden(t, k+"/kthread-stat"))
		if err != nil || got.Flags&PFKthread == 0 {
			t.Errorf("%s kernel thread: %+v, %v", k, got, err)
		}
	}
	// The name is what stands between the first and the last parenthesis.
	tail := strings.SplitAfterN(string(golden(t, "linux-5.15/stat")), ") ", 2)[1]
	for _, name := range []string{"", ")", "(", "a) R 1 2 3 (b", ") ) )", "\n\n", "\xff\x01 \t"} {
		got, err := ParseStat([]byte("7 (" + name + ") " + tail))
		if err != nil || got.Comm != name || got.Pid != 7 || got.EnvEnd != 140725163470814 {
			t.Errorf("name %q: %q, %v", name, got.Comm, err)
		}
	}
}

func TestStatus(t *testing.T) {
	got, err := ParseStatus(golden(t, "linux-5.15/status"))
	equal(t, "status", got, err, Status{
		Name: "nginx: worker ", Umask: 0o27, HasUmask: true, State: 't', Tgid: 1234, Pid: 1236,
		PPid: 1, TracerPid: 999, Uid: [4]uint32{33, 33, 33, 33}, Gid: [4]uint32{33, 34, 35, 36},
		FDSize: 64, Groups: []uint32{4, 24, 33, 4294967294},
		NStgid: []int{1234, 7}, NSpid: []int{1236, 9}, NSpgid: []int{1234, 7}, NSsid: []int{1234, 7},
		HasMM: true, VmLck: 64 << 10, VmPin: 16 << 10, VmRSS: 7160 << 10, VmSwap: 12 << 10,
		CoreDumping: true, Threads: 5, SigPnd: 0x100, ShdPnd: 1 << 63, SigBlk: 0xfffffffe7ffbfeff,
		SigIgn: 0x40001000, SigCgt: 0x198016eef, CapInh: 0x400, CapPrm: 0x1ffffffffff,
		CapEff: 0x400, CapBnd: 0x1ffffffffff, CapAmb: 0x400, NoNewPrivs: true, Seccomp: 2,
		SeccompFilters: 3, SpeculationStoreBypass: "thread force mitigated",
		SpeculationIndirectBranch: "conditional force disabled",
		CpusAllowed:               "ff,ffffffff", CpusAllowedList: "0-39", MemsAllowed: "00000000,00000003",
	})
	got, err = ParseStatus(golden(t, "linux-6.18/status"))
	if err != nil || got.Name != "a) S \\1\n\t x" || !got.HasKthread || got.Kthread || !got.HasMM ||
		!got.THPEnabled || got.UntagMask != ^uint64(0) || !got.HasUntagMask || got.Groups != nil || got.VmRSS == 0 {
		t.Errorf("6.18: %+v, %v", got, err)
	}
	got, err = ParseStatus(golden(t, "linux-6.18/zombie-status"))
	if err != nil || got.State != 'Z' || got.HasMM || got.HasUmask || got.FDSize != 0 {
		t.Errorf("zombie: %+v, %v", got, err)
	}
	got, err = ParseStatus(golden(t, "linux-6.18/kthread-status"))
	if err != nil || !got.Kthread || got.HasMM || got.Name != "kthreadd" {
		t.Errorf("kernel thread: %+v, %v", got, err)
	}
	for text, name := range map[string]string{
		`a\nb`: "a\nb", `a\\nb`: `a\nb`, `\\\\`: `\\`, `\`: `\`, ` \t `: ` \t `, "Pid:\t7": "Pid:\t7", "": "",
	} {
		got, err := ParseStatus([]byte("Name:\t" + text + "\nPid:\t5\n"))
		if err != nil || got.Name != name || got.Pid != 5 {
			t.Errorf("name %q: %q %d, %v; want %q", text, got.Name, got.Pid, err, name)
		}
	}
	got, err = ParseStatus([]byte("Name:\tx\nPid:\t5\nx86_Thread_features:\tshstk wrss \nx86_Thread_features_locked:\tshstk wrss \nSomething_new:\t: :\n"))
	if err != nil || got.X86ThreadFeatures != "shstk wrss" || got.X86ThreadFeatsLocked != "shstk wrss" {
		t.Errorf("shadow stack: %+v, %v", got, err)
	}
}

func TestMaps(t *testing.T) {
	got, err := ParseMaps(golden(t, "linux-5.15/maps"))
	if err != nil || len(got) != 11 {
		t.Fatal(len(got), err)
	}
	equal(t, "deleted", got[5], nil, VMA{Start: 0x7f12e0002000, End: 0x7f12e0003000, Offset: 0x7fffffff000,
		Ino: 1<<64 - 1, Path: "/mnt/big file", DevMajor: 0x103, DevMinor: 2, Write: true, Shared: true, Deleted: true})
	equal(t, "nothing", got[4], nil, VMA{Start: 0x7f12e0001000, End: 0x7f12e0002000})
	for i, want := range map[int]string{1: "[heap]", 2: "", 3: "[anon:scudo:primary reserve]", 6: "/dev/zero",
		7: "anon_inode:[perf_event]", 9: "(unreachable)/etc/hosts", 10: "[stack]"} {
		if got[i].Path != want {
			t.Errorf("area %d: %q, want %q", i, got[i].Path, want)
		}
	}
	got, err = ParseMaps(golden(t, "linux-6.18/maps"))
	if err != nil {
		t.Fatal(err)
	}
	type name struct {
		path             string
		deleted, escaped bool
	}
	seen := map[name]int{}
	for _, v := range got {
		seen[name{v.Path, v.Deleted, v.Escaped}]++
	}
	for want, n := range map[name]int{
		{"/srv/data/n\nl", false, true}:              1, // a real newline
		{"/srv/data/l\nx", false, true}:              1, // really "\012" in the name: the kernel's text is the same
		{"/srv/data/d", true, false}:                 1, // really "d (deleted)", and there
		{"/srv/data/g", true, false}:                 1, // unlinked
		{"/srv/data/h (deleted)", true, false}:       1, // unlinked, and really so called
		{"/srv/data/ s p ", false, false}:            1, // blanks at the end belong to the name
		{"/memfd:me mo", true, false}:                1,
		{"/SYSV00005a5a", true, false}:               1,
		{"[vsyscall]", false, false}:                 1,
		{"/opt/python/bin/python3.11", false, false}: 5,
	} {
		if seen[want] != n {
			t.Errorf("%+v: %d times, want %d", want, seen[want], n)
		}
	}
}

func TestSmaps(t *testing.T) {
	got, err := ParseSmaps(golden(t, "linux-5.15/smaps"))
	equal(t, "smaps", got, err, []Smap{
		{
			VMA: VMA{Start: 0x7f5c00000000, End: 0x7f5c00200000, Read: true, Write: true},
			Flags: VMRead | VMWrite | VMMayRead | VMMayWrite | VMMayExec | VMDontExpand |
				VMHugeTLB | VMSoftDirty | VMUnknown,
			KernelPageSize: 2 << 20, MMUPageSize: 2 << 20, ProtectionKey: 5, HasKey: true,
		},
		{
			VMA: VMA{Start: 0x7f5c40000000, End: 0x7f5c40005000, Read: true, Write: true},
			Flags: VMRead | VMWrite | VMMayRead | VMMayWrite | VMMayExec | VMLocked | VMDontCopy | VMAccount |
				VMWipeOnFork | VMDontDump | VMSoftDirty | VMUffdMissing | VMUffdWP | VMHugePage | VMMergeable | VMLockOnFault,
			KernelPageSize: 4096, MMUPageSize: 4096, Rss: 16 << 10, Anonymous: 12 << 10, AnonHugePages: 8 << 10,
			Swap: 4 << 10, Locked: 16 << 10, HasKey: true, THPeligible: true,
		},
	})
	seen := map[string]bool{}
	for i, c := range vmCodes {
		f := VMFlags(1) << i
		if seen[c] || len(c) != 2 || f.String() != c || parseVMFlags([]byte(c+" ")) != f {
			t.Errorf("flag %d %q: String %q, parsed %v", i, c, f, parseVMFlags([]byte(c)))
		}
		seen[c] = true
	}
	if VMUnknown != 1<<(len(vmCodes)-1) {
		t.Error("constants and codes do not match")
	}
	if f := parseVMFlags([]byte("zz")); f != VMUnknown {
		t.Error("unknown code:", f)
	}
}

func TestFDInfo(t *testing.T) {
	read := func(name string) FDInfo {
		t.Helper()
		f, err := ParseFDInfo(golden(t, name))
		if err != nil {
			t.Error(name, err)
		}
		return f
	}
	equal(t, "file", read("linux-5.15/fdinfo-file"), nil,
		FDInfo{Pos: 1<<63 - 1, Flags: 0o100002, MntID: 1<<31 - 1, Ino: 1<<64 - 1})
	equal(t, "eventfd", read("linux-5.15/fdinfo-eventfd").Eventfd, nil, &Eventfd{Count: 0xffffffffffffffe, ID: 94})
	equal(t, "eventfd", read("linux-6.18/fdinfo-eventfd").Eventfd, nil, &Eventfd{Count: 5, ID: 2, Semaphore: true, HasSemaphore: true})
	equal(t, "epoll", read("linux-5.15/fdinfo-epoll").Epoll, nil, []EpollTarget{
		{FD: 5, Events: 0x1d, Data: 1<<64 - 1, Pos: -1, Ino: 0x61af, Dev: 7},
		{FD: 1023, Events: 0xc0000019, Data: 0x7ffc12, Pos: 512, Ino: 1<<64 - 1, Dev: 0xfffff}})
	if f := read("linux-6.18/fdinfo-signalfd"); !f.HasSigmask || f.SigMask != 1<<63|1<<9 {
		t.Errorf("signalfd: %+v", f)
	}
	equal(t, "timerfd", read("linux-5.15/fdinfo-timerfd").Timerfd, nil, &Timerfd{ClockID: 7, Ticks: 1<<64 - 1,
		SettimeFlags: 3, Value: Timespec{0, 49406829}, Interval: Timespec{1, 0}})
	equal(t, "inotify", read("linux-5.15/fdinfo-inotify").Inotify, nil, []InotifyWatch{
		{WD: 2, Ino: 0x9e7e, Dev: 0x800013, Mask: 0x800afce, Handle: FileHandle{1, []byte("\x7e\x9e\x00\x00\x64\x0d\x1b\x6d")}},
		{WD: 0x7fffffff, Ino: 1, Dev: 0x2d, Mask: 0x3c2}})
	equal(t, "fanotify", read("linux-5.15/fdinfo-fanotify").Fanotify, nil, &Fanotify{Flags: 0x10, Marks: []FanotifyMark{
		{Kind: FanotifyMount, MntID: 0x12, MFlags: 0x40, Mask: 0x38, IgnoredMask: 0x40000003},
		{Kind: FanotifyInode, Ino: 0x4f969, Dev: 0x800013, Mask: 0x3b, IgnoredMask: 0x40000000,
			Handle: FileHandle{1, []byte("\x69\xf9\x04\x00\xc2\x75\xb5\xb4")}},
		{Kind: FanotifyFilesystem, Dev: 0x800013, Mask: 1}}})
	equal(t, "fanotify", read("linux-6.18/fdinfo-fanotify-mntns").Fanotify.Marks, nil,
		[]FanotifyMark{{Kind: FanotifyMountNS, MntNS: 4026531832, Mask: 0x1000000}})
	equal(t, "pidfd", read("linux-6.18/fdinfo-pidfd-reaped").Pidfd, nil, &Pidfd{Pid: -1, NSpid: []int{-1}})
	equal(t, "locks", read("linux-5.15/fdinfo-locks").Locks, nil, []Lock{
		{ID: 1, Kind: LockPosix, State: "ADVISORY", Mode: LockWrite, PID: 870, DevMajor: 8, DevMinor: 1, Ino: 393230, End: 99},
		{ID: 2, Kind: LockFlock, State: "ADVISORY", Mode: LockRead, PID: 870, DevMajor: 8, DevMinor: 1, Ino: 393230, End: EndOfFile},
		{ID: 3, Kind: LockLease, State: "BREAKING", Mode: LockUnlock, PID: 870, DevMajor: 8, DevMinor: 1, Ino: 393230, End: EndOfFile}})
	if f := read("linux-6.18/fdinfo-unix"); !f.HasSCMFDs || f.SCMFDs != 1 {
		t.Errorf("unix: %+v", f)
	}
	if f := read("linux-6.18/fdinfo-ptmx"); !f.HasTTYIndex || f.TTYIndex != 1 {
		t.Errorf("ptmx: %+v", f)
	}
	u := read("linux-6.18/fdinfo-io_uring").IOUring
	if u == nil || u.SqMask != 7 || u.CqMask != 15 || u.SqThread != -1 || u.UserFiles != 2 ||
		u.Keys["NAPI"] != "disabled" || u.Keys[""] != "    0: pipe:[81264]\n    1: pipe:[81264]" {
		t.Errorf("io_uring: %+v", u)
	}
	u = read("linux-5.15/fdinfo-io_uring").IOUring
	if u == nil || u.SqThread != 812 || u.UserFiles != 2 || u.UserBufs != 1 || !strings.HasSuffix(u.Keys[""], "\n  op=6, task_works=1") {
		t.Errorf("io_uring before 5.16: %+v", u)
	}
	equal(t, "extra", read("linux-5.15/fdinfo-tun").Extra, nil, map[string]string{"iff": "tun0"})
	if x := read("linux-6.18/fdinfo-bpf-map").Extra; x["map_type"] != "2" || x["frozen"] != "0" {
		t.Error("bpf:", x)
	}
	// The name that a program gave its dma-buf must not become its position.
	f := read("linux-5.15/fdinfo-dmabuf")
	if f.Pos != 0 || f.Flags != 0o2000002 || f.MntID != 15 || f.Ino != 99 || f.Extra["pos"] != "7" || f.Extra[""] != "no colon here" {
		t.Errorf("lines that a program made up: %+v", f)
	}
	plain := golden(t, "linux-6.18/fdinfo-file")
	if n := testing.AllocsPerRun(100, func() { ParseFDInfo(plain) }); n > 0 {
		t.Errorf("a plain file costs %v allocations", n)
	}
}

func TestSmallFiles(t *testing.T) {
	m, err := ParseStatm([]byte("2301 482 401 5 0 176 0\n"))
	equal(t, "statm", m, err, Statm{Size: 2301, Resident: 482, Shared: 401})
	locks, err := ParseLocks(golden(t, "linux-6.18/locks"))
	if err != nil || len(locks) != 8 || locks[2].Depth != 1 || locks[3].Depth != 2 || !locks[3].Blocked || locks[3].ID != 2 || locks[1].PID != -1 {
		t.Errorf("locks: %+v, %v", locks, err)
	}
	timers, err := ParseTimers(golden(t, "linux-6.18/timers"))
	equal(t, "timers", timers, err, []Timer{
		{ID: 2, Signal: 14, Sigval: 0x123456789abcdef0, ToTID: true, Target: timers[0].Target, ClockID: -6},
		{ID: 1, Signal: 11, Sigval: 0x123456789abcdef0, Notify: 1, Target: timers[0].Target},
		{ID: 0, Signal: 10, Sigval: 0x123456789abcdef0, Target: timers[0].Target, ClockID: 1}})
	mounts, err := ParseMountInfo(golden(t, "linux-5.15/mountinfo"))
	equal(t, "mountinfo", mounts[1:], err, []Mount{
		{ID: 37, Parent: 36, DevMinor: 34, Root: "/", MountPoint: "/run/user/1000/a \t\n\\b", Options: "rw,nosuid",
			Shared: 12, Master: 3, PropagateFrom: 2, FSType: "fuse.sshfs", Source: "user@host:/dir with blanks", SuperOptions: "rw,user_id=1000"},
		{ID: 38, Parent: 36, DevMinor: 4, Root: "mnt:[4026532291]", MountPoint: "/run/ns/mnt", Options: "rw", Shared: 7,
			FSType: "nsfs", Source: "nsfs", SuperOptions: "rw"},
		{ID: 39, Parent: 36, DevMajor: 8, DevMinor: 1, Root: "/gone", RootDeleted: true, MountPoint: "/mnt/bind", Options: "rw,relatime",
			Unbindable: true, Optional: []string{"frobnicated:7"}, FSType: "xfs", Source: "/dev/sda1", SuperOptions: "rw,attr2,inode64"}})
	cgroups, err := ParseCgroup(golden(t, "linux-5.15/cgroup"))
	equal(t, "cgroup", cgroups, err, []Cgroup{
		{Hierarchy: 13, Controllers: []string{"perf_event"}, Path: "/"},
		{Hierarchy: 12, Controllers: []string{"cpu", "cpuacct"}, Path: "/system.slice/nginx:1.service"},
		{Hierarchy: 1, Controllers: []string{"name=systemd"}, Path: "/system.slice"},
		{Path: "/../user.slice/a b", Deleted: true}})
	cmd, err := ParseCmdline(golden(t, "linux-6.18/cmdline"))
	equal(t, "cmdline", cmd, err, []string{"python3", "-c", "", "import time\n"})
	comm, err := ParseComm(golden(t, "linux-6.18/comm"))
	equal(t, "comm", comm, err, "a) S \\1\n\t x")
	auxv, err := ParseAuxv(golden(t, "linux-6.18/auxv"))
	if err != nil || len(auxv) < 20 || auxv[len(auxv)-2] != 0 {
		t.Error("auxv:", auxv, err)
	}
	sys, err := ParseSyscall(golden(t, "linux-6.18/syscall-blocked"))
	if err != nil || sys.Nr != 230 || sys.Running || sys.Args[0] != 0 || sys.SP>>40 != 0x7f || sys.PC>>40 != 0x7f {
		t.Errorf("syscall: %+v %v", sys, err)
	}
	sys, err = ParseSyscall(golden(t, "linux-5.15/syscall-blocked"))
	equal(t, "syscall", sys, err, Syscall{Nr: -1, SP: 0x7ffe3f0b7c58, PC: 0xffffffffff600000})
	sys, err = ParseSyscall(golden(t, "linux-5.15/syscall-running"))
	equal(t, "syscall", sys, err, Syscall{Running: true})
	tn, err := ParseTimensOffsets(golden(t, "linux-6.18/timens_offsets"))
	equal(t, "timens", tn, err, TimensOffsets{Monotonic: Timespec{100, 0}, Boottime: Timespec{-3, 0}})
	tn, err = ParseTimensOffsets(golden(t, "linux-5.15/timens_offsets"))
	equal(t, "timens", tn, err, TimensOffsets{Monotonic: Timespec{-1234567, 999999999}, Boottime: Timespec{9223372036, 0}})
	ag, err := ParseAutogroup(golden(t, "linux-5.15/autogroup"))
	equal(t, "autogroup", ag, err, Autogroup{Present: true, ID: 12, Nice: -20})
	uid, err := ParseUint32(golden(t, "linux-6.18/loginuid"))
	equal(t, "loginuid", uid, err, ^uint32(0))
	cf, err := ParseHex32(golden(t, "linux-6.18/coredump_filter"))
	equal(t, "coredump_filter", cf, err, 0x33)
	sl, err := ParseUint(golden(t, "linux-6.18/timerslack_ns"))
	equal(t, "timerslack", sl, err, 50000)
	n, err := ParseInt([]byte("-1000\n"))
	equal(t, "oom_score_adj", n, err, -1000)
	kids, err := ParseChildren([]byte("12 7 4194304 "))
	equal(t, "children", kids, err, []int{12, 7, 4194304})
	ino, err := ParseNamespace([]byte("pid_for_children:[4026531836]"))
	equal(t, "namespace", ino, err, 4026531836)
}

func TestSchedExecStart(t *testing.T) {
	b := string(golden(t, "linux-6.18/sched"))
	_, rest, _ := strings.Cut(b, "se.exec_start")
	text := strings.Fields(rest)[1] // "628653.087065"
	got, err := ParseSchedExecStart([]byte(b))
	if want := strings.ReplaceAll(text, ".", ""); err != nil || itoa(got) != want {
		t.Errorf("%d, %v; want %s", got, err, want)
	}
	// A thread may be called like the line that is looked for.
	_, body, _ := strings.Cut(b, "\n-")
	for _, name := range []string{"\nse.exec_start:", "x\nse.exec_start", "\n-----------\nse"} {
		if again, err := ParseSchedExecStart([]byte(name + " (7, #threads: 1)\n-" + body)); err != nil || again != got {
			t.Errorf("name %q: %d, %v", name, again, err)
		}
	}
	ruler := "x (1, #threads: 1)\n" + strings.Repeat("-", 65) + "\n"
	for text, want := range map[string]int64{"0.000000": 0, "0.000001": 1, "-5.000007": -5000007, "9223372036853.999999": 9223372036853999999} {
		if got, err := ParseSchedExecStart([]byte(ruler + "se.exec_start  :  " + text + "\n")); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
}

func itoa(n int64) string { return string(numbered("", int(n))) }

// TestBroken gives each parser text that no kernel writes and that must not be
// taken for something.
func TestBroken(t *testing.T) {
	stat := string(golden(t, "linux-5.15/stat"))
	vma := "1000-2000 r-xp 00000000 08:01 5  /x\n"
	base := "pos:\t0\nflags:\t02\nmnt_id:\t1\n"
	parsers := map[string]func([]byte) error{
		"stat":      func(b []byte) error { _, err := ParseStat(b); return err },
		"status":    func(b []byte) error { _, err := ParseStatus(b); return err },
		"maps":      func(b []byte) error { _, err := ParseMaps(b); return err },
		"smaps":     func(b []byte) error { _, err := ParseSmaps(b); return err },
		"fdinfo":    func(b []byte) error { _, err := ParseFDInfo(b); return err },
		"lock":      func(b []byte) error { _, err := ParseLock(b); return err },
		"timers":    func(b []byte) error { _, err := ParseTimers(b); return err },
		"mountinfo": func(b []byte) error { _, err := ParseMountInfo(b); return err },
		"cgroup":    func(b []byte) error { _, err := ParseCgroup(b); return err },
		"children":  func(b []byte) error { _, err := ParseChildren(b); return err },
		"comm":      func(b []byte) error { _, err := ParseComm(b); return err },
		"auxv":      func(b []byte) error { _, err := ParseAuxv(b); return err },
		"syscall":   func(b []byte) error { _, err := ParseSyscall(b); return err },
		"sched":     func(b []byte) error { _, err := ParseSchedExecStart(b); return err },
		"statm":     func(b []byte) error { _, err := ParseStatm(b); return err },
		"autogroup": func(b []byte) error { _, err := ParseAutogroup(b); return err },
		"timens":    func(b []byte) error { _, err := ParseTimensOffsets(b); return err },
		"ns":        func(b []byte) error { _, err := ParseNamespace(b); return err },
		"int":       func(b []byte) error { _, err := ParseInt(b); return err },
		"uint":      func(b []byte) error { _, err := ParseUint(b); return err },
		"uint32":    func(b []byte) error { _, err := ParseUint32(b); return err },
		"hex32":     func(b []byte) error { _, err := ParseHex32(b); return err },
	}
	for what, texts := range map[string][]string{
		"stat": {"", "1", "1 (x", "1 x)", ")(", "1 (x) S 1", "x" + stat, stat[:len(stat)-3], strings.Replace(stat, ") S ", ") SS ", 1),
			strings.Replace(stat, " 5 0 ", " five 0 ", 1), strings.Replace(stat, "140725163470814", "18446744073709551616", 1),
			strings.Replace(stat, "1234 (", "99999999999 (", 1)},
		"status": {"", "Name:\tx\n", "Pid:\n", "Pid:\t1\nState:\t\n", "Pid:\t1\nUid:\t0\t0\t0\n", "Pid:\t1\nUid:\t0\t0\t0\t0\t0\n",
			"Pid:\t1\nGroups:\t1 x\n", "Pid:\t1\nSigPnd:\t10000000000000000\n", "Pid:\t1\nVmRSS:\t1\n", "Pid:\t1\nVmRSS:\t99999999999999999 kB\n",
			"Pid:\t1\nKthread:\t2\n", "Pid:\t1\nUmask:\t8\n"},
		"maps": {"\n", "x", "1000-2000\n", "1000-2000 rwxp\n", "2000-1000 r-xp 00000000 08:01 5\n", "1000-2000 Rwxp 00000000 08:01 5\n",
			"1000-2000 rwxx 00000000 08:01 5\n", "1000-2000 rwxp 0 08:01\n", "1000-2000 rwxp 0 08:01 5x\n", "10000000000000000-2 r-xp 0 0:0 0\n",
			"1000-2000 r-xp 00000000 08:01 5\t/x\n", vma + "\n" + vma, "1000-2000 r-xpp 0 0:0 0\n"},
		"smaps": {"Rss:  4 kB\n", vma + "Rss: 4\n", vma + "Rss: x kB\n", vma + "THPeligible:  2\n", vma + "nonsense\n", vma + "\n", "3000 " + vma},
		"fdinfo": {"", "pos:\t0\n", "flags:\t02\n" + base[7:], strings.Replace(base, "02", "08", 1), strings.Replace(base, "\t0", "\tx", 1),
			base + "ino:\t-1\n", base + "eventfd-count: x\n", base + "eventfd-semaphore: 2\n", base + "tfd: x\n", base + "tfd: 1 events\n",
			base + "sigmask:\t\n", base + "it_value: (1)\n", base + "it_value: (1, 2\n", base + "inotify wd:1\n", base + "inotify wd:1 ino:1 fhandle-bytes:1 f_handle:0\n", base + "inotify wd:1 ino:1 fhandle-bytes:2 f_handle:00\n", base + "inotify wd:1 ino:1 fhandle-bytes:2\n",
			base + "inotify wd:1 ino:1 mask:100000000\n", base + "fanotify x\n", base + "lock:\tx\n", base + "Pid:\t\n", base + "SqMask:\t7\n",
			base + "SqThread:\tx\n", base + "scm_fds: x\n", base + "clockid: 1 2\n", "pos:\t0 \nflags:\t02\nmnt_id:\t1\n"},
		"statm": {"", "1", "1 2 ", "1 x 2", "1,2,3"},
		"lock": {"", "1", "1: POSIX", "1: POSIX  ADVISORY  WRITE 1 08:01:1 0", "1: POSIX  ADVISORY  EAT 1 08:01:1 0 EOF", "1: POSIX  ADVISORY  READ 1 08:01 0 EOF",
			"1: POSIX  ADVISORY  READ 1 08:01:1 0 EOF EOF", "1: POSIX  ADVISORY  READ 1 08:01:1 -1 EOF", "-> POSIX ADVISORY READ 1 08:01:1 0 EOF"},
		"timers":    {"signal: 1/0\n", "ID: x\n", "ID: 1\nsignal: 10\n", "ID: 1\nnotify: signal/pid\n", "ID: 1\nnotify: shout/pid.1\n", "ID: 1\nnotify: signal/cat.1\n", "ID: 1\nClockID: 1 1\n"},
		"mountinfo": {"\n", "1 2 0:1 / / rw - tmpfs", "1 2 0:1 / / rw - tmpfs x", "1 2 0:1 / / rw shared:1 tmpfs x rw", "1 2 0:1 / / rw shared:x - tmpfs x rw", "x 2 0:1 / / rw - t x rw"},
		"cgroup":    {"\n", "0", "0:", "x::/\n"},
		"children":  {"x", "1 2 x", "-"},
		"comm":      {"", "x"},
		"auxv":      {"1", "12345678"},
		"syscall":   {"", "running fast", "1 0x1", "-1 1 2", "0 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0", "-1 0x0 0x10000000000000000"},
		"sched":     {"", "\nse.exec_start : 1.000000\n", strings.Repeat("\n"+strings.Repeat("-", 70), 2) + "\nse.exec_start : 1.5\n", "\n" + strings.Repeat("-", 70) + "\nse.exec_start : 9223372036855.000000\n"},
		"autogroup": {"x", "/autogroup-1", "/autogroup- nice 0", "/autogroup-1 nice 0 0"},
		"timens":    {"monotonic 1\n", "realtime 1 0\n", "\n", "monotonic 1 2 3\n"},
		"ns":        {"", "mnt", "mnt:[", "mnt:[x]", "mnt:[1", "mnt:[1]x"},
		"int":       {"", "x", "1 1", "2147483648", "-2147483649"},
		"uint":      {"", "-1", "18446744073709551616", "99999999999999999999999"},
		"uint32":    {"4294967296"},
		"hex32":     {"100000000", "0x1", "g"},
	} {
		for _, text := range texts {
			if err := parsers[what]([]byte(text)); !errors.Is(err, ErrFormat) {
				t.Errorf("%s %q: %v, want ErrFormat", what, text, err)
			}
		}
	}
}
