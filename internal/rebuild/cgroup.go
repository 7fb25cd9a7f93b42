package rebuild

import (
	"fmt"
	"os"
	"strings"

	criu_cgroup "github.com/checkpoint-restore/go-criu/v8/crit/images/cgroup"

	"github.com/fermata-cr/fermata/internal/cgroup"
	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/procfs"
)

// CgroupPolicy says what a restore does about control groups.
type CgroupPolicy int

// The policies.
const (
	CgroupsRestore CgroupPolicy = iota // tasks go back; groups that are gone are made again
	CgroupsKeep                        // tasks go back where their groups exist
	CgroupsIgnore                      // tasks stay in the restoring process's groups
	CgroupsForce                       // as CgroupsRestore, and groups that exist get the saved settings
	CgroupsStrict                      // as CgroupsRestore, and a group that exists is an error
)

// groupSets puts tasks into the control groups that they were in.
type groupSets struct {
	entry *criu_cgroup.CgroupEntry
	own   map[string]string // this process's group, by hierarchy
	open  map[string]*cgroup.Hierarchy
	// lost are groups, as hierarchy:path, that nobody can be put into.
	lost map[string]bool
}

// loadCgroups reads the image's groups, and makes those that are gone.
func (b *builder) loadCgroups() error {
	all, err := image.All[*criu_cgroup.CgroupEntry](b.im, collect.CgroupPart)
	if err != nil || len(all) == 0 || b.opt.Cgroups == CgroupsIgnore {
		return err
	}
	own, err := procfs.ReadCgroup(os.Getpid(), 0)
	if err != nil {
		return err
	}
	g := &groupSets{entry: all[0], own: map[string]string{}, open: map[string]*cgroup.Hierarchy{}, lost: map[string]bool{}}
	for _, o := range own {
		g.own[strings.Join(o.Controllers, ",")] = o.Path
	}
	b.groupSets = g
	return nil
}

// makeCgroups makes the groups that are gone.
func (b *builder) makeCgroups() error {
	g := b.groupSets
	if g == nil || b.opt.Cgroups == CgroupsKeep {
		return nil
	}
	for _, c := range g.entry.GetControllers() {
		name := strings.Join(c.GetCnames(), ",")
		for _, d := range c.GetDirs() {
			if d.GetDirName() == "" || strings.Trim(g.own[name], "/") == d.GetDirName() {
				continue
			}
			h, err := g.hierarchy(name)
			if err != nil {
				b.note("control groups: %v", err)
				break
			}
			if b.opt.Cgroups == CgroupsStrict && h.Has(d.GetDirName()) {
				return fault.Errorf(fault.ErrRefused, "control group %s:/%s exists already", name, d.GetDirName())
			}
			notes, err := h.Make("/", d, b.opt.Cgroups == CgroupsForce)
			for _, n := range notes {
				b.note("control groups: %s", n)
			}
			if err != nil {
				b.note("control groups: %v", err)
			}
		}
	}
	return nil
}

func (g *groupSets) hierarchy(name string) (*cgroup.Hierarchy, error) {
	if h, ok := g.open[name]; ok {
		if h == nil {
			return nil, fmt.Errorf("hierarchy %q cannot be opened", name)
		}
		return h, nil
	}
	h, err := cgroup.Open(name)
	g.open[name] = h
	return h, err
}

func (g *groupSets) close() {
	if g == nil {
		return
	}
	for _, h := range g.open {
		if h != nil {
			h.Close()
		}
	}
}

// of gives the groups of a set, by hierarchy; 0 is this process's own.
func (g *groupSets) of(set uint32) map[string]string {
	if set == 0 {
		return g.own
	}
	for _, s := range g.entry.GetSets() {
		if s.GetId() == set {
			m := map[string]string{}
			for _, c := range s.GetCtls() {
				m[c.GetName()] = c.GetPath()
			}
			return m
		}
	}
	return nil
}

// join puts a task into the groups of a set, where they are others than those of
// the set that it has inherited.
func (b *builder) join(id int, set, inherited uint32, thread bool) {
	g := b.groupSets
	if g == nil || set == 0 || set == inherited {
		return
	}
	had := g.of(inherited)
	for name, group := range g.of(set) {
		if had[name] == group || g.lost[name+":"+group] {
			continue
		}
		h, err := g.hierarchy(name)
		if err == nil && !h.Has(group) {
			err = fmt.Errorf("group %s:%s is gone", name, group)
		}
		if err == nil {
			if thread {
				err = h.MoveThread(group, id)
			} else {
				err = h.Move(group, id)
			}
		}
		if err != nil {
			g.lost[name+":"+group] = true
			b.note("control groups: pid %d: %v", id, err)
		}
	}
}

// joinProcess puts a process that has just been made into its groups, before it
// takes memory or has children; from is what it was cloned from, nil: the seed.
func (b *builder) joinProcess(p, from *proc) {
	inherited := uint32(0)
	if from != nil {
		inherited = from.core.GetTc().GetCgSet()
	}
	if !p.zombie {
		b.join(p.host(), p.core.GetTc().GetCgSet(), inherited, false)
	}
}

// joinThreads puts those threads into their groups that are not in the process's.
func (b *builder) joinThreads(p *proc) {
	for _, t := range p.threads[1:] {
		if s := t.core.GetThreadCore().GetCgSet(); s != 0 {
			b.join(t.exec.TID, s, p.core.GetTc().GetCgSet(), true)
		}
	}
}
