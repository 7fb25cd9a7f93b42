package collect

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// The flags of areas cost a walk through all page tables (/proc/PID/smaps), some
// 70 ms per GiB. Where hardly any memory is to be read, that would be most of the
// freeze. The kernel's memory has them for a microsecond an area. What its bits mean
// is no interface: so they are believed only where this process's own areas show in
// smaps what they should, and where an area has none that is not known.

// vmBits are the VM_ bits of include/linux/mm.h, Linux 6.7 to 6.18, that have one
// meaning on all machines.
var vmBits = []struct {
	bit  uint64
	flag procfs.VMFlags
}{
	{0x00000001, procfs.VMRead}, {0x00000002, procfs.VMWrite}, {0x00000004, procfs.VMExec}, {0x00000008, procfs.VMShared},
	{0x00000010, procfs.VMMayRead}, {0x00000020, procfs.VMMayWrite}, {0x00000040, procfs.VMMayExec}, {0x00000080, procfs.VMMayShare},
	{0x00000100, procfs.VMGrowsDown}, {0x00000200, procfs.VMUffdMissing}, {0x00000400, procfs.VMPFNMap}, {0x00001000, procfs.VMUffdWP},
	{0x00002000, procfs.VMLocked}, {0x00004000, procfs.VMIO}, {0x00008000, procfs.VMSeqRead}, {0x00010000, procfs.VMRandRead},
	{0x00020000, procfs.VMDontCopy}, {0x00040000, procfs.VMDontExpand}, {0x00080000, procfs.VMLockOnFault}, {0x00100000, procfs.VMAccount},
	{0x00200000, procfs.VMNoReserve}, {0x02000000, procfs.VMWipeOnFork}, {0x04000000, procfs.VMDontDump},
	{0x10000000, procfs.VMMixedMap}, {0x20000000, procfs.VMHugePage}, {0x40000000, procfs.VMNoHugePage}, {0x80000000, procfs.VMMergeable},
}

// vmFlags translates the kernel's flags; false when some are not known.
func vmFlags(raw uint64) (f procfs.VMFlags, ok bool) {
	for _, b := range vmBits {
		if raw&b.bit != 0 {
			f |= b.flag
			raw &^= b.bit
		}
	}
	return f, raw == 0
}

// VMBitsKnown tells whether this kernel's flags of areas mean what they are taken
// for, nil, or why not. It is asked before a freeze.
func VMBitsKnown(k *kmem.Reader) error {
	p, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(p)
	// Two areas with what programs may have set on theirs, which smaps names.
	for _, advice := range [][]int{{unix.MADV_DONTFORK, unix.MADV_DONTDUMP, unix.MADV_HUGEPAGE, unix.MADV_SEQUENTIAL}, {unix.MADV_WIPEONFORK, unix.MADV_NOHUGEPAGE, unix.MADV_RANDOM}} {
		b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err != nil {
			return err
		}
		defer unix.Munmap(b)
		for _, a := range advice {
			_ = unix.Madvise(b, a) // a kernel may lack one
		}
	}
	raw := map[[2]uint64]uint64{}
	for _, a := range k.Areas(k.Process(p, os.Getpid())) {
		raw[[2]uint64{a.Start, a.End}] = a.Flags
	}
	if err := k.Err(); err != nil {
		return err
	}
	sm, err := procfs.ReadSmapsFlags(os.Getpid())
	if err != nil {
		return err
	}
	same := 0
	for i := range sm {
		r, there := raw[[2]uint64{sm[i].Start, sm[i].End}]
		if !there {
			continue
		}
		f, ok := vmFlags(r)
		if ok && f != sm[i].Flags {
			return fmt.Errorf("an area's flags are %#x (%v), but smaps says %v", r, f, sm[i].Flags)
		}
		if ok {
			same++
		}
	}
	if same < 8 {
		return fmt.Errorf("only %d areas have flags that are known", same)
	}
	return nil
}

// kernelFlags gives what readFlags needs of a task's areas from the kernel's memory;
// nil where that cannot be.
func (c *Collector) kernelFlags(t *Task) []procfs.Smap {
	k := c.Kernel
	if k == nil {
		return nil
	}
	p, err := unix.PidfdOpen(t.PID, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(p)
	raw := k.Areas(k.Process(p, t.PID))
	if k.Err() != nil {
		return nil
	}
	out := make([]procfs.Smap, 0, len(t.Areas))
	for i, j := 0, 0; i < len(t.Areas); i++ {
		a := &t.Areas[i]
		for j < len(raw) && raw[j].End <= a.Start {
			j++
		}
		if j == len(raw) || !holds(&procfs.VMA{Start: raw[j].Start, End: raw[j].End, Path: a.Path, Ino: a.Ino, Shared: a.Shared}, &a.VMA) {
			return nil
		}
		f, ok := vmFlags(raw[j].Flags)
		if !ok || f.Has(procfs.VMHugeTLB) {
			return nil
		}
		// Whether others map its pages too is not known: they may.
		out = append(out, procfs.Smap{VMA: a.VMA, Flags: f, SharedPages: 1})
	}
	return out
}
