package collect

import (
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"

	"github.com/fermata-cr/fermata/internal/sys"
)

// What tasks may share through clone(2): each object gets a number, equal for
// the tasks that share it.
var kobjKinds = [4]int{sys.KcmpVM, sys.KcmpFiles, sys.KcmpFS, sys.KcmpSighand}

// kcmpSet numbers the objects of one kind, sorted by the kernel's own order, so
// that a new task costs the logarithm of their count in comparisons.
type kcmpSet struct {
	what   int
	sorted []kobj
	next   uint32
	known  map[int]uint32 // by pid
}

type kobj struct {
	pid int
	id  uint32
}

func (s *kcmpSet) id(pid int) (uint32, error) {
	if id, ok := s.known[pid]; ok {
		return id, nil
	}
	id, err := s.find(pid)
	if err == nil {
		s.known[pid] = id
	}
	return id, err
}

func (s *kcmpSet) find(pid int) (uint32, error) {
	var kerr error
	same := -1
	i := sort.Search(len(s.sorted), func(i int) bool {
		c, err := sys.Kcmp(pid, s.sorted[i].pid, s.what, 0, 0)
		if err != nil {
			kerr = err
		}
		if c == 0 {
			same = i
		}
		return c == 0 || c == 1
	})
	if kerr != nil {
		return 0, kerr
	}
	if same >= 0 {
		return s.sorted[same].id, nil
	}
	s.next++
	s.sorted = slices.Insert(s.sorted, i, kobj{pid, s.next})
	return s.next, nil
}

func (c *Collector) kobjIDs(pid int) (*criu_core.TaskKobjIdsEntry, error) {
	var v [4]uint32
	for i, s := range c.ids {
		id, err := s.id(pid)
		if err != nil {
			return nil, err
		}
		v[i] = id
	}
	return &criu_core.TaskKobjIdsEntry{
		VmId: proto.Uint32(v[0]), FilesId: proto.Uint32(v[1]), FsId: proto.Uint32(v[2]), SighandId: proto.Uint32(v[3]),
	}, nil
}
