package collect

import (
	"errors"
	"fmt"

	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/memory"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/resource"
)

// Status bits of vma_entry in the interchange schema.
const (
	VMARegular     = 1 << 0
	VMAStack       = 1 << 1
	VMAVsyscall    = 1 << 2
	VMAVdso        = 1 << 3
	VMAHeap        = 1 << 5
	VMAFilePrivate = 1 << 6
	VMAFileShared  = 1 << 7
	VMAAnonShared  = 1 << 8
	VMAAnonPrivate = 1 << 9
	VMASysV        = 1 << 10
	VMAVvar        = 1 << 12
	VMAAio         = 1 << 13
	VMAMemfd       = 1 << 14
	// VMAUring is our own: an area of an io_uring instance; shmid is its file.
	VMAUring = 1 << 20
)

// Area is one area of a task's memory.
type Area struct {
	procfs.Smap
	Entry *vma.VmaEntry
	Extra *fm.VmaExtra
	// Left: its pages are not saved, as the program or the user wishes.
	Left bool
}

// Shared is a shared memory object that areas map: shmem without a name in any
// file system. Its content goes to the page store once.
type Shared struct {
	Object *fm.ShmObject
	fd     int
}

type sharedKey struct{ dev, ino uint64 }

// readAreas reads a task's memory map.
func (c *Collector) readAreas(t *Task) error {
	sm, err := c.readMap(t)
	if err != nil {
		return err
	}
	t.facts.areas.smaps = nil // they are copied below
	t.Areas = make([]Area, 0, len(sm))
	t.maps = make([]procfs.VMA, 0, len(sm))
	records := make([]areaRecord, len(sm))
	for i := range sm {
		t.maps = append(t.maps, sm[i].VMA)
	}
	for i := range sm {
		if sm[i].Path == "[vsyscall]" {
			continue // the kernel's own, in every task
		}
		t.Areas = append(t.Areas, Area{Smap: sm[i]})
		a := &t.Areas[len(t.Areas)-1]
		if err := c.area(t, a, &records[i]); err != nil {
			return fmt.Errorf("area %#x-%#x (%s): %w", a.Start, a.End, a.Path, err)
		}
	}
	return nil
}

// areaRecord is what the image has of an area, with its values: ten thousand of
// them shall not be a hundred thousand allocations.
type areaRecord struct {
	entry vma.VmaEntry
	extra fm.VmaExtra

	start, end, pgoff, shmid, vmflags uint64
	prot, flags, status               uint32
	fd                                int64
}

func (c *Collector) area(t *Task, a *Area, r *areaRecord) error {
	r.start, r.end, r.pgoff, r.prot, r.fd = a.Start, a.End, a.Offset, prot(a), -1
	e := &r.entry
	e.Start, e.End, e.Pgoff, e.Shmid = &r.start, &r.end, &r.pgoff, &r.shmid
	e.Prot, e.Flags, e.Status, e.Fd = &r.prot, &r.flags, &r.status, &r.fd
	r.extra.Vmflags = &r.vmflags
	a.Entry, a.Extra = e, &r.extra
	flags := uint32(unix.MAP_PRIVATE)
	if a.Shared {
		flags = unix.MAP_SHARED
	}
	status := uint32(VMARegular)
	refuse := func(why, remedy string) {
		c.refuse(t, fmt.Sprintf("area %#x-%#x %s", a.Start, a.End, a.RawPath()), why, remedy)
	}
	switch {
	case a.Path == "[vdso]":
		status |= VMAVdso
	case strings.HasPrefix(a.Path, "[vvar"):
		status |= VMAVvar
		a.Extra.Name = proto.String(a.Path)
	case a.Flags&(procfs.VMPFNMap|procfs.VMIO) != 0:
		// refused below
	case a.Ino != 0 && a.Deleted && (a.Path == "/dev/zero" || a.Shared && strings.HasPrefix(a.Path, "/anon_hugepage")):
		// Private, it was mapped through a link of /proc/PID/map_files: pages
		// that were not written are those of the object.
		status |= VMAAnonShared
		flags |= unix.MAP_ANONYMOUS
		s, err := c.sharedObject(t, a)
		if unreachable(err) {
			refuse("only root can read shared anonymous memory whole", "run fermata as root, or with CAP_CHECKPOINT_RESTORE")
			break
		}
		if err != nil {
			return err
		}
		e.Shmid = s.Object.Id
	case strings.HasPrefix(a.Path, "/SYSV"):
		status |= VMASysV
		s, err := c.segment(t, a)
		if unreachable(err) {
			refuse("only root can read a SysV shared memory segment whole", "run fermata as root, or with CAP_CHECKPOINT_RESTORE")
			break
		}
		if err != nil {
			return err
		}
		if s == nil {
			refuse("it is a SysV shared memory segment of another IPC namespace, or one mapped from a file", "run fermata inside that namespace")
			break
		}
		e.Shmid = s.Object.Id
	case a.Path == "/[aio]":
		status |= VMAAio
		t.rings = append(t.rings, a)
	case a.Path == resource.UringLink:
		status |= VMAUring
		t.urings = append(t.urings, a)
	case strings.HasPrefix(a.Path, "anon_inode:"):
		refuse("it maps "+a.Path, "unmap it before the checkpoint")
	case strings.HasPrefix(a.Path, "/anon_hugepage"):
		status |= VMAAnonPrivate
		flags |= unix.MAP_ANONYMOUS
		r.pgoff = 0
	case a.Ino != 0:
		id, err := c.Files.MappedFile(t.At(), &a.VMA)
		if err != nil {
			return err
		}
		e.Shmid = proto.Uint64(uint64(id))
		if strings.HasPrefix(a.Path, "/memfd:") {
			status |= VMAMemfd
		}
		if a.Shared {
			status |= VMAFileShared
		} else {
			status |= VMAFilePrivate
		}
	default:
		status |= VMAAnonPrivate
		flags |= unix.MAP_ANONYMOUS
		r.pgoff = 0
		switch {
		case a.Path == "[heap]":
			status |= VMAHeap
		case a.Path == "[stack]":
			status |= VMAStack
		case strings.HasPrefix(a.Path, "[anon:"):
			a.Extra.Name = proto.String(strings.TrimSuffix(strings.TrimPrefix(a.Path, "[anon:"), "]"))
		}
	}
	r.flags, r.status = flags, status
	c.flagged(t, a)
	return nil
}

