package resource

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	pipedata "github.com/checkpoint-restore/go-criu/v8/crit/images/pipe-data"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
)

// The content of pipes and FIFOs: part "pipes-data" (of FIFOs "fifo-data") has a
// record for each that holds something or has another capacity than usual, with
// the bytes behind it; part "pipe-packets" the lengths of the packets of one in
// packet mode.

const defaultPipeSize = 65536

type pipeIDKey inodeKey
type pipeCountKey struct{}

// pipeID numbers the pipes of a dump.
func (d *Dump) pipeID(f *File) uint32 {
	id, _ := Value(d, pipeIDKey{f.Stat.Dev, f.Stat.Ino}, func() (uint32, error) {
		n, err := Value(d, pipeCountKey{}, func() (*uint32, error) { return new(uint32), nil })
		*n++
		return *n, err
	})
	return id
}

// pipeSide is the descriptions of one pipe in the tree.
type pipeSide struct {
	id             uint32
	all            []*File
	reader, writer *File // one that can, or nil
}

// completePipes saves the content of the pipes of a kind.
func (d *Dump) completePipes(k Kind) error {
	var order []*pipeSide
	byID := map[uint32]*pipeSide{}
	for _, f := range d.files {
		if f.Kind != k || f.Entry == nil {
			continue
		}
		id := d.pipeID(f)
		p := byID[id]
		if p == nil {
			p = &pipeSide{id: id}
			byID[id] = p
			order = append(order, p)
		}
		p.all = append(p.all, f)
		mode := f.Info.Flags & unix.O_ACCMODE
		if f.Info.Flags&unix.O_PATH != 0 {
			continue
		}
		if mode != unix.O_WRONLY && p.reader == nil {
			p.reader = f
		}
		if mode != unix.O_RDONLY && p.writer == nil {
			p.writer = f
		}
	}
	s := &pipeReader{d: d, private: [2]int{-1, -1}}
	defer s.close()
	for _, p := range order {
		if err := s.save(k, p); err != nil {
			return fmt.Errorf("%s: %w", p.all[0].Link, err)
		}
	}
	return nil
}

// pipeReader copies pipes through one private pipe.
type pipeReader struct {
	d       *Dump
	private [2]int
	size    int
	buf     []byte
}

func (s *pipeReader) close() {
	if s.private[0] >= 0 {
		unix.Close(s.private[0])
		unix.Close(s.private[1])
		s.private = [2]int{-1, -1}
	}
}

func (s *pipeReader) save(k Kind, p *pipeSide) error {
	one := p.reader
	if one == nil {
		one = p.writer
	}
	if one == nil {
		return nil // O_PATH only
	}
	fd, done, err := one.borrow()
	if err != nil {
		return err
	}
	defer done()
	if p.reader == nil || p.writer == nil {
		outside, err := pipePeer(fd, p.reader != nil)
		if err != nil {
			return err
		}
		if outside {
			s.refuse(p)
			return nil
		}
		if err := s.hangups(k, p); err != nil {
			return err
		}
	}
	size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return fmt.Errorf("capacity: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return fmt.Errorf("FIONREAD: %w", err)
	}
	if n == 0 && size == defaultPipeSize {
		return nil
	}
	var packets []uint64
	if n > 0 {
		if p.reader == nil {
			// Nobody can read it: only a reader of our own can.
			if fd, err = unix.Open(one.Path(), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
				return fmt.Errorf("opening a pipe without readers: %w", err)
			}
			defer unix.Close(fd)
		}
		if packets, err = s.read(fd, n, size); err != nil {
			return err
		}
		if len(s.buf) != n {
			s.d.Refusal(one, fmt.Sprintf("of the %d bytes in it only %d can be read without taking them: its capacity is beyond fs.pipe-max-size", n, len(s.buf)), "run fermata with CAP_SYS_RESOURCE, or raise fs.pipe-max-size")
			return nil
		}
	}
	part := pipePart(k.Types()[0])
	s.d.Image.Add(part, &pipedata.PipeDataEntry{
		PipeId: proto.Uint32(p.id), Bytes: proto.Uint32(uint32(n)), Size: proto.Uint32(uint32(size)),
	}, s.buf[:n:n]...)
	if len(packets) > 1 || len(packets) == 1 && directWriter(p) {
		s.d.Image.Add(part+"-packets", &fm.Record{Id: proto.Uint32(p.id), Num: packets})
	}
	return nil
}

func pipePart(t fdinfo.FdTypes) string {
	if t == fdinfo.FdTypes_FIFO {
		return "fifo-data"
	}
	return "pipes-data"
}

func directWriter(p *pipeSide) bool {
	for _, f := range p.all {
		if f.Info.Flags&unix.O_ACCMODE != unix.O_RDONLY && f.Info.Flags&unix.O_DIRECT != 0 {
			return true
		}
	}
	return false
}

