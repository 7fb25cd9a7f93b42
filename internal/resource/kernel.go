package resource

import "github.com/fermata-cr/fermata/internal/sys/kmem"

type kernelKey struct{}

// Kernel gives a reader of the kernel's memory, for state that no call tells
// without changing it. Where there can be none the error is kmem.ErrUnavailable,
// and such state is refused.
func (d *Dump) Kernel() (*kmem.Reader, error) {
	type opened struct {
		r   *kmem.Reader
		err error
	}
	o, _ := Value(d, kernelKey{}, func() (opened, error) {
		r, err := kmem.Open()
		if err == nil {
			d.atClose = append(d.atClose, r.Close)
		}
		return opened{r, err}, nil
	})
	return o.r, o.err
}
