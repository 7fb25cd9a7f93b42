package resource

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/tty"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// ttyImage is what an image has of terminals.
type ttyImage struct {
	info  map[uint32]*tty.TtyInfoEntry
	extra map[uint32]*fm.TtyExtra
	data  map[uint32][][]byte
	ptys  []*openedPty
	by    map[uint32]*openedPty // by the id of either end's info
}

// openedPty is a pty being restored.
type openedPty struct {
	minfo *tty.TtyInfoEntry // nil: the master was closed
	sinfo *tty.TtyInfoEntry // nil: no slave is open
	extra *fm.TtyExtra
	// master is the master's description; the file's own descriptor when it has
	// one. slave is open until Finish, so that the slave does not count as
	// closed before the tasks have theirs; -1 when there is none.
	master, slave int
	index         int // the number it has now
}

// noTTY stands for what an entry does not name.
var noTTY = &tty.TtyInfoEntry{}

func (r *Restore) ttys() (*ttyImage, error) {
	type key struct{}
	return RestoreValue(r, key{}, func() (*ttyImage, error) {
		m := &ttyImage{
			info: map[uint32]*tty.TtyInfoEntry{}, extra: map[uint32]*fm.TtyExtra{}, data: map[uint32][][]byte{},
			by: map[uint32]*openedPty{},
		}
		infos, err := image.All[*tty.TtyInfoEntry](r.Image, ttyInfoPart)
		if err != nil {
			return nil, err
		}
		extras, err := image.All[*fm.TtyExtra](r.Image, ttyExtraPart)
		if err != nil {
			return nil, err
		}
		data, err := image.All[*tty.TtyDataEntry](r.Image, ttyDataPart)
		if err != nil {
			return nil, err
		}
		for _, i := range infos {
			m.info[i.GetId()] = i
		}
		for _, x := range extras {
			m.extra[x.GetId()] = x
		}
		for _, d := range data {
			m.data[d.GetTtyId()] = append(m.data[d.GetTtyId()], d.GetData())
		}
		return m, m.group(r, infos)
	})
}

// group finds the ends that belong together: by the number of the pty, and an
// end is a master when a description of a master says so.
func (m *ttyImage) group(r *Restore, infos []*tty.TtyInfoEntry) error {
	masters := map[uint32]bool{}
	for _, id := range r.order {
		if t := r.entries[id].GetTty(); t != nil {
			if m.info[t.GetTtyInfoId()] == nil {
				return fault.Errorf(fault.ErrDamaged, "terminal file %d: no terminal %d in the image", id, t.GetTtyInfoId())
			}
			if r.opensMaster(id) {
				masters[t.GetTtyInfoId()] = true
			}
		}
	}
	live := map[uint32]*openedPty{}
	for _, i := range infos {
		if i.GetType() != tty.TtyType_PTY {
			continue
		}
		if i.GetSid() != 0 && i.GetPgrp() == 0 {
			return fault.Errorf(fault.ErrDamaged, "terminal %d: no foreground group in the image", i.GetId())
		}
		x := m.extra[i.GetId()]
		p := live[i.GetPty().GetIndex()]
		if p == nil || x.GetHungUp() {
			p = &openedPty{master: -1, slave: -1}
			m.ptys = append(m.ptys, p)
			if !x.GetHungUp() {
				live[i.GetPty().GetIndex()] = p
			}
		}
		m.by[i.GetId()] = p
		if masters[i.GetId()] {
			p.minfo = i
		} else {
			p.sinfo = i
		}
		if x != nil {
			p.extra = x
		}
	}
	for _, p := range m.ptys {
		if p.extra == nil {
			return fault.Errorf(fault.ErrDamaged, "terminal %d: no tty_extra in the image", max(p.minfo.GetId(), p.sinfo.GetId()))
		}
	}
	return nil
}

// opensMaster tells whether a description is of a master, by the device number
// of its file.
func (r *Restore) opensMaster(id uint32) bool {
	m := r.entries[id].GetTty()
	link := string(r.Extra(id).GetBlob())
	return m != nil && (link == "/dev/ptmx" || link == "/dev/pts/ptmx" || len(link) > 5 && link[len(link)-5:] == "/ptmx")
}

// ofPty gives the pty that a description belongs to, nil for another terminal.
func (m *ttyImage) ofPty(e *fdinfo.FileEntry) (*openedPty, *tty.TtyInfoEntry) {
	id := e.GetTty().GetTtyInfoId()
	i := m.info[id]
	if i == nil {
		i = noTTY
	}
	return m.by[id], i
}

