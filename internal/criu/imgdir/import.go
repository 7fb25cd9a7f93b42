package imgdir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	filelock "github.com/checkpoint-restore/go-criu/v8/crit/images/file-lock"
	ghostfile "github.com/checkpoint-restore/go-criu/v8/crit/images/ghost-file"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	remapfilepath "github.com/checkpoint-restore/go-criu/v8/crit/images/remap-file-path"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timens"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timer"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
)

// Source is an image directory, read: what a restore needs.
type Source struct {
	Image *image.Image
	// Store has the pages; close it.
	Store *pagestore.Store
	// Own: fermata wrote the directory, and what the schema has no field for
	// is there.
	Own bool

	dir    string
	stores []string          // pages files
	bases  map[string]uint64 // where they begin in the store
	size   uint64
	saved  map[string][]section
	files  []*fdinfo.FileEntry
	inv    *inventory.InventoryEntry
	extra  *image.Image
	clones map[uint32]uint32 // files that stand for others: see writable
}

// section is a part of a file of the directory.
type section struct{ at, len int64 }

// Import reads an image directory. Errors: fault.ErrNotFound, fault.ErrDamaged,
// and fault.ErrRefused for what the engine cannot make.
func Import(dir string) (_ *Source, err error) {
	s := &Source{Image: image.New(), dir: dir, bases: map[string]uint64{}, saved: map[string][]section{}, inv: &inventory.InventoryEntry{}}
	defer func() {
		if err != nil && s.Store != nil {
			s.Store.Close()
		}
	}()
	ok, err := readOne(dir, InventoryName, "INVENTORY", s.inv)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.Errorf(fault.ErrNotFound, "no images at %s: there is no %s", dir, InventoryName)
	}
	if v := s.inv.GetImgVersion(); v < 1 || v > imageVersion {
		return nil, fault.Errorf(fault.ErrDamaged, "%s: image version %d; this fermata reads 1 and 2", dir, v)
	}
	for _, step := range []func() error{s.readExtra, s.plain, s.tasks, s.openFiles, s.writable, s.ghosts, s.objects, s.locks, s.manifest, s.openStore, s.share} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Saved opens the content of a deleted file: its data, without the holes.
func (s *Source) Saved(name string) (io.ReadCloser, error) {
	parts, ok := s.saved[name]
	if !ok {
		return nil, fault.Errorf(fault.ErrDamaged, "no content %q", name)
	}
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	var rs []io.Reader
	for _, p := range parts {
		rs = append(rs, io.NewSectionReader(f, p.at, p.len))
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(rs...), f}, nil
}

// readExtra reads fermata's own parts, if they were written with these images.
func (s *Source) readExtra() error {
	s.extra = image.New()
	b, err := os.ReadFile(filepath.Join(s.dir, ExtraName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	own, err := image.Decode(b)
	if err != nil {
		return fmt.Errorf("%s/%s: %w", s.dir, ExtraName, err)
	}
	m, err := image.One[*fm.Manifest](own, "manifest")
	if err != nil {
		return err
	}
	if n := m.GetNotes(); s.inv.DumpCriuRunId == nil || len(n) == 0 || n[0] != runIDNote+s.inv.GetDumpCriuRunId() {
		return nil // left by an earlier dump into this directory
	}
	s.extra, s.Own = own, true
	for _, name := range own.Names() {
		switch name {
		case "manifest", "shm", "file-extra", "file-lock-files":
			continue
		}
		if strings.HasPrefix(name, "mm-extra/") {
			continue
		}
		recs, err := own.Records(name)
		if err != nil {
			return err
		}
		for _, r := range recs {
			s.Image.Add(name, r.Msg, r.Payload...)
		}
	}
	return nil
}

// plain reads the files that are parts as they are.
func (s *Source) plain() error {
	for i := range kinds {
		k := &kinds[i]
		if !k.numbered() && k.part != "files" && k.part != "remap-file-path" {
			if err := s.part(k, k.part, k.file+".img"); err != nil {
				return err
			}
		}
	}
	// Streams are found by their names: the number is in the sockets' entries.
	names, err := filepath.Glob(filepath.Join(s.dir, "tcp-stream-*.img"))
	if err != nil {
		return err
	}
	for _, n := range names {
		n = filepath.Base(n)
		id, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(n, "tcp-stream-"), ".img"), 16, 32)
		if err != nil {
			continue
		}
		if err := s.part(kindOf("tcp-stream/"), image.Of("tcp-stream", int(id)), n); err != nil {
			return err
		}
	}
	return nil
}

