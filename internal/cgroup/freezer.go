// Package cgroup finds the control groups that a tree of tasks has to itself,
// and freezes and thaws them: a freezer stops all of a group at once, so that
// nothing forks while the tasks are seized one by one, and a group that its user
// has frozen must run for the moments in which its tasks answer questions.
package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/cgroup/freezerfile"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/journal"
)

const (
	file2 = freezerfile.File2
	file1 = freezerfile.File1
)

// group is one group of a freezer.
type group struct {
	file     string // its freezer file
	dev, ino uint64 // of its directory
	user     bool   // its user has frozen it
	debt     *journal.Entry
}

func newGroup(file string, user bool) (*group, error) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Dir(file), &st); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Dir(file), err)
	}
	return &group{file: file, dev: uint64(st.Dev), ino: st.Ino, user: user}, nil
}

// set changes the group. The debt is what it has to be at the end: it is noted
// before the group differs from that and crossed out when it does not any more.
func (g *group) set(j *journal.Journal, frozen bool) error {
	if frozen != g.user {
		var state uint64
		if g.user {
			state = 1
		}
		g.debt = j.AddText(journal.Freezer, g.file, g.dev, g.ino, state)
	}
	faultpoint.At("freezer.set")
	if err := faultpoint.Err("freezer.set"); err != nil {
		return err
	}
	if err := freezerfile.Set(g.file, g.dev, g.ino, frozen); err != nil {
		return err
	}
	faultpoint.At("freezer.done")
	if frozen == g.user {
		g.debt.Done()
		g.debt = nil
	}
	return nil
}

// Freezer is what decides, beside the tracer, whether the tasks of a tree run.
// The methods of nil do nothing. Close must be called on every path.
type Freezer struct {
	groups  []*group
	journal *journal.Journal
	held    bool // the groups of the tree's own are frozen
	let     bool // those that their user has frozen run
}

// Frozen tells whether the tree is in a group that its user has frozen.
func (f *Freezer) Frozen() bool {
	if f == nil {
		return false
	}
	for _, g := range f.groups {
		if g.user {
			return true
		}
	}
	return false
}

// Hold freezes the groups that are the tree's own. Without somebody to see to
// it that they do not stay so, it does nothing.
func (f *Freezer) Hold() error {
	if f == nil || f.journal == nil || f.Frozen() {
		return nil
	}
	f.held = true
	for _, g := range f.groups {
		if err := g.set(f.journal, true); err != nil {
			return fmt.Errorf("freezing a cgroup: %w", err)
		}
	}
	return nil
}

// Let thaws every group, once each task has been seized and interrupted: they
// run into their stops.
func (f *Freezer) Let() error {
	if f == nil {
		return nil
	}
	var errs []error
	for _, g := range f.groups {
		if g.user && !f.let || !g.user && f.held {
			errs = append(errs, g.set(f.journal, false))
		}
	}
	f.held, f.let = false, true
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("thawing a cgroup: %w", err)
	}
	return nil
}

// Close makes every group what its user had made it. The tree's tasks must be in
// their stops, or seized and let go.
func (f *Freezer) Close() error {
	if f == nil {
		return nil
	}
	var errs []error
	for _, g := range f.groups {
		if g.debt != nil || g.user && f.let {
			errs = append(errs, g.set(f.journal, g.user))
		}
	}
	f.held, f.let = false, false
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("leaving a cgroup as it was: %w", err)
	}
	return nil
}

// base gives the group's directory, for people.
func (g *group) base() string { return strings.TrimSuffix(filepath.Dir(g.file), "/") }