func (ttyKind) Check(r *Restore, e *fdinfo.FileEntry) error {
	m, err := r.ttys()
	if err != nil {
		return err
	}
	p, i := m.ofPty(e)
	bad := func(why, remedy string) {
		r.Refuse.Add(fault.Reason{Object: fmt.Sprintf("file %d: terminal %s", e.GetId(), r.Extra(e.GetId()).GetBlob()), Why: why, Remedy: remedy})
	}
	switch {
	case p != nil:
		if p.minfo == i {
			name := "/dev/pts/" + strconv.Itoa(int(i.GetPty().GetIndex()))
			if _, err := os.Lstat(name); err == nil && r.Files != FilesKeep {
				bad("the number "+name+" is in use", "close the terminal that has it, or restore with --files=keep, which gives this one another number")
			}
		}
	case i.GetType() == tty.TtyType_EXT_TTY:
		if _, err := r.terminal(); err != nil {
			bad("the program was started from a terminal, and this fermata has none", "restore it from a terminal (script -qc 'fermata restore …' /dev/null makes one)")
		}
	default:
		var st unix.Stat_t
		name := string(r.Extra(e.GetId()).GetBlob())
		if err := unix.Stat(name, &st); err != nil {
			bad(err.Error(), "")
		} else if uint32(kernelDev(st.Rdev)) != i.GetRdev() {
			bad("it is another device here", "")
		}
	}
	return nil
}

// terminal gives a descriptor of the terminal that this process was started
// from: it is not to be closed.
func (r *Restore) terminal() (int, error) {
	type key struct{}
	return RestoreValue(r, key{}, func() (int, error) {
		for fd := range 3 {
			if _, err := sys.Termios(fd); err == nil {
				return fd, nil
			}
		}
		fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("no terminal: %w", err)
		}
		r.CloseLater(fd)
		return fd, nil
	})
}

// Late: what was opened as /dev/tty can only be by a member of the session.
func (ttyKind) Late(r *Restore, e *fdinfo.FileEntry) bool {
	m, err := r.ttys()
	if err != nil {
		return false // Open says why
	}
	p, _ := m.ofPty(e)
	return p != nil && p.minfo != nil && string(r.Extra(e.GetId()).GetBlob()) == "/dev/tty"
}

func (ttyKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	m, err := r.ttys()
	if err != nil {
		return -1, err
	}
	p, i := m.ofPty(e)
	flags := e.GetTty().GetFlags()
	link := string(r.Extra(e.GetId()).GetBlob())
	switch {
	case p == nil && i.GetType() == tty.TtyType_EXT_TTY:
		return r.openOwnTerminal(link, flags)
	case p == nil:
		fd, err := unix.Open(link, openFlags(flags)|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("%s: %w", link, err)
		}
		if i.GetType() == tty.TtyType_SERIAL && i.GetTermios() != nil {
			if err := sys.SetTermios(fd, termiosOf(i.GetTermios())); err != nil {
				return finish(fd, fmt.Errorf("%s: line settings: %w", link, err))
			}
		}
		return finish(fd, setStatus(fd, flags))
	}
	if err := m.openPty(r, p); err != nil {
		return -1, fmt.Errorf("pty %d: %w", i.GetPty().GetIndex(), err)
	}
	if p.minfo == i {
		// Its one description; p.master only knows it.
		return p.master, setStatus(p.master, flags)
	}
	if link == "/dev/tty" && p.minfo != nil {
		r.Note("terminal file %d: /dev/tty was opened as the terminal itself, for its session is not restored with it", e.GetId())
	}
	fd, err := sys.PtyPeer(p.master, openFlags(flags)|unix.O_NOCTTY|kernelLargefile)
	if err != nil {
		return -1, fmt.Errorf("pty %d: opening the slave: %w", i.GetPty().GetIndex(), err)
	}
	return finish(fd, setStatus(fd, flags))
}

// openFlags are those of a saved description that open(2) is given.
func openFlags(flags uint32) int {
	return int(flags) & (unix.O_ACCMODE | unix.O_NONBLOCK | unix.O_APPEND | unix.O_SYNC)
}

