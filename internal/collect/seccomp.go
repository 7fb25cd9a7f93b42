package collect

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	criu_seccomp "github.com/checkpoint-restore/go-criu/v8/crit/images/seccomp"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/seccomp"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// SeccompPart is the image part with every filter of the tree, in one record as
// CRIU's seccomp.img has it; a thread names its newest, and each filter the one
// before it.
const SeccompPart = "seccomp"

// seccompState is what a thread runs under.
type seccompState struct {
	mode  int
	chain []int // of the filters, the oldest first
}

// filterKey is what tells two filters of the tree apart.
type filterKey struct {
	prev  int // -1: none
	flags uint64
	code  string
}

// filters gathers the tree's filters, equal ones with equal predecessors once.
type filters struct {
	entry  criu_seccomp.SeccompEntry
	parsed []seccomp.Filter
	known  map[filterKey]int
}

func (f *filters) add(k filterKey) int {
	if i, ok := f.known[k]; ok {
		return i
	}
	m := &criu_seccomp.SeccompFilter{Filter: []byte(k.code), Flags: proto.Uint32(uint32(k.flags))}
	if k.prev >= 0 {
		m.Prev = proto.Uint32(uint32(k.prev))
	}
	i := len(f.parsed)
	f.entry.SeccompFilters = append(f.entry.SeccompFilters, m)
	f.parsed = append(f.parsed, seccomp.Parse([]byte(k.code)))
	f.known[k] = i
	return i
}

// onItsOwn are the system calls that a thread makes by itself, or that are under
// way, should this process die while its executor is in the thread: then the
// filters judge them.
var onItsOwn = []uint32{
	unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_RT_SIGPROCMASK, unix.SYS_SIGALTSTACK, unix.SYS_RT_SIGRETURN,
	unix.SYS_FUTEX, unix.SYS_FUTEX_WAITV, unix.SYS_CLONE, unix.SYS_EXIT, unix.SYS_MUNMAP,
	unix.SYS_RT_SIGACTION, unix.SYS_PRLIMIT64, unix.SYS_GETITIMER, unix.SYS_PRCTL, unix.SYS_BRK, unix.SYS_MEMBARRIER,
	unix.SYS_WAITID, unix.SYS_TIMER_GETTIME, unix.SYS_TIMER_GETOVERRUN,
	unix.SYS_FCNTL, unix.SYS_IO_GETEVENTS,
}

// seccomp reads a thread's filters and keeps them from judging what is done on
// its behalf, for as long as it is traced. ok is false when it was refused.
func (c *Collector) seccomp(t *Task, th *tracee.Thread, st *procfs.Status) (ok bool, err error) {
	object := "seccomp"
	if th.TID != t.PID {
		object = fmt.Sprintf("seccomp of thread %d", th.TID)
	}
	no := func(why, remedy string) (bool, error) {
		c.refuse(t, object, why, remedy)
		return false, nil
	}
	s := &seccompState{mode: st.Seccomp}
	var harm []string
	if st.Seccomp == unix.SECCOMP_MODE_STRICT {
		harm = append(harm, "strict mode")
	} else {
		if harm, err = c.readFilters(th.TID, s); err != nil {
			if err == unix.EACCES || err == unix.EPERM {
				return no("its filters cannot be read (PTRACE_SECCOMP_GET_FILTER needs CAP_SYS_ADMIN in the initial namespace, and no seccomp on fermata itself)", "run fermata as root, outside of a sandbox")
			}
			return false, fmt.Errorf("thread %d: seccomp filters: %w", th.TID, err)
		}
		for _, i := range s.chain {
			if c.filters.parsed[i].Asks() {
				return no("a filter hands system calls to a supervisor (SECCOMP_RET_USER_NOTIF), to which nothing can connect it again", "end the supervision before the checkpoint")
			}
		}
	}
	if len(harm) > 0 && !c.AllowSeccompRisk {
		return no(fmt.Sprintf("should fermata itself be killed in the microseconds in which it works inside, the task would end by its own seccomp (%s)", strings.Join(harm, ", ")), "accept that: --seccomp-risk")
	}
	if err := sys.SetOptions(th.TID, c.Tree.Options()|sys.OptSuspendSeccomp); err != nil {
		if errors.Is(err, unix.EPERM) {
			return no("its filters cannot be suspended (PTRACE_O_SUSPEND_SECCOMP needs CAP_SYS_ADMIN in the initial namespace, and no seccomp on fermata itself)", "run fermata as root, outside of a sandbox")
		}
		return false, fmt.Errorf("thread %d: suspending seccomp: %w", th.TID, err)
	}
	if c.secure == nil {
		c.secure = map[int]*seccompState{}
	}
	c.secure[th.TID] = s
	// The interruption itself may have done harm: a timed call goes on through
	// restart_syscall, which the filter has to admit, too.
	if !tracee.RestartBlock(&th.Regs) || c.answers(s, unix.SYS_RESTART_SYSCALL, seccomp.Answer.Runs) {
		return true, nil
	}
	nr, _ := callOf(&th.Regs)
	if nr == unix.SYS_RESTART_SYSCALL {
		nr = issuedCall(t.At(), &th.Regs)
	}
	if nr == 0 {
		return true, nil
	}
	th.Regs = tracee.BeginAnew(th.Regs, nr)
	if err := sys.SetRegs(th.TID, &th.Regs); err != nil {
		return false, fmt.Errorf("thread %d: registers: %w", th.TID, err)
	}
	return true, nil
}

