package sys

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System V semaphores and message queues (include/uapi/linux/sem.h, msg.h).
const (
	msgInfo = 12
	semInfo = 19

	semGetPid = 11
	semGetVal = 12
	semSetVal = 16

	ipcNoWait  = 0o4000
	msgNoError = 0o10000
	msgCopy    = 0o40000 // Linux 3.8, CONFIG_CHECKPOINT_RESTORE
)

// IPCObject is what /proc/sysvipc tells of a set of semaphores or a queue.
type IPCObject struct {
	Key      int32
	ID       int
	Mode     uint32
	UID, GID uint32
	Count    int // semaphores of a set, messages in a queue
	// Of a queue: who sent and who received last.
	Sender, Receiver int
}

// SemCount gives how many sets of semaphores there are (semctl(2), SEM_INFO).
func SemCount() int {
	var i [10]int32 // struct seminfo
	if _, _, e := unix.RawSyscall6(unix.SYS_SEMCTL, 0, 0, semInfo, uintptr(unsafe.Pointer(&i)), 0, 0); e != 0 {
		return 0
	}
	return int(i[7]) // semusz
}

// MsgCount gives how many message queues there are (msgctl(2), MSG_INFO).
func MsgCount() int {
	var i [8]int32 // struct msginfo
	if _, _, e := unix.RawSyscall(unix.SYS_MSGCTL, 0, msgInfo, uintptr(unsafe.Pointer(&i))); e != 0 {
		return 0
	}
	return int(i[0]) // msgpool
}

// Sems lists the sets of semaphores, Msgs the message queues.
func Sems() ([]IPCObject, error) { return ipcObjects("sem") }

// Msgs lists the message queues.
func Msgs() ([]IPCObject, error) { return ipcObjects("msg") }

// ipcObjects reads a file of /proc/sysvipc; ipc/sem.c and ipc/msg.c print it.
func ipcObjects(kind string) (all []IPCObject, err error) {
	b, err := os.ReadFile("/proc/sysvipc/" + kind)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if i == 0 {
			continue // the names of the columns
		}
		f := strings.Fields(line)
		n := make([]int64, len(f))
		for i, w := range f {
			base := 10
			if i == 2 {
				base = 8
			}
			if n[i], err = strconv.ParseInt(w, base, 64); err != nil {
				return nil, fmt.Errorf("/proc/sysvipc/%s: %q: %w", kind, line, err)
			}
		}
		o := IPCObject{}
		switch {
		case kind == "sem" && len(n) >= 6:
			o = IPCObject{int32(n[0]), int(n[1]), uint32(n[2]), uint32(n[4]), uint32(n[5]), int(n[3]), 0, 0}
		case kind == "msg" && len(n) >= 9:
			o = IPCObject{int32(n[0]), int(n[1]), uint32(n[2]), uint32(n[7]), uint32(n[8]), int(n[4]), int(n[5]), int(n[6])}
		default:
			return nil, fmt.Errorf("/proc/sysvipc/%s: %q", kind, line)
		}
		all = append(all, o)
	}
	return all, nil
}

// Sem gives a semaphore's value and the pid of the last operation on it, 0 when
// there was none.
func Sem(id, n int) (value, pid int, err error) {
	v, _, e := unix.RawSyscall6(unix.SYS_SEMCTL, uintptr(id), uintptr(n), semGetVal, 0, 0, 0)
	if e != 0 {
		return 0, 0, e
	}
	p, _, e := unix.RawSyscall6(unix.SYS_SEMCTL, uintptr(id), uintptr(n), semGetPid, 0, 0, 0)
	if e != 0 {
		return 0, 0, e
	}
	return int(v), int(p), nil
}

// SetSem sets a semaphore's value, which also takes away what processes would
// undo to it.
func SetSem(id, n, value int) error {
	if _, _, e := unix.RawSyscall6(unix.SYS_SEMCTL, uintptr(id), uintptr(n), semSetVal, uintptr(value), 0, 0); e != 0 {
		return e
	}
	return nil
}

