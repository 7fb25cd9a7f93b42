package rebuild

import (
	"github.com/fermata-cr/fermata/internal/guardian"
	"github.com/fermata-cr/fermata/internal/journal"
)

// A restore needs no guardian for its tasks: they end with it. But files that
// had no name get one for a moment, and that would stay. So the first of them
// starts a guardian, and it is dismissed before the first task is made, whose pid
// it could have.

// guardName implements resource.Restore's GuardName.
func (b *builder) guardName(name string, dev, ino uint64) (gone func()) {
	if b.guard == nil && !b.unguarded {
		g, err := guardian.Start()
		if err != nil {
			b.unguarded = true
			b.note("no guardian could be started: should fermata be killed now, it leaves traces (%v)", err)
		}
		b.guard = g
	}
	if b.guard == nil {
		return func() {}
	}
	return b.guard.Journal.AddText(journal.Link, name, dev, ino).Done
}

// dismissGuard ends the guardian, if there is one.
func (b *builder) dismissGuard() {
	b.guard.Close()
	b.guard = nil
}
