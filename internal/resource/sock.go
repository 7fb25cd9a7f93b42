package resource

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_packet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-packet"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// What all sockets have in common. A socket's family, type and protocol are read
// from a duplicate (SO_DOMAIN, SO_TYPE, SO_PROTOCOL, Linux 2.6.32); each family
// is a kind of its own. What the schema has no field for lies in the part
// sock-extra, queued messages in sock-queue.
//
// Nothing here may read SO_ERROR, nor receive where an error waits: the error is
// told once, and to the program.

const (
	sockExtraPart  = "sock-extra"
	queuePart      = "sk-queues"
	queueExtraPart = "sk-queues-extra"
)

// sock is what is known of a socket being collected.
type sock struct {
	domain, typ, proto int
	err                error
}

// isSocket tells sockets from the files of bound unix sockets, which are opened
// with O_PATH only and whose links are paths.
func isSocket(f *File) bool {
	return f.via == "" && f.Stat.Mode&unix.S_IFMT == unix.S_IFSOCK && bracketed(f.Link, "socket")
}

type sockKey struct{ id uint32 }

// sockOf reads the facts that tell a socket's kind, once.
func sockOf(f *File) *sock {
	s, _ := Value(f.dump, sockKey{f.ID}, func() (*sock, error) {
		s := &sock{}
		fd, done, err := f.borrow()
		if err != nil {
			return &sock{err: err}, nil
		}
		defer done()
		for _, o := range []struct {
			name int
			to   *int
		}{{unix.SO_DOMAIN, &s.domain}, {unix.SO_TYPE, &s.typ}, {unix.SO_PROTOCOL, &s.proto}} {
			if *o.to, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, o.name); err != nil {
				return &sock{err: fmt.Errorf("socket option %d: %w", o.name, err)}, nil
			}
		}
		return s, nil
	})
	return s
}

func matchFamily(f *File, families ...int) bool {
	if !isSocket(f) {
		return false
	}
	s := sockOf(f)
	for _, x := range families {
		if s.err == nil && s.domain == x {
			return true
		}
	}
	return false
}

type netnsKey struct{}

// foreignNet refuses a socket of another network namespace than this process's:
// neither can it be examined from here nor made again.
func foreignNet(d *Dump, f *File, fd int) (bool, error) {
	mine, err := Value(d, netnsKey{}, func() ([]byte, error) {
		own, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(own)
		return netCookie(own)
	})
	if err != nil {
		return false, err
	}
	var foreign bool
	if mine == nil {
		// Before Linux 5.14 only the tasks' namespaces can be compared.
		a, err1 := os.Readlink("/proc/self/ns/net")
		b, err2 := os.Readlink("/proc/" + strconv.Itoa(f.PID) + "/ns/net")
		if err1 != nil || err2 != nil {
			return false, fmt.Errorf("network namespaces: %v, %v", err1, err2)
		}
		foreign = a != b
	} else {
		theirs, err := netCookie(fd)
		if err != nil {
			return false, err
		}
		foreign = !bytes.Equal(mine, theirs)
	}
	if foreign {
		d.Refusal(f, "a socket of another network namespace", "run fermata inside that namespace: nsenter --net --target "+strconv.Itoa(f.PID)+" fermata …")
	}
	return foreign, nil
}

// netCookie reads SO_NETNS_COOKIE (Linux 5.14); nil where there is none.
func netCookie(fd int) ([]byte, error) {
	b := make([]byte, 8)
	n, err := sys.Getsockopt(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE, b)
	if err == unix.ENOPROTOOPT {
		return nil, nil
	}
	return b[:n], err
}

type sockExtrasKey struct{ id uint32 }

// sockExtra gives a socket's record in the image, making it the first time.
func (d *Dump) sockExtra(f *File) *fm.SockExtra {
	x, _ := Value(d, sockExtrasKey{f.ID}, func() (*fm.SockExtra, error) {
		x := &fm.SockExtra{Id: proto.Uint32(f.ID)}
		d.Image.Add(sockExtraPart, x)
		return x, nil
	})
	return x
}

// sockCommon saves what fstat shows of every socket.
func sockCommon(d *Dump, f *File) {
	x := d.Extra(f)
	x.Mode, x.Uid, x.Gid = proto.Uint32(f.Stat.Mode&0o7777), proto.Uint32(f.Stat.Uid), proto.Uint32(f.Stat.Gid)
}

