package fermata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/chain"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/resource"
)

// SquashOptions steers Squash.
type SquashOptions struct {
	// To is the directory of the new checkpoint. It must not exist. Empty: the new
	// one takes the place of the old one.
	To string
	// Compression is how its memory is stored; nil: as that of the old one's newest
	// file.
	Compression *Compression
	// Dedup stores pages once that have the same content.
	Dedup bool
	// Progress, when set, is called as pages are written.
	Progress func(Progress)
}

// SquashResult describes what Squash has made.
type SquashResult struct {
	Ref     string        `json:"ref"`
	Links   int           `json:"links"`   // checkpoints that it had below it
	Before  int64         `json:"before"`  // bytes of pages in the files it had
	Written int64         `json:"written"` // bytes of pages in those it has
	Total   time.Duration `json:"total_ns"`
}

// Squash makes a full checkpoint of the one in dir that builds upon others: it
// shares no file with another and has only pages that it needs. It is read back
// before it appears under its name, or in place of the old one, in one step.
//
// Errors: ErrNotFound, ErrDamaged, ErrUsage (o.To exists), ErrPermission;
// whatever fails, and when ctx ends, the old checkpoint is as it was.
func Squash(ctx context.Context, dir string, o SquashOptions) (_ *SquashResult, err error) {
	began := time.Now()
	p, err := chain.Open(dir)
	if err != nil {
		return nil, errors.Unwrap(err) // it is no parent here
	}
	defer p.Close()
	final := filepath.Clean(o.To)
	if o.To == "" {
		final = filepath.Clean(dir)
	} else {
		if _, err := os.Lstat(final); err == nil {
			return nil, fault.Errorf(fault.ErrUsage, "%s exists already", final)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if name, err := hiddenName(p.Image); err != nil {
			return nil, err
		} else if name != "" {
			return nil, fault.Errorf(fault.ErrUsage, "%s holds the name %s of a removed file, which goes with the first of two checkpoints: squash it in its place", dir, name)
		}
	}
	r := &SquashResult{Ref: final, Links: int(p.Manifest.GetLinks()), Before: p.Stored()}
	work := fmt.Sprintf("%s.partial-%d", final, os.Getpid())
	if err := os.Mkdir(work, 0o700); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fault.Wrap(fault.ErrPermission, err)
		}
		return nil, err
	}
	defer func() {
		if rerr := os.RemoveAll(work); err == nil {
			err = rerr
		}
	}()
	var done int64
	progress := make(chan int64)
	reported := make(chan bool)
	go func() {
		defer close(reported)
		for n := range progress {
			if done += n; o.Progress != nil {
				o.Progress(Progress{"memory", done, int64(p.Manifest.GetPageBytes())})
			}
		}
	}()
	var how Compression
	if files := p.Manifest.GetStores(); len(files) > 0 {
		how = pagestore.CompressionOf(files[len(files)-1])
	}
	if o.Compression != nil {
		how = *o.Compression
	}
	r.Written, err = p.Squash(work, pagestore.Options{Context: ctx, Compression: how, Dedup: o.Dedup, Progress: func(n int64) { progress <- n }})
	close(progress)
	<-reported
	if err != nil {
		return nil, fmt.Errorf("squashing %s: %w", dir, err)
	}
	flags := uint(unix.RENAME_NOREPLACE)
	if o.To == "" {
		flags = unix.RENAME_EXCHANGE
	}
	if err := unix.Renameat2(unix.AT_FDCWD, work, unix.AT_FDCWD, final, flags); err != nil {
		return nil, fmt.Errorf("publishing %s: %w", final, err)
	}
	r.Total = time.Since(began)
	return r, nil
}

// hiddenName gives a name that a checkpoint keeps for a removed file, "" when
// there is none.
func hiddenName(im *image.Image) (string, error) {
	all, err := image.All[*fm.FileExtra](im, "file-extra")
	if err != nil {
		return "", err
	}
	for _, x := range all {
		if n := x.GetLinkPath(); strings.HasPrefix(filepath.Base(n), resource.LinkPrefix) {
			return n, nil
		}
	}
	return "", nil
}
