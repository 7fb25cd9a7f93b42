package resource

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/tty"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Terminals (ioctl_tty(2), pty(7); drivers/tty). By rule:
//
//   - A pseudo terminal whose master is in the tree is saved whole: number, line
//     settings and which of them are locked, window size, lock of the slave,
//     packet and exclusive mode, what is queued both ways (tty_queue.go), whose
//     controlling terminal it is and its foreground group (tty_session.go). The
//     number must be free at the restore, or changed files be kept as they are.
//   - A slave whose master is closed has hung up, and does so again.
//   - A pseudo terminal whose master is outside (a shell's, that started the
//     tree) becomes the terminal of the fermata that restores.
//   - Consoles, virtual terminals and serial lines are opened again by their
//     path; serial lines get their settings back.
//
// What the kernel does not show is not saved: the column of the cursor, and, where
// its memory cannot be read (tty_kernel.go), whether output was stopped by TCOOFF
// or by the stop character (the latter is assumed where the line has one).
//
// Schema: tty_file_entry for a description, tty_info_entry (part "tty-info") for
// each end of a terminal, tty_data_entry (part "tty-data") for what can be read
// there, a record a line in canonical mode, tty_extra for the rest. FileExtra.blob
// is the path that a description was opened by.
type ttyKind struct{}

func init() { Register(ttyKind{}) }

const (
	ttyInfoPart  = "tty-info"
	ttyDataPart  = "tty-data"
	ttyExtraPart = "tty-extra"
)

// ttyClass tells the devices apart (Documentation/admin-guide/devices.txt).
type ttyClass int

const (
	notTTY     ttyClass = iota
	ttyMaster           // /dev/ptmx
	ttySlave            // /dev/pts/N
	ttyCurrent          // /dev/tty
	ttyConsole          // /dev/console
	ttyVirtual          // /dev/ttyN
	ttySerial           // /dev/ttySN and all other lines
)

func classOf(rdev uint64) ttyClass {
	switch major, minor := unix.Major(rdev), unix.Minor(rdev); major {
	case 4:
		if minor < 64 {
			return ttyVirtual
		}
		return ttySerial
	case 5:
		switch minor {
		case 0:
			return ttyCurrent
		case 1:
			return ttyConsole
		case 2:
			return ttyMaster
		}
		return ttySerial // callout devices of old
	case 136, 137, 138, 139, 140, 141, 142, 143:
		return ttySlave
	default:
		if otherTTY(major) {
			return ttySerial
		}
	}
	return notTTY
}

// otherTTY tells whether a major number belongs to another driver of terminals
// (a hypervisor's console, USB serial lines).
func otherTTY(major uint32) bool {
	b, err := os.ReadFile("/proc/tty/drivers")
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		// From the end: names may have blanks in them.
		if n, err := strconv.Atoi(f[len(f)-3]); err == nil && uint32(n) == major {
			return f[len(f)-1] == "serial" || f[len(f)-1] == "console" || strings.HasPrefix(f[len(f)-1], "system")
		}
	}
	return false
}

func ptsIndex(rdev uint64) int { return int(unix.Major(rdev)-136)<<20 | int(unix.Minor(rdev)) }

func (ttyKind) Name() string            { return "terminal" }
func (ttyKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_TTY} }

func (ttyKind) Match(f *File) bool {
	return f.Stat.Mode&unix.S_IFMT == unix.S_IFCHR && f.Info.Flags&unix.O_PATH == 0 && f.via == "" &&
		(f.Info.HasTTYIndex || classOf(f.Stat.Rdev) != notTTY)
}

// Priority makes Complete see the files that other kinds found in flight; it
// stays below that of files by path.
func (ttyKind) Priority() int { return 900 }

// ttyFile is a collected description.
type ttyFile struct {
	*File
	class ttyClass
	// index is that of the pty, through /dev/tty too; -1 when it is none.
	index int
	// hung: the terminal has hung up.
	hung bool
}

type ttyFilesKey struct{}

