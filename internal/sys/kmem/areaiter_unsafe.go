package kmem

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The iterator's program: it writes three words of each area to the file that is
// being read.
const (
	areasTarget = "bpf_iter_task_vma"
	areaSize    = 24

	opJeqImm = 0x15
	seqWrite = 127 // bpf_seq_write

	cmdLinkCreate = 28
	cmdIterCreate = 33
	progTracing   = 26
	traceIter     = 28
)

// areaOffsets are where the program finds what it writes.
type areaOffsets struct{ meta, vma, seq, start, end, flags int16 }

func areasCode(at areaOffsets) []insn {
	const stack = 10 // the frame pointer
	return []insn{
		{opLoad8, 1<<4 | 2, at.meta, 0},
		{opLoad8, 1<<4 | 3, at.vma, 0},
		{opJeqImm, 3, 11, 0}, // behind the last one
		{opLoad8, 2<<4 | 1, at.seq, 0},
		{opLoad8, 3<<4 | 4, at.start, 0},
		{opStore8, 4<<4 | stack, -24, 0},
		{opLoad8, 3<<4 | 4, at.end, 0},
		{opStore8, 4<<4 | stack, -16, 0},
		{opLoad8, 3<<4 | 4, at.flags, 0},
		{opStore8, 4<<4 | stack, -8, 0},
		{opMov, stack<<4 | 2, 0, 0},
		{opAddImm, 2, 0, -areaSize},
		{opMovImm, 3, 0, areaSize},
		{opCall, 0, 0, seqWrite},
		{opMovImm, 0, 0, 0},
		{opExit, 0, 0, 0},
	}
}

// loadAreas loads it for the function of the kernel with a number in its type
// information.
func loadAreas(target uint32, at areaOffsets) (int, error) {
	prog := areasCode(at)
	license := append([]byte("Dual MIT/GPL"), 0)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&prog[0])
	pin.Pin(&license[0])
	attr := make([]byte, 128)
	le := binary.NativeEndian
	le.PutUint32(attr[0:], progTracing)
	le.PutUint32(attr[4:], uint32(len(prog)))
	le.PutUint64(attr[8:], uint64(uintptr(unsafe.Pointer(&prog[0]))))
	le.PutUint64(attr[16:], uint64(uintptr(unsafe.Pointer(&license[0]))))
	le.PutUint32(attr[68:], traceIter)
	le.PutUint32(attr[108:], target)
	fd, err := bpf(cmdProgLoad, attr[:120], prog, license)
	if err != nil {
		return -1, fmt.Errorf("bpf program: %w", err)
	}
	return fd, nil
}

// linkAreas ties it to one thread (union bpf_iter_link_info, task.tid).
func linkAreas(prog, tid int) (int, error) {
	info := make([]byte, 16)
	attr := make([]byte, 64)
	le := binary.NativeEndian
	le.PutUint32(info, uint32(tid))
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info[0])
	le.PutUint32(attr[0:], uint32(prog))
	le.PutUint32(attr[8:], traceIter)
	le.PutUint64(attr[16:], uint64(uintptr(unsafe.Pointer(&info[0]))))
	le.PutUint32(attr[24:], uint32(len(info)))
	return bpf(cmdLinkCreate, attr, info)
}

// startIterator gives the file to read.
func startIterator(link int) (int, error) {
	attr := make([]byte, 8)
	binary.NativeEndian.PutUint32(attr, uint32(link))
	fd, err := bpf(cmdIterCreate, attr)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	return fd, err
}
