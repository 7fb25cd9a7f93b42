package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// A POSIX message queue (mq_overview(7), ipc/mqueue.c) is a file of a file system
// that each IPC namespace has one of. What a queue holds and who is told of the
// next message no call gives without taking it, so both are read from the
// kernel's memory (struct mqueue_inode_info). A message is in an order: first of
// all by its priority, then by age.
//
// Queues with a name are the namespace's and not the program's. At a restore one
// that is gone is made again; one that is there gets the messages that were saved
// in place of its own, unless somebody else has it open: then it stays as it is.
// A queue made again counts for the restoring user's RLIMIT_MSGQUEUE.
type mqueueKind struct{}

func init() { registerExt(mqueueKind{}) }

func (mqueueKind) Name() string            { return "message queue" }
func (mqueueKind) Types() []fdinfo.FdTypes { return nil }

// Priority: before regular files, which queues look like.
func (mqueueKind) Priority() int { return -1 }

func (mqueueKind) Match(f *File) bool {
	if f.Stat.Mode&unix.S_IFMT != unix.S_IFREG || unix.Major(f.Stat.Dev) != 0 || f.Info.Flags&unix.O_PATH != 0 || f.via != "" {
		return false
	}
	type deviceKey struct{ dev uint64 }
	ok, _ := Value(f.dump, deviceKey{f.Stat.Dev}, func() (bool, error) {
		var st unix.Statfs_t
		err := unix.Statfs(f.Path(), &st)
		return err == nil && int64(st.Type) == sys.MqMagic, nil
	})
	return ok
}

func (k mqueueKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	x := d.Extra(f)
	x.Ino = proto.Uint64(f.Stat.Ino)
	x.Data = proto.Uint64(uint64(f.Flags()))
	if f.Info.Pos != 0 {
		x.Data2 = proto.Uint64(uint64(f.Info.Pos))
	}
	if dir := path.Dir(f.Link); dir != "/" {
		x.LinkPath = proto.String(f.Link)
	}
	type queueKey struct{ dev, ino uint64 }
	ok, err := Value(d, queueKey{f.Stat.Dev, f.Stat.Ino}, func() (bool, error) { return k.queue(d, f) })
	if !ok || err != nil {
		return nil, err
	}
	return d.extEntry(f, k)
}

// queue saves the queue behind a description.
func (mqueueKind) queue(d *Dump, f *File) (ok bool, err error) {
	fd, done, err := f.borrow()
	if err != nil {
		return false, err
	}
	defer done()
	a, err := sys.MqGetattr(fd)
	if err != nil {
		return false, fmt.Errorf("mq_getattr: %w", err)
	}
	q := &fm.Mqueue{
		Ino: proto.Uint64(f.Stat.Ino), Maxmsg: proto.Int64(a.MaxMsg), Msgsize: proto.Int64(a.MsgSize),
		Mode: proto.Uint32(f.Stat.Mode & 0o7777), Uid: proto.Uint32(f.Stat.Uid), Gid: proto.Uint32(f.Stat.Gid),
	}
	if f.Stat.Nlink > 0 {
		q.Name = proto.String(path.Base(f.Link))
	} else {
		q.Last = proto.String(strings.TrimSuffix(path.Base(f.Link), " (deleted)"))
	}
	r, err := d.Kernel()
	if err == nil {
		var why string
		if why, err = readQueue(d, r, r.File(fd), int(a.CurMsgs), q); err == nil && why != "" {
			d.Refusal(f, why, "let the program do without it, and try again")
			return false, nil
		}
	}
	if errors.Is(err, kmem.ErrUnavailable) {
		d.Refusal(f, fmt.Sprintf("what a message queue holds, and who is told of the next message, cannot be read: %v", err), "run fermata as the machine's root")
		return false, nil
	}
	if err != nil {
		return false, err
	}
	d.Image.Add("mqueues", q)
	return true, nil
}

// Kinds of notification (struct sigevent, include/uapi/asm-generic/siginfo.h).
const (
	sigevSignal = 0
	sigevThread = 2
)

// notifyCookie is what a notification by a netlink socket consists of
// (include/uapi/linux/mqueue.h, NOTIFY_COOKIE_LEN).
const notifyCookie = 32

