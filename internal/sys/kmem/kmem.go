// Package kmem reads what the kernel keeps and tells nobody: what has arrived
// over a connection that no program has accepted yet, what lies in a terminal's
// buffer, how often a timer has expired whose signal is pending. No call gives
// these without taking them away, and what is taken away cannot be put back.
//
// A BPF program of a dozen instructions (bpf(2), BPF_PROG_TYPE_SYSCALL, Linux
// 5.14) copies bytes with bpf_probe_read_kernel, which cannot fault and changes
// nothing; where each member of a structure lies says the kernel's own type
// information (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF). It needs CAP_BPF
// and CAP_PERFMON over the whole machine, and a kernel that is not locked down
// against it. Open fails where one of these is missing, a member that this kernel
// does not have shows in Err; callers then refuse what they could not see.
//
// No lock is held while reading: callers look at what cannot change because the
// tasks that could change it stand still, and check what they got.
package kmem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrUnavailable: this kernel or this user does not allow it.
var ErrUnavailable = errors.New("the kernel's memory cannot be read here")

// ErrChanged: what was read makes no sense, since it changed meanwhile.
var ErrChanged = errors.New("what the kernel keeps does not come to rest")

var native = binary.NativeEndian

// Reader reads the kernel's memory. It belongs to one goroutine. The first error
// stays (Err), and every read after it gives zeros.
type Reader struct {
	types  *types
	prog   *program
	mapped []byte
	err    error
	// Where the machine's memory and the struct page of its pages begin, once known.
	direct, pages uint64
}

// Open makes a reader; Close must follow. Errors are ErrUnavailable.
func Open() (*Reader, error) {
	p, err := load()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	b, mapped, err := readBTF()
	var t *types
	if err == nil {
		t, err = parseBTF(b)
	}
	r := &Reader{types: t, prog: p}
	if mapped {
		r.mapped = b
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("%w: its type information: %w", ErrUnavailable, err)
	}
	return r, nil
}

// readBTF gives the kernel's type information, some megabytes; since Linux 6.16
// it can be mapped.
func readBTF() (b []byte, mapped bool, err error) {
	const name = "/sys/kernel/btf/vmlinux"
	f, err := os.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil {
		if b, err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE); err == nil {
			return b, true, nil
		}
	}
	b, err = os.ReadFile(name)
	return b, false, err
}

// Close gives the program back.
func (r *Reader) Close() {
	r.prog.close()
	if r.mapped != nil {
		_ = unix.Munmap(r.mapped)
		r.mapped = nil
	}
}

// Err gives the first error since the last call.
func (r *Reader) Err() error {
	err := r.err
	r.err = nil
	return err
}

// Peek gives the reader's error and leaves it.
func (r *Reader) Peek() error { return r.err }