// part reads a file into a part.
func (s *Source) part(k *kind, part, file string) error {
	r, err := open(s.dir, file, k.magic)
	if r == nil || err != nil {
		return err
	}
	defer r.close()
	for {
		m := k.message()
		ok, err := r.next(m)
		if !ok || err != nil {
			return err
		}
		var payload []byte
		if k.payload != nil {
			if payload, err = r.take(k.payload(m)); err != nil {
				return err
			}
		}
		if l, ok := m.(*filelock.FileLockEntry); ok {
			importLock(l)
		}
		s.Image.Add(part, m, payload...)
	}
}

func (s *Source) has(part string) bool {
	recs, err := s.Image.Records(part)
	return err == nil && len(recs) > 0
}

// tasks reads what there is of each process.
func (s *Source) tasks() error {
	entries, err := image.All[*pstree.PstreeEntry](s.Image, "pstree")
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fault.Errorf(fault.ErrDamaged, "%s: no tasks", s.dir)
	}
	for _, e := range entries {
		if err := s.task(e); err != nil {
			return fmt.Errorf("pid %d: %w", e.GetPid(), err)
		}
	}
	return nil
}

func (s *Source) task(e *pstree.PstreeEntry) error {
	pid := int(e.GetPid())
	leader, err := s.core(pid)
	if err != nil {
		return err
	}
	tc := leader.GetTc()
	if tc == nil {
		return fault.Errorf(fault.ErrDamaged, "its core has no process")
	}
	for _, t := range []*timer.ItimerEntry{tc.GetTimers().GetReal(), tc.GetTimers().GetVirt(), tc.GetTimers().GetProf()} {
		running(t)
	}
	if !s.has(image.Of("task-extra", pid)) {
		s.Image.Add(image.Of("task-extra", pid), taskExtra(pid, tc))
	}
	if tc.GetTaskState() == collect.StateDead {
		s.Image.Add(image.Of("core", pid), leader)
		return nil
	}
	ids := &criu_core.TaskKobjIdsEntry{}
	if ok, err := readOne(s.dir, fmt.Sprintf("ids-%d.img", pid), "IDS", ids); err != nil {
		return err
	} else if ok {
		leader.Ids = ids
	}
	if leader.Ids == nil {
		return fault.Errorf(fault.ErrDamaged, "no ids of its kernel objects")
	}
	for _, t := range e.GetThreads() {
		c := leader
		if int(t) != pid {
			if c, err = s.core(int(t)); err != nil {
				return err
			}
		}
		if err := s.thread(int(t), c, tc); err != nil {
			return fmt.Errorf("thread %d: %w", t, err)
		}
	}
	if err := s.part(kindOf("fs/"), image.Of("fs", pid), fmt.Sprintf("fs-%d.img", pid)); err != nil {
		return err
	}
	table := int(leader.Ids.GetFilesId())
	if !s.has(image.Of("fdinfo", table)) {
		if err := s.part(kindOf("fdinfo/"), image.Of("fdinfo", table), fmt.Sprintf("fdinfo-%d.img", table)); err != nil {
			return err
		}
	}
	return s.memory(pid)
}

// interrupted is -ERESTART_RESTARTBLOCK in a register.
const interrupted = 1<<64 + restartBlock

