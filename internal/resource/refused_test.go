package resource

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The role makes one of each object that this kernel and user permit; its answer
// is their numbers, by the name that a refusal must have.
var refusedRole = role("refused", func(a *actor) {
	got := map[string]int{}
	n := firstFD
	try := func(name string, fd uintptr, e unix.Errno) {
		if e != 0 {
			return
		}
		a.at(int(fd), nil, n)
		got[name] = n
		n++
	}
	call := func(name string, nr uintptr, args ...uintptr) {
		var x [6]uintptr
		copy(x[:], args)
		fd, _, e := unix.Syscall6(nr, x[0], x[1], x[2], x[3], x[4], x[5])
		try(name, fd, e)
	}
	call("userfaultfd", unix.SYS_USERFAULTFD, 1) // user mode only
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK}
	attr.Size = uint32(unsafe.Sizeof(attr))
	attr.Bits = unix.PerfBitExcludeKernel
	none := -1
	call("performance counter", unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&attr)), 0, uintptr(none), uintptr(none))
	bpf := [32]uint32{2, 4, 4, 1} // an array of one
	call("BPF map", unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&bpf)), unsafe.Sizeof(bpf))
	call("fanotify group", unix.SYS_FANOTIFY_INIT, unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID)
	rules := [2]uint64{1}
	call("Landlock ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), 8)
	call("secret memory", unix.SYS_MEMFD_SECRET)
	call("file system being configured", unix.SYS_FSOPEN, uintptr(unsafe.Pointer(&[]byte("tmpfs\x00")[0])))
	runtime.KeepAlive(&attr)
	a.say(got)
})

func TestRefused(t *testing.T) {
	var got map[string]int
	p := start(t, refusedRole, &got)
	s := save(t, p.pid)
	t.Logf("%v\n%v", got, s.refuse.Err())
	for name := range got {
		s.refused(t, name)
	}
	if len(got) < 3 {
		t.Errorf("only %d kinds of objects could be made", len(got))
	}
	if n := len(s.tables[p.pid]); n != 0 {
		t.Errorf("%d descriptors were collected", n)
	}
}

// TestRefusedWording: every name gives a whole sentence.
func TestRefusedWording(t *testing.T) {
	for key, x := range refusedNames {
		if strings.ContainsAny(key, "[]:") || x.what == "" || x.remedy == "" || strings.HasSuffix(x.remedy, ".") {
			t.Errorf("%q: %+v", key, x)
		}
	}
}

var nsRole = role("ns", func(a *actor) {
	open := func(name string, n int) {
		fd, err := unix.Open("/proc/self/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		a.at(fd, err, n)
	}
	open("net", 100)
	open("uts", 101)
	if a.say("ready") == "unshare" {
		a.must(unix.Unshare(unix.CLONE_NEWUTS))
		fd, err := unix.Open("/proc/thread-self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		a.at(fd, err, 102)
		a.say("ready")
	}
})

func TestNamespaceFiles(t *testing.T) {
	p := start(t, nsRole, nil)
	s := save(t, p.pid)
	r := s.open(t)
	for n, name := range map[int]string{100: "net", 101: "uts"} {
		var got, want unix.Stat_t
		if err := unix.Fstat(s.fd(t, r, p.pid, n), &got); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat("/proc/self/ns/"+name, &want); err != nil {
			t.Fatal(err)
		}
		if got.Ino != want.Ino || got.Dev != want.Dev {
			t.Errorf("%s: inode %d, want %d", name, got.Ino, want.Ino)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("another namespace needs root")
	}
	p.ask("unshare", nil)
	save(t, p.pid).refused(t, "fd 102 (uts:[")
}