// openOwnTerminal opens the terminal of this process for a description of the
// terminal that the program was started from. It is a new description, so that
// its flags are not those of the shell's; where the terminal's file may not be
// opened (after su), it is shared.
func (r *Restore) openOwnTerminal(link string, flags uint32) (int, error) {
	t, err := r.terminal()
	if err != nil {
		return -1, fault.Wrap(fault.ErrRefused, err)
	}
	name := "/proc/self/fd/" + strconv.Itoa(t)
	if link == "/dev/tty" {
		name = link
	}
	fd, err := unix.Open(name, openFlags(flags)|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err == nil {
		return finish(fd, setStatus(fd, flags))
	}
	if fd, err = unix.FcntlInt(uintptr(t), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return -1, fmt.Errorf("own terminal: %w", err)
	}
	return fd, nil
}

// maxPtyTries is how many ptys are opened to get at one number: the kernel gives
// the lowest that is free.
const maxPtyTries = 4096

// openPty makes a pty with a number and gives it its state, the first time one
// of its descriptions is opened.
func (m *ttyImage) openPty(r *Restore, p *openedPty) (err error) {
	if p.master >= 0 {
		return nil
	}
	info := p.sinfo
	if info == nil || p.minfo != nil {
		info = p.minfo
	}
	want := int(info.GetPty().GetIndex())
	if p.master, p.index, err = openMaster("/dev/ptmx", want, p.minfo != nil && r.Files != FilesKeep); err != nil {
		return err
	}
	if p.minfo != nil && p.index != want {
		r.Note("terminal /dev/pts/%d is /dev/pts/%d now: the number was taken", want, p.index)
	}
	defer func() {
		if err != nil {
			unix.Close(p.master)
			p.master = -1
		}
	}()
	if p.minfo == nil {
		r.CloseLater(p.master) // if Link does not come to it
	}
	if err := unix.IoctlSetPointerInt(p.master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlocking: %w", err)
	}
	if p.minfo == nil {
		return nil
	}
	if p.sinfo != nil || p.extra.GetPeerClosed() {
		const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_NONBLOCK
		if p.slave, err = sys.PtyPeer(p.master, flags); err != nil {
			return fmt.Errorf("opening the slave: %w", err)
		}
		r.CloseLater(p.slave)
	}
	if err := p.own(); err != nil {
		return err
	}
	return m.fill(p)
}

// own gives the slave's file its owner and permissions.
func (p *openedPty) own() error {
	uid, gid := p.minfo.GetUid(), p.minfo.GetGid()
	// One that was never opened, and is not to be, has only its name.
	name := "/dev/pts/" + strconv.Itoa(p.index)
	if p.slave >= 0 {
		name = "/proc/self/fd/" + strconv.Itoa(p.slave)
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil || p.extra.Mode == nil {
		return err
	}
	if st.Uid != uid || st.Gid != gid {
		if err := unix.Chown(name, int(uid), int(gid)); err != nil {
			return fmt.Errorf("owner %d:%d: %w", uid, gid, err)
		}
	}
	if st.Mode&0o7777 != p.extra.GetMode() {
		if err := unix.Chmod(name, p.extra.GetMode()); err != nil {
			return fmt.Errorf("permissions: %w", err)
		}
	}
	return nil
}

// openMaster opens a master with a number or, unless exact, with the next that is
// free.
func openMaster(name string, want int, exact bool) (fd, index int, err error) {
	var held []int
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for range maxPtyTries {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, 0, fmt.Errorf("%s: %w", name, err)
		}
		got, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		if err != nil {
			unix.Close(fd)
			return -1, 0, fmt.Errorf("TIOCGPTN: %w", err)
		}
		if got == want || !exact && got > want {
			return fd, got, nil
		}
		held = append(held, fd)
		if got > want {
			return -1, 0, fault.Errorf(fault.ErrBusy, "the number /dev/pts/%d is in use", want)
		}
	}
	return -1, 0, fault.Errorf(fault.ErrBusy, "the number /dev/pts/%d cannot be had", want)
}

// fill gives a fresh pty what was queued, and its settings.
func (m *ttyImage) fill(p *openedPty) error {
	info := p.sinfo
	if info == nil {
		info = p.minfo
	}
	if info.GetTermios() == nil {
		return fault.Errorf(fault.ErrDamaged, "no line settings in the image")
	}
	ends := ptyEnds{master: p.master, slave: p.slave, was: termiosOf(info.GetTermios())}
	if p.sinfo != nil {
		q := ptyQueues{begun: p.extra.GetLineBegun()}
		lines := m.data[p.sinfo.GetId()]
		for n, b := range lines {
			l := ptyLine{data: b}
			begun := q.begun && n == len(lines)-1
			l.eof = canonical(ends.was) && !begun && !ends.ended(b)
			q.input = append(q.input, l)
		}
		if len(q.input) > 0 {
			if err := ends.putInput(&q); err != nil {
				return err
			}
		}
	}
	for _, b := range m.data[p.minfo.GetId()] {
		if err := ends.putOutput(b); err != nil {
			return err
		}
	}
	if err := sys.SetTermios(p.master, ends.was); err != nil {
		return fmt.Errorf("line settings: %w", err)
	}
	if l := info.GetTermiosLocked(); l != nil {
		if t := termiosOf(l); *t != (unix.Termios{}) {
			if err := sys.SetLockedTermios(p.master, t); err != nil {
				return fmt.Errorf("locking the line settings: %w", err)
			}
		}
	}
	if w := info.GetWinsize(); w != nil {
		ws := unix.Winsize{Row: uint16(w.GetWsRow()), Col: uint16(w.GetWsCol()), Xpixel: uint16(w.GetWsXpixel()), Ypixel: uint16(w.GetWsYpixel())}
		if err := unix.IoctlSetWinsize(p.master, unix.TIOCSWINSZ, &ws); err != nil {
			return fmt.Errorf("window size: %w", err)
		}
	}
	if p.extra.GetStopped() && p.slave >= 0 && !p.tellsStop() {
		return ends.stop(ends.was, p.extra.GetTcooff())
	}
	return nil
}

// tellsStop says that a master in packet mode has yet to be told that output
// was stopped.
func (p *openedPty) tellsStop() bool { return p.extra.GetPacketStatus()&unix.TIOCPKT_STOP != 0 }

// last gives a pty what comes when its session and settings are there: input that
// the line discipline has not looked at, and reports of packet mode.
func (m *ttyImage) last(r *Restore, p *openedPty) error {
	ends := ptyEnds{master: p.master, slave: p.slave, was: termiosOf(p.sinfo.GetTermios())}
	if p.minfo.GetPacketMode() {
		if err := unix.IoctlSetPointerInt(p.master, unix.TIOCPKT, 1); err != nil {
			return fmt.Errorf("packet mode: %w", err)
		}
		idleIn, idleOut := len(m.data[p.sinfo.GetId()])+len(p.extra.GetBehind()) == 0, len(m.data[p.minfo.GetId()]) == 0
		lost, err := ends.report(p.extra.GetPacketStatus(), idleIn, idleOut)
		if err != nil {
			return fmt.Errorf("reports of packet mode: %w", err)
		}
		if lost != 0 {
			r.Note("pty %d: in packet mode, a flush (%#x) that was not yet read will not be reported", p.index, lost)
		}
		if p.tellsStop() {
			if err := ends.stop(ends.was, p.extra.GetTcooff()); err != nil {
				return err
			}
		}
	}
	for b := p.extra.GetBehind(); len(b) > 0; {
		n, err := unix.Write(p.master, b)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("%d bytes of input: %w", len(b), err)
		}
		b = b[max(n, 0):]
	}
	return nil
}

