package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	sk_unix "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// A client may send, and close its end, before anyone has accepted it. What it
// has sent lies in a socket without a descriptor, which the listener's queue holds
// (net/unix/af_unix.c: a buffer of that queue belongs to the new socket). It is
// read from the kernel's memory. At restore the client, or a stand-in for one
// that is closed, connects and sends it again.

// arrived saves what has come over the connections in a listener's queue.
func (u *unixDump) arrived(d *Dump, l *unixSock, x *fm.SockExtra) error {
	k, err := d.Kernel()
	if err != nil {
		return err
	}
	fd, done, err := l.f.borrow()
	if err != nil {
		return err
	}
	defer done()
	queue := k.Socket(fd).In("sk_receive_queue", "sk_buff_head").Buffers()
	if err := k.Err(); err != nil {
		return err
	}
	if len(queue) != len(x.Pending) {
		return kmem.ErrChanged
	}
	for i, b := range queue {
		a := &fm.Arrival{Index: proto.Uint32(uint32(i))}
		err := arrival(k, b.Ptr("sk", "unix_sock"), a, x.Pending[i] == 0)
		if err != nil {
			return err
		}
		if len(a.Data) > 0 || x.Pending[i] == 0 {
			x.Arrived = append(x.Arrived, a)
		}
	}
	return nil
}

// arrival reads one socket that is yet to be accepted.
func arrival(k *kmem.Reader, s kmem.Object, a *fm.Arrival, closed bool) error {
	if s.Has("oob_skb") && !s.Ptr("oob_skb", "sk_buff").Nil() {
		return errors.New("an urgent byte (MSG_OOB) is in it")
	}
	for _, b := range s.In("sk.sk_receive_queue", "sk_buff_head").Buffers() {
		if !b.In("cb", "unix_skb_parms").Ptr("fp", "scm_fp_list").Nil() {
			return errors.New("descriptors are in it")
		}
		a.Data = append(a.Data, b.Data())
	}
	if closed {
		cred := s.Ptr("sk.sk_peer_cred", "cred")
		a.Uid, a.Gid = proto.Uint32(uint32(cred.Uint("euid.val"))), proto.Uint32(uint32(cred.Uint("egid.val")))
		a.Pid = proto.Uint32(uint32(k.PID(s.Ptr("sk.sk_peer_pid", "pid"))))
		if n := s.Ptr("peer", "unix_sock").Ptr("addr", "unix_address"); !n.Nil() {
			a.Name = n.Bytes("name", min(int(n.Uint("len")), unix.SizeofSockaddrUnix))
		}
	}
	return k.Err()
}

// deliver connects one client of a listener's queue again, and has it send what
// it had sent.
func (u *unixRestore) deliver(l *unixEnd, index int, ino uint32) error {
	var a *fm.Arrival
	for _, x := range l.x.GetArrived() {
		if int(x.GetIndex()) == index {
			a = x
		}
	}
	client := u.byIno[ino]
	if ino == 0 && a != nil {
		fd, err := unix.Socket(unix.AF_UNIX, int(l.e.GetType())|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		client = &unixEnd{e: &sk_unix.UnixSkEntry{Type: l.e.Type}, x: &fm.SockExtra{ByPid: a.Pid, ByUid: a.Uid, ByGid: a.Gid}, fd: fd}
		if n := a.GetName(); len(n) > 2 {
			_, at, err := u.bind(fd, n[2:], "")
			if at != nil {
				defer func() { _ = unix.Unlink(at.path()) }()
			}
			if err != nil {
				u.r.Note("%s: a client that is closed had the name %s: %v", l.what(), printable(n[2:]), err)
			}
		}
	}
	if client == nil {
		return fault.Errorf(fault.ErrDamaged, "the client %d is missing", ino)
	}
	if err := u.reconnect(client, l); err != nil {
		return fmt.Errorf("connecting to it again: %w", err)
	}
	(&senders{u: u}).loud(client.fd)
	for _, m := range a.GetData() {
		for rest, first := m, true; first || len(rest) > 0; first = false {
			n, err := sys.Sendmsg(client.fd, rest, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err != nil {
				return fmt.Errorf("sending %d bytes again: %w", len(m), err)
			}
			rest = rest[n:]
		}
	}
	return nil
}