func (s *Source) core(tid int) (*criu_core.CoreEntry, error) {
	c := &criu_core.CoreEntry{}
	ok, err := readOne(s.dir, fmt.Sprintf("core-%d.img", tid), "CORE", c)
	if err == nil && !ok {
		err = fault.Errorf(fault.ErrDamaged, "%s: no core-%d.img", s.dir, tid)
	}
	if err == nil && c.GetMtype() != criu_core.CoreEntry_X86_64 && c.GetTc().GetTaskState() != collect.StateDead {
		err = fault.Errorf(fault.ErrRefused, "its registers are those of a machine of type %v, this one is %s", c.GetMtype(), runtime.GOARCH)
	}
	return c, err
}

// thread fills in what CRIU keeps in the process's part or leaves out.
func (s *Source) thread(tid int, c *criu_core.CoreEntry, tc *criu_core.TaskCoreEntry) error {
	t := c.ThreadCore
	if t == nil || c.ThreadInfo == nil {
		return fault.Errorf(fault.ErrDamaged, "its core has no thread")
	}
	if t.Comm == nil {
		t.Comm = tc.Comm
	}
	if t.BlkSigset == nil {
		t.BlkSigset = tc.BlkSigset
	}
	if t.CgSet == nil {
		t.CgSet = tc.CgSet
	}
	if t.Creds != nil && len(t.Creds.CapAmb) == 0 {
		t.Creds.CapAmb = []uint32{0, 0}
	}
	name := image.Of("thread-extra", tid)
	if !s.has(name) {
		x, err := threadExtra(tid, c)
		if err != nil {
			return err
		}
		s.Image.Add(name, x)
	} else if x, err := image.One[*fm.ThreadExtra](s.Image, name); err != nil {
		return err
	} else if r := x.GetRestart(); r != nil {
		// As it was before the call was set back.
		g := c.GetThreadInfo().GetGpregs()
		g.Ax, g.Ip = proto.Uint64(interrupted), proto.Uint64(g.GetIp()+syscallSize)
	}
	c.ThreadInfo.Fpregs, c.ThreadInfo.Tls = nil, nil
	s.Image.Add(image.Of("core", tid), c)
	return nil
}

// memory reads a memory map and its pages.
func (s *Source) memory(pid int) error {
	m := &mm.MmEntry{}
	ok, err := readOne(s.dir, fmt.Sprintf("mm-%d.img", pid), "MM", m)
	if !ok || err != nil {
		return err
	}
	x, err := s.mmExtra(pid, m)
	if err != nil {
		return err
	}
	runs, err := s.pagemap(s.dir, fmt.Sprintf("pagemap-%d.img", pid), 0)
	if err != nil {
		return err
	}
	s.Image.Add(image.Of("mm", pid), m)
	s.Image.Add(image.Of("mm-extra", pid), x)
	s.Image.Add(image.Of("pages", pid), without(runs, m.GetVmas()))
	return nil
}

// openFiles reads the files' entries and what stands for removed names.
func (s *Source) openFiles() error {
	r, err := open(s.dir, "files.img", "FILES")
	if err != nil {
		return err
	}
	if r == nil {
		return fault.Errorf(fault.ErrDamaged, "%s: no files.img", s.dir)
	}
	defer r.close()
	for {
		e := &fdinfo.FileEntry{}
		ok, err := r.next(e)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		s.files = append(s.files, e)
	}
}

