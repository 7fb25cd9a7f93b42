package collect

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/memory"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Memory leaves a tree in two ways. Either every page is read while the tree
// stands still, or a snapshot stands in for the large address spaces
// (tracee.Snapshots): then only what a fork does not copy is read at once
// (shared objects, areas that are wiped or left out, huge pages of hugetlbfs,
// small tasks), and the rest when the tree goes on.
//
// The flags of areas come from /proc/PID/smaps, for which the kernel walks all
// page tables: some 70 ms per GiB. So of a task that gets a snapshot they are
// read from that, later; a fork leaves them as they are, but for locks and
// userfaultfds.

// SnapshotAbove is from how many bytes of private memory on an address space is
// copied by a snapshot when one is to be made at all: below, reading it takes no
// longer.
const SnapshotAbove = 2 << 20

// SnapshotError says that the way through a snapshot did not lead to a
// checkpoint; without one it may.
type SnapshotError struct{ Err error }

// Error gives the reason.
func (e *SnapshotError) Error() string { return e.Err.Error() }

// Unwrap gives the reason.
func (e *SnapshotError) Unwrap() error { return e.Err }

func noSnapshot(format string, args ...any) error {
	return &SnapshotError{fmt.Errorf(format, args...)}
}

// readMap reads a task's memory map: without the areas' flags where a snapshot
// will show them.
func (c *Collector) readMap(t *Task) ([]procfs.Smap, error) {
	m, err := procfs.ReadStatm(t.At())
	if err != nil {
		return nil, err
	}
	t.private = (m.Resident-min(m.Shared, m.Resident))*sys.PageSize + t.Status.VmSwap
	t.large = c.SnapshotAbove > 0 && t.private >= c.SnapshotAbove && !t.traced && !t.tracer
	if !t.large || t.Status.VmLck != 0 { // a fork does not inherit locks
		return t.facts.readAreas()
	}
	maps, err := procfs.ReadMaps(t.At())
	if err != nil {
		return nil, err
	}
	sm := make([]procfs.Smap, len(maps))
	for i := range maps {
		if strings.HasPrefix(maps[i].Path, "/anon_hugepage") {
			return t.facts.readAreas()
		}
		sm[i].VMA = maps[i]
	}
	t.flagless = true
	return sm, nil
}

// readFlags reads the flags of areas that are not known yet from the map of pid,
// which is the task's or its snapshot's. It tells about an area that is not
// there.
func (c *Collector) readFlags(t *Task, pid int) (missing *Area, err error) {
	var sm []procfs.Smap
	if pid == t.At() {
		sm = c.kernelFlags(t)
	}
	if sm == nil {
		if sm, err = procfs.ReadSmapsFlags(pid); err != nil {
			return nil, err
		}
	}
	k := 0
	for i := range t.Areas {
		a := &t.Areas[i]
		for k < len(sm) && sm[k].End <= a.Start {
			k++
		}
		if k == len(sm) || !holds(&sm[k].VMA, &a.VMA) || sm[k].Shared != a.Shared || prot(&Area{Smap: sm[k]}) != prot(a) {
			return a, nil
		}
		vma := a.VMA
		a.Smap = sm[k]
		a.VMA = vma
		c.flagged(t, a)
	}
	t.flagless = false
	return nil, nil
}

// holds tells whether an area is the same as it was, or one that it has been made a
// part of: when their writes begin to be tracked, neighbours may become one that had
// differed in that alone.
func holds(now, was *procfs.VMA) bool {
	return now.Start == was.Start && now.End == was.End || anonymous(now) && anonymous(was) && now.Start <= was.Start && now.End >= was.End
}

