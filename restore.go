package fermata

import (
	"context"
	"fmt"
	"time"

	"github.com/fermata-cr/fermata/internal/criu/imgdir"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/rebuild"
	"github.com/fermata-cr/fermata/internal/resource"
)

// Restore brings the tree of the checkpoint in dir back, with the pids it had;
// when it returns, the program runs. The roots of the tree are children of the
// calling process, which must wait for them or have SIGCHLD ignored.
//
// Errors: ErrNotFound, ErrDamaged, ErrBusy (a pid is taken), ErrRefused (files
// that changed, another kernel), ErrPermission; whatever fails, and when ctx
// ends before, no task of the tree is left.
func Restore(ctx context.Context, dir string, o RestoreOptions) (*RestoreResult, error) {
	began := time.Now()
	opt := rebuild.Options{
		Dir: dir, Files: resource.FilesPolicy(o.Files), Cgroups: rebuild.CgroupPolicy(o.Cgroups), Stopped: o.Stopped, PidNS: o.PidNS, Foreground: o.Foreground,
		Ready: o.Ready, Lazy: o.Lazy, TCPClose: o.TCPClose,
	}
	if len(o.Inherit) > 0 {
		opt.Inherit = map[string]int{}
		for name, f := range o.Inherit {
			opt.Inherit[name] = int(f.Fd())
		}
	}
	im, err := openImages(dir, &opt)
	if err != nil {
		return nil, err
	}
	if o.Lazy && o.Copies > 0 {
		return nil, fault.Errorf(fault.ErrUsage, "copies of a program have their memory in common: it cannot come later")
	}
	type outcome struct {
		res    *rebuild.Result
		copies []Copy
		err    error
	}
	gather := func(all *rebuild.CopiesResult, err error) outcome {
		if err != nil {
			return outcome{err: err}
		}
		sum := *all.Copies[0]
		sum.Roots, sum.Threads = nil, 0
		out := outcome{res: &sum}
		for i, r := range all.Copies {
			out.copies = append(out.copies, Copy{Init: all.Inits[i], Roots: r.Roots})
			sum.Roots, sum.Threads = append(sum.Roots, r.Roots...), sum.Threads+r.Threads
		}
		return out
	}
	ch := make(chan outcome, 1)
	go func() {
		if o.Progress != nil {
			opt.Progress = func(phase string, done, total int64) { o.Progress(Progress{phase, done, total}) }
		}
		if o.Copies > 0 {
			all, err := rebuild.RunCopies(ctx, im, opt, o.Copies)
			ch <- gather(all, err)
			return
		}
		res, err := rebuild.Run(ctx, im, opt)
		ch <- outcome{res: res, err: err}
	}()
	out := <-ch
	if out.err != nil {
		return nil, permitted(fmt.Errorf("restoring %s: %w", dir, out.err))
	}
	r := out.res
	return &RestoreResult{
		Ref: dir, PIDs: r.PIDs, Roots: r.Roots, Copies: out.copies, Tasks: len(r.PIDs) * max(o.Copies, 1), Threads: r.Threads,
		Bytes: r.Bytes, Later: r.Later, Filling: r.Filling, Notes: r.Notes, Total: time.Since(began),
	}, nil
}

// openImages reads the metadata of a checkpoint of either layout.
func openImages(dir string, opt *rebuild.Options) (*image.Image, error) {
	if !imgdir.Is(dir) {
		return image.Read(dir)
	}
	src, err := imgdir.Import(dir)
	if err != nil {
		return nil, err
	}
	opt.Store, opt.Saved = src.Store, src.Saved
	return src.Image, nil
}
