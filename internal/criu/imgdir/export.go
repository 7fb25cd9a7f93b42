package imgdir

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/cgroup"
	core_x86 "github.com/checkpoint-restore/go-criu/v8/crit/images/core-x86"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	filelock "github.com/checkpoint-restore/go-criu/v8/crit/images/file-lock"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fown"
	ghostfile "github.com/checkpoint-restore/go-criu/v8/crit/images/ghost-file"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	remapfilepath "github.com/checkpoint-restore/go-criu/v8/crit/images/remap-file-path"
	tcpstream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timens"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timer"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
)

// Export writes the metadata of a checkpoint into dir, the inventory last. The
// pages are written before, by WritePages; contents of deleted files lie below
// dir under the names that the image has for them.
func Export(im *image.Image, dir, runID string) error {
	e := &exporter{im: im, dir: dir, runID: runID}
	for _, step := range []func() error{e.prepare, e.plain, e.cores, e.mms, e.ghosts, e.extra, e.timens, e.inventory} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// ExportPages makes dir, with the pages in it, a directory to build upon.
func ExportPages(im *image.Image, dir, runID string) error {
	e := &exporter{im: im, dir: dir, runID: runID}
	return e.inventory()
}

type exporter struct {
	im         *image.Image
	dir, runID string
	manifest   *fm.Manifest
	files      []*fdinfo.FileEntry
	flags      map[uint32]uint32 // open flags of the files
	links      []*remapfilepath.RemapFilePathEntry
	groups     *cgroup.CgroupEntry
	rootSet    uint32
}

// prepare reads the files' entries and adds those that stand for removed names.
func (e *exporter) prepare() (err error) {
	if e.manifest, err = image.One[*fm.Manifest](e.im, "manifest"); err != nil {
		return err
	}
	if e.files, err = image.All[*fdinfo.FileEntry](e.im, "files"); err != nil {
		return err
	}
	extras, err := image.All[*fm.FileExtra](e.im, "file-extra")
	if err != nil {
		return err
	}
	link := map[uint32]string{}
	for _, x := range extras {
		link[x.GetId()] = x.GetLinkPath()
	}
	e.flags = map[uint32]uint32{}
	byID := map[uint32]*fdinfo.FileEntry{}
	last := uint32(0)
	for _, f := range e.files {
		last = max(last, f.GetId())
		byID[f.GetId()] = f
		e.flags[f.GetId()] = f.GetReg().GetFlags() | f.GetMemfd().GetFlags()
	}
	if e.links, err = image.All[*remapfilepath.RemapFilePathEntry](e.im, "remap-file-path"); err != nil {
		return err
	}
	var moved map[uint32]uint32
	e.files, moved = splitFifos(e.files)
	for _, f := range e.files {
		last = max(last, f.GetId())
	}
	for i, r := range e.links {
		if id := moved[r.GetOrigId()]; id != 0 {
			r = proto.CloneOf(r)
			byID[id] = byID[r.GetOrigId()]
			link[id] = link[r.GetOrigId()]
			r.OrigId = proto.Uint32(id)
			e.links[i] = r
		}
		f := byID[r.GetOrigId()]
		if r.GetRemapType() != remapfilepath.RemapType_LINKED || f == nil || link[r.GetOrigId()] == "" {
			continue
		}
		last++
		other := &fdinfo.FileEntry{Type: fdinfo.FdTypes_REG.Enum(), Id: proto.Uint32(last)}
		other.Reg = &regfile.RegFileEntry{
			Id: other.Id, Flags: proto.Uint32(0), Pos: proto.Uint64(0), Fown: noOwner(),
			Name: proto.String(link[r.GetOrigId()]), Mode: f.GetReg().Mode, Size: f.GetReg().Size,
		}
		e.files = append(e.files, other)
		r = proto.CloneOf(r)
		r.RemapId = other.Id
		e.links[i] = r
	}
	return nil
}

func noOwner() *fown.FownEntry {
	z := proto.Uint32(0)
	return &fown.FownEntry{Uid: z, Euid: z, Signum: z, PidType: z, Pid: z}
}

// plain writes the parts that are files as they are.
func (e *exporter) plain() error {
	for _, name := range e.im.Names() {
		k := kindOf(name)
		if k == nil || k.part == "core/" {
			continue
		}
		recs, err := e.im.Records(name)
		if err != nil {
			return err
		}
		switch k.part {
		case "files":
			recs = recs[:0:0]
			for _, f := range e.files {
				recs = append(recs, image.Record{Msg: f})
			}
		case "cgroup":
			if err := e.rootGroups(recs); err != nil {
				return err
			}
			recs = []image.Record{{Msg: e.groups}}
		case "remap-file-path":
			recs = recs[:0:0]
			for _, r := range e.links {
				recs = append(recs, image.Record{Msg: r})
			}
		}
		to, err := k.name(strings.TrimPrefix(name, k.part))
		if err != nil {
			return err
		}
		o, err := create(e.dir, to, k.magic)
		if err != nil {
			return err
		}
		for _, r := range recs {
			m := r.Msg
			if x, ok := m.(*memfd.MemfdInodeEntry); ok && x.Shmid == nil {
				x.Shmid = proto.Uint32(uint32(x.GetInodeId()))
			}
			switch x := m.(type) {
			case *filelock.FileLockEntry:
				m = exportLock(x)
			case *tcpstream.TcpStreamEntry:
				m = timestamped(x)
			}
			o.add(m, r.Payload)
		}
		if err := o.close(); err != nil {
			return err
		}
	}
	return nil
}

// rootGroups finds which of the sets of control groups is this process's own,
// and adds it when there is none: tasks of that set are left where they are.
func (e *exporter) rootGroups(recs []image.Record) error {
	for _, r := range recs {
		if g, ok := r.Msg.(*cgroup.CgroupEntry); ok {
			e.groups = proto.CloneOf(g)
		}
	}
	own, err := procfs.ReadCgroup(os.Getpid(), 0)
	if err != nil {
		return err
	}
	mine := &cgroup.CgSetEntry{}
	for _, o := range own {
		mine.Ctls = append(mine.Ctls, &cgroup.CgMemberEntry{Name: proto.String(strings.Join(o.Controllers, ",")), Path: proto.String(o.Path)})
	}
	last := uint32(0)
	for _, c := range e.groups.GetControllers() {
		if len(c.Cnames) == 0 {
			c.Cnames = []string{""} // version 2 has no name
		}
	}
	for _, s := range e.groups.GetSets() {
		mine.Id = s.Id
		if proto.Equal(mine, s) {
			e.rootSet = s.GetId()
			return nil
		}
		last = max(last, s.GetId())
	}
	e.rootSet = last + 1
	mine.Id = proto.Uint32(e.rootSet)
	e.groups.Sets = append(e.groups.Sets, mine)
	return nil
}

func kindOf(part string) *kind {
	for i := range kinds {
		k := &kinds[i]
		if part == k.part || k.numbered() && strings.HasPrefix(part, k.part) {
			return k
		}
	}
	return nil
}

// Ids of namespaces, as CRIU numbers them when all are its own.
const (
	nsPid = 1 + iota
	nsNet
	nsIpc
	nsUts
	nsTime
	nsMnt
	nsUser
	nsCgroup
)

func withNamespaces(ids *criu_core.TaskKobjIdsEntry) *criu_core.TaskKobjIdsEntry {
	u := proto.Uint32
	ids = proto.CloneOf(ids)
	ids.PidNsId, ids.NetNsId, ids.IpcNsId, ids.UtsNsId = u(nsPid), u(nsNet), u(nsIpc), u(nsUts)
	ids.TimeNsId, ids.MntNsId, ids.UserNsId, ids.CgroupNsId = u(nsTime), u(nsMnt), u(nsUser), u(nsCgroup)
	return ids
}

// cores writes the cores, and the ids of each process apart.
func (e *exporter) cores() error {
	for _, tid := range e.im.NamesOf("core") {
		c, err := image.One[*criu_core.CoreEntry](e.im, image.Of("core", tid))
		if err != nil {
			return err
		}
		c = proto.CloneOf(c)
		if err := e.core(tid, c); err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
		if c.Ids != nil {
			if err := writeOne(e.dir, fmt.Sprintf("ids-%d.img", tid), "IDS", withNamespaces(c.Ids)); err != nil {
				return err
			}
			c.Ids = nil
		}
		if err := writeOne(e.dir, fmt.Sprintf("core-%d.img", tid), "CORE", c); err != nil {
			return err
		}
	}
	return nil
}

func (e *exporter) core(tid int, c *criu_core.CoreEntry) error {
	if tc := c.Tc; tc != nil {
		if tc.BlkSigset == nil {
			tc.BlkSigset = proto.Uint64(0)
		}
		if tc.Personality == nil {
			tc.Personality = proto.Uint32(0)
		}
		x, err := image.One[*fm.TaskExtra](e.im, image.Of("task-extra", tid))
		if err != nil {
			return err
		}
		if len(x.GetTimers()) > 0 {
			if tc.Timers == nil {
				tc.Timers = &timer.TaskTimersEntry{}
			}
			for _, t := range x.Timers {
				tc.Timers.Posix = append(tc.Timers.Posix, posixTimer(t))
			}
		}
		if tc.GetTaskState() == collect.StateDead {
			if c.Mtype == nil {
				c.Mtype = criu_core.CoreEntry_X86_64.Enum()
			}
			c.ThreadCore, c.ThreadInfo = nil, nil
			return nil
		}
	}
	x, err := image.One[*fm.ThreadExtra](e.im, image.Of("thread-extra", tid))
	if err != nil {
		return err
	}
	if t := c.ThreadCore; t != nil && x.GetSched().GetFlags()&schedFlagReset != 0 {
		t.SchedPolicy = proto.Uint32(t.GetSchedPolicy() | schedResetOnFork)
	}
	if c.ThreadInfo != nil {
		if c.ThreadInfo.Fpregs, err = takeApart(x.GetXstate()); err != nil {
			return err
		}
		c.ThreadInfo.Tls = noTLS()
	}
	if g := c.GetThreadInfo().GetGpregs(); g != nil && int64(g.GetOrigAx()) >= 0 {
		switch int64(g.GetAx()) {
		case restartSys, restartNoIntr, restartNoHand:
			reissue(g, g.GetOrigAx())
		case restartBlock:
			// The schema has no field for the block: the call begins anew, unless
			// the extra file is there.
			nr := g.GetOrigAx()
			if r := x.GetRestart().GetNr(); r != 0 {
				nr = uint64(r)
			}
			reissue(g, nr)
		}
	}
	return nil
}

// Results of an interrupted system call that the kernel issues again by itself
// (include/linux/errno.h).
const (
	restartSys    = -512
	restartNoIntr = -513
	restartNoHand = -514
	restartBlock  = -516
)

// syscallSize is the length of the instruction.
const syscallSize = 2

// reissue sets registers back to before a system call.
func reissue(g *core_x86.UserX86RegsEntry, nr uint64) {
	g.Ax, g.Ip = proto.Uint64(nr), proto.Uint64(g.GetIp()-syscallSize)
}

func posixTimer(t *fm.PosixTimer) *timer.PosixTimerEntry {
	p := &timer.PosixTimerEntry{
		ItId: proto.Uint32(uint32(t.GetId())), ClockId: proto.Uint32(uint32(t.GetClock())), SiSigno: proto.Uint32(uint32(t.GetSigno())),
		ItSigevNotify: proto.Uint32(uint32(t.GetNotify())), SivalPtr: proto.Uint64(t.GetSigval()), Overrun: proto.Uint32(t.GetOverrun()),
		Isec: proto.Uint64(t.GetIntervalNs() / 1e9), Insec: proto.Uint64(t.GetIntervalNs() % 1e9),
		Vsec: proto.Uint64(t.GetValueNs() / 1e9), Vnsec: proto.Uint64(t.GetValueNs() % 1e9),
	}
	if t.Thread != nil {
		p.ItSigevNotify = proto.Uint32(uint32(t.GetNotify()) | sigevThreadID)
		p.NotifyThreadId = proto.Int32(int32(t.GetThread()))
	}
	return p
}

const sigevThreadID = 4 // SIGEV_THREAD_ID

// mms writes the memory maps.
func (e *exporter) mms() error {
	for _, pid := range e.im.NamesOf("mm") {
		m, err := image.One[*mm.MmEntry](e.im, image.Of("mm", pid))
		if err != nil {
			return err
		}
		x, err := image.One[*fm.MmExtra](e.im, image.Of("mm-extra", pid))
		if err != nil {
			return err
		}
		m = proto.CloneOf(m)
		for i := 0; i+1 < len(m.MmSavedAuxv); i += 2 {
			if m.MmSavedAuxv[i] == 0 { // AT_NULL; the rest is padding
				m.MmSavedAuxv = m.MmSavedAuxv[:i]
			}
		}
		for i, v := range m.Vmas {
			status, flags := v.GetStatus(), v.GetFlags()
			vx := x.GetVmas()[i]
			switch {
			case status&(collect.VMAVdso|collect.VMAVvar) != 0:
				status |= collect.VMAAnonPrivate
				flags |= unix.MAP_ANONYMOUS
			case status&collect.VMAAnonShared != 0:
				v.Shmid = proto.Uint64(anonID(v.GetShmid()))
			case status&(collect.VMAFilePrivate|collect.VMAFileShared) != 0:
				v.Fdflags = proto.Uint32(e.flags[uint32(v.GetShmid())])
			}
			if procfs.VMFlags(vx.GetVmflags())&procfs.VMLocked != 0 {
				flags |= unix.MAP_LOCKED
			}
			if flags&unix.MAP_HUGETLB != 0 {
				flags |= vx.GetHugeShift() << mapHugeShift
			}
			v.Status, v.Flags = proto.Uint32(status), proto.Uint32(flags)
		}
		m.Vmas = withGuards(joinVvar(m.Vmas), x.GetGuards())
		if err := writeOne(e.dir, fmt.Sprintf("mm-%d.img", pid), "MM", m); err != nil {
			return err
		}
	}
	return nil
}

// joinVvar makes one area of neighbours that belong to the vdso's data, as CRIU
// saves them; splitVvar is the reverse.
func joinVvar(vmas []*vma.VmaEntry) (out []*vma.VmaEntry) {
	for _, v := range vmas {
		if l := len(out) - 1; l >= 0 && v.GetStatus()&out[l].GetStatus()&collect.VMAVvar != 0 && out[l].GetEnd() == v.GetStart() {
			out[l].End = v.End
			continue
		}
		out = append(out, v)
	}
	return out
}

const mapHugeShift = 26 // MAP_HUGE_SHIFT

// ghosts writes removed files with their content, data only.
func (e *exporter) ghosts() error {
	extras, err := image.All[*fm.FileExtra](e.im, "file-extra")
	if err != nil {
		return err
	}
	by := map[uint32]*fm.FileExtra{}
	for _, x := range extras {
		by[x.GetId()] = x
	}
	for _, id := range e.im.NamesOf("ghost-file") {
		g, err := image.One[*ghostfile.GhostFileEntry](e.im, image.Of("ghost-file", id))
		if err != nil {
			return err
		}
		g = proto.CloneOf(g)
		x := by[uint32(id)]
		if x.GetSaved() != "" {
			g.Chunks, g.Size = proto.Bool(true), proto.Uint64(g.GetSize())
		} else {
			g.Chunks, g.Size = nil, nil
		}
		if x.Dev != nil {
			g.Dev = proto.Uint32(uint32(x.GetDev()))
		}
		o, err := create(e.dir, fmt.Sprintf("ghost-file-%x.img", id), "GHOST_FILE")
		if err != nil {
			return err
		}
		o.add(g, nil)
		if x.GetSaved() != "" {
			if err := e.content(o, x); err != nil {
				o.close()
				return err
			}
		}
		if err := o.close(); err != nil {
			return err
		}
	}
	return nil
}

func (e *exporter) content(o *file, x *fm.FileExtra) error {
	f, err := os.Open(filepath.Join(e.dir, x.GetSaved()))
	if err != nil {
		return err
	}
	defer f.Close()
	for _, r := range x.GetExtents() {
		o.add(&ghostfile.GhostChunkEntry{Len: proto.Uint64(r.GetLen()), Off: proto.Uint64(r.GetOff())}, nil)
		if o.err != nil {
			return o.err
		}
		if _, err := io.CopyN(o.w, f, int64(r.GetLen())); err != nil {
			return err
		}
	}
	return nil
}

// extra writes what the schema has no field for.
func (e *exporter) extra() error {
	own := image.New()
	for _, name := range e.im.Names() {
		if strings.HasPrefix(name, "pages/") || name == "shm" || strings.HasPrefix(name, "mm/") || strings.HasPrefix(name, "ghost-file/") || kindOf(name) != nil {
			continue // in files of their own
		}
		recs, err := e.im.Records(name)
		if err != nil {
			return err
		}
		for _, r := range recs {
			m := r.Msg
			if name == "manifest" {
				c := proto.CloneOf(m.(*fm.Manifest))
				c.Stores, c.Saved = nil, nil
				c.Notes = []string{runIDNote + e.runID}
				m = c
			}
			own.Add(name, m, r.Payload...)
		}
	}
	shm, err := image.All[*fm.ShmObject](e.im, "shm")
	if err != nil {
		return err
	}
	for _, s := range shm {
		s = proto.CloneOf(s)
		s.Pages = &fm.PageRuns{}
		own.Add("shm", s)
	}
	b, err := own.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.dir, ExtraName), b, 0o600)
}

