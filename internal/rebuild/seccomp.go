package rebuild

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	criu_seccomp "github.com/checkpoint-restore/go-criu/v8/crit/images/seccomp"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/probe"
)

// Operations and flags of seccomp(2).
const (
	seccompSetStrict = 0
	seccompSetFilter = 1
	seccompTsync     = 1
)

// loadFilters reads the seccomp filters of the image.
func (b *builder) loadFilters() error {
	all, err := image.All[*criu_seccomp.SeccompEntry](b.im, collect.SeccompPart)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		b.filters = all[0]
	}
	for _, p := range b.procs {
		for _, t := range p.threads {
			c := t.core.GetThreadCore()
			mode := c.GetSeccompMode()
			if mode == criu_core.SeccompMode_disabled {
				continue
			}
			b.secure = true
			if mode != criu_core.SeccompMode_filter {
				continue
			}
			t.filters = collect.Chain(b.filters, c.GetSeccompFilter())
			if t.filters == nil {
				return fault.Errorf(fault.ErrDamaged, "thread %d: seccomp filter %d is not in the image", t.tid, c.GetSeccompFilter())
			}
			for _, f := range t.filters {
				if n := len(f.GetFilter()); n == 0 || n%8 != 0 || n > 8*4096 {
					return fault.Errorf(fault.ErrDamaged, "thread %d: a seccomp filter of %d bytes", t.tid, n)
				}
			}
		}
	}
	if b.secure && !probe.SuspendSeccomp.Have() {
		b.refuse.Add(fault.Reason{
			PID: b.procs[0].pid, Object: "seccomp", Why: "filters could not be kept from judging the restore itself (PTRACE_O_SUSPEND_SECCOMP)",
			Remedy: "run fermata as root, outside of a sandbox",
		})
	}
	return nil
}

// traceOptions are those that every task made is traced with; they are inherited.
func (b *builder) traceOptions() uintptr {
	o := uintptr(sys.OptTraceSysgood | sys.OptExitKill)
	if b.secure {
		o |= sys.OptSuspendSeccomp
	}
	return o
}

// seccomp puts a process's threads under their filters, which judge nothing
// before the tracer is gone. Installing them takes CAP_SYS_ADMIN or
// no_new_privs, so it comes before the credentials. Those that all threads have
// are installed by one for all, so that they are the same to the kernel and more
// can be added in step later (SECCOMP_FILTER_FLAG_TSYNC).
func (b *builder) seccomp(p *proc) error {
	common := p.threads[0].filters
	size := 0
	for _, t := range p.threads {
		n := 0
		for n < len(common) && n < len(t.filters) && proto.Equal(common[n], t.filters[n]) {
			n++
		}
		common = common[:n]
		for _, f := range t.filters {
			size = max(size, len(f.GetFilter()))
		}
	}
	if size > 0 {
		if err := b.filterRoom(p, size, func() error {
			for _, f := range common {
				if err := b.addFilter(p.threads[0], f, seccompTsync); err != nil {
					return err
				}
			}
			for _, t := range p.threads {
				for _, f := range t.filters[len(common):] {
					if err := b.addFilter(t, f, 0); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for _, t := range p.threads {
		if t.core.GetThreadCore().GetSeccompMode() == criu_core.SeccompMode_strict {
			t.exec.Reset()
			if _, err := t.exec.Call(unix.SYS_SECCOMP, seccompSetStrict, 0, 0); err != nil {
				return fmt.Errorf("thread %d: seccomp strict mode: %w", t.tid, err)
			}
		}
	}
	return nil
}

// filterRoom maps memory for the largest filter while f runs.
func (b *builder) filterRoom(p *proc, size int, f func() error) (err error) {
	n := uint64(size+sys.PageSize-1) &^ (sys.PageSize - 1)
	p.exec.Reset()
	if _, err := p.exec.Call(unix.SYS_MMAP, b.scratch, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uint64(0), 0); err != nil {
		return fmt.Errorf("pid %d: memory for seccomp filters: %w", p.pid, err)
	}
	defer func() {
		p.exec.Reset()
		if _, uerr := p.exec.Call(unix.SYS_MUNMAP, b.scratch, n); err == nil {
			err = uerr
		}
	}()
	return f()
}

func (b *builder) addFilter(t *thread, f *criu_seccomp.SeccompFilter, flags uint64) error {
	code := f.GetFilter()
	if err := sys.WriteMem(t.exec.TID, b.scratch, code); err != nil {
		return fmt.Errorf("thread %d: seccomp filter: %w", t.tid, err)
	}
	t.exec.Reset()
	prog := slices.Concat(le.AppendUint64(nil, uint64(len(code)/8)), le.AppendUint64(nil, b.scratch)) // struct sock_fprog
	r, err := t.exec.Call(unix.SYS_SECCOMP, seccompSetFilter, flags|uint64(f.GetFlags()), t.exec.Put(prog))
	if err == nil && r != 0 {
		err = fmt.Errorf("thread %d has other filters", r)
	}
	if err != nil {
		return fmt.Errorf("thread %d: seccomp filter of %d instructions: %w", t.tid, len(code)/8, err)
	}
	return nil
}
