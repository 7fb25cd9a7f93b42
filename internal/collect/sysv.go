package collect

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// segment notes a SysV shared memory segment that an area maps; its inode number
// is the segment's id (ipc/shm.c, newseg). It gives nil when the area is not an
// attached segment of this IPC namespace.
func (c *Collector) segment(t *Task, a *Area) (*Shared, error) {
	info, err := sys.ShmStat(int(a.Ino))
	if err != nil {
		return nil, nil
	}
	if c.attached == nil {
		c.attached = map[uint64]uint64{}
	}
	c.attached[a.Ino]++
	s, err := c.sharedObject(t, a)
	if err != nil || s.Object.Sysv != nil {
		return s, err
	}
	s.Object.Kind = proto.Uint32(ShmSysV)
	s.Object.Size = proto.Uint64(info.Size)
	s.Object.Sysv = &fm.SysvShm{
		Id: proto.Uint32(uint32(a.Ino)), Key: proto.Int32(info.Key), Mode: proto.Uint32(info.Mode),
		Uid: proto.Uint32(info.UID), Gid: proto.Uint32(info.GID), Shared: proto.Bool(false),
	}
	return s, nil
}

// segments notes which segments others than the tree have attached, too: what
// these do to them cannot be taken back.
func (c *Collector) segments() {
	for _, s := range c.Shared {
		v := s.Object.Sysv
		if v == nil {
			continue
		}
		if info, err := sys.ShmStat(int(v.GetId())); err == nil && info.Users > c.attached[uint64(v.GetId())] {
			v.Shared = proto.Bool(true)
			c.Notes = append(c.Notes, fmt.Sprintf("SysV segment %d is attached by processes outside the tree, too: a restore leaves its content as it finds it while they are", v.GetId()))
		}
	}
}
