package repo

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// Summary is what a list shows of a checkpoint.
type Summary struct {
	Created time.Time
	Roots   []int
	Tasks   int   // processes
	Bytes   int64 // of all its files
	Shared  int64 // of these, what other directories have, too
	Links   int   // checkpoints that it builds upon, one upon the other
}

// Summary reads the checkpoint's manifest. Of one that is damaged it gives the
// size with the error.
func (e Entry) Summary() (Summary, error) {
	n, shared, err := Size(e.Dir)
	s := Summary{Bytes: n, Shared: shared}
	if err != nil {
		return s, err
	}
	im, err := image.Read(e.Dir)
	if err != nil {
		return s, err
	}
	m, err := image.One[*fm.Manifest](im, "manifest")
	if err != nil {
		return s, fmt.Errorf("%s: %w", e.Dir, err)
	}
	s.Created, s.Tasks, s.Links = time.Unix(0, m.GetCreatedNs()), int(m.GetTasks()), int(m.GetLinks())
	for _, r := range m.GetRoots() {
		s.Roots = append(s.Roots, int(r))
	}
	return s, nil
}

// Size adds up the sizes of the files below dir, in bytes, and of those among
// them that have another name as well: that belong to other checkpoints, too.
func Size(dir string) (sum, shared int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		sum += info.Size()
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			shared += info.Size()
		}
		return nil
	})
	if err != nil {
		return sum, shared, kind(err)
	}
	return sum, shared, nil
}