// restoreCommon sets what fstat shows of a socket. The owner counts for who may
// share a port (SO_REUSEPORT).
func restoreCommon(r *Restore, id uint32, fd int) error {
	x := r.Extra(id)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if x.Uid != nil && (st.Uid != x.GetUid() || st.Gid != x.GetGid()) {
		if err := unix.Fchown(fd, int(x.GetUid()), int(x.GetGid())); err != nil {
			r.Note("the owner of a socket is %d:%d, was %d:%d: %v", st.Uid, st.Gid, x.GetUid(), x.GetGid(), err)
		}
	}
	if x.Mode != nil && st.Mode&0o7777 != x.GetMode() {
		if err := unix.Fchmod(fd, x.GetMode()); err != nil {
			return fmt.Errorf("mode of a socket: %w", err)
		}
	}
	return nil
}

// sockMessage is a message that waits in a socket.
type sockMessage struct {
	data []byte
	fds  []uint32    // file ids
	addr []byte      // sockaddr of the sender
	to   []byte      // local sockaddr it was sent to, where that counts
	cred *unix.Ucred // SCM_CREDENTIALS
	oob  bool        // an urgent byte
}

type packetCountKey struct{}

// addMessage saves a message of a socket's queue.
func (d *Dump) addMessage(f *File, m *sockMessage) {
	n, _ := Value(d, packetCountKey{}, func() (*uint32, error) { return new(uint32), nil })
	p := &sk_packet.SkPacketEntry{IdFor: proto.Uint32(f.ID), Length: proto.Uint32(uint32(len(m.data)))}
	if len(m.fds) > 0 {
		p.Scm = []*sk_packet.ScmEntry{{Type: proto.Uint32(unix.SCM_RIGHTS), Rights: m.fds}}
	}
	d.Image.Add(queuePart, p, m.data...)
	if m.addr != nil || m.to != nil || m.cred != nil || m.oob {
		x := &fm.SkPacketExtra{Packet: proto.Uint32(*n), Addr: m.addr, To: m.to}
		if c := m.cred; c != nil {
			x.Pid, x.Uid, x.Gid = proto.Uint32(uint32(c.Pid)), proto.Uint32(c.Uid), proto.Uint32(c.Gid)
		}
		if m.oob {
			x.Oob = proto.Bool(true)
		}
		d.Image.Add(queueExtraPart, x)
	}
	*n++
}

type sockImageKey struct{}

// sockImage is the sockets' parts of an image.
type sockImage struct {
	extra map[uint32]*fm.SockExtra
	queue map[uint32][]*sockMessage // by file id
}

func (r *Restore) socks() (*sockImage, error) {
	return RestoreValue(r, sockImageKey{}, func() (*sockImage, error) {
		s := &sockImage{extra: map[uint32]*fm.SockExtra{}, queue: map[uint32][]*sockMessage{}}
		xs, err := image.All[*fm.SockExtra](r.Image, sockExtraPart)
		if err != nil {
			return nil, err
		}
		for _, x := range xs {
			s.extra[x.GetId()] = x
		}
		return s, s.readQueues(r.Image)
	})
}

func (s *sockImage) readQueues(im *image.Image) error {
	recs, err := im.Records(queuePart)
	if err != nil {
		return err
	}
	all := make([]*sockMessage, len(recs))
	for i, rec := range recs {
		p, ok := rec.Msg.(*sk_packet.SkPacketEntry)
		if !ok || int(p.GetLength()) != len(rec.Payload) {
			return fault.Errorf(fault.ErrDamaged, "part %s, record %d: not a message of %d bytes", queuePart, i, len(rec.Payload))
		}
		m := &sockMessage{data: rec.Payload}
		for _, c := range p.GetScm() {
			if c.GetType() == unix.SCM_RIGHTS {
				m.fds = append(m.fds, c.GetRights()...)
			}
		}
		all[i] = m
		s.queue[p.GetIdFor()] = append(s.queue[p.GetIdFor()], m)
	}
	xs, err := image.All[*fm.SkPacketExtra](im, queueExtraPart)
	if err != nil {
		return err
	}
	for _, x := range xs {
		if int(x.GetPacket()) >= len(all) {
			return fault.Errorf(fault.ErrDamaged, "part %s: there is no message %d", queueExtraPart, x.GetPacket())
		}
		m := all[x.GetPacket()]
		m.addr, m.to, m.oob = x.GetAddr(), x.GetTo(), x.GetOob()
		if x.Pid != nil {
			m.cred = &unix.Ucred{Pid: int32(x.GetPid()), Uid: x.GetUid(), Gid: x.GetGid()}
		}
	}
	return nil
}

