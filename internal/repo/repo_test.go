package repo

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// writeCheckpoint makes a directory with real metadata, and a file of pages.
func writeCheckpoint(t *testing.T, dir string) {
	t.Helper()
	im := image.New()
	im.Add("manifest", &fm.Manifest{})
	b, err := im.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{image.MetaName: b, "pages-0": make([]byte, 8192)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDefault(t *testing.T) {
	for _, c := range []struct{ repo, xdg, home, root, user string }{
		{"/r", "/x", "/h", "/r", "/r"},
		{"", "/x", "/h", SystemDir, "/x/fermata"},
		{"", "x", "/h", SystemDir, "/h/.local/state/fermata"},
		{"", "", "", SystemDir, ""},
	} {
		t.Setenv(Env, c.repo)
		t.Setenv("XDG_STATE_HOME", c.xdg)
		t.Setenv("HOME", c.home)
		want := c.user
		if os.Geteuid() == 0 {
			want = c.root
		}
		r, err := Default()
		if r.Dir() != want || (want == "") != errors.Is(err, fault.ErrUsage) {
			t.Errorf("%+v: %q, %v", c, r.Dir(), err)
		}
	}
}

func TestPath(t *testing.T) {
	r := At("/repo")
	for ref, want := range map[string]string{
		"a": "/repo/a", "python3-4711-kqzv": "/repo/python3-4711-kqzv", "a.b+c@d:e-f": "/repo/a.b+c@d:e-f",
		"/x/y": "/x/y", "/x/../y": "/y",
	} {
		if got, err := r.Path(ref); got != want || err != nil {
			t.Errorf("%q: %q, %v", ref, got, err)
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Path("./a"); got != filepath.Join(wd, "a") || err != nil {
		t.Errorf("./a: %q, %v", got, err)
	}
	for _, ref := range []string{"", ".", "..", ".hidden", "-rf", "a b", "a\n", "ä", "a\x00b", "a.partial-4711", strings.Repeat("x", maxName+1)} {
		if got, err := r.Path(ref); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%q: %q, %v", ref, got, err)
		}
	}
}

// TestNewName: whatever a program calls itself, the name is a valid one, and
// never one that is taken.
func TestNewName(t *testing.T) {
	r := At(t.TempDir())
	seen := map[string]bool{}
	for _, command := range []string{"python3", "", "../../etc", "-rf /", "(sd-pam)", "kworker/0:1", "a\nb", ".x", "日本語", strings.Repeat("y", 100)} {
		name, err := r.NewName(command, 1<<22)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkName(name); err != nil || IsPath(name) {
			t.Errorf("%q gives %q: %v", command, name, err)
		}
		if seen[name] {
			t.Errorf("%q twice", name)
		}
		seen[name] = true
	}
	for range 2000 {
		name, err := r.NewName("x", 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(r.Dir(), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListAndRemove(t *testing.T) {
	r := At(filepath.Join(t.TempDir(), "deep", "repo"))
	if got, err := r.List(); len(got) != 0 || err != nil {
		t.Fatalf("no repository: %v, %v", got, err)
	}
	if err := r.Create(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(r.Dir()); err != nil || st.Mode().Perm() != 0o700 {
		t.Fatalf("repository: %v, %v", st, err)
	}
	writeCheckpoint(t, filepath.Join(r.Dir(), "b"))
	writeCheckpoint(t, filepath.Join(r.Dir(), "a"))
	writeCheckpoint(t, filepath.Join(r.Dir(), ".partial"))
	writeCheckpoint(t, filepath.Join(r.Dir(), "b.partial-4711"))
	if err := os.Mkdir(filepath.Join(r.Dir(), "no"), 0o700); err != nil {
		t.Fatal(err)
	}
	// Cut off before the first byte: damaged, but it must be listed and go away.
	writeCheckpoint(t, filepath.Join(r.Dir(), "cut"))
	if err := os.Truncate(filepath.Join(r.Dir(), "cut", image.MetaName), 0); err != nil {
		t.Fatal(err)
	}
	// Left by a removal that was interrupted.
	writeCheckpoint(t, filepath.Join(r.Dir(), trash+"old-abcdefgh"))

	if got := names(t, r); got != "a b cut" {
		t.Errorf("listed: %s", got)
	}
	for _, ref := range []string{"a", "cut", filepath.Join(r.Dir(), "b")} {
		if err := r.Remove(ref); err != nil {
			t.Errorf("remove %s: %v", ref, err)
		}
		if err := r.Remove(ref); !errors.Is(err, fault.ErrNotFound) {
			t.Errorf("remove %s again: %v", ref, err)
		}
	}
	if got := names(t, r); got != "" {
		t.Errorf("listed after removal: %s", got)
	}
	left, err := os.ReadDir(r.Dir())
	if err != nil || len(left) != 3 || left[0].Name() != ".partial" || left[1].Name() != "b.partial-4711" || left[2].Name() != "no" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func names(t *testing.T, r Repo) string {
	t.Helper()
	l, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, e := range l {
		s = append(s, e.Name)
	}
	return strings.Join(s, " ")
}

// TestRemoveRefuses: directories that are not ours stay, to the last file.
func TestRemoveRefuses(t *testing.T) {
	base := t.TempDir()
	mk := func(name string, files map[string]string) string {
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for f, data := range files {
			if err := os.WriteFile(filepath.Join(dir, f), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	real := filepath.Join(base, "real")
	writeCheckpoint(t, real)
	link := filepath.Join(base, "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, []byte(magic), 0o600); err != nil {
		t.Fatal(err)
	}
	sub := mk("sub", nil)
	if err := os.Mkdir(filepath.Join(sub, image.MetaName), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{
		mk("empty", nil),
		mk("home", map[string]string{"letter": "dear"}),
		mk("other", map[string]string{image.MetaName: "name = other\n"}),
		mk("blank", map[string]string{image.MetaName: ""}), // by path a cut file is no proof
		sub, link, file,
	} {
		if err := At(base).Remove(dir); !errors.Is(err, fault.ErrRefused) {
			t.Errorf("%s: %v", dir, err)
		}
		if _, err := os.Lstat(dir); err != nil {
			t.Error(err)
		}
	}
	if why(real, false) != "" {
		t.Error("the link's target was touched")
	}
}
