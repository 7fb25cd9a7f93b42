package kmem

import "fmt"

// Area is one area of an address space (struct vm_area_struct) with the kernel's
// VM_ flags (include/linux/mm.h).
type Area struct{ Start, End, Flags uint64 }

// The tree of areas (struct maple_tree, include/linux/maple_tree.h, since Linux 6.1):
// a pointer to a node has in its low byte that it is one, and of what type.
const (
	mapleIsNode  = 2
	mapleLeaf    = 1 // maple_leaf_64: its slots are areas
	mapleRange   = 2 // maple_range_64: its slots are nodes
	mapleArange  = 3 // maple_arange_64: the same
	mapleMask    = 0xff
	mapleDeepest = 32
	mostAreas    = 1 << 20
)

// Areas gives the areas of the address space of a process (see Process), in
// ascending order. It must stand still.
func (r *Reader) Areas(process Object) []Area {
	mm := process.Ptr("mm", "mm_struct")
	if mm.Nil() {
		r.fail(fmt.Errorf("%w: the process has no memory", ErrChanged))
		return nil
	}
	w := areaWalk{r: r, vma: r.At("vm_area_struct", 0)}
	w.start, w.end, w.flags = w.vma.Offset("vm_start"), w.vma.Offset("vm_end"), w.vma.Offset("vm_flags")
	want := int(mm.Uint("map_count"))
	root := mm.In("mm_mt", "maple_tree").Uint("ma_root")
	switch {
	case r.err != nil:
		return nil
	case root&3 == mapleIsNode:
		w.node(root, ^uint64(0), 0)
	case root != 0:
		w.area(root)
	}
	if r.err == nil && len(w.all) != want {
		r.fail(fmt.Errorf("%w: %d of %d areas", ErrChanged, len(w.all), want))
	}
	return w.all
}

type areaWalk struct {
	r                 *Reader
	vma               Object
	start, end, flags uint64
	all               []Area
}

// node walks a node whose last address is top.
func (w *areaWalk) node(entry, top uint64, depth int) {
	typ, addr := entry>>3&0xf, entry&^mapleMask
	name, leaf := "maple_range_64", false
	switch typ {
	case mapleLeaf:
		leaf = true
	case mapleRange:
	case mapleArange:
		name = "maple_arange_64"
	default:
		w.r.fail(fmt.Errorf("%w: a node of type %d among the areas", ErrChanged, typ))
		return
	}
	n := w.r.At(name, addr)
	slots, pivots := int(n.Offset("slot")), int(n.Offset("pivot"))
	count := (slots - pivots) / 8 // of pivots; there is one slot more
	if depth > mapleDeepest || count < 1 || count > 64 {
		w.r.fail(fmt.Errorf("%w: areas without an end", ErrChanged))
		return
	}
	b := w.r.Bytes(addr, slots+8*(count+1))
	for i := 0; i <= count && w.r.err == nil; i++ {
		end := top
		if i < count {
			if p := native.Uint64(b[pivots+8*i:]); p != 0 || i == 0 {
				end = p
			}
		}
		switch s := native.Uint64(b[slots+8*i:]); {
		case s == 0:
		case leaf:
			w.area(s)
		default:
			w.node(s, end, depth+1)
		}
		if end >= top {
			return
		}
	}
}

func (w *areaWalk) area(addr uint64) {
	if len(w.all) >= mostAreas {
		w.r.fail(fmt.Errorf("%w: areas without an end", ErrChanged))
		return
	}
	lo, hi := min(w.start, w.end, w.flags), max(w.start, w.end, w.flags)
	b := w.r.Bytes(addr+lo, int(hi-lo)+8)
	at := func(off uint64) uint64 { return native.Uint64(b[off-lo:]) }
	w.all = append(w.all, Area{at(w.start), at(w.end), at(w.flags)})
}
