package imgdir

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	criutime "github.com/checkpoint-restore/go-criu/v8/crit/images/time"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// What fermata's own messages hold of tasks and memory that CRIU dumped, taken
// from what the schema has of it.

func taskExtra(pid int, tc *criu_core.TaskCoreEntry) *fm.TaskExtra {
	x := &fm.TaskExtra{Pid: proto.Uint32(uint32(pid)), ExitSignal: proto.Uint32(uint32(unix.SIGCHLD))}
	switch tc.GetTaskState() {
	case collect.StateDead:
		x.ExitStatus = tc.ExitCode
	case collect.StateStopped:
		x.StopSignal = proto.Uint32(uint32(unix.SIGSTOP))
		if tc.GetStopSigno() != 0 {
			x.StopSignal = tc.StopSigno
		}
	}
	for _, t := range tc.GetTimers().GetPosix() {
		p := &fm.PosixTimer{
			Id: proto.Int32(int32(t.GetItId())), Clock: proto.Int32(int32(t.GetClockId())), Signo: proto.Int32(int32(t.GetSiSigno())),
			Notify: proto.Int32(int32(t.GetItSigevNotify() &^ sigevThreadID)), Sigval: proto.Uint64(t.GetSivalPtr()), Overrun: proto.Uint32(t.GetOverrun()),
			ValueNs: proto.Uint64(t.GetVsec()*1e9 + t.GetVnsec()), IntervalNs: proto.Uint64(t.GetIsec()*1e9 + t.GetInsec()),
		}
		if t.GetItSigevNotify()&sigevThreadID != 0 && t.NotifyThreadId != nil {
			p.Thread = proto.Uint32(uint32(t.GetNotifyThreadId()))
		}
		x.Timers = append(x.Timers, p)
	}
	// The kernel lists the newest first, and so does an image.
	for i, j := 0, len(x.Timers)-1; i < j; i, j = i+1, j-1 {
		x.Timers[i], x.Timers[j] = x.Timers[j], x.Timers[i]
	}
	return x
}

func threadExtra(tid int, c *criu_core.CoreEntry) (*fm.ThreadExtra, error) {
	t := c.GetThreadCore()
	state, err := putTogether(c.GetThreadInfo().GetFpregs())
	if err != nil {
		return nil, fault.Wrap(fault.ErrRefused, err)
	}
	flags := uint64(0)
	if t.GetSchedPolicy()&schedResetOnFork != 0 {
		flags = schedFlagReset
	}
	return &fm.ThreadExtra{
		Tid: proto.Uint32(uint32(tid)), Xstate: state, Affinity: []byte{}, Ioprio: proto.Uint32(0),
		Sched: &fm.SchedAttr{
			Policy: proto.Uint32(t.GetSchedPolicy() &^ schedResetOnFork), Flags: proto.Uint64(flags), Nice: proto.Int32(t.GetSchedNice()), Priority: proto.Uint32(t.GetSchedPrio()),
			Runtime: proto.Uint64(0), Deadline: proto.Uint64(0), Period: proto.Uint64(0), UtilMin: proto.Uint32(0), UtilMax: proto.Uint32(0),
		},
		TidAddress: proto.Uint64(c.GetThreadInfo().GetClearTidAddr()), TimerSlack: proto.Uint64(0),
	}, nil
}

const (
	vmaSysV = 1 << 10 // System V shared memory
	vmaSock = 1 << 11 // a packet socket's ring
	vmaAIO  = 1 << 13 // the ring of an AIO context
	vmaShst = 1 << 15 // a shadow stack
)