func (s *sockImage) of(id uint32) *fm.SockExtra {
	if x := s.extra[id]; x != nil {
		return x
	}
	return &fm.SockExtra{}
}

// guarded changes a socket option for a moment. Should this process die
// meanwhile, the guardian sets it back.
func (d *Dump) guarded(fd, level, name int, during, after int) (restore func() error, err error) {
	release := func() {}
	if d.Guard != nil {
		release = d.Guard(fd, level, name, binary.NativeEndian.AppendUint32(nil, uint32(int32(after))))
	}
	faultpoint.At("sockopt.change")
	if err := unix.SetsockoptInt(fd, level, name, during); err != nil {
		release()
		return nil, fmt.Errorf("socket option %d/%d: %w", level, name, err)
	}
	faultpoint.At("sockopt.changed")
	return func() error {
		faultpoint.At("sockopt.back")
		err := unix.SetsockoptInt(fd, level, name, after)
		faultpoint.At("sockopt.release")
		release()
		if err != nil {
			return fmt.Errorf("socket option %d/%d back to %d: %w", level, name, after, err)
		}
		return nil
	}, nil
}

// holderOf names a process that has a socket, by its inode, for a refusal: the
// one look over all of /proc happens only then.
func holderOf(ino uint64) string {
	if who, ok := findHolder(ino); ok {
		return who
	}
	return "a process that could not be found"
}

// findHolder looks for a process that has a socket.
func findHolder(ino uint64) (who string, ok bool) {
	want := "socket:[" + strconv.FormatUint(ino, 10) + "]"
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return "", false
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		fds, err := procfs.ReadFDs(pid)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if l, err := procfs.ReadLink(pid, fd); err == nil && l == want {
				comm, _ := procfs.ReadComm(pid, 0)
				return fmt.Sprintf("pid %d (%s)", pid, comm), true
			}
		}
	}
	return "", false
}

// otherSocket are the families that nothing saves.
type otherSocket struct{}

func init() { Register(otherSocket{}) }

// families names them (include/linux/socket.h).
var families = map[int]string{
	unix.AF_CAN: "CAN", unix.AF_BLUETOOTH: "Bluetooth", unix.AF_XDP: "XDP",
	unix.AF_KCM: "KCM", unix.AF_ALG: "kernel crypto (AF_ALG)", unix.AF_TIPC: "TIPC", unix.AF_SMC: "SMC",
	unix.AF_RDS: "RDS", unix.AF_PPPOX: "PPPoX", unix.AF_QIPCRTR: "QRTR", unix.AF_NFC: "NFC",
	unix.AF_IUCV: "IUCV", unix.AF_ISDN: "ISDN", unix.AF_PHONET: "Phonet", unix.AF_IEEE802154: "IEEE 802.15.4",
	unix.AF_CAIF: "CAIF", unix.AF_RXRPC: "RxRPC", unix.AF_AX25: "AX.25", unix.AF_APPLETALK: "AppleTalk",
	unix.AF_KEY: "PF_KEY", unix.AF_MCTP: "MCTP", unix.AF_LLC: "LLC", unix.AF_X25: "X.25",
}

func (otherSocket) Name() string            { return "socket" }
func (otherSocket) Types() []fdinfo.FdTypes { return nil }
func (otherSocket) Match(f *File) bool      { return isSocket(f) }

// Priority makes it the last of the sockets to be asked.
func (otherSocket) Priority() int { return 500 }

func (otherSocket) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	s := sockOf(f)
	if s.err != nil {
		return nil, s.err
	}
	name := families[s.domain]
	if name == "" {
		name = fmt.Sprintf("family %d", s.domain)
	}
	d.Refusal(f, fmt.Sprintf("%s socket: no way is known to save a socket of this family", name), "close it before the checkpoint")
	return nil, nil
}

func (otherSocket) Open(*Restore, *fdinfo.FileEntry) (int, error) { return -1, errRefusedKind }

// cutNUL gives the text before the first NUL.
func cutNUL(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
