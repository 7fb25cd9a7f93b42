package rebuild

import (
	"fmt"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
)

// An ordinary user may not choose pids, nor make a pid or time namespace. Both
// may whoever owns a user namespace (user_namespaces(7)), and any user may make
// one: the seed does, with one user and one group in it, those of fermata, under
// the same numbers. This process stays outside: as the owner of the namespace it
// has every capability over it, and traces what is inside.

// privileged tells whether namespaces can be made without one of users.
func (b *builder) privileged() bool { return b.own.CapEff>>unix.CAP_SYS_ADMIN&1 != 0 }

// mayChoose finds what an ordinary user cannot bring back, before any task is
// made.
func (b *builder) mayChoose() error {
	if b.privileged() {
		return nil
	}
	if !b.opt.PidNS {
		if b.own.CapEff>>unix.CAP_CHECKPOINT_RESTORE&1 != 0 {
			return nil
		}
		return fault.Errorf(fault.ErrPermission, "an ordinary user may not choose the pids of new tasks: restore with --pidns (into namespaces of its own), as root, or with CAP_CHECKPOINT_RESTORE")
	}
	for _, p := range b.procs {
		for _, t := range p.threads {
			c := t.core.GetThreadCore().GetCreds()
			if c == nil {
				continue
			}
			other := slices.ContainsFunc([]uint32{c.GetUid(), c.GetEuid(), c.GetSuid(), c.GetFsuid()}, func(id uint32) bool { return id != uint32(os.Geteuid()) }) ||
				slices.ContainsFunc([]uint32{c.GetGid(), c.GetEgid(), c.GetSgid(), c.GetFsgid()}, func(id uint32) bool { return id != uint32(os.Getegid()) })
			switch {
			case other:
				b.refuse.Add(fault.Reason{PID: p.pid, Comm: p.core.GetTc().GetComm(), Object: fmt.Sprintf("thread %d", t.tid), Why: "it has other user or group ids than the user who restores it", Remedy: "restore it as root"})
			case !slices.Equal(c.GetGroups(), b.own.Groups):
				b.refuse.Add(fault.Reason{PID: p.pid, Comm: p.core.GetTc().GetComm(), Object: fmt.Sprintf("thread %d", t.tid), Why: "it has other supplementary groups than the user who restores it", Remedy: "restore it from a login with the same groups, or as root"})
			case caps(c.GetCapPrm()) != 0:
				b.refuse.Add(fault.Reason{PID: p.pid, Comm: p.core.GetTc().GetComm(), Object: fmt.Sprintf("thread %d", t.tid), Why: "it has capabilities", Remedy: "restore it as root"})
			}
		}
	}
	return nil
}

// userNamespace moves the seed into a user namespace of its own. From then on
// tasks inherit what its first process has: every capability there.
func (b *builder) userNamespace() error {
	e := b.seed.exec
	e.Reset()
	if _, err := e.Call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER); err != nil {
		return fmt.Errorf("new user namespace: %w", err)
	}
	write := func(name, text string) error {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", b.seed.pid, name), []byte(text), 0); err != nil {
			return fmt.Errorf("user namespace: %s: %w", name, err)
		}
		return nil
	}
	// Who has no privilege over the outer namespace may map a group only once
	// the inner one has given up setgroups(2).
	if err := write("setgroups", "deny"); err != nil {
		return err
	}
	if err := write("uid_map", fmt.Sprintf("%d %[1]d 1", os.Geteuid())); err != nil {
		return err
	}
	if err := write("gid_map", fmt.Sprintf("%d %[1]d 1", os.Getegid())); err != nil {
		return err
	}
	if len(b.own.Groups) > 0 {
		b.note("supplementary groups give the access they gave, but show as the overflow group in the user namespace")
	}
	own := *b.own
	b.own = &own
	last, err := lastCap()
	if err != nil {
		return err
	}
	all := uint64(math.MaxUint64) >> (63 - last)
	own.CapPrm, own.CapEff, own.CapBnd, own.CapInh, own.CapAmb = all, all, all, 0, 0
	b.userNS = true
	return nil
}

// lastCap is the highest capability that the kernel knows
// (/proc/sys/kernel/cap_last_cap, Linux 3.2).
func lastCap() (n int, err error) {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscan(string(text), &n); err != nil || n < 0 || n > 63 {
		return 0, fmt.Errorf("/proc/sys/kernel/cap_last_cap: %q (%v)", text, err)
	}
	return n, nil
}
