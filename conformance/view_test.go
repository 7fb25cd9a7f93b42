package conformance

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What can be seen of a program from outside, before and after: programs check
// what they know of, this finds what nobody thought of (a mapping left by the
// executor, a descriptor too many, a changed limit).

// view is a set of facts, keyed by "pid N what".
type view map[string]string

// names gives numbers to identities that differ after a restore by their
// nature (inode numbers of pipes and sockets) but must be equal for the same
// descriptors.
type names map[string]string

func (n names) of(kind, id string) string {
	k := kind + id
	if n[k] == "" {
		n[k] = fmt.Sprintf("%s#%d", kind, len(n))
	}
	return n[k]
}

// look takes the view of every task of the case.
func (s *supervisor) look() view {
	v := view{}
	n := names{}
	pids := s.family()
	slices.Sort(pids)
	skip := func(part string) bool { return slices.Contains(s.spec.Program.Moving, part) }
	if skip("tasks") {
		pids = pids[:min(1, len(pids))] // the others come and go; the root stays
	}
	v["pids"] = fmt.Sprint(pids)
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/", pid)
		put := func(what, val string) { v[fmt.Sprintf("pid %d %s", pid, what)] = val }
		stat := statFields(dir + "stat")
		if len(stat) < 50 {
			continue // gone meanwhile
		}
		v[fmt.Sprintf("pid %d", pid)] = "there"
		put("state", stateOf(stat[0]))
		if pid == s.ownChild(stat) {
			put("parent", "supervisor")
		} else {
			put("parent", stat[1])
		}
		for _, f := range []struct {
			name string
			at   int // field number of proc(5), less 3
		}{
			{"group", 2}, {"session", 3}, {"tty", 4}, {"foreground group", 5}, {"start_code", 23}, {"end_code", 24},
			{"start_stack", 25}, {"exit signal", 35}, {"start_data", 42}, {"end_data", 43}, {"start_brk", 44},
			{"arg_start", 45}, {"arg_end", 46}, {"env_start", 47}, {"env_end", 48},
		} {
			put(f.name, stat[f.at])
		}
		if stat[0] == "Z" {
			continue
		}
		for _, f := range []string{"cmdline", "environ", "oom_score_adj", "personality", "coredump_filter", "limits", "auxv", "timerslack_ns", "uid_map"} {
			b, err := os.ReadFile(dir + f)
			if err != nil {
				put(f, err.Error())
				continue
			}
			put(f, string(b))
		}
		lookCgroups(dir, put)
		for _, f := range []string{"exe", "cwd", "root", "ns/time", "ns/mnt", "ns/net", "ns/uts", "ns/ipc", "ns/pid", "ns/user", "ns/cgroup"} {
			l, err := os.Readlink(dir + f)
			if err != nil {
				l = err.Error()
			}
			if f == "ns/time" {
				continue // a restored program may get one, so that its clocks go on
			}
			put(f, l)
		}
		// The owner of these files is root when the process isn't dumpable.
		if st, err := os.Stat(dir + "environ"); err == nil {
			put("owner in /proc", fmt.Sprint(st.Sys().(*syscall.Stat_t).Uid))
		}
		if !skip("maps") {
			lookMaps(dir, put)
		}
		if !skip("fds") {
			lookFDs(dir, n, put)
		}
		if !skip("tasks") {
			tids := listDir(dir + "task")
			put("threads", strings.Join(tids, " "))
			for _, tid := range tids {
				lookThread(dir+"task/"+tid+"/", skip("status"), func(what, val string) { put("tid "+tid+" "+what, val) })
			}
		}
	}
	return v
}

// lookCgroups notes the task's place in every hierarchy, by what the hierarchy is
// for: its number is the machine's affair.
func lookCgroups(dir string, put func(what, val string)) {
	b, err := os.ReadFile(dir + "cgroup")
	if err != nil {
		put("cgroups", err.Error())
		return
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			put(cgroupIn+f[1], f[2])
		}
	}
}

// cgroupIn is what a hierarchy's fact begins with.
const cgroupIn = "cgroup in "