// mmExtra puts a memory map into the form of an image, and gives what belongs
// beside it.
func (s *Source) mmExtra(pid int, m *mm.MmEntry) (*fm.MmExtra, error) {
	own, err := image.All[*fm.MmExtra](s.extra, image.Of("mm-extra", pid))
	if err != nil {
		return nil, err
	}
	m.Vmas = splitVvar(m.Vmas)
	vmas := m.Vmas[:0]
	x := &fm.MmExtra{MapCount: proto.Uint32(uint32(len(m.Vmas)))}
	for _, v := range m.Vmas {
		status, flags := v.GetStatus(), v.GetFlags()
		if status&collect.VMAVsyscall != 0 {
			continue // the kernel's own, in every task
		}
		for bit, what := range map[uint32]string{
			vmaSysV: "a System V shared memory segment", vmaSock: "a socket's ring", vmaAIO: "the ring of an AIO context", vmaShst: "a shadow stack",
		} {
			if status&bit != 0 && !s.Own {
				return nil, fault.Errorf(fault.ErrRefused, "area %#x-%#x is %s, which cannot be restored from these images", v.GetStart(), v.GetEnd(), what)
			}
		}
		if status&vmaGuard != 0 {
			if x.Guards == nil {
				x.Guards = &fm.PageRuns{}
			}
			add(x.Guards, v.GetStart(), v.GetStart(), (v.GetEnd()-v.GetStart())/sys.PageSize)
			continue
		}
		e := &fm.VmaExtra{}
		var vf procfs.VMFlags
		if status&(collect.VMAVdso|collect.VMAVvar) != 0 {
			status &^= collect.VMAAnonPrivate
			flags &^= unix.MAP_ANONYMOUS
			if status&collect.VMAVvar != 0 {
				e.Name = proto.String("[vvar]")
			}
		}
		for _, f := range []struct {
			flag uint32
			vm   procfs.VMFlags
		}{{unix.MAP_LOCKED, procfs.VMLocked}, {unix.MAP_GROWSDOWN, procfs.VMGrowsDown}, {unix.MAP_NORESERVE, procfs.VMNoReserve}, {unix.MAP_HUGETLB, procfs.VMHugeTLB}} {
			if flags&f.flag != 0 {
				vf |= f.vm
			}
		}
		if v.GetMadv()>>unix.MADV_DONTFORK&1 != 0 {
			vf |= procfs.VMDontCopy
		}
		if v.GetMadv()>>unix.MADV_WIPEONFORK&1 != 0 {
			vf |= procfs.VMWipeOnFork
		}
		flags &^= unix.MAP_LOCKED
		if flags&unix.MAP_HUGETLB != 0 {
			if n := flags >> mapHugeShift; n != 0 {
				e.HugeShift = proto.Uint32(n)
			}
			flags &= 1<<mapHugeShift - 1
		}
		e.Vmflags = proto.Uint64(uint64(vf))
		v.Status, v.Flags = proto.Uint32(status), proto.Uint32(flags)
		vmas, x.Vmas = append(vmas, v), append(x.Vmas, e)
	}
	m.Vmas = vmas
	if len(own) == 1 && len(own[0].GetVmas()) == len(vmas) {
		return own[0], nil
	}
	return x, nil
}

// splitVvar cuts the data area of the vdso as this kernel has it: CRIU saves
// neighbours as one.
func splitVvar(vmas []*vma.VmaEntry) (out []*vma.VmaEntry) {
	var sizes []uint64
	var total uint64
	maps, err := procfs.ReadMaps(os.Getpid())
	if err != nil {
		return vmas
	}
	for _, m := range maps {
		if strings.HasPrefix(m.Path, "[vvar") {
			sizes = append(sizes, m.End-m.Start)
			total += m.End - m.Start
		}
	}
	for _, v := range vmas {
		if v.GetStatus()&collect.VMAVvar == 0 || len(sizes) < 2 || v.GetEnd()-v.GetStart() != total {
			out = append(out, v)
			continue
		}
		at := v.GetStart()
		for _, n := range sizes {
			p := proto.CloneOf(v)
			p.Start, p.End = proto.Uint64(at), proto.Uint64(at+n)
			out = append(out, p)
			at += n
		}
	}
	return out
}

