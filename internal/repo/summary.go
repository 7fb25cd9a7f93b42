package repo

import (
	"fmt"
	"io/fs"
	"path/filepath"
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
}

// Summary reads the checkpoint's manifest. Of one that is damaged it gives the
// size with the error.
func (e Entry) Summary() (Summary, error) {
	n, err := Size(e.Dir)
	s := Summary{Bytes: n}
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
	s.Created, s.Tasks = time.Unix(0, m.GetCreatedNs()), int(m.GetTasks())
	for _, r := range m.GetRoots() {
		s.Roots = append(s.Roots, int(r))
	}
	return s, nil
}

// Size adds up the sizes of the files below dir, in bytes.
func Size(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			sum += st.Size()
		}
		return err
	})
	if err != nil {
		return sum, kind(err)
	}
	return sum, nil
}