// readFilters reads a stopped thread's filters, and names the calls of onItsOwn
// that they answer with harm.
func (c *Collector) readFilters(tid int, s *seccompState) (harm []string, err error) {
	if c.filters == nil {
		c.filters = &filters{known: map[filterKey]int{}}
	}
	prev := -1
	for i := 0; ; i++ {
		code, err := sys.SeccompFilter(tid, i)
		if err == unix.ENOENT {
			break
		}
		if err != nil {
			return nil, err
		}
		flags, err := sys.SeccompFlags(tid, i)
		if err != nil {
			return nil, err
		}
		prev = c.filters.add(filterKey{prev, flags, string(code)})
		s.chain = append(s.chain, prev)
	}
	for _, nr := range onItsOwn {
		if !c.answers(s, nr, seccomp.Answer.Harmless) {
			harm = append(harm, fmt.Sprintf("system call %d", nr))
		}
	}
	if len(harm) > 3 {
		harm = append(harm[:3], "and others")
	}
	return harm, nil
}

// answers tells whether all that a thread's filters may answer to a call is ok.
func (c *Collector) answers(s *seccompState, nr uint32, ok func(seccomp.Answer) bool) bool {
	if s.mode == unix.SECCOMP_MODE_STRICT {
		// read, write, exit and rt_sigreturn, and all else is the end.
		return slices.Contains([]uint32{unix.SYS_READ, unix.SYS_WRITE, unix.SYS_EXIT, unix.SYS_RT_SIGRETURN}, nr)
	}
	for _, i := range s.chain {
		for a := range c.filters.parsed[i].Answers(auditArch, nr) {
			if !ok(a) {
				return false
			}
		}
	}
	return true
}

// saveSeccomp puts what a thread runs under into its record.
func (c *Collector) saveSeccomp(tid int, tce *criu_core.ThreadCoreEntry) {
	s := c.secure[tid]
	if s == nil {
		return
	}
	tce.SeccompMode = criu_core.SeccompMode(s.mode).Enum()
	if n := len(s.chain); n > 0 {
		tce.SeccompFilter = proto.Uint32(uint32(s.chain[n-1]))
	}
}

// emitFilters adds the tree's filters to the image.
func (c *Collector) emitFilters() {
	if c.filters != nil && len(c.filters.parsed) > 0 {
		c.Image.Add(SeccompPart, &c.filters.entry)
	}
}

// Chain gives the filters of a thread's chain, the oldest first; nil for one
// that the entry has not.
func Chain(e *criu_seccomp.SeccompEntry, newest uint32) []*criu_seccomp.SeccompFilter {
	var out []*criu_seccomp.SeccompFilter
	all := e.GetSeccompFilters()
	for i := newest; ; {
		if int(i) >= len(all) || len(out) > len(all) {
			return nil
		}
		out = append(out, all[i])
		if all[i].Prev == nil {
			break
		}
		i = all[i].GetPrev()
	}
	slices.Reverse(out)
	return out
}