// objects makes the records of shared memory: of memfds, and of anonymous
// objects, which newer versions of CRIU write as memfds of this name.
const anonymousName = "/dev/zero"

func (s *Source) objects() error {
	own := map[uint64]*fm.ShmObject{}
	known, err := image.All[*fm.ShmObject](s.extra, "shm")
	if err != nil {
		return err
	}
	for _, o := range known {
		switch o.GetKind() {
		case collect.ShmAnon:
			own[anonID(o.GetId())] = o
		case collect.ShmSysV:
			if err := s.object(proto.CloneOf(o), sysvID(o.GetId())); err != nil {
				return err
			}
		}
	}
	inodes, err := image.All[*memfd.MemfdInodeEntry](s.Image, "memfd-inodes")
	if err != nil {
		return err
	}
	anonymous := map[uint32]*memfd.MemfdInodeEntry{} // by inode id
	for _, i := range inodes {
		if i.GetName() == anonymousName && !s.Own {
			anonymous[uint32(i.GetInodeId())] = i
			continue
		}
		if i.Mode == nil {
			i.Mode = proto.Uint32(0o777)
		}
		o := &fm.ShmObject{
			Id: proto.Uint64(i.GetInodeId()), Size: proto.Uint64(i.GetSize()), Dev: proto.Uint64(0), Ino: proto.Uint64(0), Kind: proto.Uint32(collect.ShmMemfd),
		}
		if err := s.object(o, uint64(i.GetShmid())); err != nil {
			return err
		}
	}
	behind := map[uint32]*memfd.MemfdInodeEntry{} // by file
	for _, f := range s.files {
		if f.Memfd != nil && anonymous[f.Memfd.GetInodeId()] != nil {
			behind[f.GetId()] = anonymous[f.Memfd.GetInodeId()]
		}
	}
	size := map[uint64]uint64{}
	var order []uint64
	for _, pid := range s.Image.NamesOf("mm") {
		m, err := image.One[*mm.MmEntry](s.Image, image.Of("mm", pid))
		if err != nil {
			return err
		}
		for _, v := range m.GetVmas() {
			if i := behind[uint32(v.GetShmid())]; i != nil && v.GetStatus()&collect.VMAMemfd != 0 {
				v.Status = proto.Uint32(v.GetStatus()&^(collect.VMAMemfd|collect.VMAFileShared|collect.VMAFilePrivate) | collect.VMAAnonShared)
				if v.GetFlags()&unix.MAP_SHARED != 0 {
					v.Flags = proto.Uint32(v.GetFlags() | unix.MAP_ANONYMOUS)
				}
				v.Shmid, v.Fdflags = proto.Uint64(uint64(i.GetShmid())), nil
				size[v.GetShmid()] = i.GetSize()
			}
			if v.GetStatus()&collect.VMAAnonShared == 0 {
				continue
			}
			id := v.GetShmid()
			if _, ok := size[id]; !ok {
				size[id] = 0
			}
			if end := v.GetPgoff() + v.GetEnd() - v.GetStart(); end > size[id] {
				size[id] = end
			}
			order = append(order, id)
		}
	}
	done := map[uint64]bool{}
	for _, id := range order {
		if done[id] {
			continue
		}
		done[id] = true
		o := &fm.ShmObject{Id: proto.Uint64(id), Size: proto.Uint64(size[id]), Dev: proto.Uint64(0), Ino: proto.Uint64(0), Kind: proto.Uint32(collect.ShmAnon)}
		if k := own[id]; k != nil {
			o.Size, o.HugeShift = k.Size, k.HugeShift
		}
		if err := s.object(o, id); err != nil {
			return err
		}
	}
	s.dropAnonymous(behind)
	return nil
}

func (s *Source) object(o *fm.ShmObject, shmid uint64) (err error) {
	if o.Pages, err = s.pagemap(s.dir, fmt.Sprintf("pagemap-shmem-%d.img", shmid), 0); err != nil {
		return err
	}
	s.Image.Add("shm", o)
	return nil
}

