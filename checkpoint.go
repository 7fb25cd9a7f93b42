package fermata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/cgroup"
	"github.com/fermata-cr/fermata/internal/chain"
	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/guardian"
	"github.com/fermata-cr/fermata/internal/memory"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/repo"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Checkpoint saves the tree rooted at pid into the directory o.To. Unless
// o.After says otherwise the program goes on, and nothing it can see has
// changed. The checkpoint appears under its name only once it is whole.
//
// Errors: ErrNotFound, ErrPermission, ErrUsage (own pid or an ancestor; o.To
// exists), ErrRefused (*RefusedError has every reason), ErrTimeout; whatever
// fails, and when ctx ends, the program goes on as it was and nothing is left.
func Checkpoint(ctx context.Context, pid int, o CheckpointOptions) (*CheckpointResult, error) {
	type outcome struct {
		res *CheckpointResult
		err error
	}
	ch := make(chan outcome, 1)
	// A goroutine of its own: its OS thread is the tracer, and ends with it if it
	// cannot be left clean, which lets go of whatever it still holds.
	var session func()
	session = func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The first thread never ends. While this one has it, another gets
			// another.
			defer runtime.UnlockOSThread()
			done := make(chan bool)
			go func() { defer close(done); session() }()
			<-done
			return
		}
		loud := sys.QuietStops()
		res, err := attempts(ctx, pid, o)
		loud()
		if err == nil {
			runtime.UnlockOSThread()
		}
		ch <- outcome{res, err}
	}
	go session()
	out := <-ch
	return out.res, permitted(out.err)
}

// patience is for how long a checkpoint is tried again when something stands in
// its way that the program is about to put right.
const patience = 2 * time.Second

