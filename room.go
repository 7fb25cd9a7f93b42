package fermata

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// While a snapshot of its memory lives, a program that writes takes memory for
// a second time: up to all that it has. Whether there is room for that is found
// out before.

// spare is what of the machine's memory is left alone: a 32nd, at least 64 MiB.
func spare(total uint64) uint64 { return max(total/32, 64<<20) }

// room is what is known of the memory that may be taken: read before the freeze,
// as far as it is known by then whom it is about.
type room struct {
	machine map[string]uint64
	groups  map[int][]string  // of a process
	left    map[string]uint64 // of a group
}

// roomAhead is of how many processes the groups are read ahead.
const roomAhead = 256

// lookRoom looks how much memory some processes may take.
func lookRoom(pids map[int]bool) (*room, error) {
	m, err := meminfo()
	if err != nil {
		return nil, err
	}
	r := &room{machine: m, groups: map[int][]string{}, left: map[string]uint64{}}
	for pid := range pids {
		if len(r.groups) == roomAhead {
			break
		}
		for _, g := range r.groupsOf(pid) {
			r.leftIn(g)
		}
	}
	return r, nil
}

func (r *room) groupsOf(pid int) []string {
	g, ok := r.groups[pid]
	if !ok {
		g = memoryGroups(pid)
		r.groups[pid] = g
	}
	return g
}

func (r *room) leftIn(group string) uint64 {
	n, ok := r.left[group]
	if !ok {
		n = groupRoom(group)
		r.left[group] = n
	}
	return n
}

// forSnapshots tells why there is no room for snapshots of tasks that have so
// many bytes of memory each, nil when there is. dir is where the checkpoint
// goes: on tmpfs that takes memory too.
func (r *room) forSnapshots(tasks map[int]uint64, dir string) error {
	m := r.machine
	var need uint64
	groups := map[string]uint64{}
	for pid, n := range tasks {
		n += n/256 + 1<<20 // page tables
		need += n
		for _, g := range r.groupsOf(pid) {
			groups[g] += n
		}
	}
	// Processes that share pages have them once.
	if all := m["AnonPages"] + m["SwapCached"]; need > all+all/256+uint64(len(tasks))<<20 {
		need = all + all/256 + uint64(len(tasks))<<20
	}
	image := uint64(0)
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC) {
		image = need
	}
	if have := m["MemAvailable"]; need+image+spare(m["MemTotal"]) > have {
		return fmt.Errorf("up to %d MiB of memory could be needed meanwhile, and %d MiB are available", (need+image)>>20, have>>20)
	}
	for g, n := range groups {
		if have := r.leftIn(g); min(n, need) > have {
			return fmt.Errorf("up to %d MiB of memory could be needed meanwhile, and the cgroup %s allows %d MiB more", min(n, need)>>20, g, have>>20)
		}
	}
	return nil
}

// meminfo reads /proc/meminfo, in bytes.
func meminfo() (map[string]uint64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	return counters(b, ":", 1024), nil
}

// counters reads lines of a name and a number.
func counters(b []byte, colon string, unit uint64) map[string]uint64 {
	m := map[string]uint64{}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
			m[strings.TrimSuffix(f[0], colon)] = n * unit
		}
	}
	return m
}

// cgroupRoot is where version 2 of cgroups is mounted.
const cgroupRoot = "/sys/fs/cgroup"

// memoryGroups gives the directories of the cgroups that a process's memory is
// charged to, its own and those above.
func memoryGroups(pid int) (dirs []string) {
	all, err := procfs.ReadCgroup(pid, 0)
	if err != nil {
		return nil
	}
	for _, c := range all {
		root := ""
		switch {
		case c.Hierarchy == 0:
			root = cgroupRoot
		case len(c.Controllers) == 1 && c.Controllers[0] == "memory":
			root = cgroupRoot + "/memory"
		default:
			continue
		}
		for p := filepath.Clean("/" + c.Path); p != "/"; p = filepath.Dir(p) {
			dirs = append(dirs, root+p)
		}
		dirs = append(dirs, root) // a container's own root has a limit
	}
	return dirs
}

// groupRoom gives how many bytes more a cgroup may take; what it has of clean
// files does not count.
func groupRoom(dir string) uint64 {
	number := func(names ...string) (uint64, bool) {
		for _, n := range names {
			b, err := os.ReadFile(filepath.Join(dir, n))
			if err != nil {
				continue
			}
			v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
			return v, err == nil // "max"
		}
		return 0, false
	}
	room := uint64(math.MaxUint64)
	used, known := number("memory.current", "memory.usage_in_bytes")
	if !known {
		return room
	}
	if b, err := os.ReadFile(filepath.Join(dir, "memory.stat")); err == nil {
		c := counters(b, "", 1)
		used -= min(used, max(c["inactive_file"], c["total_inactive_file"])) // of version 1
	}
	for _, names := range [][]string{{"memory.max", "memory.limit_in_bytes"}, {"memory.high"}} {
		if limit, ok := number(names...); ok {
			room = min(room, limit-min(limit, used))
		}
	}
	return room
}
