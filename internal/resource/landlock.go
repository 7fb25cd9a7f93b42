package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// A thread that has restricted itself (landlock(7)) is in a domain, which no call
// shows and nothing can read out: a restored program would be free of it. The
// domain hangs on the thread's credentials, among what other security modules
// keep there (struct landlock_cred_security, security/landlock/cred.h). Where in
// that, this process finds out by restricting a thread of its own.

// Landlocked tells whether a thread of a process is in a Landlock domain. It costs
// some milliseconds, so who asks has a reason: a domain takes no_new_privs, unless
// the thread was privileged.
func (d *Dump) Landlocked(pid int) (bool, error) {
	type offsetKey struct{}
	if !sys.HasLandlock() {
		return false, nil
	}
	r, err := d.Kernel()
	if err != nil {
		return false, err
	}
	off, err := Value(d, offsetKey{}, func() (off uint64, err error) {
		// What lies behind the security modules' part is anything, and may lead
		// astray: another thread's is another.
		for range 4 {
			if off, err = domainOffset(r); err == nil {
				break
			}
		}
		return off, err
	})
	if err != nil {
		return false, err
	}
	fd, err := d.pidfd(pid)
	if err != nil {
		return false, err
	}
	in := false
	signal := r.Process(fd, pid).Ptr("signal", "signal_struct")
	for _, at := range r.List(signal.Addr+signal.Offset("thread_head"), false) {
		t := r.At("list_head", at).Of("task_struct", "thread_node")
		in = in || r.Pointer(t.Ptr("cred", "cred").Uint("security")+off) != 0
	}
	return in, r.Err()
}

// blobSize is how much of the security modules' part is looked at; it may be
// smaller, and then others' memory is looked at, too.
const blobSize = 128

// domainOffset finds where the domain is.
func domainOffset(r *kmem.Reader) (off uint64, err error) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its restriction
		blob := func() []byte { return r.Bytes(r.Task().Ptr("cred", "cred").Uint("security"), blobSize) }
		before := blob()
		if err := sys.LandlockSelf(); err != nil {
			done <- err
			return
		}
		after := blob()
		found := 0
		for i := 0; i+8 <= blobSize && r.Peek() == nil; i += 8 {
			const kernel = 1 << 63
			b, a := binary.NativeEndian.Uint64(before[i:]), binary.NativeEndian.Uint64(after[i:])
			if b != 0 || a&kernel == 0 {
				continue
			}
			// It is a domain of one layer, the one that was just made.
			if layers := r.At("landlock_ruleset", a).Uint("num_layers"); r.Err() == nil && layers == 1 {
				off = uint64(i)
				found++
				break
			}
		}
		err := r.Err()
		if err == nil && found != 1 {
			err = errors.New("where the kernel keeps domains was not found")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return 0, fmt.Errorf("%w: Landlock: %w", kmem.ErrUnavailable, err)
	}
	return off, nil
}
