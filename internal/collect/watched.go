package collect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// A fork drops what userfaultfds have registered, so a snapshot's flags do not
// show it; and where one is told of forks, whoever holds it would see the
// snapshot. So before a snapshot is made of a task whose flags are not known the
// kernel is asked whether anybody has registered any of its areas. If so, or if
// it cannot tell, the flags are read from the task itself.

// unwatched finds out whether some userfaultfd has areas of the tasks that get a
// snapshot. Those areas are refused.
func (c *Collector) unwatched() error {
	var all []tracee.Watched
	var of []*Task
	for _, t := range c.Tasks {
		if t.flagless && t.SharesMM == nil && t.guest != nil {
			w := tracee.Watched{Guest: t.guest, Thread: t.Threads[0]}
			w.Ranges = watchedRanges(t.maps, t.guest.Region)
			all, of = append(all, w), append(of, t)
		}
	}
	found, err := tracee.Registered(all)
	if err != nil {
		return err
	}
	for i, r := range found {
		if r == tracee.NotRegistered {
			continue
		}
		t := of[i]
		if a, err := c.readFlags(t, t.At()); err != nil {
			return err
		} else if a != nil {
			return fmt.Errorf("pid %d: area %#x-%#x changed while the program stood still", t.PID, a.Start, a.End)
		}
	}
	return c.Refuse.Err()
}

// tailMax is how much memory behind the last area that cannot be registered may
// be, for a moment: the kernel walks its page tables when that is given up.
const tailMax = 256 << 20

// watchedRanges gives the ranges of a memory map to ask about, nil where the
// kernel cannot be asked.
func watchedRanges(maps []procfs.VMA, region *tracee.Region) (out []tracee.WatchedRange) {
	start, end := region.ReadOnly()
	areas := append(slices.Clone(maps), procfs.VMA{Start: start, End: end, Read: true, Exec: true, Shared: true})
	areas = slices.DeleteFunc(areas, func(v procfs.VMA) bool { return v.Path == "[vsyscall]" || v.Start == v.End })
	slices.SortFunc(areas, func(x, y procfs.VMA) int { return cmp.Compare(x.Start, y.Start) })
	first := 0 // of the areas that end at the next stop
	for i := range areas {
		v := &areas[i]
		switch {
		case v.Start == start:
			// Here the kernel stops for certain, and says why (EPERM); at files that
			// were opened for reading it stops too, and is asked to go on behind.
			for k := first; k < i; k++ {
				if k == first || readOnly(&areas[k-1]) {
					out = append(out, tracee.WatchedRange{Start: areas[k].Start, End: v.End})
				}
			}
			first = i + 1
		case strings.HasPrefix(v.Path, "[v"): // [vdso], [vvar], [vvar_vclock]
			// Here it stops as it does at others that cannot be told from a map
			// (MAP_DROPPABLE), so each area is asked about.
			for k := first; k < i; k++ {
				out = append(out, tracee.WatchedRange{Start: areas[k].Start, End: v.End, First: true})
			}
			first = i + 1
		}
	}
	// What lies behind is registered, and given up at once: a stack, as a rule.
	tail := uint64(0)
	for _, v := range areas[first:] {
		tail += v.Len()
		out = append(out, tracee.WatchedRange{Start: v.Start, End: v.End, First: true})
	}
	if tail > tailMax {
		return nil
	}
	return out
}

// readOnly tells whether an area may be one that can never be made writable.
func readOnly(v *procfs.VMA) bool {
	return !v.Write && (v.Shared || strings.HasPrefix(v.Path, "[") && !strings.HasPrefix(v.Path, "[anon"))
}
