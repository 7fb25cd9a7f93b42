package procfs

import (
	"os"
	"sort"
	"strconv"
)

// ReadProcesses gives the pids of all processes that /proc shows, ascending.
func ReadProcesses() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			out = append(out, pid)
		}
	}
	sort.Ints(out)
	return out, nil
}
