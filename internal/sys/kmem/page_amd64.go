package kmem

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Where the kernel has all of the machine's memory, and the struct page of each
// page (Documentation/arch/x86/x86_64/mm.rst). CONFIG_RANDOMIZE_MEMORY moves both
// and keeps them in variables, which bases finds in /proc/kallsyms.
const (
	directMap = 0xffff888000000000
	pageMap   = 0xffffea0000000000
)

var bases = sync.OnceValue(func() map[string]uint64 {
	at := map[string]uint64{}
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return at
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		l := s.Text()
		if !strings.HasSuffix(l, "_base") {
			continue
		}
		if w := strings.Fields(l); w[2] == "page_offset_base" || w[2] == "vmemmap_base" {
			at[w[2]], _ = strconv.ParseUint(w[0], 16, 64)
		}
	}
	return at
})

// pageAddress gives where the kernel has the page of a struct page.
func (r *Reader) pageAddress(page, size uint64) uint64 {
	if r.direct == 0 {
		r.direct, r.pages = directMap, pageMap
		if at := bases()["page_offset_base"]; at != 0 {
			r.direct, r.pages = r.Pointer(at), r.Pointer(bases()["vmemmap_base"])
		}
	}
	return r.direct + (page-r.pages)/size*uint64(unix.Getpagesize())
}
