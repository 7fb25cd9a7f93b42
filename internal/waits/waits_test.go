package waits

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestNotesLiveAsLongAsTheirProcess(t *testing.T) {
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := c.Process.Pid
	w := []Wait{{TID: pid, Nr: 35, Args: [6]uint64{1, 2}, Until: 5, Noted: 3}}
	if os.Geteuid() != 0 {
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	}
	if err := Save(pid, w); err != nil {
		t.Fatal(err)
	}
	got := Load(pid)
	if len(got) != 1 || got[0] != w[0] {
		t.Fatalf("loaded %+v", got)
	}
	n, err := name(pid)
	if err != nil {
		t.Fatal(err)
	}
	c.Process.Kill()
	c.Wait()
	if Load(pid) != nil {
		t.Error("a process that is gone still has notes")
	}
	sweep(dir())
	if _, err := os.Stat(filepath.Join(dir(), n)); err == nil {
		t.Error("the note outlived its process")
	}
}

func TestHolds(t *testing.T) {
	w := Wait{Args: [6]uint64{7}, Noted: 1e9}
	if !w.Holds([6]uint64{7}, 1e9+5) {
		t.Error("a thread that went right back into its call")
	}
	if w.Holds([6]uint64{8}, 1e9) || w.Holds([6]uint64{7}, 3e9) {
		t.Error("another call, or one that ran since")
	}
}