func (d *Dump) ttyFiles() *[]*ttyFile {
	v, _ := Value(d, ttyFilesKey{}, func() (*[]*ttyFile, error) { return new([]*ttyFile), nil })
	return v
}

func (ttyKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	t := &ttyFile{File: f, class: classOf(f.Stat.Rdev), index: -1}
	fd, done, err := f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	switch {
	case f.Info.HasTTYIndex:
		t.class, t.index = ttyMaster, f.Info.TTYIndex
	case t.class == ttyMaster: // a kernel that does not show it
		if t.index, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
			return nil, fmt.Errorf("TIOCGPTN: %w", err)
		}
	case t.class == ttySlave:
		t.index = ptsIndex(f.Stat.Rdev)
	}
	if _, err := sys.Termios(fd); errors.Is(err, unix.EIO) {
		t.hung = true
	} else if err != nil {
		return nil, fmt.Errorf("line settings: %w", err)
	}
	if t.class == ttyCurrent && !t.hung {
		dev, err := sys.TerminalDevice(fd)
		if err != nil {
			return nil, fmt.Errorf("TIOCGDEV: %w", err)
		}
		if classOf(dev) == ttySlave {
			t.index = ptsIndex(dev)
		}
	}
	all := d.ttyFiles()
	*all = append(*all, t)
	d.Extra(f).Blob = []byte(f.Link)
	e := entryOf(fdinfo.FdTypes_TTY)
	e.Tty = &tty.TtyFileEntry{
		Id: proto.Uint32(f.ID), TtyInfoId: proto.Uint32(0), Flags: proto.Uint32(f.Flags()), Fown: o,
	}
	return e, nil
}

// pair is a pty whose master is in the tree.
type pair struct {
	master *ttyFile
	slaves []*ttyFile
	info   *tty.TtyInfoEntry // of the slave; of the master when there is none
	minfo  *tty.TtyInfoEntry
	extra  *fm.TtyExtra
}

// instance gives the device number of the devpts that a description is of, 0
// when it cannot be told.
func (t *ttyFile) instance() uint64 {
	switch t.class {
	case ttySlave:
		return t.Stat.Dev
	case ttyMaster:
		// pts/ptmx lies in it; /dev/ptmx opens the one that is mounted at pts
		// beside it (devpts_mntget in fs/devpts/inode.c).
		dir := path.Dir(t.Link)
		if path.Base(dir) != "pts" {
			dir = path.Join(dir, "pts")
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+strconv.Itoa(t.PID)+"/root"+dir, &st) == nil {
			return st.Dev
		}
	}
	return 0
}

type pairKey struct {
	dev   uint64
	index int
}

func (ttyKind) Complete(d *Dump) error {
	c := &ttyCollector{d: d, pairs: map[pairKey]*pair{}, byIndex: map[int]*pair{}}
	all := *d.ttyFiles()
	for _, t := range all {
		if t.class == ttyMaster {
			p := &pair{master: t}
			c.pairs[pairKey{t.instance(), t.index}] = p
			c.byIndex[t.index] = p
			c.order = append(c.order, p)
		}
	}
	for _, t := range all {
		if t.class == ttyMaster {
			continue
		}
		p := c.pairs[pairKey{t.instance(), t.index}]
		if p == nil && t.class == ttyCurrent {
			p = c.byIndex[t.index]
		}
		if p != nil && !t.hung {
			p.slaves = append(p.slaves, t)
			continue
		}
		if err := c.alone(t); err != nil {
			return fmt.Errorf("pid %d: %s: %w", t.PID, t, err)
		}
	}
	for _, p := range c.order {
		if err := c.pair(p); err != nil {
			return fmt.Errorf("pid %d: %s: %w", p.master.PID, p.master, err)
		}
	}
	*d.pairs() = c.order
	return nil
}

type pairsKey struct{}

func (d *Dump) pairs() *[]*pair {
	v, _ := Value(d, pairsKey{}, func() (*[]*pair, error) { return new([]*pair), nil })
	return v
}