// attempts carries a checkpoint out, again where that may help. Between two
// attempts the program runs, for longer each time.
func attempts(ctx context.Context, pid int, o CheckpointOptions) (*CheckpointResult, error) {
	began := time.Now()
	held := ""
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		c := &checkpoint{ctx: ctx, opt: o, began: began, held: held}
		res, err := c.run(pid)
		var sn *collect.SnapshotError
		if errors.As(err, &sn) && held == "" && ctx.Err() == nil {
			held = sn.Error()
			continue
		}
		var refused *fault.RefusedError
		if !errors.As(err, &refused) || !refused.Passing() || time.Since(began)+pause > patience {
			return res, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// checkpoint is one checkpoint on its way.
type checkpoint struct {
	ctx     context.Context
	opt     CheckpointOptions
	began   time.Time
	roots   []int
	exclude map[int]bool
	freezer *cgroup.Freezer
	tree    *tracee.Tree
	col     *collect.Collector
	out     *memory.Outgoing
	draft   *draft
	spare   []byte // for the memory of a small program
	watch   *guardian.Watch
	frozen  time.Duration
	// freezing is how long it took until every task stood still.
	freezing time.Duration
	done     atomic.Int64
	notes    []string
	held     string // why there shall be no snapshot of the memory
	room     *room  // for one
	track    tracker
	tracked  bool // writes were tracked since the parent
}

func (c *checkpoint) progress(phase string, done, total int64) {
	if c.opt.Progress != nil {
		c.opt.Progress(Progress{phase, done, total})
	}
}

func (c *checkpoint) run(pid int) (_ *CheckpointResult, err error) {
	var prepared sync.WaitGroup
	prepared.Go(func() { c.prepare(collect.Private(append([]int{pid}, c.opt.ExtraRoots...))) })
	defer func() {
		prepared.Wait()
		go c.giveUp() // the kernel takes its time for that
	}()
	if err := c.findRoots(pid); err != nil {
		return nil, err
	}
	if c.opt.To == "" {
		if c.opt.To, err = newPlace(c.roots[0]); err != nil {
			return nil, err
		}
	}
	if c.draft, err = newDraft(c.opt.To, c.opt.Layout); err != nil {
		return nil, err
	}
	if err := c.openParent(); err != nil {
		return nil, err
	}
	defer func() { c.draft.below.Close() }()
	defer c.track.close()
	c.watch = guardian.Begin()
	defer c.watch.Close()
	defer func() {
		if err != nil {
			c.draft.discard()
		}
	}()
	private := collect.Private(c.roots)
	survey := collect.Look(c.roots, c.exclude)
	defer survey.Close()
	if c.opt.After == AfterResume && c.held == "" && c.opt.Snapshot != SnapshotNever && private > bufferMax {
		// What is not known now is asked for in the freeze, and an error is heard
		// of there.
		c.room, _ = lookRoom(survey.PIDs)
	}
	prepared.Wait()
	c.foresee()
	if err := c.guarded(); err != nil {
		return nil, err
	}
	if c.freezer, err = cgroup.Find(survey.PIDs, c.watch.Journal()); err != nil {
		return nil, err
	}
	c.progress("freeze", 0, 0)
	fo := tracee.FreezeOptions{Timeout: c.opt.Timeout, Exclude: c.exclude, Journal: c.watch.Journal()}
	if c.freezer != nil {
		fo.Freezer = c.freezer
	}
	if c.tree, err = tracee.Freeze(c.roots, fo); err != nil {
		return nil, err
	}
	c.freezing = time.Since(c.tree.Began())
	thawed := false
	defer func() {
		if c.col != nil {
			if cerr := c.col.Close(); cerr != nil && err == nil {
				err = cerr
			}
		}
		// A group that its user has frozen, before the tasks could run in it.
		if ferr := c.freezer.Close(); ferr != nil && err == nil {
			err = ferr
		}
		if !thawed {
			if terr := c.tree.Thaw(); terr != nil && err == nil {
				err = terr
			}
		}
	}()
	if err := c.complete(pid); err != nil {
		return nil, err
	}
	if c.col, err = collect.New(c.tree, survey); err != nil {
		return nil, err
	}
	c.col.Tracker, c.col.Kernel = &c.track, c.track.kernel
	c.col.AllowSeccompRisk, c.col.SkipDontDump = c.opt.AllowSeccompRisk, c.opt.SkipDontDump
	if c.opt.After == AfterResume && c.opt.Snapshot != SnapshotNever {
		switch {
		case c.opt.Snapshot == SnapshotAlways:
			c.col.SnapshotAbove = 1
		case private > bufferMax:
			c.col.SnapshotAbove = snapshotAbove
		}
	}
	c.draft.attach(c.col, c.opt)
	if g := c.watch.Guardian(); g != nil {
		c.col.Files.Guard, c.col.Files.GuardTerminal, c.col.Files.GuardLock = g.Sockopt, g.Terminal, g.NetLock
	}
	c.progress("collect", 0, int64(len(c.tree.Processes)))
	if err := c.col.Collect(); err != nil {
		return nil, err
	}
	if c.opt.Review != nil {
		c.opt.Review(c.col.Image, c.col.Refuse)
	}
	if err := c.col.Refuse.Err(); err != nil {
		return nil, err
	}
	if c.draft.below != nil {
		if err := c.draft.below.Matches(c.col.Image); err != nil {
			return nil, err
		}
	}
	// What has begun to be tracked counts from here on; a snapshot is made before.
	c.known()
	if c.tracked {
		if err := c.turn(); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			c.unkeep()
		}
	}()
	if err := c.snapshot(); err != nil {
		return nil, err
	}
	defer func() {
		if cerr := c.col.CloseSnapshots(); err == nil {
			err = cerr
		}
	}()
	if !c.tracked {
		if err := c.turn(); err != nil {
			return nil, err
		}
	}
	if err := c.memory(); err != nil {
		return nil, err
	}
	defer func() { c.out.Close() }()
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	c.draft.begin()
	mono, boot, real := c.col.Clocks()
	// From here on no executor is needed: the tasks stand still with their own
	// registers, whatever becomes of this process.
	if err := c.col.Release(); err != nil {
		return nil, err
	}
	if err := c.col.Pending(); err != nil {
		return nil, err
	}
	if err := c.col.Files.Commit(); err != nil {
		return nil, err
	}

	var noted sync.WaitGroup
	defer noted.Wait()
	thaw := func() error {
		if thawed {
			return nil
		}
		thawed = true
		c.frozen = time.Since(c.tree.Began())
		defer c.watch.Patience(0)
		var letGo error
		if c.opt.After != AfterKill { // in a frozen group of version 1 nothing ends
			letGo = c.col.LetGo() // nor does an executor run in one
			if err := c.freezer.Close(); err != nil {
				c.notes = append(c.notes, err.Error())
			}
		}
		switch c.opt.After {
		case AfterStop:
			return errors.Join(letGo, c.tree.ThawStopped())
		case AfterKill:
			// Connections within the tree shall not outlive it.
			done, err := c.col.Files.BeforeKill()
			if err != nil {
				c.notes = append(c.notes, err.Error())
			}
			if err := c.tree.Kill(); err != nil {
				return err // some of it may go on
			}
			c.col.Forget()
			if err := done(); err != nil {
				c.notes = append(c.notes, err.Error())
			}
			return nil
		}
		err := errors.Join(letGo, c.tree.Thaw())
		// Whether or not this becomes a checkpoint, the calls were interrupted.
		noted.Go(c.col.NoteWaits)
		return err
	}
	var mem []byte
	switch total := c.out.Total(); {
	case c.col.Snapshots:
		if mem, err = c.buffer(total); err != nil {
			return nil, err
		}
		if err := c.out.Hold(mem); err != nil {
			return nil, err
		}
		mem = nil
		if c.draft.hasFiles() {
			c.watch.Patience(contentMax)
			if err := c.draft.writeFiles(); err != nil {
				return nil, err
			}
		}
		if err := thaw(); err != nil {
			return nil, err
		}
		c.col.Expend()
		faultpoint.At("snapshot.thawed")
		if err := c.col.Rest(c.out); err != nil {
			return nil, err
		}
	case c.opt.After == AfterResume && (total <= bufferMax || c.tracked && total <= trackedMax) && !c.draft.hasFiles():
		// Small: into memory, and the program goes on while it is written.
		if mem, err = c.buffer(total); err != nil {
			return nil, err
		}
		if err := c.out.Take(mem); err != nil {
			return nil, err
		}
		if err := thaw(); err != nil {
			return nil, err
		}
	case !c.draft.images && total <= heldBufferMax:
		// So small that a second thread would be of no use.
		if mem, err = c.buffer(total); err != nil {
			return nil, err
		}
		if err := c.out.Fill(0, mem); err != nil {
			return nil, err
		}
	}
	if !thawed {
		c.watch.Patience(heldMax)
	}
	// The messages of files that travel along are completed when those are
	// copied, others when a snapshot tells.
	if !c.draft.hasFiles() && !c.col.Snapshots {
		c.col.Image.EncodeAhead(func(part string) bool { return part == "shm" || strings.HasPrefix(part, "pages/") })
	}
	if err := c.draft.writePages(c, mem); err != nil {
		if c.col.Lost() {
			err = &collect.SnapshotError{Err: fmt.Errorf("the snapshot of its memory was ended from outside")}
		}
		return nil, err
	}
	if err := c.col.CloseSnapshots(); err != nil {
		return nil, err
	}
	if !c.col.Snapshots {
		if !thawed && c.draft.hasFiles() {
			c.watch.Patience(contentMax)
		}
		if err := c.draft.writeFiles(); err != nil {
			return nil, err
		}
	}
	if c.opt.After == AfterResume {
		if err := thaw(); err != nil {
			return nil, err
		}
	}
	if c.frozen == 0 {
		c.frozen = time.Since(c.tree.Began())
	}
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	c.progress("publish", 0, 0)
	if err := c.draft.publish(c, mono, boot, real); err != nil {
		return nil, err
	}
	c.keep(time.Unix(0, real))
	res := c.result()
	if err := thaw(); err != nil {
		return nil, fmt.Errorf("the checkpoint %s is whole, but: %w", c.opt.To, err)
	}
	c.watch.Dismiss()
	if c.opt.After == AfterKill && !c.opt.NoWait {
		res.Notes = append(res.Notes, c.awaitFree()...)
	}
	res.Frozen, res.Total = c.frozen, time.Since(c.began)
	return res, nil
}

// openParent opens the checkpoint that this one shall build upon.
func (c *checkpoint) openParent() error {
	if c.opt.Parent == "" {
		return nil
	}
	if c.draft.images {
		return fault.Errorf(fault.ErrUsage, "plain images do not build upon a checkpoint of fermata's own")
	}
	p, err := chain.Open(c.opt.Parent)
	if err != nil {
		return err
	}
	if why := p.Worn(); why != "" {
		c.opt.Track = c.opt.Track || c.track.since(p.Manifest.GetId())
		p.Close()
		c.notes = append(c.notes, fmt.Sprintf("this is a full checkpoint: %s is not built upon any more, %s", c.opt.Parent, why))
		return nil
	}
	c.draft.below = p
	return nil
}

// guarded waits until the guardian is there, and lets it know how long the
// target may be held without progress.
func (c *checkpoint) guarded() error {
	if err := c.watch.Ready(); err != nil {
		// Only what it would clear away is at stake, not the program.
		c.notes = append(c.notes, fmt.Sprintf("no guardian could be started: should fermata be killed, it leaves traces (%v)", err))
	}
	c.exclude[c.watch.Guardian().PID()] = true
	c.draft.journal = c.watch.Journal()
	c.watch.Patience(c.opt.Timeout + heldMax)
	faultpoint.At("guarded")
	return c.ctx.Err()
}

const (
	// heldMax is how long each part of the work on a stopped tree may take.
	heldMax = 30 * time.Second
	// contentMax is the same for the content of one file.
	contentMax = 10 * time.Minute
)

// newPlace gives an unused name in the default repository.
func newPlace(pid int) (string, error) {
	r, err := repo.Default()
	if err != nil {
		return "", err
	}
	if err := r.Create(); err != nil {
		return "", err
	}
	comm, err := procfs.ReadComm(pid, 0)
	if err != nil {
		return "", err
	}
	name, err := r.NewName(comm, pid)
	if err != nil {
		return "", err
	}
	return r.Path(name)
}

// bufferMax is up to how many bytes of memory are taken into a buffer, so that
// the program goes on before they are written.
const bufferMax = 32 << 20

// heldBufferMax is the same for a program that stands still until they are
// written.
const heldBufferMax = 4 << 20

// prepare makes a buffer for about as many bytes before the freeze: taking
// fresh memory from the kernel costs as much as filling it.
func (c *checkpoint) prepare(n uint64) {
	if n > bufferMax || c.opt.After != AfterResume && n > heldBufferMax {
		return // there will be a snapshot, or files to write into
	}
	if buf, err := fresh(n + n/8 + 256<<10); err == nil {
		c.spare = buf
	}
}

// giveUp frees the buffer.
func (c *checkpoint) giveUp() {
	if c.spare != nil {
		unix.Munmap(c.spare)
		c.spare = nil
	}
}

// buffer gives memory for that many bytes.
func (c *checkpoint) buffer(total uint64) ([]byte, error) {
	if uint64(len(c.spare)) < total {
		c.giveUp()
		var err error
		if c.spare, err = fresh(total); err != nil {
			return nil, err
		}
	}
	return c.spare[:total:total], nil
}

// fresh gives memory that is there, not only promised.
func fresh(n uint64) ([]byte, error) {
	buf, err := unix.Mmap(-1, 0, int(max(n, 1)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("a buffer of %d bytes: %w", n, err)
	}
	return buf, nil
}

// snapshotAbove is from how much memory on an address space gets a snapshot.
const snapshotAbove = collect.SnapshotAbove

// heldSnapshotMax is how much may be read at once besides snapshots.
const heldSnapshotMax = 128 << 20

// snapshot makes snapshots of the memory of a tree that is to go on, unless it
// is so small that it can be read at once. Where there can be none a note says
// why.
func (c *checkpoint) snapshot() error {
	if c.col.SnapshotAbove == 0 {
		return nil
	}
	if c.tracked && c.col.ToRead() <= trackedMax {
		return c.col.WithoutSnapshots()
	}
	err := c.trySnapshot()
	var sn *collect.SnapshotError
	if err != nil && !errors.As(err, &sn) {
		return err
	}
	if err != nil {
		c.notes = append(c.notes, "the program stood still until its memory was written: "+sn.Error())
	}
	if !c.col.Snapshots {
		return c.col.WithoutSnapshots()
	}
	return nil
}

func (c *checkpoint) trySnapshot() error {
	tasks := c.col.SnapshotBytes()
	switch {
	case len(tasks) == 0:
		return nil
	case c.held != "":
		return &collect.SnapshotError{Err: errors.New(c.held)}
	}
	if c.room == nil {
		var err error
		if c.room, err = lookRoom(nil); err != nil {
			return &collect.SnapshotError{Err: err}
		}
	}
	if err := c.room.forSnapshots(tasks, filepath.Dir(c.opt.To)); err != nil {
		return &collect.SnapshotError{Err: err}
	}
	return c.col.TakeSnapshots()
}

// memory notes what must be read while the tree stands still. Where that is too
// much beside snapshots, all of it is written then.
func (c *checkpoint) memory() (err error) {
	if c.out, err = c.col.Memory(); err != nil {
		return err
	}
	if !c.col.Snapshots || c.out.Total() <= heldSnapshotMax {
		return nil
	}
	c.notes = append(c.notes, fmt.Sprintf("the program stood still until its memory was written: %d MiB of it are of kinds of which there is no snapshot", c.out.Total()>>20))
	c.out.Close()
	if err := c.col.WithoutSnapshots(); err != nil {
		return err
	}
	c.out, err = c.col.Memory()
	return err
}

func (c *checkpoint) result() *CheckpointResult {
	r := &CheckpointResult{Ref: c.opt.To, Bytes: c.draft.bytes, Written: c.draft.written, Mode: c.mode(), WrittenPages: c.col.WrittenPages, Notes: append(c.notes, c.col.Notes...)}
	for _, p := range c.tree.Processes {
		r.PIDs = append(r.PIDs, p.PID)
		r.Tasks++
		r.Threads += max(len(p.Threads), 1)
	}
	return r
}

// awaitFree waits until the pids of a killed tree are free, and says which are
// not, and why.
func (c *checkpoint) awaitFree() (notes []string) {
	end := time.Now().Add(3 * time.Second)
	pause := 50 * time.Microsecond
	for _, p := range c.tree.Processes {
		for {
			st, err := procfs.ReadStat(p.PID, 0)
			if err != nil {
				break
			}
			if time.Now().After(end) {
				parent, _ := procfs.ReadComm(st.PPid, 0)
				notes = append(notes, fmt.Sprintf("pid %d is not free: its parent, pid %d (%s), has not waited for it", p.PID, st.PPid, parent))
				break
			}
			sys.Nap(pause)
			pause = min(2*pause, 2*time.Millisecond)
		}
	}
	return notes
}
