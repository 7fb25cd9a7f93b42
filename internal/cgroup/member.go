package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_cgroup "github.com/checkpoint-restore/go-criu/v8/crit/images/cgroup"
)

// Hierarchy is a hierarchy of control groups, opened without the help of any
// mount point: where and whether it is mounted is the administrator's business.
type Hierarchy struct {
	// Name is its controllers, joined by commas, as /proc/PID/cgroup has them;
	// empty for version 2.
	Name string
	root int
}

// Open opens the hierarchy with these controllers (as one word of
// /proc/PID/cgroup: "cpu,cpuacct", "name=systemd", "" for version 2), at the
// root that the calling process's cgroup namespace has. It needs CAP_SYS_ADMIN
// and fsopen(2) (Linux 5.2). A version 1 hierarchy that is not there is made.
func Open(controllers string) (*Hierarchy, error) {
	kind := "cgroup"
	if controllers == "" {
		kind = "cgroup2"
	}
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cgroup hierarchy %q: %w", controllers, err)
	}
	defer unix.Close(ctx)
	if controllers != "" {
		named := false
		for _, c := range strings.Split(controllers, ",") {
			if name, ok := strings.CutPrefix(c, "name="); ok {
				named = true
				err = unix.FsconfigSetString(ctx, "name", name)
			} else {
				err = unix.FsconfigSetFlag(ctx, c)
			}
			if err != nil {
				return nil, fmt.Errorf("cgroup hierarchy %q: %w", controllers, err)
			}
		}
		if named && !strings.Contains(controllers, ",") {
			err = unix.FsconfigSetFlag(ctx, "none")
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup hierarchy %q: %w", controllers, err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cgroup hierarchy %q: %w", controllers, err)
	}
	return &Hierarchy{controllers, fd}, nil
}

// Close gives the hierarchy up.
func (h *Hierarchy) Close() { unix.Close(h.root) }

// rel gives a group's path relative to the root.
func rel(group string) string {
	if p := strings.Trim(group, "/"); p != "" {
		return p
	}
	return "."
}