// ttyCollector completes the terminals of a dump.
type ttyCollector struct {
	d       *Dump
	pairs   map[pairKey]*pair
	byIndex map[int]*pair
	order   []*pair
	next    uint32
	alones  map[uint64]uint32 // ids of terminals that are not pairs, by device
}

// info gives the entry of one end, with what its descriptor tells.
func (c *ttyCollector) info(t *ttyFile, kind tty.TtyType) (*tty.TtyInfoEntry, error) {
	c.next++
	e := &tty.TtyInfoEntry{
		Id: proto.Uint32(c.next), Type: kind.Enum(), Locked: proto.Bool(false), Exclusive: proto.Bool(false),
		PacketMode: proto.Bool(false), Sid: proto.Uint32(0), Pgrp: proto.Uint32(0), Rdev: proto.Uint32(uint32(kernelDev(t.Stat.Rdev))),
		Dev: proto.Uint32(uint32(kernelDev(t.Stat.Dev))), Uid: proto.Uint32(t.Stat.Uid), Gid: proto.Uint32(t.Stat.Gid),
	}
	if t.index >= 0 {
		e.Pty = &tty.TtyPtyEntry{Index: proto.Uint32(uint32(t.index))}
	}
	if t.hung {
		return e, nil
	}
	fd, done, err := t.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	ts, err := sys.Termios(fd)
	if err != nil {
		return nil, fmt.Errorf("line settings: %w", err)
	}
	e.Termios = termiosEntry(ts)
	if ts, err = sys.LockedTermios(fd); err != nil {
		return nil, fmt.Errorf("locked line settings: %w", err)
	}
	e.TermiosLocked = termiosEntry(ts)
	if w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
		e.Winsize = &tty.WinsizeEntry{
			WsRow: proto.Uint32(uint32(w.Row)), WsCol: proto.Uint32(uint32(w.Col)),
			WsXpixel: proto.Uint32(uint32(w.Xpixel)), WsYpixel: proto.Uint32(uint32(w.Ypixel)),
		}
	}
	excl, err := unix.IoctlGetInt(fd, unix.TIOCGEXCL)
	if err != nil {
		return nil, fmt.Errorf("TIOCGEXCL: %w", err)
	}
	e.Exclusive = proto.Bool(excl != 0)
	return e, nil
}

func (c *ttyCollector) add(e *tty.TtyInfoEntry, x *fm.TtyExtra) {
	c.d.Image.Add(ttyInfoPart, e)
	if x != nil {
		x.Id = e.Id
		c.d.Image.Add(ttyExtraPart, x)
	}
}

// alone takes a description of a terminal that is not a pair of the tree.
func (c *ttyCollector) alone(t *ttyFile) error {
	kind, x := tty.TtyType_EXT_TTY, (*fm.TtyExtra)(nil)
	switch {
	case t.hung:
		kind, x = tty.TtyType_PTY, &fm.TtyExtra{HungUp: proto.Bool(true)}
		if t.class != ttySlave && t.class != ttyCurrent {
			c.d.Refusal(t.File, "its line has hung up", "close it before the checkpoint")
			return nil
		}
	case t.class == ttyConsole:
		kind = tty.TtyType_CONSOLE
	case t.class == ttyVirtual:
		kind = tty.TtyType_VT
	case t.class == ttySerial:
		kind = tty.TtyType_SERIAL
	}
	key := t.Stat.Rdev
	if t.class == ttyCurrent && t.index >= 0 {
		key = unix.Mkdev(136+uint32(t.index)>>20, uint32(t.index)&0xfffff)
	}
	if id := c.alones[key]; id != 0 && !t.hung {
		t.Entry.Tty.TtyInfoId = proto.Uint32(id)
		return nil
	}
	e, err := c.info(t, kind)
	if err != nil {
		return err
	}
	if c.alones == nil {
		c.alones = map[uint64]uint32{}
	}
	if !t.hung {
		c.alones[key] = e.GetId()
	}
	t.Entry.Tty.TtyInfoId = e.Id
	c.add(e, x)
	return nil
}