// readQueue reads messages and notification of the queue of a struct file. What
// cannot be saved it gives as a reason.
func readQueue(d *Dump, r *kmem.Reader, file kmem.Object, n int, q *fm.Mqueue) (why string, err error) {
	inode := file.Ptr("f_inode", "inode")
	info := inode.Of("mqueue_inode_info", "vfs_inode")
	ns := r.Task().Ptr("nsproxy", "nsproxy").Uint("ipc_ns")
	if inode.Ptr("i_sb", "super_block").Uint("s_fs_info") != ns && r.Peek() == nil {
		return "it is a message queue of another IPC namespace", nil
	}
	nodes := r.Tree(info.Addr + info.Offset("msg_tree"))
	slices.Reverse(nodes)
	for _, at := range nodes {
		leaf := r.At("rb_node", at).Of("posix_msg_tree_node", "rb_node")
		for _, m := range r.List(leaf.Addr+leaf.Offset("msg_list"), false) {
			msg := r.At("list_head", m).Of("msg_msg", "m_list")
			q.Messages = append(q.Messages, &fm.MqueueMessage{Priority: proto.Uint32(uint32(msg.Uint("m_type"))), Data: msg.Message()})
		}
	}
	if owner := info.Ptr("notify_owner", "pid"); !owner.Nil() {
		ev := info.In("notify", "sigevent")
		pid := r.PID(owner)
		w := &fm.MqueueNotify{Pid: proto.Uint32(uint32(pid)), Kind: proto.Int32(int32(ev.Int("sigev_notify")))}
		switch w.GetKind() {
		case sigevSignal:
			w.Signo, w.Value = proto.Int32(int32(ev.Int("sigev_signo"))), proto.Uint64(ev.Uint("sigev_value"))
		case sigevThread:
			w.Cookie = info.Ptr("notify_cookie", "sk_buff").Data()
			sock := info.Ptr("notify_sock", "sock").Ptr("sk_socket", "socket").Of("socket_alloc", "socket")
			w.Value = proto.Uint64(sock.In("vfs_inode", "inode").Uint("i_ino"))
		}
		if r.Peek() == nil && (pid == 0 || d.InTree != nil && !d.InTree(pid)) {
			return fmt.Sprintf("pid %d, outside the tree, is to be told of the next message (mq_notify)", pid), nil
		}
		// execve(2) ends a notification by a signal, but leaves it registered.
		if fd, err := d.pidfd(pid); err == nil && w.GetKind() == sigevSignal && r.Process(fd, pid).Uint("self_exec_id") != info.Uint("notify_self_exec_id") && r.Peek() == nil {
			return fmt.Sprintf("pid %d has asked to be told of the next message (mq_notify) before it executed another program", pid), nil
		}
		q.Notify = w
	}
	if err := r.Err(); err != nil {
		return "", fmt.Errorf("message queue: %w", err)
	}
	if len(q.Messages) != n {
		return "", fmt.Errorf("message queue: %w: %d of %d messages", kmem.ErrChanged, len(q.Messages), n)
	}
	return "", nil
}

// Complete finds the sockets over which threads are told of messages.
func (mqueueKind) Complete(d *Dump) error {
	all, err := image.All[*fm.Mqueue](d.Image, "mqueues")
	if err != nil {
		return err
	}
	for _, q := range all {
		w := q.GetNotify()
		if w.GetKind() != sigevThread {
			continue
		}
		link := fmt.Sprintf("socket:[%d]", w.GetValue())
		i := slices.IndexFunc(d.files, func(f *File) bool { return f.Link == link && f.Entry != nil })
		if i < 0 || len(w.GetCookie()) != notifyCookie {
			d.Refuse.Add(fault.Reason{
				PID: int(w.GetPid()), Object: queueName(q),
				Why: "a thread is to be told of the next message over a socket that the tree does not have open", Remedy: "mq_notify(queue, NULL) before the checkpoint",
			})
			continue
		}
		w.Socket, w.Value = proto.Uint32(d.files[i].ID), nil
	}
	return nil
}

func savedQueue(r *Restore, e *fdinfo.FileEntry) (*fm.Mqueue, error) {
	ino := r.Extra(e.GetId()).GetIno()
	all, err := image.All[*fm.Mqueue](r.Image, "mqueues")
	if err != nil {
		return nil, err
	}
	for _, q := range all {
		if q.GetIno() == ino {
			return q, nil
		}
	}
	return nil, fault.Errorf(fault.ErrDamaged, "message queue %d is not in the image", ino)
}

func queueName(q *fm.Mqueue) string {
	if q.Name == nil {
		return "a queue without a name"
	}
	return "queue /" + q.GetName()
}

