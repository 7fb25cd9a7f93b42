package rebuild

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// A tree whose pids are taken is restored into a new pid namespace
// (pid_namespaces(7)). The seed makes it for its children; the first of them is
// the namespace's init, a few instructions that wait for orphans and end when
// nobody else is left; the roots follow with the pids they had. Outside, every
// task has another number: executors know that one.

// pidNamespace makes the namespace and its init.
func (b *builder) pidNamespace() error {
	if b.byPID[1] != nil {
		return errOneInit
	}
	e := b.seed.exec
	flags := uint64(unix.CLONE_PARENT)
	if b.donor != nil {
		flags |= unix.CLONE_NEWPID // one of many
	} else {
		b.hosts = map[int]bool{}
		e.Reset()
		if _, err := e.Call(unix.SYS_UNSHARE, unix.CLONE_NEWPID); err != nil {
			return fmt.Errorf("new pid namespace: %w", err)
		}
	}
	init, err := b.clone(e, 1, flags, 0)
	if err != nil {
		return fmt.Errorf("init of the pid namespace: %w", err)
	}
	b.made = append(b.made, init.TID)
	b.init = init.TID
	init.Reset()
	init.Add(unix.SYS_SETSID)
	init.Add(unix.SYS_CLOSE_RANGE, 0, math.MaxUint32, 0)
	name := init.PutString("fermata-init")
	init.Add(unix.SYS_PRCTL, unix.PR_SET_NAME, name)
	if err := init.Run(); err != nil {
		return err
	}
	if err := tracee.Halt(init); err != nil {
		return err
	}
	if err := b.region.Leave(init.TID, seedBase+seedSyscall); err != nil {
		return err
	}
	if err := sys.SetSigmask(init.TID, 0); err != nil {
		return err
	}
	if err := startAt(init.TID, seedBase+seedInit); err != nil {
		return fmt.Errorf("init of the pid namespace: %w", err)
	}
	if b.donor != nil {
		return b.enter(init.TID)
	}
	return nil
}

// findHost gives the number here of a task that was just made with another in
// the namespace.
func (b *builder) findHost(creator, id int, flags uint64) (int, error) {
	var list []int
	var err error
	switch {
	case flags&unix.CLONE_THREAD != 0:
		list, err = procfs.ReadTasks(creator)
	case flags&unix.CLONE_PARENT != 0:
		var st procfs.Stat
		if st, err = procfs.ReadStat(creator, 0); err == nil {
			list, err = b.childrenOf(st.PPid)
		}
	default:
		list, err = b.childrenOf(creator)
	}
	if err != nil {
		return 0, err
	}
	for _, h := range list {
		if b.hosts[h] {
			continue
		}
		st, err := procfs.ReadStatus(h, h)
		if err == nil && len(st.NSpid) > 1 && st.NSpid[len(st.NSpid)-1] == id {
			return h, nil
		}
	}
	return 0, fmt.Errorf("pid %d of the new namespace cannot be found outside", id)
}

func (b *builder) childrenOf(pid int) (out []int, err error) {
	tids, err := procfs.ReadTasks(pid)
	if err != nil {
		return nil, err
	}
	for _, t := range tids {
		c, err := procfs.ReadChildren(pid, t)
		if err != nil && pid != os.Getpid() {
			return nil, err
		}
		out = append(out, c...)
	}
	return out, nil
}

// hostPID gives the number here of a saved task.
func (b *builder) hostPID(saved int) int {
	for _, p := range b.procs {
		for _, t := range p.threads {
			if t.tid == saved && t.exec != nil {
				return t.exec.TID
			}
		}
		if p.pid == saved && p.exec != nil {
			return p.host()
		}
	}
	return saved
}

// releaseInit lets the namespace's init go.
func (b *builder) releaseInit() error {
	if b.init == 0 {
		return nil
	}
	return sys.Detach(b.init, 0)
}
