package lazy

import (
	"fmt"
	"log/syslog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// watch holds what it is given until it hears that all is done. When the
// handler ends without a word, so does the program.
func watch(sock int) {
	alone(NameWatch)
	var pidfds, uffds []int
	for {
		kind, _, fds, err := receive(sock)
		if err == nil && kind == msgDone {
			return
		}
		if err != nil {
			break
		}
		for _, fd := range fds {
			if isUffd(fd) {
				uffds = append(uffds, fd)
			} else {
				pidfds = append(pidfds, fd)
			}
		}
	}
	report(fmt.Errorf("the handler has ended before all was in place"))
	end(pidfds)
	outlive(uffds)
}

func isUffd(fd int) bool {
	l, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && strings.Contains(l, "userfaultfd")
}

// pidsOf gives the processes that pidfds mean, those that still live.
func pidsOf(fds []int) (pids []int) {
	for _, fd := range fds {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "Pid:"); ok {
				if pid, err := strconv.Atoi(strings.TrimSpace(v)); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// end kills the processes of a tree and what has descended from them since.
func end(pidfds []int) {
	// Descendants first, in several rounds: as long as their parents live, those
	// that are born meanwhile can be found. (None is stopped for it: whoever
	// waits for the program would take that for a stop of its own.)
	for range 3 {
		known := map[int]bool{}
		for _, pid := range pidsOf(pidfds) {
			known[pid] = true
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

// outlive holds on to userfaultfds until their address spaces are gone: a
// process that was not found then waits for its page for ever, and never reads
// a zero in its place.
func outlive(uffds []int) {
	for len(uffds) > 0 {
		rest := uffds[:0]
		for _, fd := range uffds {
			if _, err := sys.UffdZero(fd, pageSize, pageSize); err != unix.ESRCH {
				rest = append(rest, fd)
				continue
			}
			unix.Close(fd)
		}
		if uffds = rest; len(uffds) > 0 {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// report writes to the kernel's log, or else to that of the system: nobody may
// be there any more who would read anything else.
func report(err error) {
	text := fmt.Sprintf("fermata: lazy restore: %v; the restored program is ended, its checkpoint is unchanged", err)
	if f, ferr := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); ferr == nil {
		defer f.Close()
		if _, ferr = f.WriteString("<3>" + text + "\n"); ferr == nil {
			return
		}
	}
	if w, serr := syslog.New(syslog.LOG_ERR|syslog.LOG_DAEMON, "fermata"); serr == nil {
		defer w.Close()
		_ = w.Err(text)
	}
}
