package sockdiag

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// include/uapi/linux/unix_diag.h (Linux 3.3; UNIX_DIAG_SHUTDOWN 3.7).
const (
	unixShowName  = 1
	unixShowVFS   = 2
	unixShowPeer  = 4
	unixShowIcons = 8
	unixShowQueue = 16

	unixAttrName     = 0
	unixAttrVFS      = 1
	unixAttrPeer     = 2
	unixAttrIcons    = 3
	unixAttrQueue    = 4
	unixAttrShutdown = 6

	unixReqSize = 24 // struct unix_diag_req
	unixMsgSize = 16 // struct unix_diag_msg
)

// Unix is what the monitor tells of a unix socket.
type Unix struct {
	Type  uint8 // SOCK_
	State uint8 // TCP_ESTABLISHED 1, TCP_CLOSE 7, TCP_LISTEN 10
	Ino   uint32
	Name  []byte // sun_path as the kernel keeps it: a path with its NUL, or a NUL and an abstract name

	HasVFS bool
	VFSIno uint32 // low 32 bits of the bound file's inode
	VFSDev uint32 // the kernel's own dev_t: major<<20 | minor

	HasPeer bool
	Peer    uint32   // inode of the peer; 0 when no descriptor refers to it (closed, or not accepted)
	Icons   []uint32 // of a listener: the inodes of the clients not yet accepted, in their order

	RQueue   uint32 // bytes to read; of a listener, connections not yet accepted
	WQueue   uint32 // memory of what was sent and not yet read; of a listener, its backlog
	Shutdown uint8  // RCV_SHUTDOWN 1, SEND_SHUTDOWN 2
}

func unixReq() []byte {
	b := make([]byte, unixReqSize)
	b[0] = unix.AF_UNIX
	native.PutUint32(b[4:], ^uint32(0)) // every state
	native.PutUint32(b[12:], unixShowName|unixShowVFS|unixShowPeer|unixShowIcons|unixShowQueue)
	native.PutUint64(b[16:], ^uint64(0)) // no cookie
	return b
}

// ListUnix gives every unix socket that some descriptor refers to.
func ListUnix() ([]Unix, error) { return list(unixReq(), ParseUnix) }

// GetUnix gives one unix socket by its inode; an error that is unix.ENOENT says
// that there is none.
func GetUnix(ino uint32) (Unix, error) {
	c, err := open()
	if err != nil {
		return Unix{}, err
	}
	defer c.close()
	req := unixReq()
	native.PutUint32(req[8:], ino)
	var out Unix
	err = c.ask(req, false, func(b []byte) (err error) {
		out, err = ParseUnix(b)
		return err
	})
	if err == nil && out.Ino != ino {
		err = errors.New("sock_diag: no answer")
	}
	return out, err
}

// ParseUnix parses a struct unix_diag_msg and its attributes.
func ParseUnix(b []byte) (Unix, error) {
	if len(b) < unixMsgSize || b[0] != unix.AF_UNIX {
		return Unix{}, fmt.Errorf("sock_diag: unix message of %d bytes", len(b))
	}
	u := Unix{Type: b[1], State: b[2], Ino: native.Uint32(b[4:])}
	bad := false
	err := attrs(b[unixMsgSize:], func(typ uint16, v []byte) {
		word := func(i int) uint32 {
			if len(v) < i+4 {
				bad = true
				return 0
			}
			return native.Uint32(v[i:])
		}
		switch typ {
		case unixAttrName:
			u.Name = append([]byte(nil), v...)
		case unixAttrVFS:
			u.HasVFS, u.VFSIno, u.VFSDev = true, word(0), word(4)
		case unixAttrPeer:
			u.HasPeer, u.Peer = true, word(0)
		case unixAttrIcons:
			u.Icons = nil
			for i := 0; i+4 <= len(v); i += 4 {
				u.Icons = append(u.Icons, native.Uint32(v[i:]))
			}
		case unixAttrQueue:
			u.RQueue, u.WQueue = word(0), word(4)
		case unixAttrShutdown:
			if len(v) < 1 {
				bad = true
			} else {
				u.Shutdown = v[0]
			}
		}
	})
	if bad {
		err = errors.New("sock_diag: short attribute")
	}
	return u, err
}
