package track

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// Record says what a keeper holds. It is a file below /run that only root can read
// or write; it counts as long as its keeper lives.
type Record struct {
	// ID is in the manifest of the checkpoint that the tracking began with: what is
	// unwritten is as that checkpoint has it.
	ID string `json:"id"`
	// Ref is where that checkpoint was made.
	Ref         string    `json:"ref"`
	Since       time.Time `json:"since"`
	Keeper      int       `json:"keeper"` // pid
	KeeperStart uint64    `json:"keeper_start"`
	Spaces      []Kept    `json:"spaces"`

	path string
}

// Kept is one address space of a Record.
type Kept struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
	FD    int    `json:"fd"` // the keeper's descriptor
}

// dir is where records are; tests have one of their own.
var dir = "/run/fermata/track"

// namespace tells pid namespaces apart, whose numbers mean nothing to each other.
func namespace() (uint64, error) { return procfs.ReadNamespace(os.Getpid(), 0, "pid") }

func (r *Record) save() error {
	ns, err := namespace()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the record of a keeper: %w", err)
	}
	r.path = filepath.Join(dir, fmt.Sprintf("%d-%d-%d", ns, r.Keeper, r.KeeperStart))
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := r.path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("the record of a keeper: %w", err)
	}
	return os.Rename(tmp, r.path)
}

func (r *Record) remove() error {
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the record of a keeper: %w", err)
	}
	return nil
}

// List gives the records of this pid namespace whose keepers live, and removes those
// of others.
func List() ([]*Record, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("records of keepers: %w", err)
	}
	ns, err := namespace()
	if err != nil {
		return nil, err
	}
	var out []*Record
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), fmt.Sprintf("%d-", ns)) || strings.HasSuffix(e.Name(), ".new") {
			continue
		}
		r := &Record{path: filepath.Join(dir, e.Name())}
		b, err := os.ReadFile(r.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // just stopped
		}
		if err != nil {
			return nil, fmt.Errorf("the record of a keeper: %w", err)
		}
		if json.Unmarshal(b, r) != nil || !r.alive() {
			_ = r.remove()
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

// alive tells whether the keeper is there. Within the same tick of its start, its
// pid may have become another's.
func (r *Record) alive() bool {
	st, err := procfs.ReadStat(r.Keeper, 0)
	if err != nil {
		return false
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.Keeper))
	return err == nil && strings.HasPrefix(string(args), Name+"\x00") && st.StartTime == r.KeeperStart && st.State != 'Z' && st.State != 'X'
}

// Of gives the records that hold something of one of these processes.
func Of(pids map[int]bool) ([]*Record, error) {
	all, err := List()
	if err != nil {
		return nil, err
	}
	var out []*Record
	for _, r := range all {
		for _, k := range r.Spaces {
			if pids[k.PID] {
				out = append(out, r)
				break
			}
		}
	}
	return out, nil
}