// Check looks whether another queue has the name.
func (mqueueKind) Check(r *Restore, e *fdinfo.FileEntry) error {
	q, err := savedQueue(r, e)
	if err != nil || q.Name == nil {
		return err
	}
	fd, err := sys.MqOpen(q.GetName(), unix.O_RDONLY, 0, nil)
	if err != nil {
		return nil // it is made, or opening it says why not
	}
	defer unix.Close(fd)
	if a, err := sys.MqGetattr(fd); err != nil || a.MaxMsg != q.GetMaxmsg() || a.MsgSize != q.GetMsgsize() {
		r.Refuse.Add(fault.Reason{
			Object: queueName(q), Why: fmt.Sprintf("the message queue that is there is another one: for %d messages of %d bytes where it had %d of %d", a.MaxMsg, a.MsgSize, q.GetMaxmsg(), q.GetMsgsize()),
			Remedy: "remove that (mq_unlink)",
		})
	}
	return nil
}

func (mqueueKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	q, err := savedQueue(r, e)
	if err != nil {
		return -1, err
	}
	type doneKey struct{ ino uint64 }
	if _, err := RestoreValue(r, doneKey{q.GetIno()}, func() (bool, error) { return true, openQueue(r, q) }); err != nil {
		return -1, fmt.Errorf("%s: %w", queueName(q), err)
	}
	return r.fds[e.GetId()], nil
}

// descriptions gives the files that are descriptions of a queue.
func descriptions(r *Restore, q *fm.Mqueue) (ids []uint32) {
	for _, id := range r.IDs() {
		if r.Extra(id).GetIno() == q.GetIno() && r.kindOf(r.Entry(id)) == (mqueueKind{}) {
			ids = append(ids, id)
		}
	}
	return ids
}

// openQueue opens a queue that is there, or makes it, with all descriptions of
// it: one without a name has one for so long.
func openQueue(r *Restore, q *fm.Mqueue) error {
	fd, name, made, err := findQueue(r, q)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if q.Name == nil {
		defer func() { _ = sys.MqUnlink(name) }()
	} else if made {
		r.onUndo(func() { _ = sys.MqUnlink(name) })
	}
	for _, id := range descriptions(r, q) {
		if err := openDescription(r, q, id, name, fd); err != nil {
			return err
		}
	}
	if made {
		if err := unix.Fchmod(fd, q.GetMode()); err != nil {
			return fmt.Errorf("mode: %w", err)
		}
		if int(q.GetUid()) != os.Geteuid() || int(q.GetGid()) != os.Getegid() {
			if err := unix.Fchown(fd, int(q.GetUid()), int(q.GetGid())); err != nil {
				return fmt.Errorf("owner: %w", err)
			}
		}
		return fillQueue(fd, q)
	}
	if pid, err := othersHave(fd); err != nil {
		return err
	} else if pid > 0 {
		r.Note("%s is open in other processes (pid %d): its messages stay as they are", queueName(q), pid)
		return nil
	}
	if err := emptyQueue(fd); err != nil {
		return fmt.Errorf("taking what is in it: %w", err)
	}
	return fillQueue(fd, q)
}

// findQueue gives a queue and the name it has now.
func findQueue(r *Restore, q *fm.Mqueue) (fd int, name string, made bool, err error) {
	if q.Name != nil {
		if fd, err = sys.MqOpen(q.GetName(), unix.O_RDWR, 0, nil); err != unix.ENOENT {
			return fd, q.GetName(), false, err
		}
	}
	// Of one without a name the link shows the last one it had.
	name = q.GetName()
	if q.Name == nil {
		name = q.GetLast()
	}
	a := &sys.MqAttr{MaxMsg: q.GetMaxmsg(), MsgSize: q.GetMsgsize()}
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL
	if fd, err = sys.MqOpen(name, flags, 0o600, a); err == unix.EEXIST && q.Name == nil {
		name = fmt.Sprintf("fermata-%d-%d", os.Getpid(), q.GetIno())
		fd, err = sys.MqOpen(name, flags, 0o600, a)
	}
	switch err {
	case nil:
		return fd, name, true, nil
	case unix.EMFILE, unix.EINVAL, unix.ENOMEM, unix.ENOSPC:
		err = fault.Errorf(fault.ErrRefused, "cannot be made for %d messages of %d bytes: %w (RLIMIT_MSGQUEUE and the sysctls below fs.mqueue limit that)", a.MaxMsg, a.MsgSize, err)
	}
	return -1, "", false, err
}

