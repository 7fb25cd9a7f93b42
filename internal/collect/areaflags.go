package collect

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// The flags of areas stand in /proc/PID/smaps, 2 to 3 µs for each area and, since
// the kernel walks all page tables for it, some 70 ms for each GiB. Where it may
// be asked (kmem.Areas) the kernel tells the flags alone, in a tenth of that; all
// else is in /proc/PID/maps.
//
// It tells them as bits of its own, which differ from kernel to kernel. So their
// meaning is learned, once: this process makes areas of many kinds, and looks how
// the kernel shows each in both ways. A bit that was not learned so, or one that
// always came together with another and now comes alone, is no guess: the task is
// read through smaps.

// areaFlags reads memory maps that way.
type areaFlags struct {
	open  sync.Once
	areas *kmem.Areas
	table flagTable
	err   error
}

// ready opens it; it may take some milliseconds the first time.
func (f *areaFlags) ready() error {
	f.open.Do(func() {
		if f.areas, f.err = kmem.OpenAreas(); f.err == nil {
			f.table, f.err = learnFlags(f.areas)
		}
	})
	return f.err
}

func (f *areaFlags) close() {
	f.open.Do(func() { f.err = os.ErrClosed })
	f.areas.Close()
}

// read is procfs.ReadSmapsFlags without the counters of pages.
func (f *areaFlags) read(pid int) ([]procfs.Smap, error) {
	var maps []procfs.VMA
	var merr error
	var reading sync.WaitGroup
	reading.Go(func() { maps, merr = procfs.ReadMaps(pid) })
	err := f.ready()
	var all []kmem.Area
	if err == nil {
		all, err = f.areas.Of(pid)
	}
	reading.Wait()
	if err = errors.Join(err, merr); err != nil {
		return nil, err
	}
	sm := make([]procfs.Smap, len(maps))
	for i := range maps {
		m := &sm[i]
		m.VMA = maps[i]
		if m.Path == "[vsyscall]" {
			continue // of no address space
		}
		if len(all) == 0 || all[0].Start != m.Start || all[0].End != m.End {
			return nil, fmt.Errorf("area %#x-%#x: it is not in both lists", m.Start, m.End)
		}
		var known bool
		if m.Flags, known = f.table.flags(all[0].Flags); !known || m.Flags&procfs.VMHugeTLB != 0 {
			return nil, fmt.Errorf("area %#x-%#x: flags %#x", m.Start, m.End, all[0].Flags)
		}
		all = all[1:]
	}
	if len(all) > 0 {
		return nil, fmt.Errorf("area %#x-%#x: it is not in both lists", all[0].Start, all[0].End)
	}
	return sm, nil
}

// flagClass are bits of the kernel that were always seen together, and the flags
// that were shown exactly with them.
type flagClass struct {
	bits  uint64
	flags procfs.VMFlags
}

type flagTable []flagClass

// flags translates; false when not everything is known.
func (t flagTable) flags(raw uint64) (f procfs.VMFlags, known bool) {
	for _, c := range t {
		switch raw & c.bits {
		case c.bits:
			f |= c.flags
			raw &^= c.bits
		case 0:
		default:
			return 0, false
		}
	}
	return f, raw == 0
}

// learn finds out what bits mean from areas of which both are known.
func learn(raw []uint64, flags []procfs.VMFlags) (flagTable, error) {
	column := func(bit func(i int) bool) string {
		b, some := make([]byte, len(raw)), false
		for i := range raw {
			if bit(i) {
				b[i], some = 1, true
			}
		}
		if !some {
			return ""
		}
		return string(b)
	}
	at := map[string]*flagClass{}
	for k := range 64 {
		if c := column(func(i int) bool { return raw[i]>>k&1 != 0 }); c != "" {
			if at[c] == nil {
				at[c] = &flagClass{}
			}
			at[c].bits |= 1 << k
		}
	}
	for k := range 64 {
		f := procfs.VMFlags(1) << k
		if c := column(func(i int) bool { return flags[i]&f != 0 }); c != "" {
			if at[c] == nil {
				return nil, fmt.Errorf("flag %v is no bit", f)
			}
			at[c].flags |= f
		}
	}
	var t flagTable
	for _, c := range at {
		t = append(t, *c)
	}
	return t, nil
}

