package kmem

import "fmt"

// Size gives the bytes of a structure.
func (o Object) Size() int {
	n := o.r.types.sizeOf(o.Type)
	if n == 0 {
		o.r.fail(fmt.Errorf("%w: this kernel has no struct %s", ErrUnavailable, o.Type))
	}
	return n
}

// Reader gives the reader of the object.
func (o Object) Reader() *Reader { return o.r }

// Tree gives the addresses of the nodes (struct rb_node) of a red-black tree in
// its order; root is the address of its struct rb_root.
func (r *Reader) Tree(root uint64) (all []uint64) {
	n := r.At("rb_node", 0)
	left, right := n.Offset("rb_left"), n.Offset("rb_right")
	var stack []uint64
	for at := r.Pointer(root); r.err == nil && (at != 0 || len(stack) > 0); {
		if len(stack) > 128 || len(all) >= mostItems {
			r.fail(fmt.Errorf("%w: a tree without an end", ErrChanged))
			break
		}
		if at != 0 {
			stack = append(stack, at)
			at = r.Pointer(at + left)
			continue
		}
		at = stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		all = append(all, at)
		at = r.Pointer(at + right)
	}
	return all
}

// Message gives the bytes of a struct msg_msg: they lie behind it, up to the end
// of its page, and behind each struct msg_msgseg that follows (ipc/msgutil.c).
func (o Object) Message() []byte {
	size := int(o.Uint("m_ts"))
	if size < 0 || size > 1<<24 {
		o.r.fail(fmt.Errorf("%w: a message of %d bytes", ErrChanged, size))
		return nil
	}
	head := o.Size()
	n := min(size, pageSize-head)
	b := o.r.Bytes(o.Addr+uint64(head), n)
	for s := o.Ptr("next", "msg_msgseg"); len(b) < size && o.r.err == nil; s = s.Ptr("next", "msg_msgseg") {
		head = s.Size()
		b = append(b, o.r.Bytes(s.Addr+uint64(head), min(size-len(b), pageSize-head))...)
	}
	return b
}

// pageSize is what the kernel's allocations of messages are cut by.
const pageSize = 4096