// open opens a file below a group, or the group itself.
func (h *Hierarchy) open(name string, flags int) (int, error) {
	return unix.Openat2(h.root, name, &unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
}

// Has tells whether a group exists.
func (h *Hierarchy) Has(group string) bool {
	fd, err := h.open(rel(group), unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// Move puts a process, with all its threads, into a group.
func (h *Hierarchy) Move(group string, pid int) error {
	return h.write(path.Join(rel(group), "cgroup.procs"), fmt.Sprint(pid))
}

// MoveThread puts a single thread into a group.
func (h *Hierarchy) MoveThread(group string, tid int) error {
	name := "tasks"
	if h.Name == "" {
		name = "cgroup.threads" // Linux 4.14
	}
	return h.write(path.Join(rel(group), name), fmt.Sprint(tid))
}

func (h *Hierarchy) write(name, value string) error {
	fd, err := h.open(name, unix.O_WRONLY)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
	if err != nil {
		return &fs.PathError{Op: "writing", Path: "cgroup " + h.Name + ":/" + name, Err: err}
	}
	return nil
}

func (h *Hierarchy) read(name string) (string, error) {
	fd, err := h.open(name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b := make([]byte, 64<<10)
	n, err := f.Read(b)
	if n == 0 && err != nil {
		return "", err
	}
	return strings.TrimRight(string(b[:n]), "\n"), nil
}

// settings are the files of a group that say how it is to be, in the order they
// are written in: of each hierarchy those that it has. What they say is one
// value that can be written as it was read.
var settings = []string{
	// Version 1.
	"cgroup.clone_children", "cpuset.cpus", "cpuset.mems", "cpuset.cpu_exclusive", "cpuset.mem_exclusive", "cpuset.mem_hardwall",
	"cpuset.memory_migrate", "cpuset.memory_spread_page", "cpuset.memory_spread_slab", "cpuset.sched_load_balance", "cpuset.sched_relax_domain_level",
	"notify_on_release", "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.rt_period_us", "cpu.rt_runtime_us",
	"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness",
	"memory.use_hierarchy", "memory.move_charge_at_immigrate", "blkio.weight", "net_cls.classid", "devices.list",
	// Both.
	"pids.max", "hugetlb.2MB.limit_in_bytes", "hugetlb.1GB.limit_in_bytes",
	// Version 2.
	"cgroup.type", "cgroup.max.depth", "cgroup.max.descendants", "cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle", "cpu.uclamp.min", "cpu.uclamp.max",
	"memory.min", "memory.low", "memory.high", "memory.max", "memory.oom.group", "memory.swap.high", "memory.swap.max", "memory.zswap.max",
	"io.weight", "io.max", "io.latency", "io.prio.class", "hugetlb.2MB.max", "hugetlb.1GB.max", "misc.max",
	"cgroup.subtree_control",
}

// several are settings with lines of their own, or of which each word is written
// by itself: net_prio.ifpriomap is such, too.
var several = []string{"net_prio.ifpriomap"}

// Save describes a group with everything below it, to be made again by Make.
// top is the directory's name in the description.
func (h *Hierarchy) Save(group, top string) (*criu_cgroup.CgroupDirEntry, error) {
	fd, err := h.open(rel(group), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), group)
	defer d.Close()
	e := &criu_cgroup.CgroupDirEntry{DirName: proto.String(top), DirPerms: perms(fd, "")}
	for _, name := range append(settings[:len(settings):len(settings)], several...) {
		v, err := h.read(path.Join(rel(group), name))
		if err != nil {
			continue // not a controller of this hierarchy, or write-only here
		}
		e.Properties = append(e.Properties, &criu_cgroup.CgroupPropEntry{
			Name: proto.String(name), Value: proto.String(v), Perms: perms(fd, name),
		})
	}
	// Who may put tasks into it is a setting, too.
	for _, name := range []string{"cgroup.procs", "tasks", "cgroup.threads"} {
		if p := perms(fd, name); p != nil {
			e.Properties = append(e.Properties, &criu_cgroup.CgroupPropEntry{Name: proto.String(name), Value: proto.String(""), Perms: p})
		}
	}
	kids, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	sort.Slice(kids, func(i, j int) bool { return kids[i].Name() < kids[j].Name() })
	for _, k := range kids {
		if !k.IsDir() {
			continue
		}
		c, err := h.Save(path.Join(group, k.Name()), k.Name())
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		e.Children = append(e.Children, c)
	}
	return e, nil
}

func perms(dir int, name string) *criu_cgroup.CgroupPerms {
	var st unix.Stat_t
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	if unix.Fstatat(dir, name, &st, flags) != nil {
		return nil
	}
	return &criu_cgroup.CgroupPerms{Mode: proto.Uint32(st.Mode & 0o7777), Uid: proto.Uint32(st.Uid), Gid: proto.Uint32(st.Gid)}
}

// Make makes the groups that e describes and that are not there, below parent;
// those that are there stay as they are, but with force they get the saved
// settings too. It says in notes what it could not set.
func (h *Hierarchy) Make(parent string, e *criu_cgroup.CgroupDirEntry, force bool) (notes []string, err error) {
	group := path.Join("/", parent, e.GetDirName())
	made := false
	for at, rest := "", strings.TrimPrefix(group, "/"); rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		at = path.Join(at, name)
		if h.Has(at) {
			continue
		}
		dir, err := h.open(path.Dir(at), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return notes, fmt.Errorf("cgroup %s:/%s: %w", h.Name, at, err)
		}
		err = unix.Mkdirat(dir, name, 0o755)
		unix.Close(dir)
		if err != nil && err != unix.EEXIST {
			return notes, fmt.Errorf("cgroup %s:/%s: %w", h.Name, at, err)
		}
		made = err == nil && rest == ""
	}
	if made || force {
		for _, p := range e.GetProperties() {
			if err := h.set(group, p, made); err != nil {
				notes = append(notes, err.Error())
			}
		}
		if p := e.GetDirPerms(); made && p != nil {
			h.own(rel(group), p)
		}
	}
	for _, c := range e.GetChildren() {
		n, err := h.Make(group, c, force)
		notes = append(notes, n...)
		if err != nil {
			return notes, err
		}
	}
	return notes, nil
}

// set writes one saved setting.
func (h *Hierarchy) set(group string, p *criu_cgroup.CgroupPropEntry, made bool) error {
	name := path.Join(rel(group), p.GetName())
	if o := p.GetPerms(); made && o != nil {
		defer h.own(name, o)
	}
	now, err := h.read(name)
	if err == nil && now == p.GetValue() {
		return nil
	}
	var values []string
	switch p.GetName() {
	case "cgroup.procs", "tasks", "cgroup.threads":
		return nil
	case "devices.list":
		if err := h.write(path.Join(rel(group), "devices.deny"), "a"); err != nil {
			return err
		}
		name = path.Join(rel(group), "devices.allow")
		values = strings.Split(p.GetValue(), "\n")
	case "cgroup.type":
		if p.GetValue() == "threaded" {
			values = []string{"threaded"} // the other types follow from it
		}
	case "cgroup.subtree_control":
		for _, c := range strings.Fields(p.GetValue()) {
			values = append(values, "+"+c)
		}
	case "cpu.cfs_quota_us", "cpu.rt_runtime_us":
		values = []string{p.GetValue()}
	default:
		values = strings.Split(p.GetValue(), "\n")
	}
	for _, v := range values {
		if v == "" {
			continue
		}
		if err := h.write(name, v); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hierarchy) own(name string, p *criu_cgroup.CgroupPerms) {
	fd, err := h.open(name, unix.O_PATH)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// Through /proc: an O_PATH descriptor has no fchmod.
	self := fmt.Sprintf("/proc/self/fd/%d", fd)
	_ = os.Chown(self, int(p.GetUid()), int(p.GetGid()))
	_ = os.Chmod(self, fs.FileMode(p.GetMode()&0o777))
}
