package imgdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Dedup frees what the directories that dir builds upon hold in vain: pages that
// dir has itself. Their files keep their length and get holes
// (FALLOC_FL_PUNCH_HOLE, fallocate(2)). It gives the pages freed. What is behind
// the parent is freed first.
func Dedup(dir string) (pages uint64, err error) {
	parent, err := filepath.EvalSymlinks(filepath.Join(dir, ParentName))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if pages, err = Dedup(parent); err != nil {
		return pages, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "pagemap-*.img"))
	if err != nil {
		return pages, err
	}
	for _, n := range names {
		k, err := dedupOne(dir, parent, filepath.Base(n))
		pages += k
		if err != nil {
			return pages, fmt.Errorf("%s: %w", n, err)
		}
	}
	return pages, nil
}

func dedupOne(dir, parent, name string) (pages uint64, err error) {
	below := &Source{dir: parent, bases: map[string]uint64{}}
	old, err := below.pagemap(parent, name, 0)
	if err != nil || len(old.Vaddr) == 0 {
		return 0, err
	}
	r, err := open(dir, name, "PAGEMAP")
	if r == nil || err != nil {
		return 0, err
	}
	defer r.close()
	if ok, err := r.next(&pagemap.PagemapHead{}); err != nil || !ok {
		return 0, err
	}
	for {
		e := &pagemap.PagemapEntry{}
		ok, err := r.next(e)
		if err != nil || !ok {
			return pages, err
		}
		if e.GetFlags()&pagePresent == 0 || e.GetFlags()&pageParent != 0 {
			continue
		}
		n, err := below.punch(old, e.GetVaddr(), e.GetNrPages())
		pages += n
		if err != nil {
			return pages, err
		}
	}
}

// punch makes holes where runs have pages from at on.
func (s *Source) punch(runs *fm.PageRuns, at, pages uint64) (freed uint64, err error) {
	end := at + pages*sys.PageSize
	for i, v := range runs.Vaddr {
		from, to := max(at, v), min(end, v+runs.Pages[i]*sys.PageSize)
		if from >= to {
			continue
		}
		if err := s.hole(runs.Off[i]+from-v, to-from); err != nil {
			return freed, err
		}
		freed += (to - from) / sys.PageSize
	}
	return freed, nil
}

// hole frees a part of the store, which may lie in several files.
func (s *Source) hole(off, n uint64) error {
	for _, path := range s.stores {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		base := s.bases[path]
		from, to := max(off, base), min(off+n, base+uint64(st.Size()))
		if from >= to {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(from-base), int64(to-from))
		f.Close()
		if err != nil && !strings.Contains(err.Error(), "not supported") {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}
