package collect

import (
	"fmt"
	"os"
	"path"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"

	criu_cgroup "github.com/checkpoint-restore/go-criu/v8/crit/images/cgroup"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"

	"github.com/fermata-cr/fermata/internal/cgroup"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// CgroupPart is the image part with the control groups of the tree: sets of one
// group per hierarchy, which the tasks name, and what the groups are like.
const CgroupPart = "cgroup"

// cgroups gathers the sets of control groups that the tree's threads are in.
type cgroups struct {
	own   map[string]string // this process's, by hierarchy
	sets  map[string]uint32 // by the text of /proc/PID/cgroup
	entry criu_cgroup.CgroupEntry
}

func cgroupText(pid, tid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/cgroup", pid, tid))
	return string(b), err
}

// cgroupSets notes which groups a process's threads are in.
func (c *Collector) cgroupSets(t *Task, th *tracee.Thread, tc *criu_core.TaskCoreEntry, tce *criu_core.ThreadCoreEntry) error {
	text, err := cgroupText(t.PID, th.TID)
	if err != nil {
		return fmt.Errorf("thread %d: %w", th.TID, err)
	}
	if c.groups == nil {
		c.groups = &cgroups{sets: map[string]uint32{}}
	}
	id, ok := c.groups.sets[text]
	if !ok {
		groups, err := procfs.ParseCgroup([]byte(text))
		if err != nil {
			return err
		}
		id = uint32(len(c.groups.sets) + 1)
		set := &criu_cgroup.CgSetEntry{Id: proto.Uint32(id)}
		for _, g := range groups {
			name := strings.Join(g.Controllers, ",")
			if g.Deleted || strings.HasPrefix(g.Path, "/..") {
				continue // nobody can be put there
			}
			set.Ctls = append(set.Ctls, &criu_cgroup.CgMemberEntry{Name: proto.String(name), Path: proto.String(g.Path)})
		}
		c.groups.sets[text] = id
		c.groups.entry.Sets = append(c.groups.entry.Sets, set)
	}
	if tc != nil {
		tc.CgSet = proto.Uint32(id)
	}
	tce.CgSet = proto.Uint32(id)
	return nil
}

// Cgroups describes the groups of the tree that are not this process's own, so
// that they can be made again. What cannot be read is a note. The tree need not
// stand still for it.
func (c *Collector) Cgroups() {
	g := c.groups
	if g == nil || len(g.entry.Sets) == 0 {
		return
	}
	own, err := procfs.ReadCgroup(os.Getpid(), 0)
	if err != nil {
		c.Notes = append(c.Notes, fmt.Sprintf("control groups: %v", err))
		return
	}
	mine := map[string]string{}
	for _, m := range own {
		mine[strings.Join(m.Controllers, ",")] = m.Path
	}
	paths := map[string][]string{}
	var names []string
	for _, s := range g.entry.Sets {
		for _, m := range s.Ctls {
			if p := m.GetPath(); p != "/" && p != mine[m.GetName()] {
				if paths[m.GetName()] == nil {
					names = append(names, m.GetName())
				}
				paths[m.GetName()] = append(paths[m.GetName()], p)
			}
		}
	}
	for _, n := range names {
		e, err := describeGroups(n, paths[n])
		if err != nil {
			c.Notes = append(c.Notes, fmt.Sprintf("control groups: %v", err))
			continue
		}
		g.entry.Controllers = append(g.entry.Controllers, e)
	}
	c.Image.Replace(CgroupPart, &g.entry)
}

// describeGroups saves the topmost of some groups of a hierarchy.
func describeGroups(name string, groups []string) (*criu_cgroup.CgControllerEntry, error) {
	h, err := cgroup.Open(name)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	e := &criu_cgroup.CgControllerEntry{}
	if name != "" {
		e.Cnames = strings.Split(name, ",")
	}
	sort.Strings(groups)
	last := ""
	for _, g := range groups {
		if last != "" && (g == last || strings.HasPrefix(g, last+"/")) {
			continue
		}
		last = g
		d, err := h.Save(g, strings.TrimPrefix(path.Clean(g), "/"))
		if err != nil {
			return nil, fmt.Errorf("%s:%s: %w", name, g, err)
		}
		e.Dirs = append(e.Dirs, d)
	}
	return e, nil
}
