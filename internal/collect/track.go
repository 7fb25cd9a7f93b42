package collect

import (
	"errors"
	"fmt"
	"sort"

	"github.com/fermata-cr/fermata/internal/chain"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/memory"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/track"
)

// Writes that are tracked (package track). What a task has not written since an
// earlier checkpoint is as that one has it, and is not even read.

// Tracker knows the address spaces whose writes are tracked.
type Tracker interface {
	// Space gives that of a process, nil when there is none.
	Space(pid int, start uint64) *track.Space
}

// space gives a task's, if its userfaultfd acts on the task's memory: a process may
// have become another program since, whose old memory somebody else has still.
func (c *Collector) space(t *Task) (*track.Space, error) {
	if t.looked || c.Tracker == nil {
		return t.space, nil
	}
	t.looked = true
	s := c.Tracker.Space(t.PID, t.Stat.StartTime)
	if s == nil {
		return nil, nil
	}
	pm, err := memory.OpenPagemap(t.At())
	if err != nil {
		return nil, err
	}
	defer pm.Close()
	var all []memory.Range
	for i := range t.maps {
		if v := &t.maps[i]; anonymous(v) {
			all = append(all, memory.Range{Start: v.Start, End: v.End})
		}
	}
	at, ok, err := pm.Small(all)
	if err != nil || !ok {
		return nil, err
	}
	if ok, err = s.Acts(pm.File(), at); ok {
		t.space = s
	}
	return t.space, err
}

// anonymous tells whether an area is of the kind that can be tracked, as far as its
// line in the memory map says. Others are not registered by the kernel.
func anonymous(v *procfs.VMA) bool {
	return v.Ino == 0 && !v.Shared && v.DevMajor == 0 && v.DevMinor == 0 &&
		(v.Path == "" || v.Path == "[heap]" || v.Path == "[stack]" || len(v.Path) > 6 && v.Path[:6] == "[anon:")
}

// canTrack tells the same of one that was collected.
func (t *Task) canTrack(a *Area) bool {
	return anonymous(&a.VMA) && a.Entry.GetStatus()&VMAAnonPrivate != 0
}

// trackable gives the areas of a task that can be tracked.
func (t *Task) trackable() (out []memory.Range) {
	for i := range t.Areas {
		if a := &t.Areas[i]; t.canTrack(a) {
			out = append(out, memory.Range{Start: a.Start, End: a.End})
		}
	}
	return out
}

// tracks tells whether an area is registered with the userfaultfd that tracks the
// task, and with no other.
func (c *Collector) tracks(t *Task, a *Area) bool {
	s, err := c.space(t)
	if err != nil || s == nil {
		return false
	}
	ok, err := s.Arm([]track.Range{{Start: a.Start, End: a.End}})
	return err == nil && ok[0]
}

// Turn is where one stretch of tracking ends and the next begins.
type Turn struct {
	// Parent gives the pages of a process in the checkpoint that its tracking began
	// with, nil when there is none, or it is not the one that this one builds upon.
	Parent func(pid int) *fm.PageRuns
	// Protect: what is written from now on is tracked, of every task.
	Protect bool
}

// Turn finds out what the tasks have not written since, and protects all of their
// memory anew. Where that cannot be, all of a task's memory counts as written, and a
// note says why. The spaces are those of Tracker, and new ones, which the caller
// closes.
func (c *Collector) Turn(o Turn) (spaces []*track.Space) {
	for _, t := range c.Tasks {
		if t.Areas == nil || t.guest == nil {
			continue
		}
		err := c.untracked(t)
		if err == nil {
			err = c.turn(t, &o)
		}
		switch {
		case err == nil && t.space != nil && o.Protect:
			spaces = append(spaces, t.space)
		case err != nil:
			// What was found out is not used.
			t.space.Close()
			t.space, t.looked, t.found, t.parent = nil, true, nil, nil
			c.Notes = append(c.Notes, fmt.Sprintf("pid %d (%s): what it writes is not tracked: %v", t.PID, t.Comm, err))
		}
		c.Spared += t.cleanBytes()
	}
	return spaces
}

