//go:build !amd64

package kmem

// pageAddress needs to know the machine's layout of memory: only amd64's so far.
func (r *Reader) pageAddress(uint64, uint64) uint64 {
	r.fail(ErrUnavailable)
	return 0
}
