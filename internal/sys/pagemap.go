package sys

// Categories of a page in PAGEMAP_SCAN (include/uapi/linux/fs.h, Linux 6.7).
const (
	PageWPAllowed = 1 << 0
	PageWritten   = 1 << 1
	PageFile      = 1 << 2
	PagePresent   = 1 << 3
	PageSwapped   = 1 << 4
	PageZero      = 1 << 5
	PageHuge      = 1 << 6
	PageSoftDirty = 1 << 7
	PageGuard     = 1 << 8 // 6.15: a guard region (MADV_GUARD_INSTALL)
)

// Flags of PAGEMAP_SCAN.
const (
	ScanWPMatching   = 1 << 0
	ScanCheckWPAsync = 1 << 1
)

// Bits of an entry of /proc/PID/pagemap
// (Documentation/admin-guide/mm/pagemap.rst).
const (
	PMPresent   = 1 << 63
	PMSwap      = 1 << 62
	PMFile      = 1 << 61
	PMUffdWP    = 1 << 57 // 5.12: write-protected by a userfaultfd
	PMExclusive = 1 << 56 // 4.2: mapped by this address space alone
	PMFrameMask = 1<<55 - 1
)

// PageRegion is struct page_region: a run of pages of the same categories.
type PageRegion struct {
	Start, End uint64
	Categories uint64
}

// PageScan says what ScanPages looks for: pages all of whose bits in All, and
// at least one in Any (when not 0), match after the bits in Inverted were
// turned round; Report are the bits given back. Max is how many pages it may
// find, 0 for any number.
type PageScan struct {
	Inverted, All, Any, Report uint64
	Flags                      uint64
	Max                        uint64
}