// pair takes both ends of a pty.
func (c *ttyCollector) pair(p *pair) (err error) {
	fd, err := p.master.Dup() // needed again for what is queued
	if err != nil {
		return err
	}
	if p.minfo, err = c.info(p.master, tty.TtyType_PTY); err != nil {
		return err
	}
	m := p.minfo
	p.master.Entry.Tty.TtyInfoId = m.Id
	for _, f := range []struct {
		to  **bool
		req uint
	}{{&m.Locked, unix.TIOCGPTLCK}, {&m.PacketMode, unix.TIOCGPKT}} {
		v, err := unix.IoctlGetInt(fd, f.req)
		if err != nil {
			return fmt.Errorf("ioctl %#x: %w", f.req, err)
		}
		*f.to = proto.Bool(v != 0)
	}
	disc, err := unix.IoctlGetInt(fd, unix.TIOCGETD)
	if err != nil {
		return fmt.Errorf("TIOCGETD: %w", err)
	}
	if disc != 0 {
		c.d.Refusal(p.master.File, fmt.Sprintf("its line discipline is %d, not that of terminals", disc), "detach what uses the line (slattach, pppd)")
		return nil
	}
	ev := pollFD(fd, unix.POLLPRI, 0)
	if m.GetPacketMode() && ev&unix.POLLPRI != 0 {
		if _, err := c.d.Kernel(); err != nil {
			c.d.Refusal(p.master.File, fmt.Sprintf("in packet mode, and a change of its state has not been read (%v)", err), "try again")
		}
	}
	if p.extra, err = c.nodeMode(p); err != nil {
		return err
	}
	x := &fm.TtyExtra{}
	p.info = m
	if len(p.slaves) == 0 {
		x.PeerClosed = proto.Bool(ev&unix.POLLHUP != 0)
		x.Mode = p.extra.Mode
		p.extra = x
		c.add(m, x)
		return c.session(p, fd)
	}
	c.add(m, nil)
	first := p.slaves[0]
	for _, s := range p.slaves {
		if s.class == ttySlave {
			first = s
		}
	}
	if p.info, err = c.info(first, tty.TtyType_PTY); err != nil {
		return err
	}
	p.info.Uid, p.info.Gid = m.Uid, m.Gid
	for _, s := range p.slaves {
		s.Entry.Tty.TtyInfoId = p.info.Id
	}
	c.add(p.info, p.extra)
	return c.session(p, fd)
}

// nodeMode gives owner and permissions of the slave's file, which all its
// openers share; it sets the owner in the master's entry.
func (c *ttyCollector) nodeMode(p *pair) (*fm.TtyExtra, error) {
	var st unix.Stat_t
	name := "/proc/" + strconv.Itoa(p.master.PID) + "/root/dev/pts/" + strconv.Itoa(p.master.index)
	found := unix.Stat(name, &st) == nil && ptsIndex(st.Rdev) == p.master.index
	for _, s := range p.slaves {
		if s.class == ttySlave {
			st, found = s.Stat, true
		}
	}
	if !found {
		return &fm.TtyExtra{}, nil
	}
	p.minfo.Uid, p.minfo.Gid = proto.Uint32(st.Uid), proto.Uint32(st.Gid)
	return &fm.TtyExtra{Mode: proto.Uint32(st.Mode & 0o7777)}, nil
}

// session finds out whose controlling terminal a pty is.
func (c *ttyCollector) session(p *pair, master int) error {
	sid, err := unix.IoctlGetInt(master, unix.TIOCGSID)
	if errors.Is(err, unix.ENOTTY) {
		return nil // nobody's
	}
	if err != nil {
		return fmt.Errorf("TIOCGSID: %w", err)
	}
	if sid <= 0 {
		return nil
	}
	if c.d.InTree != nil && !c.d.InTree(sid) {
		c.d.Refusal(p.master.File, fmt.Sprintf("it is the controlling terminal of session %d, whose leader is outside the tree", sid), "checkpoint that process too")
		return nil
	}
	pgrp, err := unix.IoctlGetInt(master, unix.TIOCGPGRP)
	if err != nil {
		return fmt.Errorf("TIOCGPGRP: %w", err)
	}
	if pgrp <= 0 {
		pgrp = sid // one of another pid namespace: the leader is who there is
	}
	p.info.Sid, p.info.Pgrp = proto.Uint32(uint32(sid)), proto.Uint32(uint32(pgrp))
	return nil
}

