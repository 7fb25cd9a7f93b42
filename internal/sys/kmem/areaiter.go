package kmem

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Areas lists the areas of address spaces with their flags. Of the calls only
// /proc/PID/smaps shows those, and the kernel walks all page tables for it. A BPF
// iterator (bpf(2), BPF_TRACE_ITER over task_vma, Linux 5.12; of one task, 6.1)
// gives the three words of each area and looks at no page.
type Areas struct{ prog int }

// OpenAreas makes a lister; Close must follow. Errors are ErrUnavailable.
func OpenAreas() (*Areas, error) {
	b, mapped, err := readBTF()
	if err == nil && mapped {
		defer unix.Munmap(b)
	}
	var t *types
	if err == nil {
		t, err = parseBTF(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its type information: %w", ErrUnavailable, err)
	}
	target := t.findKind(areasTarget, kindFunc)
	if target == 0 {
		return nil, fmt.Errorf("%w: it has no iterator of areas", ErrUnavailable)
	}
	var at areaOffsets
	for _, m := range []struct {
		typ, path string
		off       *int16
	}{
		{"bpf_iter__task_vma", "meta", &at.meta}, {"bpf_iter__task_vma", "vma", &at.vma}, {"bpf_iter_meta", "seq", &at.seq},
		{"vm_area_struct", "vm_start", &at.start}, {"vm_area_struct", "vm_end", &at.end}, {"vm_area_struct", "vm_flags", &at.flags},
	} {
		f, err := t.member(m.typ, m.path)
		if err == nil && (f.size != 8 && f.typ != 0 || f.off > 1<<14) {
			err = fmt.Errorf("%w: %s.%s has %d bytes", ErrUnavailable, m.typ, m.path, f.size)
		}
		if err != nil {
			return nil, err
		}
		*m.off = int16(f.off)
	}
	fd, err := loadAreas(target, at)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return &Areas{fd}, nil
}

// Of gives the areas of the address space of a thread, in ascending order.
func (a *Areas) Of(tid int) ([]Area, error) {
	link, err := linkAreas(a.prog, tid)
	if err != nil {
		return nil, fmt.Errorf("%w: iterator of the areas of %d: %w", ErrUnavailable, tid, err)
	}
	defer unix.Close(link)
	fd, err := startIterator(link)
	if err != nil {
		return nil, fmt.Errorf("iterator of the areas of %d: %w", tid, err)
	}
	defer unix.Close(fd)
	var all []Area
	buf := make([]byte, 64<<10)
	for have := 0; ; {
		n, err := unix.Read(fd, buf[have:])
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return nil, fmt.Errorf("areas of %d: %w", tid, err)
		case n == 0 && have > 0:
			return nil, fmt.Errorf("areas of %d: %w", tid, io.ErrUnexpectedEOF)
		case n == 0:
			return all, nil
		}
		have += n
		b := buf[:have]
		for ; len(b) >= areaSize; b = b[areaSize:] {
			x := Area{native.Uint64(b), native.Uint64(b[8:]), native.Uint64(b[16:])}
			if n := len(all); n > 0 && x.Start < all[n-1].End {
				// Read once more after the end, an iterator of one task gives
				// again what came behind its last pause (seen with Linux 6.18).
				return all, nil
			}
			all = append(all, x)
		}
		have = copy(buf, b)
	}
}

// Close gives the program back.
func (a *Areas) Close() {
	if a != nil {
		unix.Close(a.prog)
	}
}
