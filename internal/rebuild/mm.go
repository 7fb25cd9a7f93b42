package rebuild

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/image/wire"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// area is one area of an address space to be made.
type area struct {
	*vma.VmaEntry
	extra *fm.VmaExtra
}

func (a *area) is(status uint32) bool { return a.GetStatus()&status != 0 }
func (a *area) flags() procfs.VMFlags { return procfs.VMFlags(a.extra.GetVmflags()) }
func (a *area) shared() bool {
	return a.GetFlags()&unix.MAP_SHARED != 0 && a.GetFlags()&unix.MAP_PRIVATE == 0
}
func (a *area) special() bool { return a.is(collect.VMAVdso | collect.VMAVvar) }

// file gives the id of the file entry it maps, 0 for none.
func (a *area) file() uint32 {
	if a.is(collect.VMAFilePrivate | collect.VMAFileShared) {
		return uint32(a.GetShmid())
	}
	return 0
}

// inheritable tells whether a fork hands the area to the child with its pages.
func (a *area) inheritable() bool {
	return a.flags()&(procfs.VMDontCopy|procfs.VMWipeOnFork) == 0 && a.GetFlags()&mapDroppable != mapDroppable
}

const (
	mapDroppable = 0x08
	mapHugeShift = 26
)

// same tells whether what a child inherited is what it wants.
func (a *area) same(b *area) bool {
	return a.GetStart() == b.GetStart() && a.GetEnd() == b.GetEnd() && a.GetFlags() == b.GetFlags() &&
		a.GetProt() == b.GetProt() && a.GetPgoff() == b.GetPgoff() && a.GetShmid() == b.GetShmid() &&
		a.GetStatus() == b.GetStatus() && a.GetMadv() == b.GetMadv() && a.extra.GetPkey() == b.extra.GetPkey() &&
		a.extra.GetName() == b.extra.GetName() && wire.Equal(a.extra.GetPolicy(), b.extra.GetPolicy()) && a.flags()&^ignoredFlags == b.flags()&^ignoredFlags
}

// ignoredFlags come and go by themselves or are set at the end.
const ignoredFlags = procfs.VMSoftDirty | procfs.VMAccount | procfs.VMLocked | procfs.VMLockOnFault

// buildMM makes a process's address space out of what it inherited: from the
// seed (parent nil) or from the process it was cloned from.
func (b *builder) buildMM(p *proc, from *proc) error {
	q := &queue{b: b, e: p.exec}
	var kept []bool
	if from == nil {
		if err := b.wipe(q, p); err != nil {
			return err
		}
		kept = make([]bool, len(p.areas))
	} else {
		var err error
		if kept, err = b.inherit(q, p, from); err != nil {
			return err
		}
	}
	if err := b.mapAreas(q, p, kept); err != nil {
		return err
	}
	if err := q.flush(); err != nil {
		return fmt.Errorf("mapping: %w", err)
	}
	if err := b.contexts(q, p); err != nil {
		return err
	}
	if err := b.fill(p, from, kept); err != nil {
		return err
	}
	return b.protect(p, kept)
}

// wipe empties the seed's address space but for the region, and moves the vdso
// and its data to their old places, through a scratch range.
func (b *builder) wipe(q *queue, p *proc) error {
	maps, err := procfs.ReadMaps(p.host())
	if err != nil {
		return err
	}
	var now []span
	for _, v := range maps {
		if v.Path == "[vdso]" || isVvar(v.Path) {
			now = append(now, span{v.Start, v.Len()})
		}
	}
	place, err := b.liftVdso(q, p, now)
	if err != nil {
		return err
	}
	q.add("munmap", unix.SYS_MUNMAP, 0, b.region.Addr())
	end := b.scratch + scratchSize
	q.add("munmap", unix.SYS_MUNMAP, end, taskSize-end)
	place()
	return nil
}

// span is a part of an address space.
type span struct{ at, len uint64 }

// liftVdso moves the vdso and its data, which are at now in the task, into the
// scratch range; place puts them where the process had them. A process that had
// none loses them.
func (b *builder) liftVdso(q *queue, p *proc, now []span) (place func(), err error) {
	var want []span
	for i := range p.areas {
		if a := &p.areas[i]; a.special() {
			want = append(want, span{a.GetStart(), a.GetEnd() - a.GetStart()})
		}
	}
	if len(want) == 0 {
		for _, v := range now {
			q.add("munmap vdso", unix.SYS_MUNMAP, v.at, v.len)
		}
		return func() {}, nil
	}
	if len(want) != len(now) {
		return nil, fault.Errorf(fault.ErrRefused, "%s: its vdso has %d areas where this kernel has %d: checkpointed under another kernel", p.describe(), len(want), len(now))
	}
	move := func(from, to, n uint64) {
		q.add("mremap vdso", unix.SYS_MREMAP, from, n, n, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, to)
	}
	at := b.scratch
	for i, v := range now {
		if v.len != want[i].len {
			return nil, fault.Errorf(fault.ErrRefused, "%s: area %d of its vdso is %d bytes, this kernel's %d: checkpointed under another kernel", p.describe(), i, want[i].len, v.len)
		}
		move(v.at, at, v.len)
		at += v.len
	}
	return func() {
		at := b.scratch
		for _, w := range want {
			move(at, w.at, w.len)
			at += w.len
		}
	}, nil
}

