package rebuild

import (
	"fmt"

	"github.com/fermata-cr/fermata/internal/tracee"
)

// queue gathers calls for one task and runs them in batches as large as a slot
// holds; every result is looked at.
type queue struct {
	b     *builder
	e     *tracee.Executor
	names []call
	// started: handed over, not waited for.
	started bool
	err     error // the first one
}

type call struct {
	i        int
	name     string
	optional bool
	wanted   uint64
	isWant   bool
	take     func(int64)
}

// room runs what is queued when n more calls or data bytes would not fit.
func (q *queue) room(n, data int) {
	if !q.e.Room(n, data) {
		q.run()
	}
}

func (q *queue) add(name string, nr uintptr, args ...uint64) int {
	q.room(1, 0)
	i := q.e.Add(nr, args...)
	q.names = append(q.names, call{i: i, name: name})
	return i
}

// optional is add of a call that may fail.
func (q *queue) optional(name string, nr uintptr, args ...uint64) {
	q.add(name, nr, args...)
	q.names[len(q.names)-1].optional = true
}

// want says what the last call must return.
func (q *queue) want(v uint64) {
	c := &q.names[len(q.names)-1]
	c.wanted, c.isWant = v, true
}

// take gives the last call's result to f.
func (q *queue) take(f func(int64)) { q.names[len(q.names)-1].take = f }

// run runs the batch; the first error stays until flush.
func (q *queue) run() {
	if q.err == nil && q.e.Len() > 0 {
		q.err = q.check(q.e.Run())
	}
	q.names = q.names[:0]
	q.e.Reset()
}

// start hands over what is queued without waiting for it; finish must follow.
func (q *queue) start() {
	if q.err == nil && q.e.Len() > 0 {
		q.e.Start()
		q.started = true
	}
}

// finish waits for what start handed over and gives the first error of all.
func (q *queue) finish() error {
	if q.started {
		q.started = false
		if err := q.check(q.e.Wait()); q.err == nil {
			q.err = err
		}
	}
	err := q.err
	q.err = nil
	return err
}

func (q *queue) check(err error) error {
	if err != nil {
		return err
	}
	for _, c := range q.names {
		if err := q.e.Err(c.i); err != nil {
			if c.optional {
				continue
			}
			return fmt.Errorf("thread %d: %s: %s: %w", q.e.TID, c.name, q.e.Describe(c.i), err)
		}
		r := q.e.Result(c.i)
		if c.isWant && uint64(r) != c.wanted {
			return fmt.Errorf("thread %d: %s gave %#x instead of %#x", q.e.TID, c.name, r, c.wanted)
		}
		if c.take != nil {
			c.take(r)
		}
	}
	return nil
}

// flush runs what is left and gives the first error of all.
func (q *queue) flush() error {
	q.run()
	err := q.err
	q.err = nil
	return err
}
