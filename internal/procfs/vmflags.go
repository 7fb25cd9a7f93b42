package procfs

import "strings"

// VMFlags is the set of codes in a VmFlags line of smaps. The bits are ours:
// the kernel's VM_ bits are not the same on all architectures and versions.
type VMFlags uint64

// The codes of show_smap_vma_flags in fs/proc/task_mmu.c, of Linux 5.15 to 6.19.
const (
	VMRead        VMFlags = 1 << iota // rd
	VMWrite                           // wr
	VMExec                            // ex
	VMShared                          // sh
	VMMayRead                         // mr
	VMMayWrite                        // mw
	VMMayExec                         // me
	VMMayShare                        // ms: the file may be shared (MAP_SHARED, even if read-only)
	VMGrowsDown                       // gd
	VMPFNMap                          // pf: pages without struct page
	VMLocked                          // lo: mlock
	VMIO                              // io
	VMSeqRead                         // sr: MADV_SEQUENTIAL
	VMRandRead                        // rr: MADV_RANDOM
	VMDontCopy                        // dc: MADV_DONTFORK
	VMDontExpand                      // de
	VMLockOnFault                     // lf: MLOCK_ONFAULT
	VMAccount                         // ac
	VMNoReserve                       // nr: MAP_NORESERVE
	VMHugeTLB                         // ht
	VMSync                            // sf: MAP_SYNC
	VMArch1                           // ar
	VMWipeOnFork                      // wf: MADV_WIPEONFORK
	VMDontDump                        // dd: MADV_DONTDUMP
	VMBTI                             // bt: PROT_BTI, arm64
	VMSoftDirty                       // sd
	VMMixedMap                        // mm
	VMHugePage                        // hg: MADV_HUGEPAGE
	VMNoHugePage                      // nh: MADV_NOHUGEPAGE
	VMMergeable                       // mg: MADV_MERGEABLE
	VMUffdMissing                     // um: userfaultfd, missing pages
	VMUffdWP                          // uw: userfaultfd, write protection
	VMUffdMinor                       // ui: userfaultfd, minor faults
	VMMTE                             // mt: PROT_MTE, arm64
	VMShadowStack                     // ss: x86 shadow stack, arm64 guarded control stack
	VMDroppable                       // dp: MAP_DROPPABLE, since 6.11
	VMSealed                          // sl: mseal, since 6.10
	VMMaybeGuard                      // gu: may hold MADV_GUARD_INSTALL regions, since 6.19
	VMUnknown                         // ??, or a code that this list does not have
)

// vmCodes are the codes in the order of the constants.
var vmCodes = [...]string{
	"rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "pf", "lo",
	"io", "sr", "rr", "dc", "de", "lf", "ac", "nr", "ht", "sf", "ar", "wf",
	"dd", "bt", "sd", "mm", "hg", "nh", "mg", "um", "uw", "ui", "mt", "ss",
	"dp", "sl", "gu", "??",
}

// vmIndex finds the flag of a code of two small letters.
var vmIndex = func() (t [26 * 26]VMFlags) {
	for i, c := range vmCodes {
		if c != "??" {
			t[int(c[0]-'a')*26+int(c[1]-'a')] = 1 << i
		}
	}
	return t
}()

// parseVMFlags takes codes with blanks between them.
func parseVMFlags(b []byte) (f VMFlags) {
	s := scanner{b: b}
	for s.blanks(); s.i < len(b); s.blanks() {
		w := s.word()
		if len(w) == 0 {
			return f | VMUnknown // a newline: not from a line of the kernel
		}
		bit := VMFlags(0)
		if len(w) == 2 && w[0]-'a' < 26 && w[1]-'a' < 26 {
			bit = vmIndex[int(w[0]-'a')*26+int(w[1]-'a')]
		}
		if bit == 0 {
			bit = VMUnknown
		}
		f |= bit
	}
	return f
}

// String gives the codes as the kernel prints them, in the order of the
// constants.
func (f VMFlags) String() string {
	var b strings.Builder
	for i, c := range vmCodes {
		if f&(1<<i) != 0 {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(c)
		}
	}
	return b.String()
}

// Has says that all of flags are in f.
func (f VMFlags) Has(flags VMFlags) bool { return f&flags == flags }
