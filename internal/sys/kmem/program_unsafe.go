package kmem

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The program and its one map (bpf(2), include/uapi/linux/bpf.h). The map's only
// value, which is mapped here too, holds the request and its answer: an address
// and a length, the result, the bytes. Address 0 asks for the caller's
// task_struct.
const (
	valueSize = 64 << 10
	offAddr   = 0
	offLen    = 8
	offResult = 16
	offData   = 24
	maxRead   = valueSize - offData
)

// BPF instructions (include/uapi/linux/bpf.h): operation, registers, offset,
// immediate.
type insn struct {
	op   byte
	regs byte // source << 4 | destination
	off  int16
	imm  int32
}

const (
	opLoadImm64 = 0x18
	opLoad8     = 0x79 // dst = *(u64 *)(src + off)
	opStore8    = 0x7b // *(u64 *)(dst + off) = src
	opMov       = 0xbf
	opMovImm    = 0xb7
	opAddImm    = 0x07
	opJneImm    = 0x55
	opJgtImm    = 0x25
	opCall      = 0x85
	opExit      = 0x95

	pseudoMapValue = 2   // BPF_PSEUDO_MAP_VALUE
	getCurrentTask = 35  // bpf_get_current_task
	readKernel     = 113 // bpf_probe_read_kernel
)

func code(mapFD int) []insn {
	return []insn{
		{opLoadImm64, pseudoMapValue<<4 | 6, 0, int32(mapFD)},
		{},
		{opLoad8, 6<<4 | 3, offAddr, 0},
		{opJneImm, 3, 2, 0},
		{opCall, 0, 0, getCurrentTask},
		{opJneImm, 6, 5, 0}, // always: to the store
		{opLoad8, 6<<4 | 2, offLen, 0},
		{opJgtImm, 2, 4, maxRead},
		{opMov, 6<<4 | 1, 0, 0},
		{opAddImm, 1, 0, offData},
		{opCall, 0, 0, readKernel},
		{opStore8, 0<<4 | 6, offResult, 0},
		{opMovImm, 0, 0, 0},
		{opExit, 0, 0, 0},
	}
}

// program is the loaded program.
type program struct {
	fd, mapFD int
	value     []byte
}

const (
	cmdMapCreate = 0
	cmdProgLoad  = 5
	cmdTestRun   = 10

	mapArray     = 2
	mapMmapable  = 1 << 10
	progSyscall  = 31
	progSleeping = 1 << 4
)

// bpf calls bpf(2). attr may hold pointers as numbers: what they point to must be
// pinned by keep.
func bpf(cmd int, attr []byte, keep ...any) (int, error) {
	n, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	runtime.KeepAlive(keep)
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}

func load() (_ *program, err error) {
	p := &program{fd: -1, mapFD: -1}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	attr := make([]byte, 128)
	le := binary.NativeEndian
	le.PutUint32(attr[0:], mapArray)
	le.PutUint32(attr[4:], 4)
	le.PutUint32(attr[8:], valueSize)
	le.PutUint32(attr[12:], 1)
	le.PutUint32(attr[16:], mapMmapable)
	if p.mapFD, err = bpf(cmdMapCreate, attr[:72]); err != nil {
		return nil, fmt.Errorf("bpf map: %w", err)
	}
	if p.value, err = unix.Mmap(p.mapFD, 0, valueSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("bpf map: mmap: %w", err)
	}
	prog := code(p.mapFD)
	// The helper wants to know. These few instructions may be used so.
	license := append([]byte("Dual MIT/GPL"), 0)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&prog[0])
	pin.Pin(&license[0])
	clear(attr)
	le.PutUint32(attr[0:], progSyscall)
	le.PutUint32(attr[4:], uint32(len(prog)))
	le.PutUint64(attr[8:], uint64(uintptr(unsafe.Pointer(&prog[0]))))
	le.PutUint64(attr[16:], uint64(uintptr(unsafe.Pointer(&license[0]))))
	le.PutUint32(attr[44:], progSleeping)
	if p.fd, err = bpf(cmdProgLoad, attr[:120], prog, license); err != nil {
		return nil, fmt.Errorf("bpf program: %w", err)
	}
	return p, nil
}

func (p *program) close() {
	if p.value != nil {
		_ = unix.Munmap(p.value)
		p.value = nil
	}
	for _, fd := range []*int{&p.fd, &p.mapFD} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

func (p *program) run(addr uint64, n int) (int64, error) {
	le := binary.NativeEndian
	le.PutUint64(p.value[offAddr:], addr)
	le.PutUint64(p.value[offLen:], uint64(n))
	var attr [80]byte
	le.PutUint32(attr[0:], uint32(p.fd))
	if _, err := bpf(cmdTestRun, attr[:]); err != nil {
		return 0, fmt.Errorf("bpf program: %w", err)
	}
	return int64(le.Uint64(p.value[offResult:])), nil
}

// read copies kernel memory; at most maxRead bytes.
func (p *program) read(addr uint64, b []byte) error {
	if addr < 1<<16 {
		return unix.EFAULT
	}
	got, err := p.run(addr, len(b))
	if err == nil && got < 0 {
		err = unix.Errno(-got)
	}
	if err != nil {
		return err
	}
	copy(b, p.value[offData:])
	return nil
}

// task gives the address of the calling thread's task_struct.
func (p *program) task() (uint64, error) {
	v, err := p.run(0, 0)
	return uint64(v), err
}