// ghosts reads removed files. They are numbered by themselves in the directory;
// in an image each has the number of a file that it was.
func (s *Source) ghosts() error {
	extras := map[uint32]*fm.FileExtra{}
	all, err := image.All[*fm.FileExtra](s.extra, "file-extra")
	if err != nil {
		return err
	}
	for _, x := range all {
		extras[x.GetId()] = x
	}
	extra := func(id uint32) *fm.FileExtra {
		if extras[id] == nil {
			extras[id] = &fm.FileExtra{Id: proto.Uint32(id)}
		}
		return extras[id]
	}
	remaps, err := s.remaps()
	if err != nil {
		return err
	}
	remaps = s.cloneRemaps(remaps)
	s.joinFifos(remaps)
	s.socketExtras()
	names := map[uint32]string{}
	for _, f := range s.files {
		names[f.GetId()] = f.GetReg().GetName()
	}
	number := map[uint32]uint32{}
	for _, m := range remaps {
		if o, ok := number[m.GetRemapId()]; m.GetRemapType() == remapfilepath.RemapType_GHOST && (!ok || m.GetOrigId() == m.GetRemapId() || m.GetOrigId() < o && o != m.GetRemapId()) {
			number[m.GetRemapId()] = m.GetOrigId()
		}
	}
	stands := map[uint32]bool{}
	for _, m := range remaps {
		x := extra(m.GetOrigId())
		x.Deleted = proto.Bool(true)
		switch m.GetRemapType() {
		case remapfilepath.RemapType_GHOST:
			id := m.GetRemapId()
			m.RemapId = proto.Uint32(number[id])
			if m.GetOrigId() != number[id] {
				break
			}
			if err := s.ghost(id, number[id], extra(number[id])); err != nil {
				return err
			}
		case remapfilepath.RemapType_LINKED:
			if x.LinkPath == nil {
				x.LinkPath = proto.String(absolute(names[m.GetRemapId()]))
			}
			stands[m.GetRemapId()] = true
			m.RemapId = m.OrigId
		default:
			return fault.Errorf(fault.ErrRefused, "file %d (%s): a removed file of kind %v cannot be restored", m.GetOrigId(), names[m.GetOrigId()], m.GetRemapType())
		}
		s.Image.Add("remap-file-path", m)
	}
	used, err := s.usedFiles()
	if err != nil {
		return err
	}
	for _, f := range s.files {
		id := f.GetId()
		if stands[id] && !used[id] {
			continue
		}
		if f.Reg != nil {
			f.Reg.Name = proto.String(absolute(f.Reg.GetName()))
		}
		if err := s.complete(f, extra(id)); err != nil {
			return err
		}
		s.Image.Add("files", f)
		s.Image.Add("file-extra", extra(id))
	}
	return nil
}

// absolute gives a path of the schema, which may lack the first slash.
func absolute(name string) string {
	if name == "" || name[0] == '/' {
		return name
	}
	return "/" + strings.TrimPrefix(name, "./")
}

func (s *Source) remaps() (all []*remapfilepath.RemapFilePathEntry, err error) {
	r, err := open(s.dir, "remap-fpath.img", "REMAP_FPATH")
	if r == nil || err != nil {
		return nil, err
	}
	defer r.close()
	for {
		m := &remapfilepath.RemapFilePathEntry{}
		ok, err := r.next(m)
		if !ok || err != nil {
			return all, err
		}
		all = append(all, m)
	}
}

// ghost reads one removed file and finds its content.
func (s *Source) ghost(id, as uint32, x *fm.FileExtra) error {
	name := fmt.Sprintf("ghost-file-%x.img", id)
	r, err := open(s.dir, name, "GHOST_FILE")
	if err != nil {
		return err
	}
	if r == nil {
		return fault.Errorf(fault.ErrDamaged, "%s: no %s", s.dir, name)
	}
	defer r.close()
	g := &ghostfile.GhostFileEntry{}
	if ok, err := r.next(g); err != nil || !ok {
		return fault.Errorf(fault.ErrDamaged, "%s: no entry (%v)", r.name, err)
	}
	s.Image.Add(image.Of("ghost-file", int(as)), g)
	x.Uid, x.Gid = g.Uid, g.Gid
	if x.MtimeNs == nil {
		x.AtimeNs, x.MtimeNs = nanoseconds(g.GetAtim()), nanoseconds(g.GetMtim())
	}
	x.Saved, x.Extents = nil, nil
	if g.GetMode()&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	x.Saved = proto.String(name)
	if !g.GetChunks() {
		n := r.size - r.at
		g.Size = proto.Uint64(uint64(n))
		x.Extents = []*fm.Extent{{Off: proto.Uint64(0), Len: proto.Uint64(uint64(n))}}
		s.saved[name] = []section{{r.at, n}}
		return nil
	}
	s.saved[name] = []section{}
	for {
		c := &ghostfile.GhostChunkEntry{}
		ok, err := r.next(c)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		n := int64(c.GetLen())
		s.saved[name] = append(s.saved[name], section{r.at, n})
		x.Extents = append(x.Extents, &fm.Extent{Off: c.Off, Len: c.Len})
		if err := r.skip(n); err != nil {
			return err
		}
	}
}

