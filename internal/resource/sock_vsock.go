package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_opts "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-opts"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Sockets between a virtual machine and its host (vsock(7), Linux 4.8): fresh,
// bound and listening ones. Of a connection no call tells what is on its way, nor
// can one be made in the other machine's stead: it is refused. How many connections
// a listener lets wait, only the kernel's memory tells (sk_max_ack_backlog).
type vsockSocket struct{}

func init() { registerExt(vsockSocket{}) }

func (vsockSocket) Name() string            { return "vsock socket" }
func (vsockSocket) Types() []fdinfo.FdTypes { return nil }
func (vsockSocket) Match(f *File) bool      { return matchFamily(f, unix.AF_VSOCK) }

// vsockBacklog is a listener's where the kernel's memory cannot be read: SOMAXCONN
// (include/linux/socket.h).
const vsockBacklog = 4096

func (k vsockSocket) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	s := sockOf(f)
	fd, done, err := f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	if foreign, err := foreignNet(d, f, fd); foreign || err != nil {
		return nil, err
	}
	const remedy = "close it before the checkpoint"
	if _, err := sys.Peername(fd); err == nil {
		d.Refusal(f, "a vsock connection: no call tells what is on its way", remedy)
		return nil, nil
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, fmt.Errorf("SO_ACCEPTCONN: %w", err)
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	if p[0].Revents&unix.POLLIN != 0 {
		if listening != 0 {
			d.NotNow(f, "a vsock connection waits to be accepted", "let the program accept it first")
			return nil, nil
		}
		d.Refusal(f, "a vsock socket with messages, or whose connection has ended", remedy)
		return nil, nil
	}
	x := d.sockExtra(f)
	if x.Name, err = sys.Sockname(fd); err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	e := d.Extra(f)
	e.Data = proto.Uint64(uint64(f.Flags()))
	e.Data2 = proto.Uint64(uint64(s.typ))
	if listening != 0 {
		n := uint32(vsockBacklog)
		if k, err := d.Kernel(); err == nil {
			if v := uint32(k.Socket(fd).Uint("sk_max_ack_backlog")); k.Err() == nil {
				n = v
			}
		}
		x.Data = proto.Uint32(n + 1)
	}
	opts := &sk_opts.SkOptsEntry{}
	if err := collectOpts(d, f, fd, s, sockState{listen: listening != 0}, &optFields{opts: opts}); err != nil {
		return nil, err
	}
	if e.Blob, err = proto.Marshal(opts); err != nil {
		return nil, err
	}
	sockCommon(d, f)
	return d.extEntry(f, k)
}

func (vsockSocket) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	x := r.Extra(e.GetId())
	fd, err := unix.Socket(unix.AF_VSOCK, int(x.GetData2())|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("vsock socket: %w", err)
	}
	return finish(fd, openVsock(r, e.GetId(), fd))
}

func openVsock(r *Restore, id uint32, fd int) error {
	im, err := r.socks()
	if err != nil {
		return err
	}
	x, extra := im.of(id), r.Extra(id)
	opts := &sk_opts.SkOptsEntry{}
	if err := proto.Unmarshal(extra.GetBlob(), opts); err != nil {
		return fault.Errorf(fault.ErrDamaged, "options of a vsock socket: %w", err)
	}
	const anyPort = ^uint32(0) // VMADDR_PORT_ANY
	if len(x.GetName()) < 12 {
		return fault.Errorf(fault.ErrDamaged, "a vsock address of %d bytes", len(x.GetName()))
	}
	port := binary.NativeEndian.Uint32(x.GetName()[4:])
	what := fmt.Sprintf("vsock socket of port %d", port)
	restoreOpts(r, what, fd, true, &optFields{opts: opts}, x)
	if port != anyPort {
		err := sys.Bind(fd, x.GetName())
		if errors.Is(err, unix.EADDRINUSE) {
			return fault.Errorf(fault.ErrBusy, "%s: it is in use: %w", what, err)
		}
		if err != nil {
			return fmt.Errorf("%s: bind: %w", what, err)
		}
	}
	if n := x.GetData(); n > 0 {
		if err := unix.Listen(fd, int(n-1)); err != nil {
			return fmt.Errorf("%s: listen: %w", what, err)
		}
	}
	restoreOpts(r, what, fd, false, &optFields{opts: opts}, x)
	if err := restoreCommon(r, id, fd); err != nil {
		return err
	}
	return setStatus(fd, uint32(extra.GetData()))
}