// read copies what a pipe holds into s.buf and gives where one read(2) of it
// would stop: at the end of each packet.
func (s *pipeReader) read(fd, n, size int) (packets []uint64, err error) {
	if s.size < size {
		s.close()
		if err := unix.Pipe2(s.private[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return nil, err
		}
		// A buffer of a page for each one of the source's; what is beyond the
		// limit may still be enough for those that are in use.
		for try := size; try > 0; try /= 2 {
			if _, err = unix.FcntlInt(uintptr(s.private[1]), unix.F_SETPIPE_SZ, try); err == nil {
				break
			}
		}
		s.size = size
	}
	s.buf = make([]byte, n+1)
	if _, err := unix.Tee(fd, s.private[1], n, unix.SPLICE_F_NONBLOCK); err != nil {
		return nil, fmt.Errorf("tee: %w", err)
	}
	at := 0
	for at < len(s.buf) {
		// One byte more than can come: a short read is then the end of a
		// packet, or of everything.
		got, err := unix.Read(s.private[0], s.buf[at:])
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return nil, err
		}
		packets = append(packets, uint64(got))
		at += got
	}
	s.buf = s.buf[:at]
	return packets, nil
}

// hangups notes which readers of a FIFO without a writer know that there was one.
func (s *pipeReader) hangups(k Kind, p *pipeSide) error {
	if k.Types()[0] != fdinfo.FdTypes_FIFO || p.writer != nil {
		return nil
	}
	for _, f := range p.all {
		if f.Info.Flags&unix.O_PATH != 0 {
			continue
		}
		fd, done, err := f.borrow()
		if err != nil {
			return err
		}
		q := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err = unix.Poll(q, 0)
		done()
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		if q[0].Revents&unix.POLLHUP != 0 {
			s.d.Extra(f).Data2 = proto.Uint64(1)
		}
	}
	return nil
}

// pipePeer tells, of a pipe of which the tree has one end only, whether somebody
// else has the other.
func pipePeer(fd int, reader bool) (outside bool, err error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
	if _, err := unix.Poll(p, 0); err != nil {
		return false, fmt.Errorf("poll: %w", err)
	}
	if !reader {
		return p[0].Revents&unix.POLLERR == 0, nil
	}
	if p[0].Revents&unix.POLLHUP != 0 {
		return false, nil
	}
	if p[0].Revents&unix.POLLIN != 0 {
		return true, nil
	}
	// A FIFO opened before it ever had a writer shows none to poll; tee of an
	// empty one tells: 0 without a writer, EAGAIN with one.
	var q [2]int
	if err := unix.Pipe2(q[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return false, err
	}
	defer unix.Close(q[0])
	defer unix.Close(q[1])
	_, err = unix.Tee(fd, q[1], 1, unix.SPLICE_F_NONBLOCK)
	if errors.Is(err, unix.EAGAIN) {
		return true, nil
	}
	return false, err
}

// refuse names a pipe to the outside, with whoever holds its other end.
func (s *pipeReader) refuse(p *pipeSide) {
	f, want, end := p.all[0], uint32(unix.O_WRONLY), "write"
	if p.reader == nil {
		want, end = unix.O_RDONLY, "read"
	}
	who := ""
	if pid, fd := s.d.findHolder(f.Link, want); pid != 0 {
		comm, _ := procfs.ReadComm(pid, 0)
		who = fmt.Sprintf(" (pid %d, %s, fd %d)", pid, comm, fd)
	}
	s.d.Refusal(f, fmt.Sprintf("a pipe whose %s end is held outside the tree%s", end, who),
		"checkpoint that process too, or redirect the descriptor to a file")
}

// findHolder looks for a process outside the tree that has a file, by the text
// of its link, open in a mode. It reads the whole of /proc, so it only serves to
// explain a refusal.
func (d *Dump) findHolder(link string, mode uint32) (pid, fd int) {
	inside := map[int]bool{}
	for _, f := range d.files {
		for _, h := range f.Holders {
			inside[h.PID] = true
		}
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0
	}
	for _, e := range all {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil || inside[pid] || pid == os.Getpid() {
			continue
		}
		fds, err := procfs.ReadFDs(pid)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if l, err := procfs.ReadLink(pid, fd); err != nil || l != link {
				continue
			}
			i, err := procfs.ReadFDInfo(pid, fd)
			if m := i.Flags & unix.O_ACCMODE; err == nil && (m == mode || m == unix.O_RDWR) {
				return pid, fd
			}
		}
	}
	return 0, 0
}

// pipeContent is what was saved of a pipe.
type pipeContent struct {
	size    int
	data    []byte
	packets []uint64
}

type pipeTableKey struct{ t fdinfo.FdTypes }

