package fermata

import (
	"github.com/fermata-cr/fermata/internal/fault"
)

// The kinds of failure a caller can tell apart. Match them with errors.Is; the
// error itself always carries the object it is about (pid, descriptor, area,
// path) and, where there is one, the remedy.
var (
	// ErrRefused: the program has state that cannot be saved, or the image
	// needs something this machine lacks. Nothing was written, no task was
	// changed. errors.As with *RefusedError lists every reason.
	ErrRefused = fault.ErrRefused
	// ErrNotFound: no such process, or no such checkpoint.
	ErrNotFound = fault.ErrNotFound
	// ErrBusy: a pid (or another exclusive name) that a restore needs is taken.
	ErrBusy = fault.ErrBusy
	// ErrPermission: the caller may not trace the target or use what the
	// operation needs.
	ErrPermission = fault.ErrPermission
	// ErrDamaged: the checkpoint is incomplete, truncated, altered or written
	// by a version this one does not know.
	ErrDamaged = fault.ErrDamaged
	// ErrTimeout: the target could not be frozen within Options.Timeout; it
	// was let go unharmed.
	ErrTimeout = fault.ErrTimeout
	// ErrUsage: the request contradicts itself.
	ErrUsage = fault.ErrUsage
)

// Reason is one cause of a refusal: which task, which object, why, and what
// the user can do.
type Reason = fault.Reason

// RefusedError carries all the reasons of a refusal, not only the first.
type RefusedError = fault.RefusedError
