package rebuild

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/resource"
)

// task gives a process of the tree that can be driven already, to kinds of files
// that have it make something (resource.Restore.Task).
func (b *builder) task(saved int) resource.Task {
	if p := b.byPID[saved]; p != nil && p.made && p.exec != nil {
		return p
	}
	return nil
}

// Send implements resource.Sender: the process receives a descriptor over the
// transport at the lowest number that is free there, close-on-exec.
func (p *proc) Send(fd int) (int, error) {
	defer p.b.keep()()
	if err := p.b.send([]int{fd}); err != nil {
		return -1, fmt.Errorf("sending a descriptor: %w", err)
	}
	e := p.Executor()
	space := unix.CmsgSpace(4)
	one, _ := e.Data(8)
	iov, d := e.Data(16)
	le.PutUint64(d, one)
	le.PutUint64(d[8:], 1)
	at, ctl := e.Data(space)
	msg, d := e.Data(56) // struct msghdr
	le.PutUint64(d[16:], iov)
	le.PutUint64(d[24:], 1)
	le.PutUint64(d[32:], at)
	le.PutUint64(d[40:], uint64(space))
	n, err := e.Call(unix.SYS_RECVMSG, uint64(p.b.transportFD), msg, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("pid %d: receiving a descriptor: %w", p.pid, err)
	}
	if got := int(int32(le.Uint32(ctl[unix.CmsgLen(0):]))); n == 1 && le.Uint64(ctl) == uint64(unix.CmsgLen(4)) {
		return got, nil
	}
	return -1, fmt.Errorf("pid %d: no descriptor came", p.pid)
}
