package guardian

import (
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/journal"
)

// Watch is a guardian that is being started while its controller does other
// things. The zero Watch is none.
type Watch struct {
	started chan struct{}
	g       *Guardian
	err     error
}

// prepared is the guardian for the next Begin.
var prepared atomic.Pointer[Watch]

// Prepare starts a guardian in the background for the Begin to come. Dismiss
// must be called in the end, in case none comes.
func Prepare() { prepared.Store(begin()) }

// Dismiss ends a guardian that was prepared and not taken.
func Dismiss() {
	if w := prepared.Swap(nil); w != nil {
		w.Close()
	}
}

// Begin starts a guardian in the background, unless one was prepared.
func Begin() *Watch {
	if w := prepared.Swap(nil); w != nil {
		return w
	}
	return begin()
}

func begin() *Watch {
	w := &Watch{started: make(chan struct{})}
	go func() {
		defer close(w.started)
		w.g, w.err = Start()
	}()
	return w
}

// Ready waits until the guardian is there. The error says why there is none;
// the other methods then do nothing.
func (w *Watch) Ready() error {
	<-w.started
	return w.err
}

// Guardian gives the guardian, nil when there is none.
func (w *Watch) Guardian() *Guardian {
	<-w.started
	return w.g
}

// Journal gives where debts are noted, nil when there is nobody to see to them.
func (w *Watch) Journal() *journal.Journal {
	if g := w.Guardian(); g != nil {
		return g.Journal
	}
	return nil
}

// Patience says how long the controller may be without progress from now on
// before it counts as hung; 0 is for ever.
func (w *Watch) Patience(d time.Duration) {
	if faultpoint.Enabled {
		if ms, err := strconv.Atoi(os.Getenv("FERMATA_PATIENCE_MS")); err == nil && d != 0 {
			d = time.Duration(ms) * time.Millisecond
		}
	}
	w.Journal().Patience(d)
}

// Dismiss lets the guardian go when nothing is owed, and does not wait for it:
// Close does.
func (w *Watch) Dismiss() { w.Guardian().dismiss() }

// Close dismisses the guardian, as Guardian.Close does.
func (w *Watch) Close() { w.Guardian().Close() }
