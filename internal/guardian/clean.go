package guardian

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/cgroup/freezerfile"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/netlock"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// longest is how long a guardian tries. What it cannot put right by then (a
// thread sits in a handler on top of the executor, say) is harmless.
const longest = 60 * time.Second

// cleaner pays the debts of a journal.
type cleaner struct {
	book *journal.Book
	end  time.Time
	list *sys.RobustList
	// attached: a thread of a target could not be let go by this one of ours.
	attached bool
}

func (c *cleaner) run() {
	for _, r := range c.book.Of(journal.Doom) {
		if len(c.book.Of(journal.Sentence)) == 0 {
			break
		}
		faultpoint.At("guardian.doom")
		end(int(r.V[0]), r.V[1], unix.SIGKILL)
	}
	c.freezers(false)
	c.drafts()
	c.descriptors()
	for _, r := range c.book.Of(journal.NetLock) {
		if r.V[0] != 0 && !c.alive() {
			continue
		}
		faultpoint.At("guardian.netlock")
		_ = netlock.Unlock(r.Text)
	}
	for again := true; again; {
		// The tracer of what it freezes is a thread that ends with the attempt:
		// whatever happens, nothing stays stopped.
		done := make(chan bool)
		go func() {
			runtime.LockOSThread() // never unlocked
			again = c.regions()
			close(done)
		}()
		<-done
	}
	c.freezers(true)
	for _, r := range c.book.Of(journal.Stop) {
		stop(int(r.V[0]), r.V[1])
	}
}

// freezers sets cgroups to what they have to be, those that have to run first:
// nothing else can be put right in a task that is frozen. One that has to be
// frozen runs until the end where a task must go home before.
func (c *cleaner) freezers(last bool) {
	work := len(c.book.Of(journal.Region)) > 0 || len(c.book.Of(journal.Sentence)) > 0
	for _, r := range c.book.Of(journal.Freezer) {
		frozen := r.V[2] != 0
		if !last && frozen && !work || last && !frozen {
			continue
		}
		faultpoint.At("guardian.freezer")
		_ = freezerfile.Set(r.Text, r.V[0], r.V[1], last)
	}
}

// same tells whether a pid is still the process that was meant.
func same(pid int, start uint64) bool {
	st, err := procfs.ReadStat(pid, 0)
	return err == nil && (start == 0 || st.StartTime == start)
}

// alive tells whether anything of the tree goes on.
func (c *cleaner) alive() bool {
	if len(c.book.Of(journal.Sentence)) > 0 {
		return false
	}
	for _, r := range c.book.Of(journal.Target) {
		if st, err := procfs.ReadStat(int(r.V[0]), 0); err == nil && (r.V[1] == 0 || st.StartTime == r.V[1]) && st.State != 'Z' && st.State != 'X' {
			return true
		}
	}
	return false
}

// end sends a signal to a process and to no other that has its pid by now.
func end(pid int, start uint64, sig unix.Signal) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if same(pid, start) {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// stop gives a process the SIGSTOP it is owed, unless it has been continued.
func stop(pid int, start uint64) {
	st, err := procfs.ReadStatus(pid, 0)
	if err != nil || (st.SigPnd|st.ShdPnd)&(1<<(unix.SIGCONT-1)) != 0 {
		return
	}
	end(pid, start, unix.SIGSTOP)
}

// drafts removes checkpoints that never became whole, and the names that were
// given to files for their sake.
func (c *cleaner) drafts() {
	published := false
	for _, r := range c.book.Of(journal.Draft) {
		dir, final, _ := strings.Cut(r.Text, "\x00")
		if isInode(final, r.V[0], r.V[1]) && r.V[1] != 0 {
			published = true
			continue
		}
		// The directory may have been made and not yet noted; its name, with
		// the controller's pid, is then all there is to go by.
		if !strings.HasSuffix(dir, fmt.Sprintf(".partial-%d", c.book.Writer)) || !strings.HasPrefix(dir, "/") {
			continue
		}
		if r.V[1] == 0 || isInode(dir, r.V[0], r.V[1]) {
			faultpoint.At("guardian.draft")
			_ = os.RemoveAll(dir)
		}
	}
	if published {
		return
	}
	links := c.book.Of(journal.Link)
	// What is in a directory before that.
	slices.SortFunc(links, func(a, b journal.Record) int { return len(b.Text) - len(a.Text) })
	for _, r := range links {
		ours := r.V[1] == 0 && strings.HasPrefix(r.Text, "/") && strings.HasPrefix(r.Text[strings.LastIndexByte(r.Text, '/')+1:], journal.TempPrefix)
		if (ours || isInode(r.Text, r.V[0], r.V[1])) && unix.Unlink(r.Text) != nil {
			_ = unix.Rmdir(r.Text)
		}
	}
}

func isInode(path string, dev, ino uint64) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && uint64(st.Dev) == dev && st.Ino == ino
}

