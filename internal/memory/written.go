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

// Unwritten finds, in areas in ascending order, the runs of pages of the task's own
// (see Own) that have not been written since Protect. It finds none in areas that
// are not registered.
func (p *Pagemap) Unwritten(areas []Range, yield func(start, end uint64) error) error {
	const not = sys.PageFile | sys.PageZero | sys.PageWritten
	return p.walk(areas, sys.PageScan{
		Inverted: not, All: not | sys.PageWPAllowed, Any: sys.PagePresent | sys.PageSwapped,
	}, yield)
}

// Written finds the other ones of them: pages of the task's own that have been
// written since. In areas that are not registered these are all.
func (p *Pagemap) Written(areas []Range, yield func(start, end uint64) error) error {
	const not = sys.PageFile | sys.PageZero
	return p.walk(areas, sys.PageScan{
		Inverted: not, All: not | sys.PageWritten, Any: sys.PagePresent | sys.PageSwapped,
	}, yield)
}

// Protect protects the written pages of the task's own in areas that are registered,
// in one step with looking at each, and yields them.
func (p *Pagemap) Protect(areas []Range, yield func(start, end uint64) error) error {
	const not = sys.PageFile | sys.PageZero
	return p.walk(areas, sys.PageScan{
		Inverted: not, All: not | sys.PageWritten, Any: sys.PagePresent | sys.PageSwapped,
		Flags: sys.ScanWPMatching,
	}, yield)
}

// Small finds the first page of the task's own in registered areas that is no part
// of a huge page.
func (p *Pagemap) Small(areas []Range) (at uint64, ok bool, err error) {
	const not = sys.PageFile | sys.PageZero | sys.PageHuge
	err = p.walk(areas, sys.PageScan{
		Inverted: not, All: not | sys.PageWPAllowed | sys.PagePresent, Max: 1,
	}, func(start, _ uint64) error {
		at, ok = start, true
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return at, ok, err
}

// walk finds the runs of pages that s describes in areas, in ascending order. Guard
// regions are none.
func (p *Pagemap) walk(areas []Range, s sys.PageScan, yield func(start, end uint64) error) error {
	for i := 0; i < len(areas); {
		start, end := areas[i].Start, areas[i].End
		for i++; i < len(areas) && areas[i].Start == end; i++ {
			end = areas[i].End
		}
		for start < end {
			scan := s
			if !p.noGuard {
				scan.Inverted |= sys.PageGuard
				scan.All |= sys.PageGuard
			}
			n, next, err := sys.ScanPages(int(p.f.Fd()), start, end, scan, p.buf)
			if errors.Is(err, unix.EINVAL) && !p.noGuard {
				p.noGuard = true
				continue
			}
			if err != nil {
				return fmt.Errorf("pid %d: PAGEMAP_SCAN %#x-%#x: %w", p.pid, start, end, err)
			}
			for _, r := range p.buf[:n] {
				if err := yield(r.Start, r.End); err != nil {
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