// openDescription opens one description of the queue that is open as fd.
func openDescription(r *Restore, q *fm.Mqueue, id uint32, name string, queue int) error {
	x := r.Extra(id)
	flags := int(x.GetData()) & (unix.O_ACCMODE | settable)
	fd := -1
	var err error
	if q.Name != nil && x.LinkPath != nil {
		// It was opened by a path below a mount of the file system.
		if fd, err = unix.Open(x.GetLinkPath(), flags|unix.O_CLOEXEC, 0); err != nil {
			fd = -1
		} else if !sameFile(fd, queue) {
			unix.Close(fd)
			fd = -1
		}
	}
	if fd < 0 {
		if fd, err = sys.MqOpen(name, flags, 0, nil); err != nil {
			return fmt.Errorf("mq_open: %w", err)
		}
	}
	r.Set(id, fd)
	if x.Data2 != nil {
		if _, err := unix.Seek(fd, int64(x.GetData2()), unix.SEEK_SET); err != nil {
			return fmt.Errorf("offset: %w", err)
		}
	}
	return nil
}

func emptyQueue(fd int) error {
	a, err := sys.MqGetattr(fd)
	b := make([]byte, a.MsgSize)
	for err == nil {
		_, _, err = sys.MqReceive(fd, b)
	}
	if err == unix.ETIMEDOUT || err == unix.EAGAIN {
		return nil
	}
	return err
}

func fillQueue(fd int, q *fm.Mqueue) error {
	for _, m := range q.GetMessages() {
		if err := sys.MqSend(fd, m.GetData(), m.GetPriority()); err != nil {
			return err
		}
	}
	return nil
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// othersHave gives a process that has the file of a descriptor open and is not
// this one, 0 when there is none.
func othersHave(fd int) (int, error) {
	var own, st unix.Stat_t
	if err := unix.Fstat(fd, &own); err != nil {
		return 0, err
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir, err := os.Open("/proc/" + p.Name() + "/fd")
		if err != nil {
			continue // it has ended
		}
		names, _ := dir.Readdirnames(-1)
		for _, n := range names {
			if unix.Fstatat(int(dir.Fd()), n, &st, 0) == nil && st.Dev == own.Dev && st.Ino == own.Ino {
				dir.Close()
				return pid, nil
			}
		}
		dir.Close()
	}
	return 0, nil
}

// InTask has the process that is to be told of the next message ask for it
// (mq_notify(3)): it alone can. A close of any of its descriptors of the queue
// would take that back, and none comes after this.
func (mqueueKind) InTask(r *Restore, _ Task, e *fdinfo.FileEntry, _ int) error {
	q, err := savedQueue(r, e)
	if err != nil || q.Notify == nil {
		return err
	}
	w := q.GetNotify()
	type askedKey struct{ ino uint64 }
	asked := false
	if _, err := RestoreValue(r, askedKey{q.GetIno()}, func() (bool, error) { asked = true; return true, nil }); err != nil || !asked {
		return err
	}
	if r.Task == nil {
		return nil
	}
	t := r.Task(int(w.GetPid()))
	if t == nil {
		return fault.Errorf(fault.ErrDamaged, "%s: pid %d, which is to be told of messages, is not there", queueName(q), w.GetPid())
	}
	fd, ok := -1, false
	for _, id := range descriptions(r, q) {
		if fd, ok = t.FD(id); ok {
			break
		}
	}
	if !ok {
		return fault.Errorf(fault.ErrDamaged, "%s: pid %d, which is to be told of messages, does not have it", queueName(q), w.GetPid())
	}
	x := t.Executor()
	at, ev := x.Data(64) // struct sigevent
	binary.NativeEndian.PutUint64(ev, w.GetValue())
	binary.NativeEndian.PutUint32(ev[8:], uint32(w.GetSigno()))
	binary.NativeEndian.PutUint32(ev[12:], uint32(w.GetKind()))
	if w.GetKind() == sigevThread {
		sock, ok := t.FD(w.GetSocket())
		if !ok {
			return fault.Errorf(fault.ErrDamaged, "%s: pid %d does not have the socket for its notification", queueName(q), w.GetPid())
		}
		binary.NativeEndian.PutUint64(ev, x.Put(w.GetCookie()))
		binary.NativeEndian.PutUint32(ev[8:], uint32(sock))
	}
	if _, err := x.Call(unix.SYS_MQ_NOTIFY, uint64(fd), at); err != nil {
		return fmt.Errorf("%s: mq_notify: %w", queueName(q), err)
	}
	return nil
}