// region is one region that may be left.
type region struct {
	pids      []int // whose threads may be in it; the first is the process it was made for
	key       int32
	addr      uint64
	size      uint64
	lent      []journal.Record
	made      int // the id of the segment, -1 when it is not known
	id        int // the same, -1 when the segment is gone
	wasMapped bool
}

// regions takes away what is left of regions; true means that another thread
// must go on with it.
func (c *cleaner) regions() (again bool) {
	c.attached = false
	var all []*region
	byKey := map[int32]*region{}
	for _, r := range c.book.Of(journal.Region) {
		g := &region{pids: []int{int(r.V[0])}, key: int32(r.V[1]), addr: r.V[2], size: r.V[3], made: int(r.V[4]) - 1}
		byKey[g.key] = g
		all = append(all, g)
	}
	for _, r := range c.book.Of(journal.Sharer) {
		if g := byKey[int32(r.V[1])]; g != nil {
			g.pids = append(g.pids, int(r.V[0]))
		}
	}
	for _, r := range c.book.Of(journal.Lent) {
		for _, g := range all {
			if g.pids[0] == int(r.V[0]) {
				g.lent = append(g.lent, r)
			}
		}
	}
	if len(all) == 0 {
		return false
	}
	var err error
	if c.list, err = sys.NewRobustList(tracee.RobustOffset); err != nil {
		return false
	}
	pause := 500 * time.Microsecond
	for len(all) > 0 && time.Now().Before(c.end) {
		began := time.Now()
		left := all[:0]
		for _, g := range all {
			if !c.clear(g) {
				left = append(left, g)
			}
		}
		if c.attached {
			return true
		}
		if all = left; len(all) > 0 {
			// The program must get on between two attempts that stop it.
			time.Sleep(max(pause, 4*time.Since(began)))
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
	return false
}

// name is what /proc/PID/maps calls the region's segment.
func (g *region) name() string { return fmt.Sprintf("/SYSV%08x", uint32(g.key)) }

// in finds the region in a memory map.
func (g *region) in(maps []procfs.VMA) bool {
	for i := range maps {
		if v := &maps[i]; v.Start == g.addr && v.Len() == g.size && v.Path == g.name() {
			g.id, g.wasMapped = int(v.Ino), true // shmem gives the segment's id as the inode
			return true
		}
	}
	return false
}

// clear removes a region from all processes that have it; false means: not yet.
func (c *cleaner) clear(g *region) bool {
	g.id = -1
	if id, err := sys.FindShm(g.key); err == nil {
		g.id = id
	} else if n, err := sys.ShmUsers(g.made); err == nil && n > 0 {
		// It is marked for removal, so its key is gone. The memory map of a
		// process that runs may be read without an area that is there.
		g.id = g.made
	}
	pids := g.pids
	maps, err := procfs.ReadMaps(pids[0])
	if err == nil && g.in(maps) || g.id >= 0 || len(g.lent) > 0 {
		if !c.clearProcess(g, pids) {
			return false
		}
	}
	if g.id >= 0 {
		// Nobody can be on the way to it any more.
		_ = sys.RemoveShm(g.id)
	}
	switch n, err := sys.ShmUsers(g.id); {
	case err == unix.EINVAL, err == unix.EIDRM, err == nil && n == 0, err != nil && !g.wasMapped:
		return true
	}
	// A process that was forked meanwhile has it too.
	done := true
	for _, pid := range holders(g) {
		done = c.clearProcess(g, []int{pid}) && done
	}
	n, err := sys.ShmUsers(g.id)
	return done && (err != nil || n == 0)
}

// holders gives the processes that map a region.
func holders(g *region) (pids []int) {
	all, err := procfs.ReadProcesses()
	if err != nil {
		return nil
	}
	for _, pid := range all {
		if maps, err := procfs.ReadMaps(pid); err == nil && g.in(maps) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// clearProcess removes a region from one address space; false means: not yet.
func (c *cleaner) clearProcess(g *region, pids []int) bool {
	if !same(pids[0], 0) {
		return true
	}
	faultpoint.At("guardian.freeze")
	t, err := tracee.Freeze(pids, tracee.FreezeOptions{Timeout: time.Second, Alone: true})
	if err != nil {
		c.attached = c.attached || errors.Is(err, tracee.ErrAttached)
		return false // traced: by the controller that is just ending, or a debugger
	}
	defer func() { c.attached = t.Thaw() != nil || c.attached }()
	t.SuspendSeccomp()
	p := t.Process(pids[0])
	if p == nil || len(p.Threads) == 0 {
		return true
	}
	maps, err := procfs.ReadMaps(p.PID)
	if err != nil {
		return false
	}
	gad, ok := tracee.FindGadgets(p.PID, maps)
	if !ok {
		return true
	}
	g.in(maps) // which knows the id of a segment that is marked for removal already
	place := tracee.Place{Addr: g.addr, Size: g.size, ID: g.id, Maps: maps, Gadgets: gad}
	for _, r := range g.lent {
		place.Lent = append(place.Lent, tracee.Range{Addr: r.V[1], Size: uint64(len(r.Text) / 2)})
	}
	if !t.SendHome(place, 200*time.Millisecond) {
		return false
	}
	// Who was on the way home may have mapped the region only now.
	if maps, err = procfs.ReadMaps(p.PID); err != nil {
		return false
	}
	mapped := g.in(maps)
	for _, r := range g.lent {
		if !putBack(t, p.PID, maps, r) {
			return false
		}
	}
	if !mapped {
		return true
	}
	faultpoint.At("guardian.adopt")
	guest, err := tracee.Adopt(p, g.id, g.addr, int(g.size), maps, gad, c.list)
	if err != nil {
		return false
	}
	if err := guest.Release(); err != nil {
		return false
	}
	faultpoint.At("guardian.released")
	maps, err = procfs.ReadMaps(p.PID)
	return err == nil && !g.in(maps)
}

// putBack gives a process the bytes that were replaced, if all of them are still
// what was put there; false means that a thread still needs those.
func putBack(t *tracee.Tree, pid int, maps []procfs.VMA, r journal.Record) bool {
	n := len(r.Text) / 2
	addr, old, lent := r.V[1], r.Text[:n], r.Text[n:2*n]
	b := make([]byte, n)
	if sys.ReadMem(pid, addr, b) != nil || string(b) == old {
		return true
	}
	// The controller may have died in the middle of writing them.
	now, put := string(b), 0
	for put < n && now[put] == lent[put] {
		put++
	}
	if put == 0 || now[put:] != old[put:] {
		return true
	}
	if t.Uses(tracee.Range{Addr: addr, Size: uint64(n)}, maps) {
		return false
	}
	return sys.WriteMem(pid, addr, []byte(old)) == nil
}
