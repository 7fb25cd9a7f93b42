package fermata

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/netlock"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/rebuild"
	"github.com/fermata-cr/fermata/internal/resource"
)

// VerifyResult says whether a checkpoint is whole, and whether it could be
// restored on this machine now. Nothing of it is executed.
type VerifyResult struct {
	Ref   string `json:"ref"`
	Parts int    `json:"parts"` // parts of the metadata that were read
	Bytes int64  `json:"bytes"` // bytes whose checksum was compared
	// Damage is what is not whole: missing, truncated, altered, contradictory.
	// With any, the other lists may lack what could not be read.
	Damage []Reason `json:"damage,omitempty"`
	// Missing is what this machine, kernel or user lacks and the program needs.
	Missing []Reason `json:"missing,omitempty"`
	// InTheWay is what hinders a restore now and may be gone later: pids in use,
	// files that changed.
	InTheWay []Reason `json:"in_the_way,omitempty"`
	// Notes are what would not be exactly as before, by documented rule.
	Notes []string `json:"notes,omitempty"`
}

// Whole reports whether every byte is there and unaltered.
func (r *VerifyResult) Whole() bool { return len(r.Damage) == 0 }

// Restorable reports whether a restore on this machine would succeed now.
func (r *VerifyResult) Restorable() bool {
	return r.Whole() && len(r.Missing) == 0 && len(r.InTheWay) == 0
}

// Verify reads the checkpoint in dir whole, compares every checksum, and asks
// whether it could be restored here and now. It makes no task. The error is for
// what kept it from looking (ErrNotFound, ErrPermission); what it found is in
// the result.
func Verify(ctx context.Context, dir string) (*VerifyResult, error) {
	r := &VerifyResult{Ref: dir}
	damage := func(object string, err error) {
		r.Damage = append(r.Damage, Reason{Object: object, Why: err.Error()})
	}
	im, err := image.Read(dir)
	if err != nil {
		if errors.Is(err, ErrDamaged) {
			damage("metadata", err)
			return r, nil
		}
		return nil, err
	}
	for _, n := range im.Names() {
		if _, err := im.Records(n); err != nil {
			damage("part "+n, err)
		}
		r.Parts++
	}
	m, err := image.One[*fm.Manifest](im, "manifest")
	if err != nil {
		damage("manifest", err)
		return r, nil
	}
	store, err := pagestore.Open(dir, m.GetStores())
	if err != nil {
		damage("page store", err)
	} else {
		defer store.Close()
		err := store.Verify(func(n int64) { r.Bytes += n })
		if err != nil {
			damage("page store", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, s := range m.GetSaved() {
		if err := verifySaved(dir, s); err != nil {
			damage("saved file "+s.GetName(), err)
		}
		r.Bytes += int64(s.GetSize())
	}
	if !r.Whole() {
		return r, nil
	}
	r.Notes = append(r.Notes, lockNotes(im)...)
	err = rebuild.Check(im, rebuild.Options{Dir: dir})
	var refused *RefusedError
	switch {
	case err == nil:
	case errors.Is(err, ErrBusy):
		for _, line := range strings.Split(err.Error(), "\n") {
			r.InTheWay = append(r.InTheWay, Reason{Object: "pid", Why: line, Remedy: "end that process, or restore into a new pid namespace"})
		}
	case errors.As(err, &refused):
		r.InTheWay = append(r.InTheWay, refused.Reasons...)
	case errors.Is(err, ErrDamaged):
		damage("metadata", err)
	default:
		r.Missing = append(r.Missing, Reason{Object: "restore", Why: err.Error()})
	}
	return r, nil
}

// lockNotes tells of the locks on connections to the outside.
func lockNotes(im *image.Image) (notes []string) {
	names := resource.NetLocks(im)
	if len(names) == 0 {
		return nil
	}
	there, err := netlock.List()
	for _, name := range names {
		switch {
		case err != nil:
			notes = append(notes, fmt.Sprintf("whether its connections to the outside are kept (nf_tables table %s) cannot be told: %v", name, err))
		case slices.Contains(there, name):
			notes = append(notes, fmt.Sprintf("its connections to the outside are kept from packets by the nf_tables table %s, until it is restored or removed", name))
		default:
			notes = append(notes, fmt.Sprintf("the nf_tables table %s, which kept its connections to the outside, is not there: peers that have sent since were answered that they are over", name))
		}
	}
	return notes
}

// verifySaved compares a saved file's size and checksum.
func verifySaved(dir string, s *fm.SavedFile) error {
	if !filepath.IsLocal(s.GetName()) {
		return fmt.Errorf("its name leads out of the checkpoint")
	}
	f, err := image.Open(filepath.Join(dir, s.GetName()))
	if err != nil {
		return err
	}
	defer f.Close()
	h := crc32.New(image.Castagnoli())
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if uint64(n) != s.GetSize() {
		return fmt.Errorf("%d bytes where %d were written", n, s.GetSize())
	}
	if h.Sum32() != s.GetCrc() {
		return fmt.Errorf("checksum differs")
	}
	return nil
}