// TakeSnapshots makes snapshots of all large address spaces of the tree; Rest
// and CloseSnapshots must follow. A *SnapshotError says why there are none.
func (c *Collector) TakeSnapshots() error {
	var subjects []tracee.Subject
	var of []*Task
	for _, t := range c.Tasks {
		if t.Zombie || t.guest == nil {
			continue
		}
		s := tracee.Subject{
			Guest: t.guest, Thread: t.Threads[0], Subreaper: t.core.GetTc().GetChildSubreaper(),
			Snapshot: t.large && t.SharesMM == nil,
		}
		if s.Snapshot {
			if err := tracee.CanSnapshot(t.Threads[0]); err != nil {
				return &SnapshotError{err}
			}
			for _, th := range t.Threads {
				if st := t.status[th.TID]; st != nil && st.Seccomp != 0 {
					return noSnapshot("pid %d: its seccomp filters would judge the calls that make one", t.PID)
				}
			}
			if len(t.Status.NSpid) > 1 {
				return noSnapshot("pid %d is in a pid namespace of its own, where a snapshot could be seen", t.PID)
			}
			if t.PID == 1 {
				return noSnapshot("pid 1 adopts every orphan: it would see a snapshot")
			}
			for i := range t.Areas {
				if a := &t.Areas[i]; !a.Shared && a.Flags&procfs.VMHugeTLB != 0 {
					s.Drop = append(s.Drop, [2]uint64{a.Start, a.End})
				}
			}
		}
		if s.Subreaper && t.owes {
			return noSnapshot("pid %d traces others, which it has to let go again", t.PID)
		}
		if s.Snapshot || s.Subreaper {
			subjects, of = append(subjects, s), append(of, t)
		}
	}
	if err := c.unwatched(); err != nil {
		return err
	}
	shots, err := tracee.Snapshots(subjects)
	if err != nil {
		if errors.Is(err, tracee.ErrNoSnapshot) {
			return &SnapshotError{err}
		}
		return err
	}
	for i, s := range shots {
		of[i].snapshot = s
		c.Snapshots = c.Snapshots || s != nil
	}
	return nil
}

// Expend says, once the tree goes on, that the snapshots are the first to go if
// there is not enough memory for all.
func (c *Collector) Expend() {
	for _, t := range c.Tasks {
		t.snapshot.Expendable()
	}
}

// CloseSnapshots ends the snapshots. It is harmless to call at any time.
func (c *Collector) CloseSnapshots() error {
	var errs []error
	for _, t := range c.Tasks {
		errs = append(errs, t.snapshot.Close())
	}
	return errors.Join(errs...)
}

// WithoutSnapshots goes on as if none had been asked for. The tree still stands
// still.
func (c *Collector) WithoutSnapshots() error {
	err := c.CloseSnapshots()
	for _, t := range c.Tasks {
		t.snapshot, t.large = nil, false
		if !t.flagless {
			continue
		}
		a, err := c.readFlags(t, t.At())
		if err != nil {
			return err
		}
		if a != nil {
			return fmt.Errorf("pid %d: area %#x-%#x changed while the program stood still", t.PID, a.Start, a.End)
		}
	}
	c.Snapshots = false
	return errors.Join(err, c.Refuse.Err())
}

// Memory notes every page that must be read while the tree stands still: where
// there are no snapshots, all.
func (c *Collector) Memory() (*memory.Outgoing, error) {
	out := memory.NewOutgoing()
	for _, t := range c.Tasks {
		if t.Areas == nil {
			continue
		}
		t.runs, t.extra.Guards, t.kept = memory.NewRuns(), nil, 0
		var areas []*Area
		var err error
		if t.snapshot == nil {
			areas = t.own(nil)
		} else if areas, err = c.unforked(t); err != nil {
			return nil, fmt.Errorf("pid %d: %w", t.PID, err)
		}
		t.held = map[*Area]bool{}
		for _, a := range areas {
			t.held[a] = true
		}
		if len(areas) == 0 {
			continue
		}
		pm, err := memory.OpenPagemap(t.At())
		if err != nil {
			return nil, err
		}
		err = c.pages(t, pm, areas, func(a *Area) bool { return a.SharedPages > 0 }, out)
		pm.Close()
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", t.PID, err)
		}
	}
	for _, s := range c.Shared {
		s.Object.Pages = memory.NewRuns()
		if err := out.AddObject(s.fd, s.Object.GetSize(), s.Object.Pages); err != nil {
			return nil, fmt.Errorf("shared memory object: %w", err)
		}
	}
	if !c.Snapshots {
		c.emitPages()
	}
	return out, nil
}

// own gives the areas that can have pages of the task's own, in order, without
// those that skip names.
func (t *Task) own(skip map[*Area]bool) (out []*Area) {
	const special = VMAVdso | VMAVvar
	for i := range t.Areas {
		// What may be dropped is: a secret of the moment (vgetrandom(7)) shall
		// neither come to lie on a disk nor be had twice.
		if a := &t.Areas[i]; !a.Shared && a.Entry.GetStatus()&special == 0 && a.Flags&procfs.VMDroppable == 0 && !a.Left && !skip[a] {
			out = append(out, a)
		}
	}
	return out
}

