package resource

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pipe"

	"github.com/fermata-cr/fermata/internal/fault"
)

// Pipes (pipe(7)). The kernel keeps for one: a ring of buffers (content,
// capacity, and for each buffer whether it is a packet of O_DIRECT), how many
// readers and writers there are, and an owner and mode as any inode, which
// decide who may open /dev/stdin. Each end has its flags and signal owner.
//
// The content is read by tee(2), which takes nothing away. An end that nobody in
// the tree has is either closed, and then stays so, or held by somebody outside:
// poll(2) of the other end tells. Then the checkpoint is refused, as the restored
// program would be cut off from that one.
type pipeKind struct{}

func init() { Register(pipeKind{}) }

func (pipeKind) Name() string            { return "pipe" }
func (pipeKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_PIPE} }
func (pipeKind) Match(f *File) bool {
	return f.Stat.Mode&unix.S_IFMT == unix.S_IFIFO && strings.HasPrefix(f.Link, "pipe:[")
}

func (pipeKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	if f.Stat.Uid != 0 || f.Stat.Gid != 0 || f.Stat.Mode&0o7777 != 0o600 {
		x := d.Extra(f)
		x.Uid, x.Gid, x.Mode = proto.Uint32(f.Stat.Uid), proto.Uint32(f.Stat.Gid), proto.Uint32(f.Stat.Mode&0o7777)
	}
	return &fdinfo.FileEntry{
		Type: fdinfo.FdTypes_PIPE.Enum(),
		Pipe: &pipe.PipeEntry{
			Id: proto.Uint32(f.ID), PipeId: proto.Uint32(d.pipeID(f)),
			Flags: proto.Uint32(f.Info.Flags &^ unix.O_CLOEXEC), Fown: o,
		},
	}, nil
}

// Complete saves what every pipe holds, now that all its ends are known.
func (k pipeKind) Complete(d *Dump) error { return d.completePipes(k) }

func (k pipeKind) Check(r *Restore, e *fdinfo.FileEntry) error {
	return r.checkPipe(fdinfo.FdTypes_PIPE, e.GetPipe().GetPipeId())
}

// Open makes the whole pipe at the first of its ends.
func (pipeKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	id := e.GetPipe().GetPipeId()
	saved, err := r.pipeData(fdinfo.FdTypes_PIPE, id)
	if err != nil {
		return -1, err
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, err
	}
	ends := &pipeEnds{r: r, fds: p, own: map[int]bool{}}
	defer ends.done()
	if err := ends.fill(saved); err != nil {
		return -1, err
	}
	mine := -1
	for _, o := range r.pipeGroup(fdinfo.FdTypes_PIPE, id) {
		fd, err := ends.description(o.GetPipe().GetFlags())
		if err != nil {
			return -1, fmt.Errorf("file %d: %w", o.GetId(), err)
		}
		if o.GetId() == e.GetId() {
			mine = fd
		} else {
			r.Set(o.GetId(), fd)
		}
	}
	if x := r.Extra(e.GetId()); x.Mode != nil {
		if err := unix.Fchown(p[0], int(x.GetUid()), int(x.GetGid())); err != nil {
			return -1, fmt.Errorf("owner: %w", err)
		}
		if err := unix.Fchmod(p[0], x.GetMode()); err != nil {
			return -1, fmt.Errorf("mode: %w", err)
		}
	}
	if mine < 0 {
		return -1, fault.Errorf(fault.ErrDamaged, "pipe %d does not know this end", id)
	}
	return mine, nil
}

// pipeEnds opens the descriptions of a new pipe. The ends that pipe2(2) gave
// serve as the first of each kind; further ones are opened through /proc, as
// the program must have done. What is not used is closed at the end: readers
// then see the end of file, writers EPIPE.
type pipeEnds struct {
	r   *Restore
	fds [2]int // read, write
	own map[int]bool
}

func (p *pipeEnds) description(flags uint32) (int, error) {
	status := int(flags) & keptFlags
	mode := status & unix.O_ACCMODE
	if status&unix.O_PATH == 0 && mode != unix.O_RDWR && flags&kernelLargefile == 0 {
		fd := p.fds[mode]
		if !p.own[fd] {
			p.own[fd] = true
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, status); err != nil {
				return -1, fmt.Errorf("flags %#o: %w", status, err)
			}
			return fd, nil
		}
	}
	return reopenPipe(p.fds[0], status)
}

// reopenPipe opens one more description of a pipe or FIFO of which somebody
// holds both ends, so that open(2) waits for nobody. Packet mode can be set but
// not opened.
func reopenPipe(fd, status int) (int, error) {
	n, err := unix.Open(selfFD(fd), status&^(unix.O_NOFOLLOW|unix.O_DIRECT)|unix.O_CLOEXEC, 0)
	if err == nil && status&unix.O_DIRECT != 0 {
		_, err = unix.FcntlInt(uintptr(n), unix.F_SETFL, status)
	}
	if err != nil {
		return -1, fmt.Errorf("another description of it: %w", err)
	}
	return n, nil
}

func (p *pipeEnds) fill(saved *pipeContent) error { return fillPipe(p.fds[1], saved) }

// done closes the ends that are no description of the program's.
func (p *pipeEnds) done() {
	for _, fd := range p.fds {
		if !p.own[fd] {
			unix.Close(fd)
		}
	}
}