// ownChild gives the pid of the stat line if its parent is the supervisor.
func (s *supervisor) ownChild(stat []string) int {
	if stat[1] == itoa(os.Getpid()) {
		pid, _ := strconv.Atoi(stat[len(stat)-1])
		return pid
	}
	return 0
}

// statFields are the fields of a stat file from the state on, followed by the pid.
func statFields(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	i := strings.LastIndexByte(string(b), ')')
	if i < 0 {
		return nil
	}
	pid, _, _ := strings.Cut(string(b), " ")
	return append(strings.Fields(string(b[i+1:])), pid)
}

// stateOf makes running and sleeping one.
func stateOf(s string) string {
	if strings.Contains("RSDI", s) {
		return "alive"
	}
	return s
}

func lookThread(dir string, moving bool, put func(what, val string)) {
	comm, _ := os.ReadFile(dir + "comm")
	put("comm", string(comm))
	if st := statFields(dir + "stat"); len(st) > 40 {
		put("priority", st[15])
		put("nice", st[16])
		put("rt_priority", st[37])
		put("policy", st[38])
	}
	if moving {
		return
	}
	b, _ := os.ReadFile(dir + "status")
	for line := range strings.Lines(string(b)) {
		key, val, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch key {
		case "Umask", "Uid", "Gid", "Groups", "NStgid", "NSpid", "NSpgid", "NSsid", "CoreDumping", "THP_enabled", "SigPnd", "ShdPnd",
			"SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
			"Speculation_Store_Bypass", "SpeculationIndirectBranch", "Cpus_allowed", "Mems_allowed", "x86_Thread_features", "x86_Thread_features_locked":
			put(key, val)
		}
	}
}

// tracking: the writes of the program may be tracked now.
var tracking bool

// lookMaps notes every mapping with its flags. Neighbours that differ in
// nothing are one: whether the kernel merges them depends on their history.
func lookMaps(dir string, put func(what, val string)) {
	b, err := os.ReadFile(dir + "smaps")
	if err != nil {
		put("maps", err.Error())
		return
	}
	type area struct{ start, end, what, path, offset string }
	var areas []area
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 5 && strings.Contains(f[0], "-") {
			start, end, _ := strings.Cut(f[0], "-")
			path := strings.Join(f[5:], " ")
			a := area{start: start, end: end, what: f[1], path: path, offset: f[2]}
			areas = append(areas, a)
			continue
		}
		a := &areas[len(areas)-1]
		switch f[0] {
		case "VmFlags:":
			// sd: soft-dirty; ac: counted, depends on what the area was before.
			// uw: that its writes are tracked is documented to show.
			keep := slices.DeleteFunc(f[1:], func(x string) bool { return x == "sd" || x == "ac" || x == "uw" && tracking })
			a.what += " " + strings.Join(keep, " ")
		case "ProtectionKey:", "KernelPageSize:":
			a.what += " " + strings.Join(f, " ")
		}
	}
	var out []area
	for _, a := range areas {
		if len(out) > 0 {
			p := &out[len(out)-1]
			if p.end == a.start && p.what == a.what && p.path == a.path && continues(p.start, p.offset, a.start, a.offset, a.path) {
				p.end = a.end
				continue
			}
		}
		out = append(out, a)
	}
	for _, a := range out {
		put("area "+a.start, fmt.Sprintf("%s-%s %s offset %s %s", a.start, a.end, a.what, a.offset, a.path))
	}
}

// continues says whether an area goes on where the one before it ended: by its
// file offset, if it has a file.
func continues(start, offset, nextStart, nextOffset, path string) bool {
	if !strings.HasPrefix(path, "/") {
		return path == "" || path == "[heap]" || path == "[stack]" || strings.HasPrefix(path, "[anon")
	}
	hex := func(s string) uint64 {
		v, _ := strconv.ParseUint(s, 16, 64)
		return v
	}
	return hex(nextOffset)-hex(offset) == hex(nextStart)-hex(start)
}

