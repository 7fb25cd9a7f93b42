package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// askYama reads kernel.yama.ptrace_scope
// (Documentation/admin-guide/LSM/Yama.rst): 0 classic, 1 descendants only,
// 2 CAP_SYS_PTRACE only, 3 nobody.
func askYama() Result {
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if errors.Is(err, os.ErrNotExist) {
		return yes("Yama is not in force")
	}
	if err != nil {
		return unsure("read ptrace_scope", err)
	}
	scope := strings.TrimSpace(string(b))
	detail := "scope " + scope
	switch scope {
	case "0":
		return yes(detail)
	case "1", "2":
		if capability(unix.CAP_SYS_PTRACE).State == Yes {
			return yes(detail + ", with CAP_SYS_PTRACE")
		}
		return no(detail)
	case "3":
		return no(detail)
	}
	return Result{Unknown, detail}
}

func askInitialUserNS() Result {
	b, err := os.ReadFile("/proc/self/uid_map")
	if errors.Is(err, os.ErrNotExist) {
		return yes("no user namespaces in this kernel")
	}
	if err != nil {
		return unsure("read uid_map", err)
	}
	// The initial namespace maps everything to itself. Another may be written
	// to look so, but only by a privileged parent.
	if f := strings.Fields(string(b)); len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295" {
		return yes("")
	}
	return no("")
}

func askNoSeccomp() Result {
	v, err := statusField("Seccomp")
	switch {
	case err != nil:
		return unsure("read status", err)
	case v == "" || v == "0":
		return yes("")
	case v == "2":
		if n, err := statusField("Seccomp_filters"); err == nil && n != "" {
			return no(n + " filters")
		}
	}
	return no("mode " + v)
}

// askHugetlb lists the pools, each with its free and its whole number of pages.
func askHugetlb() Result {
	const dir = "/sys/kernel/mm/hugepages"
	pools, err := os.ReadDir(dir)
	if err != nil {
		return byPath(err)
	}
	var have []string
	total := 0
	for _, p := range pools {
		size, ok := strings.CutPrefix(p.Name(), "hugepages-")
		if !ok {
			continue
		}
		n, err1 := readInt(filepath.Join(dir, p.Name(), "nr_hugepages"))
		free, err2 := readInt(filepath.Join(dir, p.Name(), "free_hugepages"))
		more, err3 := readInt(filepath.Join(dir, p.Name(), "nr_overcommit_hugepages"))
		if err := errors.Join(err1, err2, err3); err != nil {
			return unsure("read huge page pools", err)
		}
		total += n + more
		pool := fmt.Sprintf("%s: %d of %d free", size, free, n)
		if more > 0 {
			pool += fmt.Sprintf(" and %d on demand", more)
		}
		have = append(have, pool)
	}
	detail := strings.Join(have, ", ")
	if total == 0 {
		return no(detail)
	}
	return yes(detail)
}

// readInt reads a file that holds one decimal number.
func readInt(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// askCgroupFreezer looks for a mounted hierarchy that can freeze.
func askCgroupFreezer() Result {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return unsure("read mountinfo", err)
	}
	v1, v2 := freezerMounts(string(b))
	var found []string
	if v2 != "" {
		// The root of a hierarchy cannot be frozen and has no file for it, its
		// children have (5.2).
		if below, err := filepath.Glob(filepath.Join(globQuote(v2), "*", "cgroup.freeze")); err == nil && len(below) > 0 || exists(filepath.Join(v2, "cgroup.freeze")) {
			found = append(found, "version 2 at "+v2)
		}
	}
	if v1 != "" {
		found = append(found, "version 1 at "+v1)
	}
	switch {
	case len(found) > 0:
		return yes(strings.Join(found, ", "))
	case v2 != "":
		return Result{Unknown, "version 2 at " + v2 + " has no groups to look at"}
	}
	return no("no cgroup hierarchy with a freezer is mounted")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// globQuote escapes what filepath.Glob would interpret.
func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// freezerMounts finds the first cgroup v1 mount with the freezer controller and
// the first cgroup v2 mount in the text of a mountinfo (proc_pid_mountinfo(5)):
// the fields after " - " are the type, the source and the super block's options.
func freezerMounts(mountinfo string) (v1, v2 string) {
	for line := range strings.Lines(mountinfo) {
		head, tail, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		switch {
		case g[0] == "cgroup2" && v2 == "":
			v2 = unescape(f[4])
		case g[0] == "cgroup" && v1 == "":
			for _, o := range strings.Split(g[2], ",") {
				if o == "freezer" {
					v1 = unescape(f[4])
				}
			}
		}
	}
	return v1, v2
}

// unescape undoes the octal escapes of blank, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