// learned is the same as long as the kernel is.
var learned struct {
	sync.Mutex
	table flagTable
}

// learnFlags learns from this process's own areas, of which it makes some.
func learnFlags(areas *kmem.Areas) (flagTable, error) {
	learned.Lock()
	defer learned.Unlock()
	if learned.table != nil {
		return learned.table, nil
	}
	defer sampleAreas()()
	all, err := areas.Of(os.Getpid())
	if err != nil {
		return nil, err
	}
	sm, err := procfs.ReadSmapsFlags(os.Getpid())
	if err != nil {
		return nil, err
	}
	// Other threads may have mapped something in between.
	at := map[[2]uint64]*procfs.Smap{}
	for i := range sm {
		at[[2]uint64{sm[i].Start, sm[i].End}] = &sm[i]
	}
	var raw []uint64
	var flags []procfs.VMFlags
	for _, a := range all {
		if m := at[[2]uint64{a.Start, a.End}]; m != nil {
			raw, flags = append(raw, a.Flags), append(flags, m.Flags)
		}
	}
	t, err := learn(raw, flags)
	if err == nil {
		learned.table = t
	}
	return t, err
}

// sampleAreas makes an area of each kind that can be had, and gives the function
// that removes them.
func sampleAreas() (remove func()) {
	const rw, anon = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	var all [][]byte
	add := func(fd, prot, flags int) []byte {
		size := sys.PageSize
		if flags&unix.MAP_HUGETLB != 0 {
			size = hugePage
		}
		b, err := unix.Mmap(fd, 0, size, prot, flags)
		if err != nil {
			return nil
		}
		all = append(all, b)
		return b
	}
	for _, prot := range []int{unix.PROT_NONE, unix.PROT_READ, rw, unix.PROT_READ | unix.PROT_EXEC, unix.PROT_WRITE} {
		add(-1, prot, anon)
		add(-1, prot, anon|unix.MAP_NORESERVE)
	}
	for _, flags := range []int{
		anon | unix.MAP_GROWSDOWN, unix.MAP_SHARED | unix.MAP_ANONYMOUS, unix.MAP_ANONYMOUS | mapDroppable,
		anon | unix.MAP_HUGETLB | unix.MAP_NORESERVE,
	} {
		add(-1, rw, flags)
	}
	for _, m := range madvices {
		if b := add(-1, rw, anon); b != nil {
			_ = unix.Madvise(b, int(m.advice))
		}
	}
	if b := add(-1, rw, anon); b != nil {
		_ = unix.Mlock(b)
	}
	if b := add(-1, rw, anon); b != nil {
		_ = sys.Mlock2(b, mlockOnfault)
	}
	if fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		add(fd, unix.PROT_READ, unix.MAP_SHARED)
		add(fd, unix.PROT_READ, unix.MAP_PRIVATE)
		unix.Close(fd)
	}
	return func() {
		for _, b := range all {
			_ = unix.Munmap(b)
		}
	}
}

const (
	hugePage     = 2 << 20
	mlockOnfault = 1 // MLOCK_ONFAULT (mlock2(2))
)

// manyText is from how many bytes of /proc/PID/maps on, some thousand areas, it is
// worth to open the other way.
const manyText = 64 << 10

// look warms the gadget cache with a process's map, and finds out whether it has
// many areas.
func (s *Survey) look(pid int) {
	maps, whole, err := procfs.ReadMapsUpTo(pid, manyText)
	if err != nil {
		return
	}
	if !whole {
		s.many[pid] = true
		s.opening.Go(func() { _ = s.flags.ready() })
		if maps = executables(pid); maps == nil {
			return
		}
	}
	tracee.FindGadgets(pid, maps)
}

// executables gives the areas of a process that can be executed, nil where the
// kernel cannot be asked for them.
func executables(pid int) (out []procfs.VMA) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	for at := uint64(0); ; {
		a, err := sys.NextArea(fd, at, sys.MapReadable|sys.MapExecutable)
		if err != nil {
			return out
		}
		out = append(out, procfs.VMA{
			Start: a.Start, End: a.End, Offset: a.Offset, Ino: a.Ino, DevMajor: a.DevMajor, DevMinor: a.DevMinor,
			Path: a.Name, Read: true, Exec: true,
		})
		at = a.End
	}
}
