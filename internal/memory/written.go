package memory

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// Pages of an area that is registered for asynchronous write protection (package
// track) are of three kinds: those that were written since they were protected,
// those that came anew since, which count as written, and those that were not.

// Run is a run of pages of a task's own.
type Run struct {
	Range
	Written bool // since they were protected
	Guard   bool // a guard region (MADV_GUARD_INSTALL)
}

// Tracked finds, in anonymous areas in ascending order, the runs of pages of the
// task's own (see Own). Where areas are not registered all of them count as written.
// With protect the written ones are protected, in one step with looking at each;
// areas that are not registered are left out then.
func (p *Pagemap) Tracked(areas []Range, protect bool, yield func(Run) error) error {
	// What a page belongs to is not asked (PAGE_IS_FILE): for that the kernel looks
	// at each page itself, ten times the cost.
	s := sys.PageScan{
		Inverted: sys.PageZero, All: sys.PageZero, Any: sys.PagePresent | sys.PageSwapped,
		Report: sys.PageWritten | sys.PageGuard,
	}
	if protect {
		s.Flags = sys.ScanWPMatching
	}
	return p.walk(areas, s, func(r *sys.PageRegion) error {
		return yield(Run{
			Range:   Range{r.Start, r.End},
			Written: r.Categories&sys.PageWritten != 0,
			Guard:   r.Categories&sys.PageGuard != 0,
		})
	})
}

// Registered tells whether all areas are registered for asynchronous write
// protection; nothing but areas may lie between the first and the last.
func (p *Pagemap) Registered(areas []Range) (bool, error) {
	// No area has this bit without soft-dirty bits in the kernel, so that no page is
	// looked at.
	s := sys.PageScan{All: sys.PageSoftDirty, Max: 1, Flags: sys.ScanCheckWPAsync}
	_, _, err := sys.ScanPages(int(p.f.Fd()), areas[0].Start, areas[len(areas)-1].End, s, p.buf)
	if errors.Is(err, unix.EPERM) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("pid %d: PAGEMAP_SCAN %#x-%#x: %w", p.pid, areas[0].Start, areas[len(areas)-1].End, err)
	}
	return true, nil
}

// Small finds the first page of the task's own, in registered anonymous areas, that
// is no part of a huge page.
func (p *Pagemap) Small(areas []Range) (at uint64, ok bool, err error) {
	const not = sys.PageZero | sys.PageHuge
	err = p.walk(areas, sys.PageScan{
		Inverted: not, All: not | sys.PageWPAllowed | sys.PagePresent, Max: 1,
	}, func(r *sys.PageRegion) error {
		at, ok = r.Start, true
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return at, ok, err
}

// walk finds the runs of pages that s describes in areas, in ascending order.
func (p *Pagemap) walk(areas []Range, s sys.PageScan, yield func(*sys.PageRegion) error) error {
	report := s.Report
	for i := 0; i < len(areas); {
		start, end := areas[i].Start, areas[i].End
		for i++; i < len(areas) && areas[i].Start == end; i++ {
			end = areas[i].End
		}
		for start < end {
			s.Report = report
			if p.noGuard {
				s.Report &^= sys.PageGuard
			}
			n, next, err := sys.ScanPages(int(p.f.Fd()), start, end, s, p.buf)
			if errors.Is(err, unix.EINVAL) && s.Report&sys.PageGuard != 0 { // as in own
				p.noGuard = true
				continue
			}
			if err != nil {
				return fmt.Errorf("pid %d: PAGEMAP_SCAN %#x-%#x: %w", p.pid, start, end, err)
			}
			for k := range p.buf[:n] {
				if err := yield(&p.buf[k]); err != nil {
					return err
				}
			}
			if next <= start {
				break
			}
			start = next
		}
	}
	return nil
}

// File gives the open page map, which stays the Pagemap's.
func (p *Pagemap) File() *os.File { return p.f }
