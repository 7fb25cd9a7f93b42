// Package tree ends trees of processes.
package tree

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// End kills the processes that pidfds mean and all their descendants.
func End(pidfds []int) {
	// Descendants first, in several rounds: as long as their parents live, those
	// that are born meanwhile can be found. (None is stopped for it: whoever
	// waits for the program would take that for a stop of its own.)
	for range 3 {
		known := map[int]bool{}
		for _, fd := range pidfds {
			if pid := pidOf(fd); pid > 0 {
				known[pid] = true
			}
		}
		seen := map[int]bool{}
		var down func(pid int)
		down = func(pid int) {
			if seen[pid] {
				return
			}
			seen[pid] = true
			tids, err := procfs.ReadTasks(pid)
			if err != nil {
				return
			}
			for _, t := range tids {
				c, _ := procfs.ReadChildren(pid, t)
				for _, child := range c {
					down(child)
				}
			}
			if !known[pid] {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		for pid := range known {
			down(pid)
		}
	}
	for _, fd := range pidfds {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// pidOf gives the process that a pidfd means, 0 or less when it has ended.
func pidOf(fd int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, _ := strconv.Atoi(strings.TrimSpace(v))
			return pid
		}
	}
	return 0
}
