package resource

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/ns"

	"github.com/fermata-cr/fermata/internal/fault"
)

// A descriptor of a namespace (namespaces(7), fs/nsfs.c) keeps it alive; its
// link is "net:[INODE]". One of a namespace that fermata itself is in is opened
// again as that of the fermata that restores.
type nsKind struct{}

func init() { Register(nsKind{}) }

// nsFlags are the names below /proc/PID/ns and their clone(2) flags.
var nsFlags = map[string]uint32{
	"cgroup": unix.CLONE_NEWCGROUP, "ipc": unix.CLONE_NEWIPC, "mnt": unix.CLONE_NEWNS, "net": unix.CLONE_NEWNET,
	"pid": unix.CLONE_NEWPID, "time": unix.CLONE_NEWTIME, "user": unix.CLONE_NEWUSER, "uts": unix.CLONE_NEWUTS,
}

func (nsKind) Name() string            { return "namespace" }
func (nsKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_NS} }

func (nsKind) Match(f *File) bool {
	name, _, _ := strings.Cut(f.Link, ":")
	return nsFlags[name] != 0 && bracketed(f.Link, name)
}

func (nsKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	name, _, _ := strings.Cut(f.Link, ":")
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/"+name, &own); err != nil {
		return nil, fmt.Errorf("own %s namespace: %w", name, err)
	}
	if own.Ino != f.Stat.Ino || own.Dev != f.Stat.Dev {
		d.Refusal(f, "it is a namespace ("+name+") that fermata is not in, which nothing would make again", "close it before the checkpoint")
		return nil, nil
	}
	e := entryOf(fdinfo.FdTypes_NS)
	e.Nsf = &ns.NsFileEntry{
		Id: proto.Uint32(f.ID), NsId: proto.Uint32(uint32(f.Stat.Ino)),
		NsCflag: proto.Uint32(nsFlags[name]), Flags: proto.Uint32(f.Flags()),
	}
	return e, nil
}

func (nsKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	for name, flag := range nsFlags {
		if flag != e.GetNsf().GetNsCflag() {
			continue
		}
		fd, err := unix.Open("/proc/self/ns/"+name, int(e.GetNsf().GetFlags())&(unix.O_ACCMODE|unix.O_PATH)|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("own %s namespace: %w", name, err)
		}
		return finish(fd, setStatus(fd, e.GetNsf().GetFlags()))
	}
	return -1, fault.Errorf(fault.ErrDamaged, "namespace file %d: no namespace has the flag %#x", e.GetId(), e.GetNsf().GetNsCflag())
}
