package guardian

import (
	"encoding/binary"
	"fmt"
	"os"
	"sort"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/sys"
)

var le = binary.LittleEndian

// descriptors sets back what was changed for a moment on open files of the
// targets: options of sockets, settings of terminals. The controller's
// duplicates died with it; the targets have the files.
func (c *cleaner) descriptors() {
	sockets := map[string][]journal.Record{}
	for _, r := range c.book.Of(journal.Sockopt) {
		name := fmt.Sprintf("socket:[%d]", r.V[0])
		sockets[name] = append(sockets[name], r)
	}
	terminals := c.book.Of(journal.Terminal)
	if len(sockets)+len(terminals) == 0 {
		return
	}
	for _, r := range c.book.Of(journal.Target) {
		pid := int(r.V[0])
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		p, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		for _, f := range fds {
			n, err := strconv.Atoi(f.Name())
			if err != nil {
				continue
			}
			link, err := os.Readlink(dir + "/" + f.Name())
			if err != nil {
				continue
			}
			owed := sockets[link]
			if owed == nil && (len(terminals) == 0 || !isTerminal(link)) {
				continue
			}
			fd, err := unix.PidfdGetfd(p, n, 0)
			if err != nil {
				continue
			}
			// The protocol's own first: leaving TCP's repair mode forgets
			// SO_REUSEADDR.
			sort.SliceStable(owed, func(i, j int) bool { return owed[i].V[1] > owed[j].V[1] })
			for _, r := range owed {
				setOption(fd, r)
			}
			if len(terminals) > 0 && owed == nil {
				setTerminal(fd, terminals)
			}
			unix.Close(fd)
			delete(sockets, link)
		}
		unix.Close(p)
	}
}

func setOption(fd int, r journal.Record) {
	var b [16]byte
	le.PutUint64(b[:], r.V[4])
	le.PutUint64(b[8:], r.V[5])
	_ = unix.SetsockoptString(fd, int(r.V[1]), int(r.V[2]), string(b[:min(r.V[3], 16)]))
}

func isTerminal(link string) bool {
	return link == "/dev/ptmx" || len(link) > 9 && link[:9] == "/dev/pts/"
}

// setTerminal puts the settings of a pty back that a descriptor is an end of.
func setTerminal(fd int, owed []journal.Record) {
	dev, err := sys.TerminalDevice(fd)
	if err != nil {
		return
	}
	for _, r := range owed {
		if r.V[0] == dev {
			_ = sys.SetTermios(fd, decodeTermios(r.Text))
		}
	}
}

// Sockopt notes that an option of a socket of the targets, of which fd is a
// duplicate, is to be changed for a moment; value is what it must be afterwards.
func (g *Guardian) Sockopt(fd, level, name int, value []byte) (release func()) {
	var st unix.Stat_t
	if g == nil || len(value) > 16 || unix.Fstat(fd, &st) != nil {
		return func() {}
	}
	var b [16]byte
	copy(b[:], value)
	e := g.Journal.Add(journal.Sockopt, st.Ino, uint64(level), uint64(name), uint64(len(value)), le.Uint64(b[:]), le.Uint64(b[8:]))
	return e.Done
}

// Terminal notes the settings that a pty must have afterwards.
func (g *Guardian) Terminal(master int, was *unix.Termios) (release func()) {
	dev, err := sys.TerminalDevice(master)
	if g == nil || err != nil {
		return func() {}
	}
	return g.Journal.AddText(journal.Terminal, encodeTermios(was), dev).Done
}

// NetLock notes a lock on connections that is about to be made. After published
// it is removed only if the tree goes on.
func (g *Guardian) NetLock(name string) (published, release func()) {
	if g == nil {
		return func() {}, func() {}
	}
	e := g.Journal.AddText(journal.NetLock, name, 0)
	return func() { e.Set(0, 1) }, e.Done
}

// The settings as struct termios2 has them (include/uapi/asm-generic/termbits.h).
func encodeTermios(t *unix.Termios) string {
	var b []byte
	for _, v := range []uint32{t.Iflag, t.Oflag, t.Cflag, t.Lflag} {
		b = le.AppendUint32(b, v)
	}
	b = append(append(b, t.Line), t.Cc[:]...)
	b = le.AppendUint32(b, t.Ispeed)
	return string(le.AppendUint32(b, t.Ospeed))
}

func decodeTermios(s string) *unix.Termios {
	t := &unix.Termios{}
	b := []byte(s)
	if len(b) < 17+len(t.Cc)+8 {
		return t
	}
	t.Iflag, t.Oflag, t.Cflag, t.Lflag, t.Line = le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:]), b[16]
	b = b[17:]
	b = b[copy(t.Cc[:], b):]
	t.Ispeed, t.Ospeed = le.Uint32(b), le.Uint32(b[4:])
	return t
}
