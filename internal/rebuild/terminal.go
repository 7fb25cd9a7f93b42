package rebuild

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// giver is a process that can be given descriptors one at a time
// (resource.Sender).
type giver struct {
	*proc
	b *builder
}

// Send implements resource.Sender.
func (g giver) Send(fd int) (int, error) {
	if err := g.b.send([]int{fd}); err != nil {
		return -1, fmt.Errorf("sending a descriptor: %w", err)
	}
	e := g.proc.Executor()
	one, _ := e.Data(8)
	iov, d := e.Data(16)
	le.PutUint64(d, one)
	le.PutUint64(d[8:], 1)
	ctl, c := e.Data(unix.CmsgSpace(4))
	msg, d := e.Data(56)
	le.PutUint64(d[16:], iov)
	le.PutUint64(d[24:], 1)
	le.PutUint64(d[32:], ctl)
	le.PutUint64(d[40:], uint64(unix.CmsgSpace(4)))
	n := e.Add(unix.SYS_RECVMSG, uint64(g.b.transportFD), msg, unix.MSG_CMSG_CLOEXEC)
	if err := e.Run(); err != nil {
		return -1, err
	}
	if err := e.Err(n); err != nil {
		return -1, fmt.Errorf("pid %d: receiving a descriptor: %w", g.pid, err)
	}
	return int(le.Uint32(c[unix.CmsgLen(0):])), nil
}

// terminal gives a process the controlling terminal that it had: a leader takes
// its session's before there are members, who are born with it, and a member
// that had given it up does so again.
func (b *builder) terminal(p *proc) error {
	if p.sid == p.pid {
		return b.files.TakeTerminal(giver{p, b}, p.sid)
	}
	if p.session == p.sid && p.extra.GetTtyNr() == 0 {
		return b.files.DropTerminal(giver{p, b}, p.sid)
	}
	return nil
}

// ours tells whether a session whose leader is outside the tree is this
// process's from now on: its terminal was one from outside (a shell's, that
// started the tree as a job), and this process has one to take its place.
func (b *builder) ours(sid int) bool {
	if b.ownTerminal == nil {
		st, err := procfs.ReadStat(os.Getpid(), 0)
		has := err == nil && st.TtyNr != 0
		b.ownTerminal = &has
	}
	if !*b.ownTerminal || b.byPID[sid] != nil {
		return false
	}
	for _, p := range b.procs {
		if p.sid == sid && p.extra.GetTtyNr() != 0 {
			return true
		}
	}
	return false
}

// foregrounds gives the terminals their foreground groups.
func (b *builder) foregrounds() error {
	for _, p := range b.procs {
		if p.zombie || p.sid != p.pid {
			continue
		}
		if err := b.files.SetForeground(giver{p, b}, p.sid); err != nil {
			return fmt.Errorf("%s: %w", p.describe(), err)
		}
	}
	return nil
}
