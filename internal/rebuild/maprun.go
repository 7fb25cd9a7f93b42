package rebuild

import (
	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/procfs"
)

// Anonymous areas that lie side by side and differ in their protection only are
// mapped by one call and divided by mprotect(2), where that takes fewer calls
// than to map each: every other one, if their protections alternate.

// leastRun is how many areas are worth it.
const leastRun = 4

// mapRun maps the areas from i on of which that is true, and gives the index
// behind the last one; i when there are too few.
func (b *builder) mapRun(q *queue, p *proc, kept []bool, i int) int {
	first := &p.areas[i]
	end := i
	for ; end < len(p.areas) && !kept[end] && p.areas[end].alike(first); end++ {
		if end > i && p.areas[end].GetStart() != p.areas[end-1].GetEnd() {
			break
		}
	}
	if end-i < leastRun {
		return i
	}
	prots := make([]uint32, end-i)
	base, calls := b.commonProt(p, i, prots)
	if calls+1 > len(prots)*3/4 {
		return i
	}
	start, size := first.GetStart(), p.areas[end-1].GetEnd()-first.GetStart()
	flags := (uint64(first.GetFlags()) | unix.MAP_FIXED_NOREPLACE) &^ unix.MAP_STACK
	q.add("mmap", unix.SYS_MMAP, start, size, uint64(base), flags, ^uint64(0), 0)
	q.want(start)
	if m := first.GetMadv() & hugeAdvice; m != 0 {
		for k := i; k < end; k++ {
			b.advise(q, &p.areas[k], m)
		}
	}
	for k := 0; k < len(prots); {
		n := k + 1
		for n < len(prots) && prots[n] == prots[k] {
			n++
		}
		if prots[k] != base {
			from := p.areas[i+k].GetStart()
			q.add("mprotect", unix.SYS_MPROTECT, from, p.areas[i+n-1].GetEnd()-from, uint64(prots[k]))
		}
		k = n
	}
	return end
}

// alike tells whether an area can be mapped together with another that is next
// to it.
func (a *area) alike(o *area) bool {
	const single = unix.MAP_GROWSDOWN | unix.MAP_HUGETLB
	return a.is(collect.VMAAnonPrivate) && !a.special() && a.GetFlags()&single == 0 && a.GetFlags()&mapDroppable != mapDroppable &&
		!a.is(collect.VMAAio|collect.VMASysV|collect.VMAAnonShared) && a.file() == 0 &&
		a.GetFlags() == o.GetFlags() && a.GetMadv()&hugeAdvice == o.GetMadv()&hugeAdvice
}

// commonProt gives the protection to map areas with, from i on as many as prots
// has room for, and how many calls give the others theirs, which are put into
// prots. What has been writable once counts as memory that may be needed for good
// (VM_ACCOUNT): so none is that need not be.
func (b *builder) commonProt(p *proc, i int, prots []uint32) (base uint32, calls int) {
	const all = unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC
	var runs [all + 1]int // of areas, by their protection
	total, charged := 0, true
	for k := range prots {
		a := &p.areas[i+k]
		prots[k] = b.firstProt(p, i+k) & all
		if k == 0 || prots[k] != prots[k-1] {
			runs[prots[k]]++
			total++
		}
		if prots[k]&unix.PROT_WRITE == 0 && a.flags()&procfs.VMAccount == 0 && a.GetFlags()&unix.MAP_NORESERVE == 0 {
			charged = false
		}
	}
	best := -1
	for prot, n := range runs {
		if n > 0 && n > best && (charged || prot&unix.PROT_WRITE == 0) {
			base, best = uint32(prot), n
		}
	}
	return base, total - max(best, 0)
}