// Commit takes down what is queued, when nothing was refused.
func (ttyKind) Commit(d *Dump) error {
	for _, p := range *d.pairs() {
		if err := p.queues(d); err != nil {
			return fmt.Errorf("pid %d: %s: %w", p.master.PID, p.master, err)
		}
	}
	return nil
}

func (p *pair) queues(d *Dump) error {
	master, err := p.master.Dup()
	if err != nil {
		return err
	}
	ends := ptyEnds{master: master, slave: -1}
	if len(p.slaves) > 0 {
		const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_NONBLOCK
		if ends.slave, err = sys.PtyPeer(master, flags); err == nil {
			defer unix.Close(ends.slave)
		} else if errors.Is(err, unix.EBUSY) { // exclusive, and not for us
			ends.slave, err = p.writable().Dup()
		}
		if err != nil {
			return fmt.Errorf("opening the slave: %w", err)
		}
	}
	var q *ptyQueues
	empty, err := ends.empty()
	switch {
	case err != nil:
	case empty && p.minfo.GetPacketMode() && pollFD(master, unix.POLLPRI, 0)&unix.POLLPRI == 0, empty && !p.minfo.GetPacketMode():
		return nil
	default:
		if k, kerr := d.Kernel(); kerr == nil {
			q, err = ends.peekKernel(k)
		} else {
			q, err = ends.peek(d)
		}
	}
	if err != nil {
		return err
	}
	if len(q.behind) > 0 {
		p.extra.Behind = q.behind
	}
	if p.minfo.GetPacketMode() && q.packet != 0 {
		p.extra.PacketStatus = proto.Uint32(q.packet)
	}
	for _, l := range q.input {
		d.Image.Add(ttyDataPart, &tty.TtyDataEntry{TtyId: p.info.Id, Data: l.data})
	}
	if len(q.output) > 0 {
		d.Image.Add(ttyDataPart, &tty.TtyDataEntry{TtyId: p.minfo.Id, Data: q.output})
	}
	if q.begun {
		p.extra.LineBegun = proto.Bool(true)
	}
	if q.stopped {
		p.extra.Stopped = proto.Bool(true)
		if q.call {
			p.extra.Tcooff = proto.Bool(true)
		}
	}
	return nil
}

// writable gives the slave's description that is best for both directions.
func (p *pair) writable() *File {
	for _, s := range p.slaves {
		if s.Info.Flags&unix.O_ACCMODE == unix.O_RDWR {
			return s.File
		}
	}
	return p.slaves[0].File
}

func termiosEntry(t *unix.Termios) *tty.TermiosEntry {
	e := &tty.TermiosEntry{
		CIflag: &t.Iflag, COflag: &t.Oflag, CCflag: &t.Cflag, CLflag: &t.Lflag, CLine: proto.Uint32(uint32(t.Line)),
		CIspeed: &t.Ispeed, COspeed: &t.Ospeed,
	}
	for _, c := range t.Cc {
		e.CCc = append(e.CCc, uint32(c))
	}
	return e
}

func termiosOf(e *tty.TermiosEntry) *unix.Termios {
	t := &unix.Termios{
		Iflag: e.GetCIflag(), Oflag: e.GetCOflag(), Cflag: e.GetCCflag(), Lflag: e.GetCLflag(), Line: uint8(e.GetCLine()),
		Ispeed: e.GetCIspeed(), Ospeed: e.GetCOspeed(),
	}
	for i := range min(len(t.Cc), len(e.GetCCc())) {
		t.Cc[i] = uint8(e.GetCCc()[i])
	}
	return t
}
