package fermata

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/memory"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
	"github.com/fermata-cr/fermata/internal/track"
)

// tracker knows whose writes are tracked, from the records of keepers. It looks at
// them when it is asked for the first time.
type tracker struct {
	looked  bool
	records []*track.Record
	spaces  map[int]*track.Space
	ids     map[int]string // pid -> the checkpoint that its tracking began with
	err     error
	kernel  *kmem.Reader
	// next are the spaces that are tracked from this checkpoint on.
	next []*track.Space
	// stopped are the records of keepers that were ended for it.
	stopped []*track.Record
}

func (k *tracker) look() {
	if k.looked {
		return
	}
	k.looked = true
	k.spaces, k.ids = map[int]*track.Space{}, map[int]string{}
	k.records, k.err = track.List()
}

// Space gives the address space of a process that is tracked, nil when none is.
func (k *tracker) Space(pid int, start uint64) *track.Space {
	k.look()
	if s, known := k.spaces[pid]; known {
		return s
	}
	for _, r := range k.records {
		if !r.Has(pid, start) {
			continue
		}
		all, err := r.Take()
		if err != nil {
			k.err = err
			continue
		}
		for _, s := range all {
			if k.spaces[s.PID] != nil {
				s.Close()
				continue
			}
			k.spaces[s.PID], k.ids[s.PID] = s, r.ID
		}
	}
	if k.spaces[pid] == nil {
		k.spaces[pid] = nil // known
	}
	return k.spaces[pid]
}

// since tells whether any process's writes are tracked since a checkpoint.
func (k *tracker) since(id []byte) bool {
	k.look()
	for _, r := range k.records {
		if r.ID == hex.EncodeToString(id) {
			return true
		}
	}
	return false
}

// stop ends the keepers of the processes that were asked for: this process alone
// holds what they held.
func (k *tracker) stop() error {
	for _, r := range k.records {
		for _, x := range r.Spaces {
			if _, asked := k.spaces[x.PID]; asked {
				k.stopped = append(k.stopped, r)
				if err := r.Stop(); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// close gives up all that is held.
func (k *tracker) close() {
	for _, s := range k.spaces {
		s.Close()
	}
	for _, s := range k.next {
		s.Close()
	}
	if k.kernel != nil {
		k.kernel.Close()
	}
}

// trackedMax is how much memory of a tracked program is read while it stands still,
// for want of a snapshot.
const trackedMax = 64 << 20

// foresee prepares, before the freeze, for a checkpoint of which most pages are known
// to be unwritten: how many are to be read, and what it takes to tell the flags of
// areas without a walk through all of them.
func (c *checkpoint) foresee() {
	if c.draft.below == nil || c.opt.After != AfterResume || !c.track.since(c.draft.below.Manifest.GetId()) {
		return
	}
	if k, err := kmem.Open(); err == nil {
		if collect.VMBitsKnown(k) == nil {
			c.track.kernel = k
		} else {
			k.Close()
		}
	}
	var n uint64
	for _, r := range c.track.records {
		for _, x := range r.Spaces {
			if r.ID == hex.EncodeToString(c.draft.below.Manifest.GetId()) {
				n += written(x.PID)
			}
		}
	}
	if n <= trackedMax && n+n/4+1<<20 > uint64(len(c.spare)) {
		c.giveUp()
		c.spare, _ = fresh(n + n/4 + 1<<20)
	}
}

// written gives about how many bytes of a running process's memory must be read.
func written(pid int) (n uint64) {
	maps, err := procfs.ReadMaps(pid)
	if err != nil {
		return 0
	}
	var areas []memory.Range
	for i := range maps {
		if v := &maps[i]; !v.Shared && v.Ino == 0 && !strings.HasPrefix(v.Path, "[v") {
			areas = append(areas, memory.Range{Start: v.Start, End: v.End})
		}
	}
	pm, err := memory.OpenPagemap(pid)
	if err != nil {
		return 0
	}
	defer pm.Close()
	_ = pm.Tracked(areas, false, func(r memory.Run) error {
		if r.Written {
			n += r.End - r.Start
		}
		return nil
	})
	return n
}

// known finds out whether it is known what was written since the parent.
func (c *checkpoint) known() {
	below := c.draft.below
	if below == nil {
		return
	}
	id := hex.EncodeToString(below.Manifest.GetId())
	for _, t := range c.tree.Processes {
		if c.track.Space(t.PID, t.Start) != nil && c.track.ids[t.PID] == id {
			c.tracked = true
		}
	}
	if !c.tracked && below.Manifest.GetTracked() {
		why := ""
		if c.track.err != nil {
			why = fmt.Sprintf(" (%v)", c.track.err)
		}
		c.notes = append(c.notes, "it is not known any more what the program has written since the parent checkpoint (its keeper has ended, or another checkpoint has begun to track anew): all of its memory was compared"+why)
	}
}

// turn has the collection leave out what was not written since the parent, and track
// what is written from now on, if that is wanted.
func (c *checkpoint) turn() error {
	below, id := c.draft.below, ""
	if below != nil {
		id = hex.EncodeToString(below.Manifest.GetId())
	}
	if c.draft.images || !c.opt.Track && !c.tracked || c.opt.After == AfterKill && !c.tracked {
		return nil
	}
	// What the keepers hold is not true any more as soon as the first page is looked
	// at: from here on it is this process that has it, until the checkpoint is there.
	if err := c.track.stop(); err != nil {
		return err
	}
	faultpoint.At("track.stopped")
	c.track.next = c.col.Turn(collect.Turn{
		Parent: func(pid int) *fm.PageRuns {
			if c.track.ids[pid] != id || below == nil {
				return nil
			}
			return below.Space(pid)
		},
		Protect: c.opt.After != AfterKill,
	})
	faultpoint.At("track.turned")
	return nil
}

// keep gives the tracking over to a keeper, when the checkpoint is there.
func (c *checkpoint) keep(since time.Time) {
	if len(c.track.next) == 0 {
		return
	}
	r := &track.Record{ID: hex.EncodeToString(c.draft.id[:]), Ref: c.opt.To, Since: since}
	if err := track.Keep(r, c.track.next); err != nil {
		c.notes = append(c.notes, "what the program writes is not tracked any more: "+err.Error())
	}
}

// unkeep leaves the tracking as it was before a checkpoint that has failed.
func (c *checkpoint) unkeep() {
	if len(c.track.next) == 0 || len(c.track.stopped) != 1 {
		return
	}
	r := c.track.stopped[0]
	var spaces []*track.Space
	for _, x := range r.Spaces {
		if s := c.track.spaces[x.PID]; s != nil && s.Start == x.Start {
			spaces = append(spaces, s)
		}
	}
	// Otherwise it is lost, as the next checkpoint will say.
	if c.col.Unturn() == nil {
		_ = track.Keep(r, spaces)
	}
}

// mode says how it was found out what had to be written.
func (c *checkpoint) mode() string {
	switch {
	case c.tracked:
		return ModeTracked
	case c.draft.below != nil:
		return ModeCompared
	}
	return ModeFull
}
