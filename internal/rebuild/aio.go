package rebuild

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// contexts makes the contexts of Linux AIO of a process again, each with its
// ring in its place. The kernel counts completed requests by itself, so as many
// are made as lead to where the ring was: reads of /dev/null, which complete at
// once. Their events are overwritten with those that were saved.
func (b *builder) contexts(q *queue, p *proc) error {
	list := p.mmx.GetAio()
	if len(list) == 0 {
		return nil
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/null: %w", err)
	}
	defer unix.Close(null)
	if err := b.sendTemporary(q, []int{null}); err != nil { // descriptor 0
		return err
	}
	if err := q.flush(); err != nil {
		return err
	}
	for _, x := range list {
		if err := b.context(p, x); err != nil {
			return fmt.Errorf("AIO context at %#x: %w", x.GetStart(), err)
		}
	}
	q.e.Reset()
	q.add("close", unix.SYS_CLOSE, 0)
	return q.flush()
}

func (b *builder) context(p *proc, x *fm.AioContext) error {
	var a *area
	for i := range p.areas {
		if p.areas[i].GetStart() == x.GetStart() && p.areas[i].is(collect.VMAAio) {
			a = &p.areas[i]
		}
	}
	nr, head, tail := x.GetNr(), x.GetHead(), x.GetTail()
	if a == nil || nr < 2 || head >= nr || tail >= nr || len(x.GetEvents()) != int((tail+nr-head)%nr)*collect.AioEvent {
		return fault.Errorf(fault.ErrDamaged, "its ring of %d events from %d to %d is not in the memory map", nr, head, tail)
	}
	size := a.GetEnd() - a.GetStart()
	e := p.exec
	e.Reset()
	at, ctx := e.Data(8)
	if _, err := e.Call(unix.SYS_IO_SETUP, uint64(collect.AioRequests(nr)), at); err != nil {
		return fmt.Errorf("io_setup of %d: %w (the sysctl fs.aio-max-nr?)", collect.AioRequests(nr), err)
	}
	ring := le.Uint64(ctx)
	var got [4]byte
	if err := sys.ReadMem(p.host(), ring+collect.AioNr, got[:]); err != nil {
		return err
	}
	if le.Uint32(got[:]) != nr {
		return fault.Errorf(fault.ErrRefused, "this kernel makes its ring for %d events where it had %d: it has more processors", le.Uint32(got[:]), nr)
	}
	e.Reset()
	if _, err := e.Call(unix.SYS_MREMAP, ring, size, size, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.GetStart()); err != nil {
		return fmt.Errorf("mremap: %w", err)
	}
	setHead := func(v uint32) error {
		return sys.WriteMem(p.host(), a.GetStart()+collect.AioHead, le.AppendUint32(nil, v))
	}
	// Up to head all are taken at once, from there to tail none.
	at1 := uint32(0)
	for _, stop := range []uint32{head, tail} {
		for at1 != stop {
			n := (stop + nr - at1) % nr
			if n > aioBatch {
				n = aioBatch
			}
			if stop == head && n > (nr-1)/2 {
				n = max((nr-1)/2, 1)
			}
			if err := b.complete(p, a.GetStart(), n); err != nil {
				return err
			}
			at1 = (at1 + n) % nr
			if stop == head {
				if err := setHead(at1); err != nil {
					return err
				}
			}
		}
		if head == tail {
			break
		}
	}
	for i, at := 0, head; at != tail; i, at = i+1, (at+1)%nr {
		ev := x.GetEvents()[i*collect.AioEvent:][:collect.AioEvent]
		if err := sys.WriteMem(p.host(), a.GetStart()+collect.AioEvents+uint64(at)*collect.AioEvent, ev); err != nil {
			return err
		}
	}
	return nil
}

// aioBatch is how many requests one call submits.
const aioBatch = 512

// complete submits n reads of descriptor 0, the null device.
func (b *builder) complete(p *proc, ctx uint64, n uint32) error {
	e := p.exec
	e.Reset()
	cb, _ := e.Data(64) // struct iocb: all zero is a read of nothing
	list := make([]byte, 0, 8*n)
	for range n {
		list = le.AppendUint64(list, cb)
	}
	r, err := e.Call(unix.SYS_IO_SUBMIT, ctx, uint64(n), e.Put(list))
	if err == nil && r != int64(n) {
		err = fmt.Errorf("%d of %d accepted", r, n)
	}
	if err != nil {
		return fmt.Errorf("io_submit: %w", err)
	}
	return nil
}
