package procfs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The functions here write values as the kernel does. Text that survives being
// parsed and written again has lost nothing on the way, whatever the parser's
// author thought of the fields.

func renderVMA(v VMA) string {
	flag := func(on bool, c byte) byte {
		if on {
			return c
		}
		return '-'
	}
	last := byte('p')
	if v.Shared {
		last = 's'
	}
	s := fmt.Sprintf("%08x-%08x %c%c%c%c %08x %02x:%02x %d ", v.Start, v.End,
		flag(v.Read, 'r'), flag(v.Write, 'w'), flag(v.Exec, 'x'), last,
		v.Offset, v.DevMajor, v.DevMinor, v.Ino)
	if v.Path == "" && !v.Deleted {
		return s
	}
	return fmt.Sprintf("%-72s %s", strings.TrimSuffix(s, " "), strings.ReplaceAll(v.RawPath(), "\n", `\012`))
}

func renderLock(l Lock) string {
	arrow, dev, end := "", fmt.Sprintf("%02x:%02x:%d", l.DevMajor, l.DevMinor, l.Ino), fmt.Sprint(l.End)
	if l.Blocked {
		arrow = strings.Repeat(" ", l.Depth-1) + "-> "
	}
	if l.Ino == 0 {
		dev = "<none>:0"
	}
	if l.End == EndOfFile {
		end = "EOF"
	}
	mode := [...]string{"NONE", "READ", "WRITE", "RW", "UNLCK"}[l.Mode]
	return fmt.Sprintf("%d: %s%-6s %-9s %s %d %s %d %s", l.ID, arrow, l.Kind, l.State, mode, l.PID, dev, l.Start, end)
}

func renderTimer(t Timer) string {
	to := "pid"
	if t.ToTID {
		to = "tid"
	}
	return fmt.Sprintf("ID: %d\nsignal: %d/%016x\nnotify: %s/%s.%d\nClockID: %d\n", t.ID, t.Signal, t.Sigval,
		[...]string{"signal", "none", "thread"}[t.Notify], to, t.Target, t.ClockID)
}

func renderMount(m Mount) string {
	esc := func(s string) string {
		return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(s)
	}
	root := m.Root
	if m.RootDeleted {
		root += "//deleted"
	}
	s := fmt.Sprintf("%d %d %d:%d %s %s %s", m.ID, m.Parent, m.DevMajor, m.DevMinor, esc(root), esc(m.MountPoint), m.Options)
	if m.Shared != 0 {
		s += fmt.Sprintf(" shared:%d", m.Shared)
	}
	if m.Master != 0 {
		s += fmt.Sprintf(" master:%d", m.Master)
	}
	if m.PropagateFrom != 0 {
		s += fmt.Sprintf(" propagate_from:%d", m.PropagateFrom)
	}
	if m.Unbindable {
		s += " unbindable"
	}
	for _, o := range m.Optional {
		s += " " + o
	}
	return s + fmt.Sprintf(" - %s %s %s", esc(m.FSType), esc(m.Source), m.SuperOptions)
}

func renderCgroup(c Cgroup) string {
	s := fmt.Sprintf("%d:%s:%s", c.Hierarchy, strings.Join(c.Controllers, ","), c.Path)
	if c.Deleted {
		s += deletedMark
	}
	return s
}

func renderHandle(h FileHandle) string {
	if h.Data == nil {
		return ""
	}
	return fmt.Sprintf("fhandle-bytes:%x fhandle-type:%x f_handle:%s", len(h.Data), h.Type, hex.EncodeToString(h.Data))
}

// renderFDInfo writes the lines of all kinds but io_uring and Extra.
func renderFDInfo(f FDInfo) string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format, a...) }
	p("pos:\t%d\nflags:\t0%o\nmnt_id:\t%d\nino:\t%d\n", f.Pos, f.Flags, f.MntID, f.Ino)
	for _, l := range f.Locks {
		p("lock:\t%s\n", renderLock(l))
	}
	if e := f.Eventfd; e != nil {
		p("eventfd-count: %16x\neventfd-id: %d\n", e.Count, e.ID)
		if e.HasSemaphore {
			p("eventfd-semaphore: %d\n", map[bool]int{true: 1}[e.Semaphore])
		}
	}
	for _, e := range f.Epoll {
		p("tfd: %8d events: %8x data: %16x  pos:%d ino:%x sdev:%x\n", e.FD, e.Events, e.Data, e.Pos, e.Ino, e.Dev)
	}
	if f.HasSigmask {
		p("sigmask:\t%016x\n", f.SigMask)
	}
	if t := f.Timerfd; t != nil {
		p("clockid: %d\nticks: %d\nsettime flags: 0%o\nit_value: (%d, %d)\nit_interval: (%d, %d)\n", t.ClockID,
			t.Ticks, t.SettimeFlags, t.Value.Sec, t.Value.Nsec, t.Interval.Sec, t.Interval.Nsec)
	}
	for _, w := range f.Inotify {
		p("inotify wd:%x ino:%x sdev:%x mask:%x ignored_mask:%x %s\n", w.WD, w.Ino, w.Dev, w.Mask, w.IgnoredMask, renderHandle(w.Handle))
	}
	if g := f.Fanotify; g != nil {
		p("fanotify flags:%x event-flags:%x\n", g.Flags, g.EventFlags)
		for _, m := range g.Marks {
			what := map[FanotifyKind]string{
				FanotifyInode:      fmt.Sprintf("ino:%x sdev:%x", m.Ino, m.Dev),
				FanotifyMount:      fmt.Sprintf("mnt_id:%x", m.MntID),
				FanotifyFilesystem: fmt.Sprintf("sdev:%x", m.Dev),
				FanotifyMountNS:    fmt.Sprintf("mnt_ns:%d", m.MntNS),
			}[m.Kind]
			tail := ""
			if m.Kind == FanotifyInode {
				tail = " " + renderHandle(m.Handle)
			}
			p("fanotify %s mflags:%x mask:%x ignored_mask:%x%s\n", what, m.MFlags, m.Mask, m.IgnoredMask, tail)
		}
	}
	if f.Pidfd != nil {
		p("Pid:\t%d\nNSpid:", f.Pidfd.Pid)
		for _, n := range f.Pidfd.NSpid {
			p("\t%d", n)
		}
		p("\n")
	}
	if f.HasSCMFDs {
		p("scm_fds: %d\n", f.SCMFDs)
	}
	if f.HasTTYIndex {
		p("tty-index:\t%d\n", f.TTYIndex)
	}
	return b.String()
}

