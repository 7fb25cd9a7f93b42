package rebuild

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// fillObject writes a shared object's pages through its descriptor.
func (b *builder) fillObject(o *fm.ShmObject, fd int) error {
	r := o.GetPages()
	all := make([]piece, len(r.GetVaddr()))
	for i := range all {
		all[i] = piece{r.GetVaddr()[i], r.GetPages()[i] * sys.PageSize, r.GetOff()[i]}
	}
	huge := o.GetHugeShift() != 0
	return b.pour(all, func(batch []piece, d []byte) error {
		for _, x := range batch {
			w := d[:x.n]
			if end := o.GetSize(); !huge && x.at+x.n > end {
				w = w[:max(int64(end)-int64(x.at), 0)]
			}
			if err := writeObject(fd, w, int64(x.at), huge); err != nil {
				return fmt.Errorf("shared memory object: %w", err)
			}
			d = d[x.n:]
		}
		return nil
	})
}

// writeObject writes to a shmem file; hugetlbfs files have no write, they are
// mapped.
func writeObject(fd int, d []byte, at int64, huge bool) error {
	if huge {
		const span = 1 << 21
		base := at &^ (span - 1)
		n := (int(at-base) + len(d) + span - 1) &^ (span - 1)
		m, err := unix.Mmap(fd, base, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(m[at-base:], d)
		return unix.Munmap(m)
	}
	for len(d) > 0 {
		n, err := unix.Pwrite(fd, d, at)
		if err != nil {
			return err
		}
		d, at = d[n:], at+int64(n)
	}
	return nil
}