// flagged writes what the area's flags say. They may be unknown at first: it is
// called again when they are known.
func (c *Collector) flagged(t *Task, a *Area) {
	*a.Extra.Vmflags = uint64(a.Flags)
	if a.HasKey && a.ProtectionKey != 0 {
		a.Extra.Pkey = proto.Uint32(uint32(a.ProtectionKey))
	}
	flags := a.Entry.GetFlags()
	if a.Flags&procfs.VMGrowsDown != 0 {
		flags |= unix.MAP_GROWSDOWN
	}
	if a.Flags&procfs.VMNoReserve != 0 {
		flags |= unix.MAP_NORESERVE
	}
	if a.Flags&procfs.VMDroppable != 0 {
		flags = flags&^unix.MAP_PRIVATE | mapDroppable
	}
	if a.Flags&procfs.VMHugeTLB != 0 {
		flags |= unix.MAP_HUGETLB
		a.Extra.HugeShift = proto.Uint32(shift(a.KernelPageSize))
	}
	*a.Entry.Flags = flags
	status := a.Entry.GetStatus()
	if name, ok := strings.CutPrefix(a.Path, "/memfd:"); ok && status&VMAMemfd != 0 {
		a.Left = resource.ZeroMemfd(name) || resource.UnmapMemfd(name)
	}
	if c.SkipDontDump && a.Flags&procfs.VMDontDump != 0 && a.Flags&procfs.VMHugeTLB == 0 && status&VMAAnonPrivate != 0 {
		a.Left = true
	}
	if m := madvice(a.Flags); m != 0 {
		a.Entry.Madv = proto.Uint64(m)
	}
	refuse := func(why, remedy string) {
		c.refuse(t, fmt.Sprintf("area %#x-%#x %s", a.Start, a.End, a.RawPath()), why, remedy)
	}
	if uffd := a.Flags & (procfs.VMUffdMissing | procfs.VMUffdWP | procfs.VMUffdMinor); uffd == procfs.VMUffdWP && c.tracks(t, a) {
		// Not the program's: it is not tracked after a restore.
		a.Flags &^= uffd
		a.Extra.Vmflags = proto.Uint64(uint64(a.Flags))
	} else if uffd != 0 {
		refuse("it is registered with a userfaultfd", "unregister it before the checkpoint")
	}
	const kernels = VMAVdso | VMAVvar
	if a.Flags&(procfs.VMPFNMap|procfs.VMIO) != 0 && a.Entry.GetStatus()&kernels == 0 {
		refuse("it maps a device's memory", "unmap it before the checkpoint")
	}
}

const mapDroppable = 0x08 // MAP_DROPPABLE, Linux 6.11

func shift(size uint64) uint32 {
	n := uint32(0)
	for size > 1 {
		size >>= 1
		n++
	}
	return n
}

func prot(a *Area) uint32 {
	p := uint32(0)
	if a.Read {
		p |= unix.PROT_READ
	}
	if a.Write {
		p |= unix.PROT_WRITE
	}
	if a.Exec {
		p |= unix.PROT_EXEC
	}
	return p
}

// madvices are the area flags that madvise(2) sets, with the advice that does:
// the interchange schema stores a bit for each.
var madvices = []struct {
	flag   procfs.VMFlags
	advice uint
}{
	{procfs.VMRandRead, unix.MADV_RANDOM},
	{procfs.VMSeqRead, unix.MADV_SEQUENTIAL},
	{procfs.VMDontCopy, unix.MADV_DONTFORK},
	{procfs.VMMergeable, unix.MADV_MERGEABLE},
	{procfs.VMHugePage, unix.MADV_HUGEPAGE},
	{procfs.VMNoHugePage, unix.MADV_NOHUGEPAGE},
	{procfs.VMDontDump, unix.MADV_DONTDUMP},
	{procfs.VMWipeOnFork, unix.MADV_WIPEONFORK},
}

