package collect

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// The ring of a context of Linux AIO, as the kernel shows it to the program
// (fs/aio.c, struct aio_ring): a header, then the events.
const (
	AioNr      = 4 // u32: how many events there is room for
	AioHead    = 8 // u32: the first that the program has not taken
	aioTail    = 12
	aioMagicAt = 16
	aioMagic   = 0xa10a10a1
	aioHeader  = 32
	// AioEvents is where the events begin, AioEvent the size of one.
	AioEvents = aioHeader
	AioEvent  = 32
)

// aioQuiet is for how long no request may have completed before the rings are
// taken as they are. How many are under way the kernel tells nobody.
const (
	aioQuiet = 5 * time.Millisecond
	aioLimit = 200 * time.Millisecond
)

// askRings asks, of each ring that a task maps, whether it is a context of the
// task: a fork hands the ring down, but not the context.
func (c *Collector) askRings(t *Task, b *batch, mme *mm.MmEntry) {
	for _, a := range t.rings {
		a := a
		b.ask("io_getevents", true, func(int64) {
			mme.Aios = append(mme.Aios, &mm.AioRingEntry{
				Id: proto.Uint64(a.Start), NrReq: proto.Uint32(0), RingLen: proto.Uint32(uint32(a.End - a.Start)),
			})
			t.aios = append(t.aios, mme.Aios[len(mme.Aios)-1])
		}, unix.SYS_IO_GETEVENTS, a.Start, 0, 0, 0, 0)
	}
}

// readRings saves the events that have not been taken, once the requests under
// way have completed as far as that can be told.
func (c *Collector) readRings() error {
	var all []*Task
	for _, t := range c.Tasks {
		if len(t.aios) > 0 {
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return nil
	}
	tails := func() (out []uint32, err error) {
		for _, t := range all {
			for _, e := range t.aios {
				var b [4]byte
				if err := sys.ReadMem(t.At(), e.GetId()+aioTail, b[:]); err != nil {
					return nil, fmt.Errorf("pid %d: ring of an AIO context at %#x: %w", t.PID, e.GetId(), err)
				}
				out = append(out, le.Uint32(b[:]))
			}
		}
		return out, nil
	}
	was, err := tails()
	if err != nil {
		return err
	}
	for began, since := time.Now(), time.Now(); time.Since(since) < aioQuiet && time.Since(began) < aioLimit; {
		sys.Nap(aioQuiet / 5)
		now, err := tails()
		if err != nil {
			return err
		}
		if !slices.Equal(now, was) {
			was, since = now, time.Now()
		}
	}
	for _, t := range all {
		for _, e := range t.aios {
			if err := c.readRing(t, e); err != nil {
				return fmt.Errorf("pid %d: ring of an AIO context at %#x: %w", t.PID, e.GetId(), err)
			}
		}
	}
	return nil
}

func (c *Collector) readRing(t *Task, e *mm.AioRingEntry) error {
	ring := make([]byte, e.GetRingLen())
	if err := sys.ReadMem(t.At(), e.GetId(), ring); err != nil {
		return err
	}
	nr, head, tail := le.Uint32(ring[AioNr:]), le.Uint32(ring[AioHead:]), le.Uint32(ring[aioTail:])
	if le.Uint32(ring[aioMagicAt:]) != aioMagic || nr < 2 || uint64(nr)*AioEvent+AioEvents > uint64(len(ring)) || tail >= nr {
		c.refuse(t, fmt.Sprintf("area %#x /[aio]", e.GetId()), "its header is not that of an AIO ring", "io_destroy before the checkpoint")
		return nil
	}
	head %= nr // as the kernel reads what the program may have written
	x := &fm.AioContext{Start: proto.Uint64(e.GetId()), Nr: proto.Uint32(nr), Head: proto.Uint32(head), Tail: proto.Uint32(tail), Events: []byte{}}
	for i := head; i != tail; i = (i + 1) % nr {
		at := AioEvents + AioEvent*i
		x.Events = append(x.Events, ring[at:at+AioEvent]...)
	}
	e.NrReq = proto.Uint32(AioRequests(nr))
	t.extra.Aio = append(t.extra.Aio, x)
	return nil
}

// AioRequests gives the argument of io_setup(2) that makes a ring of nr events:
// the kernel takes twice as many and two, and fills the last page (fs/aio.c,
// aio_setup_ring).
func AioRequests(nr uint32) uint32 { return (nr - 2) / 2 }