// Link hangs up the terminals that had: their slaves are open by now.
func (ttyKind) Link(r *Restore, e *fdinfo.FileEntry) error {
	m, err := r.ttys()
	if err != nil {
		return err
	}
	if p, _ := m.ofPty(e); p != nil && p.minfo == nil && p.master >= 0 {
		r.closeNow(p.master)
		p.master = -2
	}
	return nil
}

// Finish sets what would have been in the way: exclusive and packet mode, the
// lock of the slave. A slave that no task has is closed.
func (ttyKind) Finish(r *Restore, e *fdinfo.FileEntry) error {
	m, err := r.ttys()
	if err != nil {
		return err
	}
	p, i := m.ofPty(e)
	if p == nil {
		if i.GetType() == tty.TtyType_EXT_TTY {
			return r.finishOwnTerminal(i)
		}
		return nil
	}
	if p.minfo == nil || p.minfo != i || p.master < 0 {
		return nil
	}
	excl := func(fd int, on bool) error {
		if !on {
			return nil
		}
		return unix.IoctlSetInt(fd, unix.TIOCEXCL, 0)
	}
	errs := []error{excl(p.master, p.minfo.GetExclusive())}
	if p.slave >= 0 {
		errs = append(errs, m.last(r, p), excl(p.slave, p.sinfo.GetExclusive()))
		r.closeNow(p.slave)
		p.slave = -1
	}
	if p.minfo.GetPacketMode() && p.sinfo == nil {
		errs = append(errs, unix.IoctlSetPointerInt(p.master, unix.TIOCPKT, 1))
	}
	if p.minfo.GetLocked() {
		errs = append(errs, unix.IoctlSetPointerInt(p.master, unix.TIOCSPTLCK, 1))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("pty %d: %w", i.GetPty().GetIndex(), err)
	}
	return nil
}

// closeNow closes a descriptor that was to be closed later.
func (r *Restore) closeNow(fd int) {
	for i, n := range r.close {
		if n == fd {
			r.close = append(r.close[:i], r.close[i+1:]...)
			break
		}
	}
	unix.Close(fd)
}

// finishOwnTerminal gives this process's terminal, when the tree is in its
// foreground, the settings that the program left the other one with. Its window
// keeps its size: who passes the program the foreground tells it of that.
func (r *Restore) finishOwnTerminal(i *tty.TtyInfoEntry) error {
	if !r.Foreground || i.GetTermios() == nil {
		return nil
	}
	fd, err := r.terminal()
	if err != nil {
		return err
	}
	if err := sys.SetTermios(fd, termiosOf(i.GetTermios())); err != nil {
		return fmt.Errorf("own terminal: line settings: %w", err)
	}
	return nil
}