func lookFDs(dir string, n names, put func(what, val string)) {
	fds := listDir(dir + "fd")
	for _, fd := range fds {
		l, err := os.Readlink(dir + "fd/" + fd)
		if err != nil {
			continue
		}
		if kind, id, ok := strings.Cut(l, ":["); ok && (kind == "pipe" || kind == "socket") {
			l = n.of(kind, id)
		}
		info, _ := os.ReadFile(dir + "fdinfo/" + fd)
		for line := range strings.Lines(string(info)) {
			key, val, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			if key == "pos" || key == "flags" {
				l += " " + key + " " + val
			}
		}
		put("fd "+fd, l)
	}
}

// listDir gives the names in a directory, as numbers in order.
func listDir(dir string) []string {
	ents, _ := os.ReadDir(dir)
	var nums []int
	for _, e := range ents {
		if i, err := strconv.Atoi(e.Name()); err == nil {
			nums = append(nums, i)
		}
	}
	slices.Sort(nums)
	out := make([]string, len(nums))
	for i, x := range nums {
		out[i] = itoa(x)
	}
	return out
}

func itoa(i int) string { return strconv.Itoa(i) }

// compare fails the case if anything looks different from before. A peer's
// differences, and those of a mutated image, are only noted.
func (s *supervisor) compare(when string) {
	if s.spec.Mode == "mutate" {
		return
	}
	diff := s.before.diff(s.look())
	for end := time.Now().Add(s.spec.Deadline / 6); onlyMasks(diff) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		diff = s.before.diff(s.look())
	}
	if len(diff) == 0 {
		return
	}
	if len(diff) > 12 {
		diff = append(diff[:12], fmt.Sprintf("and %d more", len(diff)-12))
	}
	text := fmt.Sprintf("seen from outside, %s:\n  %s", when, strings.Join(diff, "\n  "))
	if s.peer() && s.spec.Mode != "none" {
		s.notef("%s", text)
		return
	}
	s.failf("%s", text)
}

// onlyMasks says whether nothing but masks of blocked signals differs. Inside
// calls like sigtimedwait, ppoll and epoll_pwait the kernel shows another mask
// than outside, and a thread goes back into its call only when it gets a
// processor: that is worth waiting for.
func onlyMasks(diff []string) bool {
	return len(diff) > 0 && !slices.ContainsFunc(diff, func(d string) bool { return !strings.Contains(d, " SigBlk: was ") })
}

func (v view) diff(now view) []string {
	var out []string
	keys := slices.Collect(maps.Keys(v))
	for k := range now {
		if _, ok := v[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		// Of a process that isn't in both views, one line is enough.
		if f := strings.Fields(k); len(f) > 2 && (v[f[0]+" "+f[1]] == "" || now[f[0]+" "+f[1]] == "") {
			continue
		}
		a, aok := v[k]
		b, bok := now[k]
		if aok != bok && strings.Contains(k, " "+cgroupIn) {
			continue // another program of this machine has mounted or removed the hierarchy
		}
		switch {
		case !bok:
			out = append(out, fmt.Sprintf("%s: is gone, was %s", k, brief(a, "")))
		case !aok:
			out = append(out, fmt.Sprintf("%s: is new, %s", k, brief(b, "")))
		case a != b:
			out = append(out, fmt.Sprintf("%s: was %s, is %s", k, brief(a, b), brief(b, a)))
		}
	}
	return out
}

// brief quotes a value; of a long one, the first line that differs.
func brief(a, b string) string {
	if strings.Contains(strings.TrimSpace(a), "\n") {
		other := strings.Split(b, "\n")
		for i, l := range strings.Split(a, "\n") {
			if i >= len(other) || other[i] != l {
				return fmt.Sprintf("line %d %q", i+1, strings.Join(strings.Fields(l), " "))
			}
		}
	}
	if len(a) > 300 {
		a = a[:300] + "…"
	}
	return strconv.Quote(strings.TrimSpace(a))
}

// imageFiles are the files of a directory whose names have the prefix and suffix.
func imageFiles(dir, prefix, suffix string) []string {
	all, _ := filepath.Glob(filepath.Join(dir, prefix+"*"+suffix))
	return all
}