// MakeSem makes a set of semaphores with a chosen id (sem_next_id, Linux 3.9) and
// key. EEXIST: the key is taken; EBUSY: the id is.
func MakeSem(o IPCObject) error {
	return makeIPC("sem", o.ID, func() (uintptr, unix.Errno) {
		id, _, e := unix.RawSyscall(unix.SYS_SEMGET, uintptr(o.Key), uintptr(o.Count), uintptr(o.Mode&0o777)|ipcCreat|ipcExcl)
		return id, e
	}, RemoveSem, func() unix.Errno {
		var ds [16]uint64 // more than struct semid64_ds; IPC_SET takes the permissions
		*(*ipcPerm64)(unsafe.Pointer(&ds)) = ipcPerm64{UID: o.UID, GID: o.GID, Mode: o.Mode & 0o777}
		_, _, e := unix.RawSyscall6(unix.SYS_SEMCTL, uintptr(o.ID), 0, ipcSet, uintptr(unsafe.Pointer(&ds)), 0, 0)
		return e
	})
}

// RemoveSem removes a set of semaphores.
func RemoveSem(id int) error {
	if _, _, e := unix.RawSyscall6(unix.SYS_SEMCTL, uintptr(id), 0, ipcRmid, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// msqidDs is struct msqid64_ds of 64-bit machines
// (include/uapi/asm-generic/msgbuf.h).
type msqidDs struct {
	Perm ipcPerm64
	_    [3]uint64 // times
	_    uint64    // cbytes
	_    uint64    // qnum
	Room uint64    // msg_qbytes
	_    [2]int32  // pids
	_    [2]uint64
}

// MsgRoom gives for how many bytes a queue has room.
func MsgRoom(id int) (uint64, error) {
	var ds msqidDs
	if _, _, e := unix.RawSyscall(unix.SYS_MSGCTL, uintptr(id), ipcStat, uintptr(unsafe.Pointer(&ds))); e != 0 {
		return 0, e
	}
	return ds.Room, nil
}

// MakeMsg makes a message queue with a chosen id (msg_next_id, Linux 3.9) and key.
func MakeMsg(o IPCObject, room uint64) error {
	return makeIPC("msg", o.ID, func() (uintptr, unix.Errno) {
		id, _, e := unix.RawSyscall(unix.SYS_MSGGET, uintptr(o.Key), uintptr(o.Mode&0o777)|ipcCreat|ipcExcl, 0)
		return id, e
	}, RemoveMsg, func() unix.Errno {
		ds := msqidDs{Perm: ipcPerm64{UID: o.UID, GID: o.GID, Mode: o.Mode & 0o777}, Room: room}
		_, _, e := unix.RawSyscall(unix.SYS_MSGCTL, uintptr(o.ID), ipcSet, uintptr(unsafe.Pointer(&ds)))
		return e
	})
}

// RemoveMsg removes a message queue.
func RemoveMsg(id int) error {
	if _, _, e := unix.RawSyscall(unix.SYS_MSGCTL, uintptr(id), ipcRmid, 0); e != 0 {
		return e
	}
	return nil
}

func makeIPC(kind string, id int, get func() (uintptr, unix.Errno), remove func(int) error, set func() unix.Errno) error {
	if err := os.WriteFile("/proc/sys/kernel/"+kind+"_next_id", []byte(strconv.Itoa(id)), 0); err != nil {
		return err
	}
	got, e := get()
	if e != 0 {
		return e
	}
	if int(got) != id {
		_ = remove(int(got))
		return unix.EBUSY
	}
	if e := set(); e != 0 {
		_ = remove(id)
		return e
	}
	return nil
}

// MsgPeek copies a queue's message n, from 0, and leaves it there. ENOMSG: there
// are not so many; EINVAL or ENOSYS: the kernel was built without that.
func MsgPeek(id, n, room int) (typ int64, data []byte, err error) {
	b := make([]byte, 8+room)
	r, _, e := unix.Syscall6(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&b[0])), uintptr(room), uintptr(n), ipcNoWait|msgCopy, 0)
	if e != 0 {
		return 0, nil, e
	}
	return int64(binary.NativeEndian.Uint64(b)), b[8 : 8+r : 8+r], nil
}

// MsgTake takes the oldest message of a queue, whatever its size.
func MsgTake(id int) error {
	var b [16]byte
	if _, _, e := unix.Syscall6(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&b[0])), 8, 0, ipcNoWait|msgNoError, 0); e != 0 {
		return e
	}
	return nil
}

// MsgSend puts a message into a queue; EAGAIN: there is no room.
func MsgSend(id int, typ int64, data []byte) error {
	b := append(binary.NativeEndian.AppendUint64(nil, uint64(typ)), data...)
	_, _, e := unix.Syscall6(unix.SYS_MSGSND, uintptr(id), uintptr(unsafe.Pointer(&b[0])), uintptr(len(data)), ipcNoWait, 0, 0)
	runtime.KeepAlive(b)
	if e != 0 {
		return e
	}
	return nil
}