// writable gives a mapping that may write a file which its entry has open for
// reading only: the schema says that of the mapping (fdflags), not of the file.
func (s *Source) writable() error {
	last := uint32(0)
	by := map[uint32]*fdinfo.FileEntry{}
	for _, f := range s.files {
		last = max(last, f.GetId())
		by[f.GetId()] = f
	}
	made := map[uint32]uint32{}
	s.clones = made
	for _, pid := range s.Image.NamesOf("mm") {
		m, err := image.One[*mm.MmEntry](s.Image, image.Of("mm", pid))
		if err != nil {
			return err
		}
		for _, v := range m.GetVmas() {
			f := by[uint32(v.GetShmid())]
			if f == nil || v.GetFlags()&unix.MAP_SHARED == 0 || v.GetStatus()&(collect.VMAFileShared|collect.VMAMemfd) == 0 ||
				v.Fdflags == nil || v.GetFdflags()&unix.O_ACCMODE != unix.O_RDWR || (f.GetReg().GetFlags()|f.GetMemfd().GetFlags())&unix.O_ACCMODE == unix.O_RDWR {
				continue
			}
			id := made[f.GetId()]
			if id == 0 {
				last++
				id = last
				made[f.GetId()] = id
				w := proto.CloneOf(f)
				w.Id = proto.Uint32(id)
				if w.Reg != nil {
					w.Reg.Id, w.Reg.Flags = w.Id, v.Fdflags
				}
				if w.Memfd != nil {
					w.Memfd.Id, w.Memfd.Flags = w.Id, v.Fdflags
				}
				s.files = append(s.files, w)
			}
			v.Shmid = proto.Uint64(uint64(id))
		}
	}
	return nil
}

// dropAnonymous removes the files that only mappings of anonymous memory had.
func (s *Source) dropAnonymous(behind map[uint32]*memfd.MemfdInodeEntry) {
	if len(behind) == 0 {
		return
	}
	all, err := image.All[*fdinfo.FileEntry](s.Image, "files")
	if err != nil {
		return
	}
	s.Image.Drop("files")
	for _, f := range all {
		if behind[f.GetId()] == nil {
			s.Image.Add("files", f)
		}
	}
}

// complete fills in what an image has of a file that CRIU dumped.
func (s *Source) complete(f *fdinfo.FileEntry, x *fm.FileExtra) error {
	if f.Reg != nil && x.Fstype == nil && (f.Reg.GetName() == "/proc" || strings.HasPrefix(f.Reg.GetName(), "/proc/")) {
		x.Fstype = proto.String("proc")
	}
	return nil
}

func nanoseconds(t *criutime.Timeval) *int64 {
	if t == nil {
		return nil
	}
	return proto.Int64(int64(t.GetTvSec())*1e9 + int64(t.GetTvUsec())*1e3)
}

// skip passes over bytes of a file.
func (r *reader) skip(n int64) error {
	if n < 0 || n > r.size-r.at {
		return fault.Errorf(fault.ErrDamaged, "%s: truncated", r.name)
	}
	k, err := io.CopyN(io.Discard, r.r, n)
	r.at += k
	return err
}

// without leaves out the pages of the kernel's own areas.
func without(r *fm.PageRuns, vmas []*vma.VmaEntry) *fm.PageRuns {
	out := &fm.PageRuns{}
	for i, at := range r.GetVaddr() {
		special := false
		for _, v := range vmas {
			if v.GetStatus()&(collect.VMAVdso|collect.VMAVvar) != 0 && at >= v.GetStart() && at < v.GetEnd() {
				special = true
			}
		}
		if !special {
			out.Vaddr, out.Pages, out.Off = append(out.Vaddr, at), append(out.Pages, r.GetPages()[i]), append(out.Off, r.GetOff()[i])
		}
	}
	return out
}