// pipeTable gives what the image has of all pipes, or FIFOs, by their id.
func (r *Restore) pipeTable(t fdinfo.FdTypes) (map[uint32]*pipeContent, error) {
	return RestoreValue(r, pipeTableKey{t}, func() (map[uint32]*pipeContent, error) {
		m := map[uint32]*pipeContent{}
		recs, err := r.Image.Records(pipePart(t))
		if err != nil {
			return nil, err
		}
		for _, rec := range recs {
			e, ok := rec.Msg.(*pipedata.PipeDataEntry)
			if !ok || int(e.GetBytes()) != len(rec.Payload) {
				return nil, fault.Errorf(fault.ErrDamaged, "%s: a record is not what it should be", pipePart(t))
			}
			m[e.GetPipeId()] = &pipeContent{size: int(e.GetSize()), data: rec.Payload}
		}
		packets, err := image.All[*fm.Record](r.Image, pipePart(t)+"-packets")
		if err != nil {
			return nil, err
		}
		for _, x := range packets {
			p := m[x.GetId()]
			if p == nil {
				return nil, fault.Errorf(fault.ErrDamaged, "%s: packets of a pipe without content", pipePart(t))
			}
			left := uint64(len(p.data))
			for _, n := range x.GetNum() {
				if n == 0 || n > left {
					left = 1
					break
				}
				left -= n
			}
			if left != 0 {
				return nil, fault.Errorf(fault.ErrDamaged, "%s: packets and content differ", pipePart(t))
			}
			p.packets = x.GetNum()
		}
		return m, nil
	})
}

// pipeGroup gives the descriptions of one pipe in the order of their ids.
func (r *Restore) pipeGroup(t fdinfo.FdTypes, id uint32) []*fdinfo.FileEntry {
	m, _ := RestoreValue(r, pipeGroupKey{t}, func() (map[uint32][]*fdinfo.FileEntry, error) {
		m := map[uint32][]*fdinfo.FileEntry{}
		for _, i := range r.order {
			if e := r.entries[i]; e.GetType() == t {
				k := e.GetPipe().GetPipeId()
				if t == fdinfo.FdTypes_FIFO {
					k = e.GetFifo().GetPipeId()
				}
				m[k] = append(m[k], e)
			}
		}
		return m, nil
	})
	return m[id]
}

type pipeGroupKey struct{ t fdinfo.FdTypes }

func (r *Restore) pipeData(t fdinfo.FdTypes, id uint32) (*pipeContent, error) {
	m, err := r.pipeTable(t)
	return m[id], err
}

// checkPipe finds out whether this user may have pipes as large as one was.
func (r *Restore) checkPipe(t fdinfo.FdTypes, id uint32) error {
	p, err := r.pipeData(t, id)
	if err != nil || p == nil || p.size <= defaultPipeSize {
		return err
	}
	_, err = RestoreValue(r, pipeSizeKey{p.size}, func() (bool, error) {
		var q [2]int
		if err := unix.Pipe2(q[:], unix.O_CLOEXEC); err != nil {
			return false, err
		}
		defer unix.Close(q[0])
		defer unix.Close(q[1])
		if _, err := unix.FcntlInt(uintptr(q[1]), unix.F_SETPIPE_SZ, p.size); err != nil {
			r.Refuse.Add(fault.Reason{
				Object: fmt.Sprintf("pipe of %d bytes", p.size), Why: fmt.Sprintf("cannot be made so large: %v", err),
				Remedy: "raise fs.pipe-max-size and fs.pipe-user-pages-hard, or run fermata with CAP_SYS_RESOURCE",
			})
		}
		return true, nil
	})
	return err
}

type pipeSizeKey struct{ size int }

// fillPipe gives a new, empty pipe its capacity and content, through its write
// end, which is non-blocking.
func fillPipe(w int, p *pipeContent) error {
	if p == nil {
		return nil
	}
	if p.size != 0 {
		if _, err := unix.FcntlInt(uintptr(w), unix.F_SETPIPE_SZ, p.size); err != nil {
			return fmt.Errorf("capacity %d: %w", p.size, err)
		}
	}
	if len(p.packets) == 0 {
		return writePipe(w, p.data)
	}
	if _, err := unix.FcntlInt(uintptr(w), unix.F_SETFL, unix.O_NONBLOCK|unix.O_DIRECT); err != nil {
		return fmt.Errorf("packet mode: %w", err)
	}
	at := uint64(0)
	for _, n := range p.packets {
		if err := writePipe(w, p.data[at:at+n]); err != nil {
			return err
		}
		at += n
	}
	if _, err := unix.FcntlInt(uintptr(w), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("flags: %w", err)
	}
	return nil
}

func writePipe(w int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(w, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("content, %d bytes left: %w", len(b), err)
		}
		b = b[n:]
	}
	return nil
}