func lines[T any](v []T, render func(T) string) string {
	var b strings.Builder
	for _, x := range v {
		b.WriteString(render(x))
		if !strings.HasSuffix(b.String(), "\n") {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// normal makes the blanks of a text comparable where kernels differ in their
// padding.
func normal(s string) string {
	var out []string
	for l := range strings.Lines(s) {
		out = append(out, strings.Join(strings.Fields(l), " "))
	}
	return strings.Join(out, "\n")
}

// again parses text and writes the value; ok is false for files that have no
// writer here.
func again(name string, b []byte) (text string, exact, ok bool, err error) {
	switch name {
	case "maps":
		v, err := ParseMaps(b)
		return lines(v, renderVMA), true, true, err
	case "locks":
		v, err := ParseLocks(b)
		return lines(v, renderLock), false, true, err
	case "timers":
		v, err := ParseTimers(b)
		return lines(v, renderTimer), true, true, err
	case "mountinfo":
		v, err := ParseMountInfo(b)
		return lines(v, renderMount), true, true, err
	case "cgroup":
		v, err := ParseCgroup(b)
		return lines(v, renderCgroup), true, true, err
	case "children":
		v, err := ParseChildren(b)
		return strings.ReplaceAll(lines(v, func(n int) string { return fmt.Sprint(n, " ") }), "\n", ""), false, true, err
	case "auxv":
		v, err := ParseAuxv(b)
		var out []byte
		for _, w := range v {
			out = binary.NativeEndian.AppendUint64(out, w)
		}
		return string(out), true, true, err
	}
	if strings.HasPrefix(name, "fdinfo-") {
		f, err := ParseFDInfo(b)
		return renderFDInfo(f), false, f.Extra == nil && f.IOUring == nil, err
	}
	return "", false, false, nil
}

func TestTextSurvives(t *testing.T) {
	files, err := filepath.Glob("testdata/linux-*/*")
	if err != nil || len(files) == 0 {
		t.Fatal(err, len(files))
	}
	n := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, exact, ok, err := again(filepath.Base(file), b)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if !ok {
			continue
		}
		n++
		want := string(b)
		if !exact {
			got, want = normal(got), normal(want)
		}
		if got != want {
			g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
			for i := range max(len(g), len(w)) {
				if i >= len(g) || i >= len(w) || g[i] != w[i] {
					t.Errorf("%s line %d:\n got %q\nwant %q", file, i+1, slices.Concat(g, []string{""})[min(i, len(g))], slices.Concat(w, []string{""})[min(i, len(w))])
					break
				}
			}
		}
	}
	if n < 35 {
		t.Errorf("only %d files could be written again", n)
	}
}

// TestSmapsText checks an smaps file against what its own lines say.
func TestSmapsText(t *testing.T) {
	for _, kernel := range []string{"linux-6.18", "linux-5.15"} {
		b, err := os.ReadFile(filepath.Join("testdata", kernel, "smaps"))
		if err != nil {
			t.Fatal(err)
		}
		v, err := ParseSmaps(b)
		if err != nil {
			t.Fatal(err)
		}
		var want []string // of each area: head line, then the values wanted
		for l := range bytes.Lines(b) {
			line := strings.TrimSuffix(string(l), "\n")
			key, val, _ := strings.Cut(line, ":")
			f := strings.Fields(val)
			switch key {
			case "VmFlags":
				slices.Sort(f)
				want = append(want, "VmFlags "+strings.Join(f, " "))
			case "KernelPageSize", "MMUPageSize", "Rss", "Anonymous", "AnonHugePages", "Swap", "Locked", "THPeligible", "ProtectionKey":
				want = append(want, key+" "+f[0])
			default:
				if line[0] >= '0' && line[0] <= '9' || line[0] >= 'a' {
					want = append(want, line)
				}
			}
		}
		var got []string
		for _, m := range v {
			got = append(got, renderVMA(m.VMA))
			add := func(key string, bytes uint64) { got = append(got, fmt.Sprint(key, " ", bytes>>10)) }
			add("KernelPageSize", m.KernelPageSize)
			add("MMUPageSize", m.MMUPageSize)
			add("Rss", m.Rss)
			add("Anonymous", m.Anonymous)
			add("AnonHugePages", m.AnonHugePages)
			add("Swap", m.Swap)
			add("Locked", m.Locked)
			got = append(got, fmt.Sprint("THPeligible ", map[bool]int{true: 1}[m.THPeligible]))
			if m.HasKey {
				got = append(got, fmt.Sprint("ProtectionKey ", m.ProtectionKey))
			}
			f := strings.Fields(m.Flags.String())
			slices.Sort(f)
			got = append(got, "VmFlags "+strings.Join(f, " "))
		}
		if !slices.Equal(got, want) {
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Fatalf("%s: value %d: got %q, want %q", kernel, i, got[i], want[i])
				}
			}
			t.Fatalf("%s: %d values, want %d", kernel, len(got), len(want))
		}
	}
}