// Unturn takes a Turn back: what it found written counts as written since the
// checkpoint before again. The tasks may run.
func (c *Collector) Unturn() error {
	for _, t := range c.Tasks {
		if t.space == nil {
			continue
		}
		for _, r := range t.turned {
			if err := t.space.Spoil(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// untracked tells why a task cannot be tracked, nil when it can.
func (c *Collector) untracked(t *Task) error {
	if len(t.rings) > 0 {
		return errors.New("it has a context of Linux AIO, whose requests write past its page tables")
	}
	for _, th := range t.Threads {
		if st := t.status[th.TID]; st != nil && st.Seccomp != 0 {
			return errors.New("its seccomp filters would judge the calls that begin it")
		}
	}
	return nil
}

func (c *Collector) turn(t *Task, o *Turn) error {
	s, err := c.space(t)
	if err != nil {
		return err
	}
	since := s != nil // it was tracked before
	if s == nil {
		if !o.Protect {
			return nil
		}
		fd, err := t.guest.Userfaultfd(t.Threads[0])
		if err != nil {
			return err
		}
		if s, err = track.NewSpace(t.PID, t.Stat.StartTime, fd); err != nil {
			return err
		}
		t.space, t.looked = s, true
	}
	pm, err := memory.OpenPagemap(t.At())
	if err != nil {
		return err
	}
	defer pm.Close()
	areas := t.trackable()
	// Before any is registered that was not: what protection its pages have (kernels
	// before Linux 6.14 left that to pages that had moved) means nothing.
	was := make([]bool, len(areas))
	if since {
		if err := registered(pm, areas, was); err != nil {
			return err
		}
	}
	faultpoint.At("track.register")
	list := make([]track.Range, len(areas))
	for i, a := range areas {
		list[i] = track.Range(a)
	}
	ours, err := s.Arm(list)
	if err != nil {
		return err
	}
	faultpoint.At("track.protect")
	if since {
		t.parent = o.Parent(t.PID)
	}
	t.found = make([]memory.Run, 0, 64)
	for i := 0; i < len(areas); {
		j := i + 1
		for j < len(areas) && was[j] == was[i] && ours[j] == ours[i] {
			j++
		}
		trusted := was[i] && ours[i] && t.parent != nil
		err := pm.Tracked(areas[i:j], o.Protect && ours[i], func(r memory.Run) error {
			r.Written = r.Written || !trusted
			if r.Written && !r.Guard {
				c.WrittenPages += (r.End - r.Start) / sys.PageSize
				if o.Protect && ours[i] {
					t.turned = append(t.turned, track.Range(r.Range))
				}
			}
			t.found = append(t.found, r)
			return nil
		})
		if err != nil {
			return err
		}
		i = j
	}
	return nil
}

// registered finds out which areas are registered.
func registered(pm *memory.Pagemap, areas []memory.Range, was []bool) error {
	if len(areas) == 0 {
		return nil
	}
	all, err := pm.Registered(areas)
	if all || err != nil || len(areas) == 1 {
		for i := range was {
			was[i] = all
		}
		return err
	}
	half := len(areas) / 2
	return errors.Join(registered(pm, areas[:half], was[:half]), registered(pm, areas[half:], was[half:]))
}

func (t *Task) cleanBytes() (n uint64) {
	for i := range t.found {
		if r := &t.found[i]; !r.Written && !r.Guard {
			n += r.End - r.Start
		}
	}
	return n
}

// look yields the runs that Turn has found in an area.
func (t *Task) look(a *Area, yield func(r memory.Run) error) error {
	i := sort.Search(len(t.found), func(i int) bool { return t.found[i].End > a.Start })
	for ; i < len(t.found) && t.found[i].Start < a.End; i++ {
		r := t.found[i]
		r.Start, r.End = max(r.Start, a.Start), min(r.End, a.End)
		if err := yield(r); err != nil {
			return err
		}
	}
	return nil
}

// lookedAt tells whether Turn has looked at an area.
func (t *Task) lookedAt(a *Area) bool { return t.found != nil && t.canTrack(a) }

// keep notes a run of pages that are unwritten: what of it is in the parent as that,
// all else goes to rest.
func (t *Task) keep(from, to uint64, rest func(from, to uint64) error) error {
	t.kept += to - from
	return chain.Keep(t.runs, t.parent, from, to, func(from, to uint64) error {
		t.kept -= to - from
		return rest(from, to)
	})
}

// Tracks tells whether it is known what a process has written since the parent: to
// compare that, for each page a whole chunk of the parent would be read and summed.
func (c *Collector) Tracks(pid int) bool {
	for _, t := range c.Tasks {
		if t.PID == pid {
			return t.parent != nil && t.cleanBytes() > 0
		}
	}
	return false
}

// Kept gives how many bytes of the tasks' memory were not read because the parent
// has them.
func (c *Collector) Kept() (n uint64) {
	for _, t := range c.Tasks {
		n += t.kept
	}
	return n
}

// ToRead gives about how many bytes of memory the large tasks have that must be
// read.
func (c *Collector) ToRead() (n uint64) {
	for _, t := range c.Tasks {
		if t.large && t.SharesMM == nil {
			n += t.private - min(t.private, t.cleanBytes())
		}
	}
	return n
}