// unforked gives the areas whose pages the task's snapshot does not have. Where
// their flags are not known yet it looks which are there.
func (c *Collector) unforked(t *Task) (out []*Area, err error) {
	const unlike = procfs.VMDontCopy | procfs.VMWipeOnFork | procfs.VMDroppable | procfs.VMHugeTLB
	if !t.flagless {
		for _, a := range t.own(nil) {
			if a.Flags&unlike != 0 {
				out = append(out, a)
			}
		}
		return out, nil
	}
	whole, err := t.wholeSnapshot()
	if err != nil {
		return nil, err
	}
	if !whole {
		// Something is not copied (MADV_DONTFORK), so its flags are not either.
		if gone, err := c.readFlags(t, t.At()); err != nil || gone != nil {
			return nil, errors.Join(err, fmt.Errorf("the memory map changed while the program stood still"))
		}
		return c.unforked(t)
	}
	mine, err := memory.OpenPagemap(t.At())
	if err != nil {
		return nil, err
	}
	defer mine.Close()
	theirs, err := memory.OpenSnapshot(t.snapshot.PID)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	own := t.own(nil)
	empty, err := t.empty(theirs, own)
	if err != nil {
		return nil, err
	}
	gone, err := t.empty(mine, empty)
	if err != nil {
		return nil, err
	}
	none := map[*Area]bool{}
	for _, a := range gone {
		none[a] = true
	}
	for _, a := range empty {
		if !none[a] {
			out = append(out, a) // it was wiped
		}
	}
	return out, nil
}

// wholeSnapshot tells whether the task's snapshot has every area of the task. Its
// size says so: a fork leaves out what is not copied, and adds nothing.
func (t *Task) wholeSnapshot() (bool, error) {
	m, err := procfs.ReadStatm(t.snapshot.PID)
	if err != nil {
		return false, err
	}
	n := 2 * t.guest.Region.Size() // it has two views
	for i := range t.maps {
		if t.maps[i].Path != "[vsyscall]" {
			n += t.maps[i].Len()
		}
	}
	return m.Size*sys.PageSize == n, nil
}

// empty gives those of some areas, in order, that have no pages of their own in
// pm.
func (t *Task) empty(pm *memory.Pagemap, areas []*Area) (out []*Area, err error) {
	for len(areas) > 0 {
		// Neighbours are asked about together, as in pages.
		n := 1
		group := []memory.Range{{Start: areas[0].Start, End: areas[0].End}}
		for ; n < len(areas) && (areas[n].Start == group[n-1].End || !t.between(group[n-1].End, areas[n].Start)); n++ {
			group = append(group, memory.Range{Start: areas[n].Start, End: areas[n].End})
		}
		first, err := pm.First(group)
		if err != nil {
			return nil, err
		}
		out = append(out, areas[:first]...)
		areas = areas[min(first+1, n):]
	}
	return out, nil
}

// pages notes the pages of some areas, in order, that pm shows.
func (c *Collector) pages(t *Task, pm *memory.Pagemap, areas []*Area, share func(*Area) bool, out *memory.Outgoing) error {
	// Neighbours are looked through together: one call to the kernel instead of
	// one for each of thousands.
	var group []memory.Range
	first := 0
	look := func(next int) error {
		of := areas[first:next]
		first = next
		err := pm.Own(group, func(i int, from, to uint64, guard bool) error {
			if !guard {
				return out.AddRun(pm, from, to, share(of[i]), t.runs)
			}
			t.guard(from, to)
			return nil
		})
		group = group[:0]
		return err
	}
	if t.found != nil {
		var others []*Area
		for _, a := range areas {
			if !t.lookedAt(a) {
				others = append(others, a)
				continue
			}
			write := func(from, to uint64) error { return out.AddRun(pm, from, to, share(a), t.runs) }
			err := t.look(a, func(r memory.Run) error {
				switch {
				case r.Guard:
					t.guard(r.Start, r.End)
					return nil
				case r.Written:
					return write(r.Start, r.End)
				}
				return t.keep(r.Start, r.End, write)
			})
			if err != nil {
				return err
			}
		}
		areas = others
	}
	for i, a := range areas {
		// What lies between the areas is walked too: it should be nothing.
		if n := len(group); n > 0 && group[n-1].End != a.Start && t.between(group[n-1].End, a.Start) {
			if err := look(i); err != nil {
				return err
			}
		}
		group = append(group, memory.Range{Start: a.Start, End: a.End})
	}
	return look(len(areas))
}

