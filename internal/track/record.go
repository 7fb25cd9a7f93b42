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

// Record says what a keeper holds. It is a file that only its user can read or
// write, below /run; it counts as long as its keeper lives.
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

// dir is where records are, "" when this user has no place for them; tests have one
// of their own.
var dir = func() string {
	if os.Geteuid() == 0 {
		return "/run/fermata/track"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "fermata", "track")
	}
	return ""
}()

// namespace tells pid namespaces apart, whose numbers mean nothing to each other.
func namespace() (uint64, error) { return procfs.ReadNamespace(os.Getpid(), 0, "pid") }

func (r *Record) save() error {
	if dir == "" {
		return errors.New("the record of a keeper: there is no place for it ($XDG_RUNTIME_DIR is not set)")
	}
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
	if dir == "" {
		return nil, nil
	}
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

// Has tells whether the record is about a process.
func (r *Record) Has(pid int, start uint64) bool {
	for _, k := range r.Spaces {
		if k.PID == pid && k.Start == start {
			return true
		}
	}
	return false
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
