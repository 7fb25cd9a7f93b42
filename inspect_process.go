package fermata

import (
	"sort"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	criu_fs "github.com/checkpoint-restore/go-criu/v8/crit/images/fs"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// pageSize is the unit of fm.PageRuns.
const pageSize = 4096

// inspector reads an image with its tables at hand.
type inspector struct {
	im     *image.Image
	files  map[uint32]*fdinfo.FileEntry
	extra  map[uint32]*fm.FileExtra
	memfds map[uint32]*memfd.MemfdInodeEntry
	shm    map[uint64]savedRuns
}

// index reads the tables that all processes refer to.
func (r *inspector) index() error {
	files, err := image.All[*fdinfo.FileEntry](r.im, "files")
	if err != nil {
		return err
	}
	for _, f := range files {
		r.files[f.GetId()] = f
	}
	extras, err := image.All[*fm.FileExtra](r.im, "file-extra")
	if err != nil {
		return err
	}
	for _, x := range extras {
		r.extra[x.GetId()] = x
	}
	inodes, err := image.All[*memfd.MemfdInodeEntry](r.im, "memfd-inodes")
	if err != nil {
		return err
	}
	r.memfds = map[uint32]*memfd.MemfdInodeEntry{}
	for _, i := range inodes {
		r.memfds[uint32(i.GetInodeId())] = i
	}
	objects, err := image.All[*fm.ShmObject](r.im, "shm")
	if err != nil {
		return err
	}
	r.shm = map[uint64]savedRuns{}
	for _, o := range objects {
		runs, err := newSavedRuns(o.GetPages())
		if err != nil {
			return err
		}
		r.shm[o.GetId()] = runs
	}
	return nil
}

// process reads one process. owner remembers who brought which address space.
func (r *inspector) process(t *pstree.PstreeEntry, owner map[uint32]int) (*InspectedProcess, error) {
	pid := int(t.GetPid())
	p := &InspectedProcess{PID: pid, PPID: int(t.GetPpid()), PGID: int(t.GetPgid()), SID: int(t.GetSid()), State: "running"}
	core, err := image.One[*criu_core.CoreEntry](r.im, image.Of("core", pid))
	if err != nil {
		return nil, err
	}
	tc := core.GetTc()
	p.Command = tc.GetComm()
	switch tc.GetTaskState() {
	case collect.StateDead:
		p.State, p.ExitStatus = "zombie", int(tc.GetExitCode())
		return p, nil
	case collect.StateStopped:
		p.State = "stopped"
	}
	creds := core.GetThreadCore().GetCreds()
	p.UID, p.GID = int(creds.GetEuid()), int(creds.GetEgid())
	for _, tid := range t.GetThreads() {
		th, err := image.One[*criu_core.CoreEntry](r.im, image.Of("core", int(tid)))
		if err != nil {
			return nil, err
		}
		name := th.GetThreadCore().GetComm()
		if name == "" {
			name = p.Command
		}
		p.Threads = append(p.Threads, InspectedThread{TID: int(tid), Command: name})
	}
	fs, err := image.One[*criu_fs.FsEntry](r.im, image.Of("fs", pid))
	if err != nil {
		return nil, err
	}
	p.Cwd, p.Root = r.path(fs.GetCwdId()), r.path(fs.GetRootId())
	table, err := image.All[*fdinfo.FdinfoEntry](r.im, image.Of("fdinfo", int(core.GetIds().GetFilesId())))
	if err != nil {
		return nil, err
	}
	for _, d := range table {
		p.Files = append(p.Files, r.file(d))
	}
	sort.SliceStable(p.Files, func(i, j int) bool { return p.Files[i].FD < p.Files[j].FD })
	vm := core.GetIds().GetVmId()
	if first, shared := owner[vm]; shared {
		p.SharesMemory = first
		return p, nil
	}
	owner[vm] = pid
	return p, r.memory(p)
}

// memory reads a process's areas and what of them is saved.
func (r *inspector) memory(p *InspectedProcess) error {
	m, err := image.One[*mm.MmEntry](r.im, image.Of("mm", p.PID))
	if err != nil {
		return err
	}
	p.Exe = r.path(m.GetExeFileId())
	extras, err := image.All[*fm.MmExtra](r.im, image.Of("mm-extra", p.PID))
	if err != nil {
		return err
	}
	pages, err := image.One[*fm.PageRuns](r.im, image.Of("pages", p.PID))
	if err != nil {
		return err
	}
	runs, err := newSavedRuns(pages)
	if err != nil {
		return err
	}
	var names []*fm.VmaExtra
	if len(extras) == 1 {
		names = extras[0].GetVmas()
	}
	for i, v := range m.GetVmas() {
		if v.GetEnd() < v.GetStart() {
			return fault.Errorf(fault.ErrDamaged, "area %#x-%#x ends before it begins", v.GetStart(), v.GetEnd())
		}
		var x *fm.VmaExtra
		if i < len(names) {
			x = names[i]
		}
		a := r.area(v, x)
		saved := int64(runs.within(a.Start, a.End))
		p.MemoryBytes += saved
		if v.GetStatus()&collect.VMAAnonShared != 0 {
			// Of the object that it shares with others.
			saved += int64(r.shm[v.GetShmid()].within(a.Offset, a.Offset+(a.End-a.Start)))
		}
		a.Saved = saved
		p.Areas = append(p.Areas, a)
	}
	return nil
}

// area describes one area.
func (r *inspector) area(v *vma.VmaEntry, x *fm.VmaExtra) InspectedArea {
	a := InspectedArea{Start: v.GetStart(), End: v.GetEnd(), Offset: v.GetPgoff()}
	access := []byte("---p")
	for i, bit := range []uint32{unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC} {
		if v.GetProt()&bit != 0 {
			access[i] = "rwx"[i]
		}
	}
	if v.GetFlags()&unix.MAP_SHARED != 0 {
		access[3] = 's'
	}
	a.Access = string(access)
	s := v.GetStatus()
	switch {
	case s&collect.VMAVdso != 0:
		a.What = "[vdso]"
	case s&collect.VMAVvar != 0:
		if a.What = x.GetName(); a.What == "" {
			a.What = "[vvar]"
		}
	case s&collect.VMAHeap != 0:
		a.What = "[heap]"
	case s&collect.VMAStack != 0:
		a.What = "[stack]"
	case s&(collect.VMAFilePrivate|collect.VMAFileShared) != 0:
		a.What = r.path(uint32(v.GetShmid()))
	case s&collect.VMAAnonShared != 0:
		a.What = "shared memory"
	case s&collect.VMASysV != 0:
		a.What = "SysV shared memory"
	default:
		a.What = "anonymous"
	}
	if n := x.GetName(); n != "" && a.What == "anonymous" {
		a.What = "anonymous, named " + n
	}
	if v.GetFlags()&unix.MAP_HUGETLB != 0 {
		a.What += " (huge pages)"
	}
	return a
}

// savedRuns are runs of saved pages in ascending order, with the number of
// saved bytes before each.
type savedRuns struct {
	start, end []uint64
	before     []uint64
}

// newSavedRuns checks and sorts the runs of an image.
func newSavedRuns(p *fm.PageRuns) (savedRuns, error) {
	var r savedRuns
	at, n := p.GetVaddr(), p.GetPages()
	if len(at) != len(n) {
		return r, fault.Errorf(fault.ErrDamaged, "%d runs of pages with %d lengths", len(at), len(n))
	}
	order := make([]int, len(at))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(a, b int) bool { return at[order[a]] < at[order[b]] })
	var sum, last uint64
	for _, i := range order {
		end := at[i] + n[i]*pageSize
		if n[i] > 1<<52 || end < at[i] || at[i] < last {
			return r, fault.Errorf(fault.ErrDamaged, "run of %d pages at %#x: overlaps another, or ends nowhere", n[i], at[i])
		}
		r.start, r.end, r.before = append(r.start, at[i]), append(r.end, end), append(r.before, sum)
		sum += end - at[i]
		last = end
	}
	return r, nil
}

// upTo gives the saved bytes below an address.
func (r savedRuns) upTo(addr uint64) uint64 {
	// The first run that ends above it.
	i := sort.Search(len(r.end), func(i int) bool { return r.end[i] > addr })
	if i == len(r.end) {
		if i == 0 {
			return 0
		}
		return r.before[i-1] + r.end[i-1] - r.start[i-1]
	}
	sum := r.before[i]
	if addr > r.start[i] {
		sum += addr - r.start[i]
	}
	return sum
}

// within gives the saved bytes of a range.
func (r savedRuns) within(start, end uint64) uint64 {
	if end <= start {
		return 0
	}
	return r.upTo(end) - r.upTo(start)
}
