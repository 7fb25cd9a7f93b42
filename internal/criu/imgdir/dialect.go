package imgdir

import (
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	filelock "github.com/checkpoint-restore/go-criu/v8/crit/images/file-lock"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	remapfilepath "github.com/checkpoint-restore/go-criu/v8/crit/images/remap-file-path"
	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	tcpstream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timer"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Where CRIU says the same in other words.

// Kinds of file locks: the kernel's (FL_*, include/linux/filelock.h), which an
// image has, and those of the directory.
var lockKinds = map[uint32]uint32{1: 1, 2: 2, 1024: 4, 32: 8}

const lockFlock = 2

// exportLock gives a lock in the directory's words: flock(2) locks are called
// read and write locks as the others are.
func exportLock(l *filelock.FileLockEntry) *filelock.FileLockEntry {
	l = proto.CloneOf(l)
	if l.GetFlag() == lockFlock {
		t := uint32(unix.F_WRLCK)
		if l.GetType() == unix.LOCK_SH {
			t = unix.F_RDLCK
		}
		l.Type = proto.Uint32(t)
	}
	if k, ok := lockKinds[l.GetFlag()]; ok {
		l.Flag = proto.Uint32(k)
	}
	return l
}

// importLock is the reverse.
func importLock(l *filelock.FileLockEntry) {
	for own, theirs := range lockKinds {
		if l.GetFlag() == theirs {
			l.Flag = proto.Uint32(own)
			break
		}
	}
	if l.GetFlag() == lockFlock {
		t := uint32(unix.LOCK_EX)
		if l.GetType() == unix.F_RDLCK {
			t = unix.LOCK_SH
		}
		l.Type = proto.Uint32(t)
	}
}

// schedResetOnFork is SCHED_RESET_ON_FORK (sched(7)) in a policy;
// schedFlagReset the same among the flags of sched_setattr(2).
const (
	schedResetOnFork = 0x40000000
	schedFlagReset   = 1
)

// vmaGuard marks an entry that is no area, but a guard region of the area it
// lies in (MADV_GUARD_INSTALL).
const vmaGuard = 1 << 16

// withGuards adds the guard regions to the areas, each behind its own.
func withGuards(vmas []*vma.VmaEntry, g *fm.PageRuns) []*vma.VmaEntry {
	for i, at := range g.GetVaddr() {
		z := proto.Uint64(0)
		vmas = append(vmas, &vma.VmaEntry{
			Start: proto.Uint64(at), End: proto.Uint64(at + g.GetPages()[i]*sys.PageSize), Pgoff: z, Shmid: z,
			Prot: proto.Uint32(0), Flags: proto.Uint32(0), Status: proto.Uint32(vmaGuard), Fd: proto.Int64(-1),
		})
	}
	slices.SortStableFunc(vmas, func(a, b *vma.VmaEntry) int {
		switch {
		case a.GetStart() < b.GetStart():
			return -1
		case a.GetStart() > b.GetStart():
			return 1
		}
		return 0
	})
	return vmas
}

// splitFifos gives each FIFO's file an entry of its own, as the directory has
// it; moved are the numbers that remaps must follow.
func splitFifos(files []*fdinfo.FileEntry) (out []*fdinfo.FileEntry, moved map[uint32]uint32) {
	last := uint32(0)
	for _, f := range files {
		last = max(last, f.GetId())
	}
	moved = map[uint32]uint32{}
	for _, f := range files {
		if f.Fifo == nil || f.Reg == nil {
			out = append(out, f)
			continue
		}
		last++
		id := proto.Uint32(last)
		reg := proto.CloneOf(f.Reg)
		reg.Id = id
		f = proto.CloneOf(f)
		f.Reg = nil
		f.Fifo.RegfId = id
		moved[f.GetId()] = last
		out = append(out, &fdinfo.FileEntry{Type: fdinfo.FdTypes_REG.Enum(), Id: id, Reg: reg}, f)
	}
	return out, moved
}

// joinFifos is the reverse; remaps of a FIFO's file are changed to the FIFO.
func (s *Source) joinFifos(remaps []*remapfilepath.RemapFilePathEntry) {
	regs := map[uint32]*regfile.RegFileEntry{}
	for _, f := range s.files {
		if f.Reg != nil {
			regs[f.GetId()] = f.Reg
		}
	}
	taken := map[uint32]uint32{}
	for _, f := range s.files {
		if f.Fifo == nil || f.Reg != nil || regs[f.Fifo.GetRegfId()] == nil {
			continue
		}
		taken[f.Fifo.GetRegfId()] = f.GetId()
		f.Reg = proto.CloneOf(regs[f.Fifo.GetRegfId()])
		f.Reg.Id, f.Fifo.RegfId = f.Id, f.Id
	}
	s.files = slices.DeleteFunc(s.files, func(f *fdinfo.FileEntry) bool { return f.Reg != nil && f.Fifo == nil && taken[f.GetId()] != 0 })
	for _, m := range remaps {
		if id := taken[m.GetOrigId()]; id != 0 {
			m.OrigId = proto.Uint32(id)
		}
	}
}

// socketExtra gives what an image has beside the entry of a socket that CRIU
// dumped, nil when there is nothing.
func (s *Source) socketExtra(f *fdinfo.FileEntry) *fm.SockExtra {
	if u := f.Usk; u != nil && len(u.Name) > 0 && u.Name[0] != 0 && !u.GetDeleted() {
		path := string(u.Name)
		for path != "" && path[len(path)-1] == 0 {
			path = path[:len(path)-1]
		}
		if u.NameDir != nil && !filepath.IsAbs(path) {
			path = filepath.Join(u.GetNameDir(), path)
		}
		return &fm.SockExtra{Id: f.Id, Path: proto.String(path)}
	}
	if i := f.Isk; i != nil && connected(i) {
		for _, o := range s.files {
			if o.Isk != nil && connected(o.Isk) && mates(i, o.Isk) {
				return &fm.SockExtra{Id: f.Id, Peer: proto.Uint32(o.Isk.GetIno())}
			}
		}
	}
	return nil
}

// connected tells whether a TCP socket's state (include/net/tcp_states.h) has
// two ends.
func connected(i *sk_inet.InetSkEntry) bool {
	const closed, listen = 7, 10
	return i.GetProto() == unix.IPPROTO_TCP && i.GetState() != closed && i.GetState() != listen
}

// mates tells whether two sockets are the ends of one connection.
func mates(a, b *sk_inet.InetSkEntry) bool {
	return a.GetSrcPort() == b.GetDstPort() && a.GetDstPort() == b.GetSrcPort() &&
		slices.Equal(a.GetSrcAddr(), b.GetDstAddr()) && slices.Equal(a.GetDstAddr(), b.GetSrcAddr())
}

// timestamped completes a TCP stream that has the timestamp option: fermata lets
// timestamps begin anew.
func timestamped(t *tcpstream.TcpStreamEntry) *tcpstream.TcpStreamEntry {
	const timestamps = 1 // TCPI_OPT_TIMESTAMPS
	if t.GetOptMask()&timestamps == 0 || t.Timestamp != nil {
		return t
	}
	t = proto.CloneOf(t)
	t.Timestamp = proto.Uint32(0)
	return t
}

// running gives a periodic interval timer time left: the kernel shows none when
// its signal waits to be taken, and starts it again only then.
func running(t *timer.ItimerEntry) {
	if t != nil && (t.GetIsec() != 0 || t.GetIusec() != 0) && t.GetVsec() == 0 && t.GetVusec() == 0 {
		t.Vsec, t.Vusec = t.Isec, t.Iusec
	}
}

// cloneRemaps gives files that stand for others what those have instead of a
// name.
func (s *Source) cloneRemaps(remaps []*remapfilepath.RemapFilePathEntry) []*remapfilepath.RemapFilePathEntry {
	for _, m := range remaps[:len(remaps):len(remaps)] {
		if id := s.clones[m.GetOrigId()]; id != 0 {
			c := proto.CloneOf(m)
			c.OrigId = proto.Uint32(id)
			remaps = append(remaps, c)
		}
	}
	return remaps
}

// socketExtras adds what an image has beside the sockets' entries.
func (s *Source) socketExtras() {
	if s.Own {
		return
	}
	for _, f := range s.files {
		if x := s.socketExtra(f); x != nil {
			s.Image.Add("sock-extra", x)
		}
	}
}
