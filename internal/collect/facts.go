package collect

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// facts are what /proc tells of a process that stands still: nothing for which
// one needs to be its tracer. So a second thread reads them, for the processes
// to come, while the tracing thread works on an earlier one; what it has not
// come to yet, the tracing thread reads itself when it needs it.
//
// All of a process's facts are read before an executor enters it, because the
// tracing thread asks for them first.
type facts struct {
	pid int
	at  int // below which /proc shows what belongs to its address space
	// flags, when set, is the way to read a long memory map; alone: no page of it
	// can be shared with another process of the tree.
	flags *areaFlags
	alone bool

	base struct {
		sync.Once
		namespaces map[string]uint64
		personal   uint32
		oomAdj     int
		loginUID   *uint32
		autogroup  *int32
		err        error
	}
	areas struct {
		sync.Once
		smaps []procfs.Smap
		err   error
	}
}

// readAreas reads the memory map.
func (f *facts) readAreas() ([]procfs.Smap, error) {
	a := &f.areas
	a.Do(func() {
		if f.flags != nil {
			if a.smaps, a.err = f.flags.read(f.at); a.err == nil {
				for i := range a.smaps {
					if m := &a.smaps[i]; !f.alone || m.Flags&procfs.VMMergeable != 0 {
						m.SharedPages = 1 // nobody has counted them
					}
				}
				return
			}
		}
		a.smaps, a.err = procfs.ReadSmapsFlags(f.at)
	})
	return a.smaps, a.err
}

// readBase reads the rest.
func (f *facts) readBase() error {
	b := &f.base
	b.Do(func() {
		if b.namespaces, b.err = procfs.ReadNamespaces(f.at, 0); b.err != nil {
			return
		}
		if b.personal, b.err = procfs.ReadPersonality(f.at, 0); b.err != nil {
			return
		}
		if b.oomAdj, b.err = procfs.ReadOOMScoreAdj(f.at); b.err != nil {
			return
		}
		if g, err := procfs.ReadAutogroup(f.pid); err == nil && g.Present {
			b.autogroup = proto.Int32(int32(g.Nice))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.err = err
			return
		}
		if uid, err := procfs.ReadLoginUID(f.pid); err == nil {
			b.loginUID = &uid
		} else if !errors.Is(err, fs.ErrNotExist) && !procfs.IsGone(err) {
			b.err = err
		}
	})
	return b.err
}

// readAhead reads the facts of tasks in their order, in the background, until
// the function that it gives is called, which waits for it.
func (c *Collector) readAhead(tasks []*Task) (stop func()) {
	var (
		enough atomic.Bool
		reader sync.WaitGroup
	)
	reader.Go(func() {
		for _, t := range tasks {
			if enough.Load() {
				return
			}
			if t.Zombie {
				continue
			}
			// An error is for who needs the fact. Of a large task the map is read
			// where a snapshot is to show it.
			if m, err := procfs.ReadStatm(t.At()); err == nil && (c.SnapshotAbove == 0 || (m.Resident-min(m.Shared, m.Resident))*sys.PageSize < c.SnapshotAbove) {
				_, _ = t.facts.readAreas()
			}
			_ = t.facts.readBase()
		}
	})
	return func() {
		enough.Store(true)
		reader.Wait()
	}
}