const (
	taskSize    = 1<<47 - sys.PageSize
	scratchSize = 1 << 20
)

func isVvar(path string) bool { return len(path) >= 5 && path[:5] == "[vvar" }

// inherit unmaps what the child does not want of its parent's areas and tells
// which of its own are there already.
func (b *builder) inherit(q *queue, p, from *proc) ([]bool, error) {
	kept := make([]bool, len(p.areas))
	var vdso []span
	j := 0
	for i := range from.areas {
		f := &from.areas[i]
		if f.flags()&procfs.VMDontCopy != 0 {
			continue // was not inherited
		}
		for j < len(p.areas) && p.areas[j].GetStart() < f.GetStart() {
			j++
		}
		if j < len(p.areas) && p.areas[j].same(f) {
			kept[j] = true
			continue
		}
		if f.special() {
			// Cannot be made anew. It is elsewhere in a process that has
			// called execve since.
			vdso = append(vdso, span{f.GetStart(), f.GetEnd() - f.GetStart()})
			continue
		}
		q.add("munmap", unix.SYS_MUNMAP, f.GetStart(), f.GetEnd()-f.GetStart())
	}
	missing := slices.ContainsFunc(p.areas, func(a area) bool { return a.special() }) &&
		!slices.ContainsFunc(from.areas, func(a area) bool { return a.special() })
	if missing {
		return nil, fault.Errorf(fault.ErrRefused, "%s: it has a vdso, which its parent, pid %d, has unmapped", p.describe(), from.pid)
	}
	if len(vdso) > 0 {
		place, err := b.liftVdso(q, p, vdso)
		if err != nil {
			return nil, err
		}
		place()
	}
	return kept, nil
}

// mapAreas maps what is not there yet. The files arrive by SCM_RIGHTS as
// descriptors 0, 1, 2, …: the table is empty but for the transport.
func (b *builder) mapAreas(q *queue, p *proc, kept []bool) error {
	fds := map[uint64]int{} // key -> descriptor in the task
	var send []int
	const sharedBit = 1 << 40
	for i := range p.areas {
		a := &p.areas[i]
		if kept[i] || a.special() {
			continue
		}
		var key uint64
		switch {
		case a.is(collect.VMASysV):
			continue
		case a.is(collect.VMAAnonShared):
			key = a.GetShmid() | sharedBit
		case a.file() != 0:
			key = uint64(a.file())
		default:
			continue
		}
		if _, ok := fds[key]; ok {
			continue
		}
		var fd int
		var err error
		if key&sharedBit != 0 {
			fd, err = b.sharedFD(a.GetShmid())
		} else {
			fd, err = b.files.Open(a.file())
		}
		if err != nil {
			return fmt.Errorf("area %#x-%#x: %w", a.GetStart(), a.GetEnd(), err)
		}
		fds[key] = len(send)
		send = append(send, fd)
	}
	if err := b.sendTemporary(q, send); err != nil {
		return err
	}
	for i, end := 0, 0; i < len(p.areas); i++ {
		a := &p.areas[i]
		if kept[i] || a.special() || i < end {
			continue
		}
		if end = b.mapRun(q, p, kept, i); end > i {
			continue
		}
		if a.is(collect.VMAAio | collect.VMAUring) {
			continue // made by io_setup; comes with the descriptor
		}
		if a.is(collect.VMASysV) {
			if err := b.attach(q, p, kept, i); err != nil {
				return fmt.Errorf("area %#x-%#x: %w", a.GetStart(), a.GetEnd(), err)
			}
			continue
		}
		fd, off := ^uint64(0), uint64(0)
		flags := uint64(a.GetFlags()) | unix.MAP_FIXED_NOREPLACE
		switch {
		case a.is(collect.VMAAnonShared):
			fd, off = uint64(fds[a.GetShmid()|sharedBit]), a.GetPgoff()
			flags &^= unix.MAP_ANONYMOUS | unix.MAP_HUGETLB
		case a.file() != 0:
			fd, off = uint64(fds[uint64(a.file())]), a.GetPgoff()
			flags &^= unix.MAP_HUGETLB
		case flags&unix.MAP_HUGETLB != 0:
			flags |= uint64(a.extra.GetHugeShift()) << mapHugeShift
		}
		flags &^= unix.MAP_STACK
		q.add("mmap", unix.SYS_MMAP, a.GetStart(), a.GetEnd()-a.GetStart(), uint64(b.firstProt(p, i)), flags, fd, off)
		q.want(a.GetStart())
		if m := a.extra.GetPolicy(); m != nil { // before pages come
			q.room(1, len(m.GetNodes())+32)
			q.add("mbind", unix.SYS_MBIND, a.GetStart(), a.GetEnd()-a.GetStart(), uint64(m.GetMode()), nodes(q, m), nodeBits(m), 0)
		}
		if m := a.GetMadv() & hugeAdvice; m != 0 && a.GetFlags()&(unix.MAP_HUGETLB|mapDroppable) == 0 {
			b.advise(q, a, m)
		}
	}
	for i := range send {
		q.add("close", unix.SYS_CLOSE, uint64(i))
	}
	return nil
}

