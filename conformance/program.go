// Package conformance holds small C programs, one for each kind of state a
// Linux process can have, and the tests that checkpoint, kill and restore each
// of them with fermata. A program checks for itself that its state survived;
// the harness compares what can be seen from outside.
//
// What a program covers is said in its header comment, which this file reads;
// docs/coverage.md is generated from those headers.
package conformance

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:generate go run ./coverage -o ../docs

// Program is one conformance program, as its header describes it.
type Program struct {
	Name    string   // file name without .c
	Path    string   // its source
	Kind    string   // group of state, one word ("pipes")
	State   string   // what exactly it sets up, one phrase
	Users   []string // users it runs as: "root", "nobody"
	UserWhy string   // why it runs as one user only
	Mutate  []string // parts of the image without which it must fail
	Refused string   // the checkpoint must be refused, saying this
	Short   bool     // belongs to the representative subset of -short
	Libs    []string // further linker arguments
	CFlags  []string // further compiler arguments
	// Checkpoint are further flags of its checkpoints.
	Checkpoint []string
	Moving     []string // what legitimately changes while it waits: maps, fds, tasks, status
	NoCRIU     []string // why CRIU cannot do it (peer comparison only); "left: why" for one mode
	// NoCopies is why two copies of it at once cannot both pass: they meet in
	// files, or it looks itself up in /proc, which shows other pids.
	NoCopies string
	// User is what an ordinary user is told who cannot save or restore it as root
	// can; empty: he can.
	User string
	// NoUser is why it cannot pass in an ordinary user's restore, which is into a
	// new pid namespace.
	NoUser string
	// NoTrack is why it cannot pass while its writes are tracked.
	NoTrack string
	Modes   []string // run only in these modes; empty: all
	// Pause is how long the program stays dead before it is restored: long
	// enough that a clock which ran on in the meantime would be noticed.
	Pause time.Duration
}

// ParseHeader reads the leading // key: value comment lines of a program. A
// key may be repeated; values of the same key are joined with a blank (list
// keys: appended). An unknown or missing key is an error.
func ParseHeader(name string, src []byte) (*Program, error) {
	p := &Program{Name: name}
	sc := bufio.NewScanner(bytes.NewReader(src))
	join := func(dst *string, v string) {
		if *dst != "" {
			*dst += " "
		}
		*dst += v
	}
	for n := 1; sc.Scan(); n++ {
		line, ok := strings.CutPrefix(sc.Text(), "// ")
		if !ok {
			break
		}
		key, val, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%s.c:%d: header line without a key: %q", name, n, line)
		}
		val = strings.TrimSpace(val)
		if val == "" {
			return nil, fmt.Errorf("%s.c:%d: %s: no value", name, n, key)
		}
		switch key {
		case "kind":
			join(&p.Kind, val)
		case "state":
			join(&p.State, val)
		case "users":
			// The rest of the line after a semicolon says why only one.
			list, why, _ := strings.Cut(val, ";")
			p.Users = append(p.Users, strings.Fields(list)...)
			p.UserWhy = strings.TrimSpace(why)
		case "mutate":
			p.Mutate = append(p.Mutate, strings.Fields(val)...)
		case "refused":
			join(&p.Refused, val)
		case "short":
			p.Short = val == "yes"
		case "libs":
			p.Libs = append(p.Libs, strings.Fields(val)...)
		case "cflags":
			p.CFlags = append(p.CFlags, strings.Fields(val)...)
		case "moving":
			p.Moving = append(p.Moving, strings.Fields(val)...)
		case "checkpoint":
			p.Checkpoint = append(p.Checkpoint, strings.Fields(val)...)
		case "nocriu":
			p.NoCRIU = append(p.NoCRIU, val)
		case "nocopies":
			join(&p.NoCopies, val)
		case "unprivileged":
			join(&p.User, val)
		case "nouser":
			join(&p.NoUser, val)
		case "notrack":
			join(&p.NoTrack, val)
		case "modes":
			p.Modes = append(p.Modes, strings.Fields(val)...)
		case "pause":
			d, err := time.ParseDuration(val)
			if err != nil {
				return nil, fmt.Errorf("%s.c:%d: pause: %w", name, n, err)
			}
			p.Pause = d
		default:
			return nil, fmt.Errorf("%s.c:%d: unknown key %q", name, n, key)
		}
	}
	switch {
	case p.Kind == "":
		return nil, fmt.Errorf("%s.c: no kind", name)
	case p.State == "":
		return nil, fmt.Errorf("%s.c: no state", name)
	case len(p.Users) == 0:
		return nil, fmt.Errorf("%s.c: no users", name)
	case p.Refused == "" && len(p.Mutate) == 0 && p.runsIn("restore"):
		return nil, fmt.Errorf("%s.c: neither mutate nor refused", name)
	}
	for _, u := range p.Users {
		if u != "root" && u != "nobody" {
			return nil, fmt.Errorf("%s.c: unknown user %q", name, u)
		}
	}
	if len(p.Users) == 1 && p.UserWhy == "" {
		return nil, fmt.Errorf("%s.c: runs as %s only and does not say why", name, p.Users[0])
	}
	for _, m := range p.Moving {
		if !slices.Contains([]string{"maps", "fds", "tasks", "status"}, m) {
			return nil, fmt.Errorf("%s.c: unknown moving part %q", name, m)
		}
	}
	return p, nil
}

// CRIUCannot gives the reason why CRIU fails in this mode, or "".
func (p *Program) CRIUCannot(mode string) string {
	if mode == "none" {
		return ""
	}
	for _, why := range p.NoCRIU {
		m, rest, ok := strings.Cut(why, ": ")
		if !ok || strings.Contains(m, " ") {
			return why
		}
		if m == mode {
			return rest
		}
	}
	return ""
}

// runsIn says whether the program is to be run in this mode.
func (p *Program) runsIn(mode string) bool {
	return len(p.Modes) == 0 || slices.Contains(p.Modes, mode)
}

// Programs reads every program of the directory, sorted by name.
func Programs(dir string) ([]*Program, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.c"))
	if err != nil {
		return nil, err
	}
	var all []*Program
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		p, err := ParseHeader(strings.TrimSuffix(filepath.Base(f), ".c"), src)
		if err != nil {
			return nil, err
		}
		p.Path = f
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Program) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
