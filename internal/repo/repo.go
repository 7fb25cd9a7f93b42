// Package repo gives checkpoints names: it maps a REF, as people write it, to a
// directory, and lists and removes what is there.
//
// A REF that holds a slash is the path of a directory; mem:NAME is in memory
// (memory.go); any other is a name in the user's repository, one directory with a subdirectory for each checkpoint.
// Names that begin with a dot, or end like NAME.partial-4711, are not
// checkpoints: writers build theirs under such a name and publish them by
// rename, Remove renames to such a name first.
package repo

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fermata-cr/fermata/internal/fault"
)

// Env is the environment variable that names the repository.
const Env = "FERMATA_REPO"

// SystemDir is root's repository.
const SystemDir = "/var/lib/fermata"

// maxName bounds a name in bytes, so that the temporary names made from it fit
// into NAME_MAX too.
const maxName = 200

// Repo is a repository. Its directory need not exist until something is made
// in it.
type Repo struct{ dir string }

// At gives the repository at dir.
func At(dir string) Repo { return Repo{dir} }

// Default gives the repository of this user: $FERMATA_REPO; else
// /var/lib/fermata for root; else $XDG_STATE_HOME/fermata, where that variable
// is unset or relative ~/.local/state/fermata (XDG base directory
// specification 0.8). It fails with fault.ErrUsage when the environment names
// none.
func Default() (Repo, error) {
	if dir := os.Getenv(Env); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return Repo{}, fmt.Errorf("%s=%s: %w", Env, dir, err)
		}
		return Repo{abs}, nil
	}
	if os.Geteuid() == 0 {
		return Repo{SystemDir}, nil
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return Repo{filepath.Join(state, "fermata")}, nil
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return Repo{filepath.Join(home, ".local", "state", "fermata")}, nil
	}
	return Repo{}, fault.Errorf(fault.ErrUsage, "no place for checkpoints: neither %s nor HOME is set", Env)
}

// Dir is the repository's directory, an absolute path.
func (r Repo) Dir() string { return r.dir }

// Create makes the repository's directory if it is missing. It is closed to
// others: a checkpoint holds all of a program's memory.
func (r Repo) Create() error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return kind(fmt.Errorf("make the repository: %w", err))
	}
	return nil
}

// IsPath reports whether a REF is a path rather than a name.
func IsPath(ref string) bool { return strings.Contains(ref, "/") }

// Path gives the directory that a REF stands for; it need not exist. A name
// that no checkpoint can have is fault.ErrUsage.
func (r Repo) Path(ref string) (string, error) {
	if IsPath(ref) {
		abs, err := filepath.Abs(ref)
		if err != nil {
			return "", fmt.Errorf("%s: %w", ref, err)
		}
		return abs, nil
	}
	if name, ok := strings.CutPrefix(ref, MemoryPrefix); ok {
		m := Memory()
		if err := m.private(); err != nil {
			return "", err
		}
		if err := checkName(name); err != nil {
			return "", err
		}
		return filepath.Join(m.dir, name), nil
	}
	if err := checkName(ref); err != nil {
		return "", err
	}
	return filepath.Join(r.dir, ref), nil
}

// checkName accepts letters, digits and ._+@:-, the first of them a letter,
// a digit or an underscore: names that need no quoting and are no option.
func checkName(name string) error {
	if name == "" {
		return fault.Errorf(fault.ErrUsage, "an empty name is no checkpoint's")
	}
	if len(name) > maxName {
		return fault.Errorf(fault.ErrUsage, "a checkpoint's name has at most %d bytes, this one %d", maxName, len(name))
	}
	for i := range len(name) {
		if c := name[i]; !plain(c) && (i == 0 || !strings.ContainsRune(".+@:-", rune(c))) {
			return fault.Errorf(fault.ErrUsage, "%q is no checkpoint's name: letters, digits and ._+@:- only, not beginning with a sign (a path holds a slash: ./%s)", name, name)
		}
	}
	if partial(name) {
		return fault.Errorf(fault.ErrUsage, "%q is no checkpoint's name: this ending belongs to checkpoints that are being written", name)
	}
	return nil
}

// partial recognises the names of checkpoints that are not whole yet.
func partial(name string) bool {
	_, pid, ok := strings.Cut(name, ".partial-")
	return ok && pid != "" && strings.Trim(pid, "0123456789") == ""
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// NewName gives a name that nothing in the repository has: made of the
// program's command name, its pid and four random letters, such as
// "python3-4711-kqzv". Two callers at once get different ones with near
// certainty; a writer that publishes by an exclusive rename finds out about the
// rest.
func (r Repo) NewName(command string, pid int) (string, error) {
	var b strings.Builder
	for i := range min(len(command), 15) {
		if c := command[i]; plain(c) || i > 0 && strings.ContainsRune(".+@-", rune(c)) {
			b.WriteByte(c)
		} else {
			b.WriteByte('_')
		}
	}
	if b.Len() == 0 {
		b.WriteString("program")
	}
	for range 100 {
		name := fmt.Sprintf("%s-%d-%s", b.String(), pid, letters(4))
		if _, err := os.Lstat(filepath.Join(r.dir, name)); errors.Is(err, os.ErrNotExist) {
			return name, nil
		} else if err != nil {
			return "", kind(fmt.Errorf("look for a free name: %w", err))
		}
	}
	return "", fmt.Errorf("no free name for %s-%d in %s", b.String(), pid, r.dir)
}

// letters gives n random letters without the ones that look alike.
func letters(n int) string {
	const set = "abcdefghjkmnpqrstuvwxyz"
	b := make([]byte, n)
	for i := range b {
		b[i] = set[rand.IntN(len(set))]
	}
	return string(b)
}

// Entry is one checkpoint of a repository.
type Entry struct {
	Name    string
	Dir     string
	ModTime time.Time // of the directory: when it was published
}

// List gives the checkpoints by name. A repository that does not exist is
// empty. What is no checkpoint is left out.
func (r Repo) List() ([]Entry, error) {
	names, err := os.ReadDir(r.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, kind(err)
	}
	var out []Entry
	for _, n := range names {
		dir := filepath.Join(r.dir, n.Name())
		if !n.IsDir() || checkName(n.Name()) != nil || why(dir, true) != "" {
			continue
		}
		st, err := n.Info()
		if err != nil {
			continue // removed meanwhile
		}
		out = append(out, Entry{n.Name(), dir, st.ModTime()})
	}
	return out, nil
}

// kind gives an error about a path the sentinel that belongs to it.
func kind(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fault.Wrap(fault.ErrPermission, err)
	case errors.Is(err, os.ErrNotExist):
		return fault.Wrap(fault.ErrNotFound, err)
	}
	return err
}