// guard notes a guard region.
func (t *Task) guard(from, to uint64) {
	if t.extra.Guards == nil {
		t.extra.Guards = memory.NewRuns()
	}
	memory.AppendRun(t.extra.Guards, from, from, (to-from)/sys.PageSize)
}

// between tells whether an area of the task lies in [from,to).
func (t *Task) between(from, to uint64) bool {
	i := sort.Search(len(t.Areas), func(i int) bool { return t.Areas[i].Start >= from })
	return i < len(t.Areas) && t.Areas[i].Start < to
}

// Rest notes what the snapshots hold, when the tree goes on. A *SnapshotError
// says that they do not hold what they should.
func (c *Collector) Rest(out *memory.Outgoing) error {
	large := 0
	for _, t := range c.Tasks {
		if t.snapshot != nil {
			large++
		}
	}
	for _, t := range c.Tasks {
		if t.snapshot == nil {
			continue
		}
		if err := c.rest(t, out, large > 1); err != nil {
			// Whatever went wrong with it: what is gone has no areas, either.
			if !alive(t.snapshot.PID) {
				err = noSnapshot("the snapshot was ended from outside")
			}
			return fmt.Errorf("pid %d: %w", t.PID, err)
		}
	}
	c.emitPages()
	return c.Refuse.Err()
}

func alive(pid int) bool {
	st, err := procfs.ReadStat(pid, 0)
	return err == nil && st.State != 'Z' && st.State != 'X'
}

// Lost tells whether a snapshot has been ended by somebody else: by the kernel,
// say, because memory ran out.
func (c *Collector) Lost() bool {
	for _, t := range c.Tasks {
		if t.snapshot != nil && !alive(t.snapshot.PID) {
			return true
		}
	}
	return false
}

func (c *Collector) rest(t *Task, out *memory.Outgoing, share bool) error {
	if t.flagless {
		a, err := c.readFlags(t, t.snapshot.PID)
		if err != nil {
			return err
		}
		if a != nil {
			return noSnapshot("area %#x-%#x is not as it was in the snapshot of its memory", a.Start, a.End)
		}
		for a := range t.held {
			if a.Flags&procfs.VMDroppable != 0 || a.Left {
				t.runs = out.Forget(t.runs, a.Start, a.End)
			}
		}
		for _, a := range t.own(t.held) {
			// Such an area had no pages that were seen, or is of hugetlbfs
			// through a file, which other tasks' writes may take away.
			if a.Flags&procfs.VMHugeTLB != 0 {
				return noSnapshot("area %#x-%#x has huge pages of a file", a.Start, a.End)
			}
		}
	}
	pm, err := memory.OpenSnapshot(t.snapshot.PID)
	if err != nil {
		return err
	}
	defer pm.Close()
	return c.pages(t, pm, t.own(t.held), func(*Area) bool { return share }, out)
}

// emitPages puts the lists of pages into the image, in the order of addresses.
func (c *Collector) emitPages() {
	for _, t := range c.Tasks {
		if t.runs == nil {
			continue
		}
		sortRuns(t.runs)
		if t.extra.GetGuards() != nil {
			sortRuns(t.extra.Guards)
		}
		c.Image.Add(image.Of("pages", t.PID), t.runs)
	}
}

func sortRuns(r *fm.PageRuns) {
	if sort.SliceIsSorted(r.Vaddr, func(i, j int) bool { return r.Vaddr[i] < r.Vaddr[j] }) {
		return
	}
	order := make([]int, len(r.Vaddr))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(i, j int) bool { return r.Vaddr[order[i]] < r.Vaddr[order[j]] })
	s := memory.NewRuns()
	for _, i := range order {
		memory.AppendRun(s, r.Vaddr[i], r.Off[i], r.Pages[i])
	}
	r.Vaddr, r.Pages, r.Off = s.Vaddr, s.Pages, s.Off
}

// SnapshotBytes gives how many bytes of memory the tree's large address spaces
// have; at most so much more can be taken while there are snapshots of them.
func (c *Collector) SnapshotBytes() map[int]uint64 {
	out := map[int]uint64{}
	for _, t := range c.Tasks {
		if t.large && t.SharesMM == nil {
			out[t.PID] = t.private
		}
	}
	return out
}