func (r *Reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Fail makes err the reader's error unless it has one.
func (r *Reader) Fail(err error) { r.fail(err) }

// Bytes reads n bytes.
func (r *Reader) Bytes(addr uint64, n int) []byte {
	b := make([]byte, n)
	r.fill(addr, b)
	return b
}

func (r *Reader) fill(addr uint64, b []byte) {
	n := len(b)
	for at := 0; at < n && r.err == nil; {
		k := min(n-at, maxRead)
		if err := r.prog.read(addr+uint64(at), b[at:at+k]); err != nil {
			r.fail(fmt.Errorf("%d bytes of the kernel's memory: %w", n, err))
			clear(b)
			break
		}
		at += k
	}
}

// Object is a structure in the kernel's memory.
type Object struct {
	r    *Reader
	Type string // its name without `struct`
	Addr uint64 // 0: there is none
	copy []byte // its bytes, where they have been read at once
}

// At gives the structure of a type at an address.
func (r *Reader) At(typ string, addr uint64) Object { return Object{r: r, Type: typ, Addr: addr} }

// Nil tells whether there is no object.
func (o Object) Nil() bool { return o.Addr == 0 }

// As gives the same address as another type: a socket as its protocol's.
func (o Object) As(typ string) Object { return Object{o.r, typ, o.Addr, o.copy} }

// Elsewhere gives the structure of a type at an address that was found in o.
func (o Object) Elsewhere(typ string, addr uint64) Object { return o.r.At(typ, addr) }

// Read gives the same object with all its bytes, read at once: many members of a
// large structure cost no more than one. What it refers to is not read.
func (o Object) Read() Object {
	o.copy = nil
	if !o.Nil() {
		o.copy = o.r.Bytes(o.Addr, o.r.types.sizeOf(o.Type))
	}
	return o
}

// Has tells whether the structure has a member in this kernel.
func (o Object) Has(path string) bool {
	_, err := o.r.types.member(o.Type, path)
	return err == nil
}

// Offset gives where in the structure a member lies ("a.b" is a member's member).
func (o Object) Offset(path string) uint64 {
	f, err := o.r.types.member(o.Type, path)
	if err != nil {
		o.r.fail(err)
	}
	return uint64(f.off)
}

// Array gives where a member that is an array begins: in the structure, or, where
// a kernel has a pointer in that place, elsewhere.
func (o Object) Array(path string) uint64 {
	if f, err := o.r.types.member(o.Type, path); err == nil && f.size == 8 {
		return o.Uint(path)
	}
	return o.Addr + o.Offset(path)
}

// Of gives the structure that has this object as a member (container_of).
func (o Object) Of(typ, path string) Object {
	x := Object{r: o.r, Type: typ}
	x.Addr = o.Addr - x.Offset(path)
	return x
}

// In gives a member that is a structure itself.
func (o Object) In(path, typ string) Object {
	off := o.Offset(path)
	x := Object{r: o.r, Type: typ, Addr: o.Addr + off}
	if off < uint64(len(o.copy)) {
		x.copy = o.copy[off:]
	}
	return x
}

// Uint reads a member of at most 8 bytes.
func (o Object) Uint(path string) uint64 {
	f, err := o.r.types.member(o.Type, path)
	if err != nil {
		o.r.fail(err)
		return 0
	}
	if f.size < 1 || f.size > 8 {
		o.r.fail(fmt.Errorf("%s.%s has %d bytes", o.Type, path, f.size))
		return 0
	}
	if o.Addr == 0 {
		o.r.fail(fmt.Errorf("%w: %s is missing", ErrChanged, o.Type))
		return 0
	}
	var b [8]byte
	if f.off+f.size <= len(o.copy) {
		copy(b[:f.size], o.copy[f.off:])
	} else {
		copy(b[:], o.r.Bytes(o.Addr+uint64(f.off), f.size))
	}
	v := binary.LittleEndian.Uint64(b[:]) // as all machines are that have an executor
	if f.bits > 0 {
		v = v >> f.shift & (1<<f.bits - 1)
	}
	return v
}

// Int reads a member of 4 bytes with a sign.
func (o Object) Int(path string) int { return int(int32(o.Uint(path))) }

// Ptr follows a pointer.
func (o Object) Ptr(path, typ string) Object { return Object{r: o.r, Type: typ, Addr: o.Uint(path)} }

// Bytes reads n bytes from a member on.
func (o Object) Bytes(path string, n int) []byte {
	return o.r.Bytes(o.Addr+o.Offset(path), n)
}

// Pointer reads the pointer at an address.
func (r *Reader) Pointer(addr uint64) uint64 { return native.Uint64(r.Bytes(addr, 8)) }

// Task gives the calling thread's struct task_struct.
func (r *Reader) Task() Object {
	task, err := r.prog.task()
	if err != nil {
		r.fail(err)
	}
	return r.At("task_struct", task)
}

// PID gives the number that a struct pid has in this process's pid namespace, 0
// when it has none there.
func (r *Reader) PID(o Object) int {
	own := r.Task().Ptr("thread_pid", "pid")
	level, step := own.Uint("level"), uint64(r.types.sizeOf("upid"))
	if o.Nil() || level > o.Uint("level") {
		return 0
	}
	u := o.In("numbers", "upid")
	u.Addr += level * step
	mine := own.In("numbers", "upid")
	mine.Addr += level * step
	if u.Uint("ns") != mine.Uint("ns") {
		return 0
	}
	return u.Int("nr")
}

// Process gives the struct task_struct of a process's leader by a pidfd of this
// process's.
func (r *Reader) Process(pidfd, pid int) Object {
	const tgid = 1 // PIDTYPE_TGID
	return r.taskOf(pidfd, pid, tgid)
}

// Thread gives the struct task_struct of a thread by a pidfd of it (PIDFD_THREAD,
// Linux 6.9).
func (r *Reader) Thread(pidfd, tid int) Object {
	const pid = 0 // PIDTYPE_PID
	return r.taskOf(pidfd, tid, pid)
}

func (r *Reader) taskOf(pidfd, pid int, as uint64) Object {
	f := r.File(pidfd)
	for _, p := range []uint64{f.Ptr("f_inode", "inode").Uint("i_private"), f.Uint("private_data")} { // since Linux 6.9, before
		if o := r.At("pid", p); p != 0 && r.err == nil && r.PID(o) == pid {
			node := r.Pointer(o.Addr + o.Offset("tasks") + 8*as)
			t := r.At("hlist_node", node).Of("task_struct", "pid_links")
			t.Addr -= 16 * as
			return t
		}
	}
	r.fail(fmt.Errorf("%w: no task %d", ErrChanged, pid))
	return Object{r: r, Type: "task_struct"}
}

// File gives the struct file of one of this process's descriptors.
func (r *Reader) File(fd int) Object {
	table := r.Task().Ptr("files", "files_struct").Ptr("fdt", "fdtable")
	if uint64(fd) >= table.Uint("max_fds") {
		r.fail(fmt.Errorf("%w: no descriptor %d", ErrChanged, fd))
		return Object{r: r, Type: "file"}
	}
	return r.At("file", r.Pointer(table.Uint("fd")+8*uint64(fd)))
}

// Socket gives the struct sock of one of this process's descriptors.
func (r *Reader) Socket(fd int) Object {
	return r.File(fd).Ptr("private_data", "socket").Ptr("sk", "sock")
}

// mostItems is more than any queue holds.
const mostItems = 1 << 20

// Buffers gives the struct sk_buff of a queue (struct sk_buff_head).
func (o Object) Buffers() (all []Object) {
	o = o.As("sk_buff_head")
	want := int(o.Uint("qlen"))
	for p := o.Uint("next"); p != o.Addr && o.r.err == nil; {
		if len(all) >= mostItems || p == 0 {
			o.r.fail(fmt.Errorf("%w: a queue of %d buffers", ErrChanged, want))
			break
		}
		b := o.r.At("sk_buff", p)
		all = append(all, b)
		p = b.Uint("next")
	}
	if len(all) != want {
		o.r.fail(fmt.Errorf("%w: %d of %d buffers", ErrChanged, len(all), want))
	}
	return all
}

// List gives the addresses of the members of a list (struct list_head, the head
// at addr) or, with hlist, of a struct hlist_head.
func (r *Reader) List(addr uint64, hlist bool) (all []uint64) {
	for p := r.Pointer(addr); p != 0 && (hlist || p != addr) && r.err == nil; p = r.Pointer(p) {
		if len(all) >= mostItems {
			r.fail(fmt.Errorf("%w: a list without an end", ErrChanged))
			break
		}
		all = append(all, p)
	}
	return all
}

// Tree gives, in order, the structures of a type whose member hangs in a tree
// (struct rb_root, include/linux/rbtree_types.h), as its root.
func (o Object) Tree(typ, member string) (all []Object) {
	var over []Object // those whose left side is being looked at
	for n := o.As("rb_root").Ptr("rb_node", "rb_node"); (!n.Nil() || len(over) > 0) && o.r.err == nil; {
		for ; !n.Nil() && o.r.err == nil; n = n.Ptr("rb_left", "rb_node") {
			if over = append(over, n); len(over) > 128 {
				o.r.fail(fmt.Errorf("%w: a tree that is too deep", ErrChanged))
			}
		}
		if o.r.err != nil || len(all) >= mostItems {
			o.r.fail(fmt.Errorf("%w: a tree without an end", ErrChanged))
			break
		}
		last := over[len(over)-1]
		over = over[:len(over)-1]
		all = append(all, last.Of(typ, member))
		n = last.Ptr("rb_right", "rb_node")
	}
	return all
}

// Data gives the bytes of a struct sk_buff, in its linear part, its pages and the
// buffers that hang on it.
func (o Object) Data() []byte {
	head, size := o.Uint("head"), int(o.Uint("len"))
	paged := int(o.Uint("data_len"))
	if size < 0 || size > 1<<24 || paged < 0 || paged > size {
		o.r.fail(fmt.Errorf("%w: a buffer of %d bytes", ErrChanged, size))
		return nil
	}
	b := make([]byte, size-paged, size)
	o.r.fill(o.Uint("data"), b)
	if paged == 0 {
		return b
	}
	info := o.r.At("skb_shared_info", head+o.Uint("end")).Read()
	f, step := info.In("frags", "skb_frag"), uint64(o.r.types.sizeOf("skb_frag"))
	for range info.Uint("nr_frags") {
		n := int(f.Uint("len"))
		if len(b)+n > size {
			break
		}
		b = b[:len(b)+n]
		o.r.fill(o.r.pageOf(f), b[len(b)-n:])
		f.Addr += step
		f.copy = f.copy[min(int(step), len(f.copy)):]
	}
	for x := info.Ptr("frag_list", "sk_buff"); !x.Nil() && o.r.err == nil; x = x.Ptr("next", "sk_buff") {
		b = append(b, x.Data()...)
	}
	if len(b) != size {
		o.r.fail(fmt.Errorf("%w: %d of %d bytes of a buffer", ErrChanged, len(b), size))
	}
	return b
}

// pageOf gives where a skb_frag begins, which is a part of one or several pages.
func (r *Reader) pageOf(f Object) uint64 {
	page := f.Uint("netmem") // since Linux 6.9; before, skb_frag was a bio_vec
	size := r.types.sizeOf("page")
	if page&1 != 0 || size == 0 {
		r.fail(fmt.Errorf("%w: a buffer that is not in the machine's memory", ErrUnavailable))
		return 0
	}
	return r.pageAddress(page, uint64(size)) + f.Uint("offset")
}
