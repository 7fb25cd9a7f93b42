package lazy

import (
	"fmt"
	"log/syslog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tree"
)

// watch holds what it is given until it hears that all is done. When the
// handler ends without a word, so does the program.
func watch(sock int) {
	alone(NameWatch)
	_, _ = unix.Setsid()
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
	if len(pidfds)+len(uffds) == 0 {
		return // there is no program yet
	}
	report(fmt.Errorf("the handler has ended before all was in place"))
	tree.End(pidfds)
	outlive(uffds)
}

func isUffd(fd int) bool {
	l, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && strings.Contains(l, "userfaultfd")
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
