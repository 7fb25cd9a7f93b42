package rebuild

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// seed is the process that everything grows from.
type seed struct {
	pid  int
	exec *tracee.Executor
}

// startSeed starts the seed, with the transport as its descriptor 0, and stops
// it. It dies with this thread.
func (b *builder) startSeed() error {
	fd, err := unix.MemfdCreate("fermata-seed", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, seedELF()); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"fermata-seed"}, &syscall.ProcAttr{
		Env:   []string{},
		Files: []uintptr{uintptr(b.transport[1])},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: b.newSession},
	})
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	b.seed = &seed{pid: pid}
	if err := sys.Seize(pid, b.traceOptions()); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if err := sys.Interrupt(pid); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return b.awaitStop(pid)
}

// awaitStop waits for the event stop of a task that was interrupted or has just
// been made.
func (b *builder) awaitStop(tid int) error {
	for {
		st, err := sys.Wait(tid)
		if err != nil {
			return fmt.Errorf("thread %d: wait: %w", tid, err)
		}
		switch {
		case sys.IsEventStop(st):
			return nil
		case st.Exited() || st.Signaled():
			return fmt.Errorf("thread %d ended (status %#x)", tid, uint32(st))
		}
		if err := sys.Cont(tid, 0); err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
	}
}

// placeRegion finds a range that is free in every address space there will be,
// for the region and, behind it, the scratch range.
func (b *builder) placeRegion(slots int) error {
	var all []procfs.VMA
	for _, p := range b.procs {
		for _, a := range p.areas {
			all = append(all, procfs.VMA{Start: a.GetStart(), End: a.GetEnd()})
		}
	}
	maps, err := procfs.ReadMaps(b.seed.pid)
	if err != nil {
		return err
	}
	for _, v := range maps {
		if v.Path != "[vsyscall]" {
			all = append(all, v)
		}
	}
	size := uint64(tracee.RegionSize(slots))
	at := tracee.Hole(all, size+scratchSize)
	if at == 0 {
		return fmt.Errorf("no range of %d bytes is free in all address spaces of the tree", size+scratchSize)
	}
	b.region, err = tracee.NewRegion(slots, at, uint32(os.Geteuid()), uint32(os.Getegid()), nil)
	if err != nil {
		return err
	}
	// From here on it goes with its last mapping, whatever becomes of us.
	b.region.Remove()
	b.scratch = at + size
	if b.seed.exec, err = b.region.Boot(b.seed.pid, seedBase+seedSyscall, b.slot()); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return nil
}

// slot hands out the region's slots.
func (b *builder) slot() int {
	b.slots++
	return b.slots - 1
}