// usedFiles gives the files that a task holds in one way or another.
func (s *Source) usedFiles() (map[uint32]bool, error) {
	used := map[uint32]bool{}
	for _, id := range s.Image.NamesOf("fdinfo") {
		t, err := image.All[*fdinfo.FdinfoEntry](s.Image, image.Of("fdinfo", id))
		if err != nil {
			return nil, err
		}
		for _, d := range t {
			used[d.GetId()] = true
		}
	}
	for _, pid := range s.Image.NamesOf("mm") {
		m, err := image.One[*mm.MmEntry](s.Image, image.Of("mm", pid))
		if err != nil {
			return nil, err
		}
		used[m.GetExeFileId()] = true
		for _, v := range m.GetVmas() {
			used[uint32(v.GetShmid())] = true
		}
	}
	return used, nil
}

// locks finds the file of each lock: the schema has its holder's descriptor.
func (s *Source) locks() error {
	all, err := image.All[*filelock.FileLockEntry](s.Image, "file-locks")
	if err != nil || len(all) == 0 {
		return err
	}
	rec := &fm.Record{Id: proto.Uint32(0)}
	for _, l := range all {
		c, err := image.One[*criu_core.CoreEntry](s.Image, image.Of("core", int(l.GetPid())))
		if err != nil {
			return err
		}
		t, err := image.All[*fdinfo.FdinfoEntry](s.Image, image.Of("fdinfo", int(c.GetIds().GetFilesId())))
		if err != nil {
			return err
		}
		id := uint64(0)
		for _, d := range t {
			if int32(d.GetFd()) == l.GetFd() {
				id = uint64(d.GetId())
			}
		}
		if id == 0 {
			return fault.Errorf(fault.ErrDamaged, "a lock of pid %d on its descriptor %d, which it does not have", l.GetPid(), l.GetFd())
		}
		rec.Num = append(rec.Num, id)
	}
	s.Image.Replace("file-lock-files", rec)
	return nil
}

// manifest makes what a native checkpoint says about itself.
func (s *Source) manifest() error {
	m := &fm.Manifest{
		Version: proto.Uint32(image.Version), Tool: proto.String("criu"), Arch: proto.String("amd64"), Kernel: proto.String("another kernel"),
		BootId: proto.String(""), CreatedNs: proto.Int64(0), FrozenNs: proto.Uint64(0),
	}
	if s.Own {
		own, err := image.One[*fm.Manifest](s.extra, "manifest")
		if err != nil {
			return err
		}
		m = proto.CloneOf(own)
		m.Notes = nil
	}
	t := &timens.TimensEntry{}
	ok, err := readOne(s.dir, "timens-0.img", "TIMENS", t)
	if err != nil {
		return err
	}
	if ok {
		at := func(t *timens.Timespec) *int64 { return proto.Int64(int64(t.GetTvSec())*1e9 + int64(t.GetTvNsec())) }
		m.MonotonicNs, m.BoottimeNs = at(t.GetMonotonic()), at(t.GetBoottime())
	} else if m.MonotonicNs == nil {
		m.MonotonicNs, m.BoottimeNs = clockNow(unix.CLOCK_MONOTONIC), clockNow(unix.CLOCK_BOOTTIME)
	}
	m.PageBytes = proto.Uint64(s.size)
	s.Image.Add("manifest", m)
	return nil
}

func clockNow(id int32) *int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(id, &t)
	return proto.Int64(t.Nano())
}

func (s *Source) openStore() (err error) {
	s.Store, err = pagestore.OpenPlain(s.stores)
	return err
}