// runIDNote begins the note that ties the extra file to the inventory beside it.
const runIDNote = "run "

func (e *exporter) timens() error {
	at := func(ns int64) *timens.Timespec {
		return &timens.Timespec{TvSec: proto.Uint64(uint64(ns / 1e9)), TvNsec: proto.Uint64(uint64(ns % 1e9))}
	}
	return writeOne(e.dir, "timens-0.img", "TIMENS", &timens.TimensEntry{
		Monotonic: at(e.manifest.GetMonotonicNs()), Boottime: at(e.manifest.GetBoottimeNs()),
	})
}

// imageVersion is that of the directory's format: every file but the inventory
// begins with two magic numbers.
const imageVersion = 2

func (e *exporter) inventory() error {
	u := proto.Uint32
	inv := &inventory.InventoryEntry{
		ImgVersion: u(imageVersion), FdinfoPerId: proto.Bool(true), NsPerId: proto.Bool(true),
		RootIds:       withNamespaces(&criu_core.TaskKobjIdsEntry{VmId: u(0), FilesId: u(0), FsId: u(0), SighandId: u(0)}),
		Lsmtype:       inventory.Lsmtype_NO_LSM.Enum(),
		PluginsEntry:  &inventory.PluginsEntry{},
		DumpCriuRunId: proto.String(e.runID),
	}
	if e.rootSet != 0 {
		inv.RootCgSet = u(e.rootSet)
	}
	return writeOne(e.dir, InventoryName, "INVENTORY", inv)
}

// noTLS gives the three unused entries of the thread's part of the GDT.
func noTLS() (out []*core_x86.UserDescT) {
	f, z := proto.Bool(false), proto.Uint32(0)
	for i := uint32(12); i <= 14; i++ {
		out = append(out, &core_x86.UserDescT{
			EntryNumber: proto.Uint32(i), BaseAddr: z, Limit: z, Seg_32Bit: f, ContentsH: f, ContentsL: f,
			ReadExecOnly: proto.Bool(true), LimitInPages: f, SegNotPresent: proto.Bool(true), Usable: f,
		})
	}
	return out
}
