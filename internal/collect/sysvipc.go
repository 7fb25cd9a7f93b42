package collect

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Sets of semaphores and message queues of System V are the whole system's
// (sysvipc(7)): nothing ties them to a process. The kernel keeps who used them
// last. Where that was the tree, and nobody else who still lives, they are the
// tree's and saved; all others are left alone. An object that nobody has used yet
// is nobody's.

// objects saves what belongs to the tree.
func (c *Collector) objects() error {
	if sys.SemCount() > 0 {
		sets, err := sys.Sems()
		if err != nil {
			return err
		}
		for _, o := range sets {
			if err := c.semaphores(o); err != nil && !ipcGone(err) {
				return fmt.Errorf("System V semaphores %d: %w", o.ID, err)
			}
		}
	}
	if sys.MsgCount() > 0 {
		queues, err := sys.Msgs()
		if err != nil {
			return err
		}
		for _, o := range queues {
			if err := c.messages(o); err != nil && !ipcGone(err) {
				return fmt.Errorf("System V message queue %d: %w", o.ID, err)
			}
		}
	}
	return nil
}

// ipcGone tells whether an object was removed meanwhile.
func ipcGone(err error) bool { return errors.Is(err, unix.EIDRM) || errors.Is(err, unix.EINVAL) }

// ours tells whether of some pids that used an object one is of the tree, and
// none of another process that lives.
func (c *Collector) ours(pids ...int) bool {
	inside := false
	for _, p := range pids {
		switch {
		case p == 0:
		case c.Tree.Process(p) != nil:
			inside = true
		default:
			if _, err := procfs.ReadStat(p, 0); err == nil {
				return false
			}
		}
	}
	return inside
}

func (c *Collector) semaphores(o sys.IPCObject) error {
	s := &fm.SysvSem{
		Id: proto.Uint32(uint32(o.ID)), Key: proto.Int32(o.Key), Mode: proto.Uint32(o.Mode), Uid: proto.Uint32(o.UID), Gid: proto.Uint32(o.GID),
	}
	pids := make([]int, o.Count)
	for i := range pids {
		v, p, err := sys.Sem(o.ID, i)
		if err != nil {
			return err
		}
		pids[i] = p
		s.Values, s.Pids = append(s.Values, uint32(v)), append(s.Pids, uint32(p))
	}
	if c.ours(pids...) {
		c.Image.Add("sysv-sems", s)
	}
	return nil
}

func (c *Collector) messages(o sys.IPCObject) error {
	if !c.ours(o.Sender, o.Receiver) {
		return nil
	}
	room, err := sys.MsgRoom(o.ID)
	if err != nil {
		return err
	}
	q := &fm.SysvQueue{
		Id: proto.Uint32(uint32(o.ID)), Key: proto.Int32(o.Key), Mode: proto.Uint32(o.Mode), Uid: proto.Uint32(o.UID), Gid: proto.Uint32(o.GID),
		Room: proto.Uint64(room), Sender: proto.Uint32(uint32(o.Sender)), Receiver: proto.Uint32(uint32(o.Receiver)),
	}
	for i := range o.Count {
		typ, data, err := sys.MsgPeek(o.ID, i, int(min(room, math.MaxInt32)))
		if err != nil {
			c.Refuse.Add(faultOfQueue(o, err))
			return nil
		}
		q.Messages = append(q.Messages, &fm.SysvMessage{Type: proto.Int64(typ), Data: data})
	}
	c.Image.Add("sysv-queues", q)
	return nil
}

func faultOfQueue(o sys.IPCObject, err error) fault.Reason {
	why := err.Error()
	if errors.Is(err, unix.ENOSYS) {
		why = "this kernel was built without CONFIG_CHECKPOINT_RESTORE"
	}
	return fault.Reason{
		PID: max(o.Sender, o.Receiver), Object: fmt.Sprintf("System V message queue %d", o.ID),
		Why: "its messages cannot be read without taking them: " + why, Remedy: "let the program receive them, and try again",
	}
}