func madvice(f procfs.VMFlags) (m uint64) {
	for _, a := range madvices {
		// hugetlb areas are marked DONTDUMP|DONTEXPAND by the kernel itself.
		if f&a.flag != 0 {
			m |= 1 << a.advice
		}
	}
	return m
}

// unreachable tells whether an object could not be opened through
// /proc/PID/map_files for want of privilege.
func unreachable(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) }

// sharedObject notes a shared anonymous object; any of its areas opens it.
func (c *Collector) sharedObject(t *Task, a *Area) (*Shared, error) {
	key := sharedKey{uint64(a.DevMajor)<<32 | uint64(a.DevMinor), a.Ino}
	if s := c.shared[key]; s != nil {
		return s, nil
	}
	f, err := unix.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", t.At(), a.Start, a.End), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("shared memory object: %w", err)
	}
	c.Files.CloseLater(f)
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return nil, err
	}
	s := &Shared{fd: f, Object: &fm.ShmObject{
		Id: proto.Uint64(uint64(len(c.shared) + 1)), Size: proto.Uint64(uint64(st.Size)),
		Dev: proto.Uint64(st.Dev), Ino: proto.Uint64(st.Ino), Kind: proto.Uint32(ShmAnon),
		Pages: memory.NewRuns(),
	}}
	if a.Flags&procfs.VMHugeTLB != 0 {
		s.Object.HugeShift = proto.Uint32(shift(a.KernelPageSize))
	}
	c.shared[key] = s
	c.Shared = append(c.Shared, s)
	return s, nil
}

// Kinds of shared memory objects.
const (
	ShmAnon  = 0
	ShmMemfd = 1
	ShmSysV  = 2
)

// MemfdContent notes the content of a memfd's inode; fd stays the caller's and
// open until the memory is written.
func (c *Collector) MemfdContent(inode uint64, fd int, size uint64) error {
	c.Shared = append(c.Shared, &Shared{fd: fd, Object: &fm.ShmObject{
		Id: proto.Uint64(inode), Size: proto.Uint64(size), Dev: proto.Uint64(0), Ino: proto.Uint64(0),
		Kind: proto.Uint32(ShmMemfd), Pages: memory.NewRuns(),
	}})
	return nil
}

// emitShared is called when every area has been seen; the objects' runs are
// filled in by Memory.
func (c *Collector) emitShared() {
	for _, s := range c.Shared {
		c.Image.Add("shm", s.Object)
	}
}

// lockedFuture finds out whether what is mapped from now on gets locked
// (mlockall(2), MCL_FUTURE), which nothing tells: the executor's own region,
// mapped a moment ago, shows it. So it must have come in.
func (c *Collector) lockedFuture(t *Task, x *fm.MmExtra) error {
	if t.Status.VmLck == 0 || t.guest == nil {
		return nil
	}
	now, err := procfs.ReadSmapsFlags(t.At())
	if err != nil {
		return err
	}
	for i := range now {
		if now[i].Start != t.guest.Region.Addr() || now[i].Flags&procfs.VMLocked == 0 {
			continue
		}
		f := uint32(unix.MCL_FUTURE)
		if now[i].Flags&procfs.VMLockOnFault != 0 {
			f |= mclOnfault
		}
		x.MlockFuture = proto.Uint32(f)
	}
	return nil
}

const mclOnfault = 4 // MCL_ONFAULT, Linux 4.4

// mmEntry gives the address space's layout (prctl(2), PR_SET_MM_MAP) and areas.
func (c *Collector) mmEntry(t *Task) (*mm.MmEntry, error) {
	aux, err := procfs.ReadAuxv(t.At())
	if err != nil {
		return nil, err
	}
	exe, err := c.Files.PathFile(t.At(), "exe")
	if err != nil {
		return nil, err
	}
	st := &t.Stat
	u := proto.Uint64
	e := &mm.MmEntry{
		MmStartCode: u(st.StartCode), MmEndCode: u(st.EndCode), MmStartData: u(st.StartData), MmEndData: u(st.EndData),
		MmStartStack: u(st.StartStack), MmStartBrk: u(st.StartBrk), MmBrk: u(0),
		MmArgStart: u(st.ArgStart), MmArgEnd: u(st.ArgEnd), MmEnvStart: u(st.EnvStart), MmEnvEnd: u(st.EnvEnd),
		ExeFileId: proto.Uint32(exe), MmSavedAuxv: aux,
	}
	x := &fm.MmExtra{MapCount: proto.Uint32(uint32(len(t.Areas)))}
	if f, err := procfs.ReadCoredumpFilter(t.At()); err == nil {
		x.CoredumpFilter = proto.Uint32(f)
	}
	for i := range t.Areas {
		e.Vmas = append(e.Vmas, t.Areas[i].Entry)
		x.Vmas = append(x.Vmas, t.Areas[i].Extra)
	}
	c.Image.Add(image.Of("mm-extra", t.PID), x)
	t.extra = x
	return e, nil
}