// firstProt gives the protection while pages are filled in.
func (b *builder) firstProt(p *proc, i int) uint32 {
	a := &p.areas[i]
	if !a.shared() && p.hasPages(i) {
		return a.GetProt() | unix.PROT_WRITE | unix.PROT_READ
	}
	return a.GetProt()
}

// hasPages tells whether any page of an area is in the store.
func (p *proc) hasPages(i int) bool {
	if p.paged == nil {
		p.paged = make([]bool, len(p.areas))
		pages := newCursor(p.pages)
		for k := range p.areas {
			_, _, _, p.paged[k] = pages.peek(p.areas[k].GetStart(), p.areas[k].GetEnd())
		}
	}
	return p.paged[i]
}

// protect sets the protections that filling needed otherwise, and advice.
func (b *builder) protect(p *proc, kept []bool) error {
	q := &queue{b: b, e: p.exec}
	p.exec.Reset()
	for i := range p.areas {
		a := &p.areas[i]
		if kept[i] || a.special() || a.is(collect.VMAAio|collect.VMAUring) {
			continue
		}
		n := a.GetEnd() - a.GetStart()
		if want := b.firstProt(p, i); want != a.GetProt() {
			q.add("mprotect", unix.SYS_MPROTECT, a.GetStart(), n, uint64(a.GetProt()))
		}
		if m := a.GetMadv() &^ hugeAdvice; m != 0 && a.GetFlags()&(unix.MAP_HUGETLB|mapDroppable) == 0 {
			b.advise(q, a, m)
		}
		if name := a.extra.GetName(); name != "" && !a.is(collect.VMAVvar) {
			q.room(1, len(name)+16)
			q.optional("prctl(PR_SET_VMA)", unix.SYS_PRCTL, unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, a.GetStart(), n, q.e.PutString(name))
		}
	}
	g := p.mmx.GetGuards()
	for i := range g.GetVaddr() {
		q.add("madvise(MADV_GUARD_INSTALL)", unix.SYS_MADVISE, g.GetVaddr()[i], g.GetPages()[i]*sys.PageSize, madvGuardInstall)
	}
	if err := q.flush(); err != nil {
		return fmt.Errorf("protecting: %w", err)
	}
	return nil
}

// hugeAdvice is given before pages come: it says how large they are.
const hugeAdvice = 1<<unix.MADV_HUGEPAGE | 1<<unix.MADV_NOHUGEPAGE

// advise gives advice, a bit each.
func (b *builder) advise(q *queue, a *area, m uint64) {
	for advice := uint64(0); m>>advice != 0; advice++ {
		if m>>advice&1 != 0 {
			q.add("madvise", unix.SYS_MADVISE, a.GetStart(), a.GetEnd()-a.GetStart(), advice)
		}
	}
}

const madvGuardInstall = 102 // MADV_GUARD_INSTALL, Linux 6.13

// sharedFD gives a descriptor of a shared anonymous object, filled: it is made
// in the seed, as any shared anonymous memory is, and opened from outside.
func (b *builder) sharedFD(id uint64) (int, error) {
	o := b.shm[id]
	if o == nil {
		return -1, fault.Errorf(fault.ErrDamaged, "shared memory object %d is not in the image", id)
	}
	if o.fd >= 0 {
		return o.fd, nil
	}
	defer b.keep()() // the seed's executor is one for all
	size := (o.GetSize() + sys.PageSize - 1) &^ (sys.PageSize - 1)
	flags := uint64(unix.MAP_SHARED | unix.MAP_ANONYMOUS)
	if h := o.GetHugeShift(); h != 0 {
		flags |= unix.MAP_HUGETLB | uint64(h)<<mapHugeShift
		size = (size + 1<<h - 1) &^ (1<<h - 1)
	} else {
		flags |= unix.MAP_NORESERVE
	}
	e := b.seed.exec
	e.Reset()
	r, err := e.Call(unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags, ^uint64(0), 0)
	if err != nil {
		return -1, fmt.Errorf("shared memory object of %d bytes: %w", size, err)
	}
	addr := uint64(r)
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", b.seed.pid, addr, addr+size), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("shared memory object: %w", err)
	}
	o.fd = fd
	e.Reset()
	if _, err := e.Call(unix.SYS_MUNMAP, addr, size); err != nil {
		return -1, err
	}
	return fd, b.fillObject(o.ShmObject, fd)
}
