package rebuild

import (
	"fmt"
	"os"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// terminal gives a process the controlling terminal that it had: a leader takes
// its session's before there are members, who are born with it, and a member
// that had given it up does so again.
func (b *builder) terminal(p *proc) error {
	if p.sid == p.pid {
		return b.files.TakeTerminal(p, p.sid)
	}
	if p.session == p.sid && p.extra.GetTtyNr() == 0 {
		return b.files.DropTerminal(p, p.sid)
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
		if err := b.files.SetForeground(p, p.sid); err != nil {
			return fmt.Errorf("%s: %w", p.describe(), err)
		}
	}
	return nil
}
