package probe

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// TestMain answers as another user when the tests start this binary again.
func TestMain(m *testing.M) {
	if os.Getenv("PROBE_ANSWER") != "" {
		got := map[string]Result{}
		for _, f := range All() {
			got[f.ID] = f.Probe()
		}
		if err := json.NewEncoder(os.Stdout).Encode(got); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// options reads the running kernel's configuration, nil where it is not shown.
func options(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open("/proc/config.gz")
	if err != nil {
		return nil
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for s := bufio.NewScanner(z); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), "="); ok && (v == "y" || v == "m") {
			set[k] = true
		}
	}
	return set
}

// TestKernelFeatures compares each answer with what version and configuration
// promise: a probe that misses a feature, or sees one that cannot be there, fails.
func TestKernelFeatures(t *testing.T) {
	release, _, err := Release()
	if err != nil {
		t.Fatal(err)
	}
	have, ok := ParseVersion(release)
	if !ok {
		t.Fatalf("release %q", release)
	}
	conf := options(t)
	for _, f := range All() {
		if f.Kind != Kernel {
			continue
		}
		r := f.Probe()
		built := true
		for _, o := range strings.Split(f.Config, ", ") {
			if o != "" && conf != nil && !conf[o] {
				built = false
			}
		}
		switch {
		case !built && r.State == Yes:
			t.Errorf("%s: yes, but the kernel is built without %s", f.ID, f.Config)
		case built && conf != nil && !have.Less(f.Since) && r.State != Yes:
			t.Errorf("%s: %v (%s), but kernel %v has it since %v", f.ID, r.State, r.Detail, have, f.Since)
		case have.Less(f.Since) && r.State == Yes:
			t.Logf("%s: back-ported to %v", f.ID, have)
		}
	}
}

// TestRoot expects root of the initial user namespace to be allowed everything
// that needs privilege, within its capabilities.
func TestRoot(t *testing.T) {
	if os.Geteuid() != 0 || !InitialUserNS.Have() || !NoSeccomp.Have() {
		t.Skip("needs root of the machine")
	}
	for _, f := range []*Feature{SuspendSeccomp, SeccompFilter, SetTID, PidNS, TimeNS, UffdKernel, MapFiles, TCPRepair} {
		if r := f.Probe(); r.State != Yes {
			t.Errorf("%s: %v (%s)", f.ID, r.State, r.Detail)
		}
	}
}

// TestOtherUser asks as a user without privileges: what needs some must be no,
// what needs none yes.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "PROBE_ANSWER=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Result{}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	want := map[string]State{
		"clone3_set_tid": No, "suspend_seccomp": No, "seccomp_get_filter": No, "map_files": No, "tcp_repair": No,
		"cap_sys_admin": No, "cap_sys_ptrace": No, "cap_setuid": No,
		"sysv_shm": Yes, "process_vm": Yes, "prctl_mm_map": Yes, "memfd_exec": Yes,
	}
	for _, same := range []*Feature{Kcmp, PidfdGetfd, FutexWaitv, PagemapScan, ProcmapQuery, UffdWPAsync, PtraceSeize, PtraceSigmask, PtraceRseq, UnixDiag, InetDiag, TimerIDs, UserNS} {
		want[same.ID] = same.Probe().State
	}
	for id, w := range want {
		if g := got[id]; g.State != w {
			t.Errorf("%s: %v (%s), want %v", id, g.State, g.Detail, w)
		}
	}
}

// TestNothingLeft: the helpers are gone and reaped, no descriptor is open.
func TestNothingLeft(t *testing.T) {
	before := openFDs(t)
	for _, f := range All() {
		f.ask()
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: wait4 gives %d, %v", pid, err)
	}
	if v, _ := statusField("TracerPid"); v != "0" {
		t.Errorf("tracer %q", v)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestParseVersion(t *testing.T) {
	for s, want := range map[string]Version{
		"6.18.44-fc-v669": {6, 18}, "5.15.0-91-generic": {5, 15}, "6.1": {6, 1}, "7.0-rc1": {7, 0},
		"": {}, "6": {}, "6.": {}, "x6.1": {}, "99999999.1": {},
	} {
		got, ok := ParseVersion(s)
		if got != want || ok == want.IsZero() {
			t.Errorf("%q: %v %v, want %v", s, got, ok, want)
		}
	}
}

// TestFreezerMounts reads a hybrid, a unified and a hostile table.
func TestFreezerMounts(t *testing.T) {
	for _, c := range []struct{ in, v1, v2 string }{
		{"37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified"},
		{"30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", "", "/sys/fs/cgroup"},
		{"30 23 0:26 / /a\\040b rw master:1 shared:9 - cgroup none rw,cpu,freezer\n", "/a b", ""},
		{"30 23 0:26 / /x rw - cgroup none rw,nofreezer\n - \n1 - cgroup2\n", "", ""},
	} {
		if v1, v2 := freezerMounts(c.in); v1 != c.v1 || v2 != c.v2 {
			t.Errorf("%q: %q %q, want %q %q", c.in, v1, v2, c.v1, c.v2)
		}
	}
}

// TestDiagEnd: every kind of answer, and cut ones, which must not be taken for
// a success.
func TestDiagEnd(t *testing.T) {
	done := []byte{20, 0, 0, 0, 3, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	noent := []byte{20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff}
	other := []byte{18, 0, 0, 0, 20, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 7, 0, 0}
	if end, err := diagEnd(append(append([]byte{}, other...), done...)); !end || err != nil {
		t.Errorf("done: %v %v", end, err)
	}
	if end, err := diagEnd(other); end || err != nil {
		t.Errorf("other: %v %v", end, err)
	}
	if _, err := diagEnd(noent); !errors.Is(err, unix.ENOSYS) {
		t.Errorf("ENOENT gives %v", err)
	}
	for n := range done {
		if end, err := diagEnd(done[:n]); end && err == nil {
			t.Errorf("%d bytes of it taken for an end", n)
		}
	}
}
