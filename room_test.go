package fermata

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGroupRoom(t *testing.T) {
	for _, c := range []struct {
		files map[string]string
		room  uint64
	}{
		{nil, math.MaxUint64}, // no memory controller
		{map[string]string{"memory.current": "1000\n", "memory.max": "max\n"}, math.MaxUint64},
		{map[string]string{"memory.current": "1000\n", "memory.max": "5000\n"}, 4000},
		{map[string]string{"memory.current": "1000\n", "memory.max": "5000\n", "memory.high": "3000\n"}, 2000},
		{map[string]string{"memory.current": "1000\n", "memory.max": "5000\n", "memory.stat": "anon 100\ninactive_file 600\n"}, 4600},
		{map[string]string{"memory.current": "1000\n", "memory.max": "500\n"}, 0},
		{map[string]string{"memory.usage_in_bytes": "1000\n", "memory.limit_in_bytes": "1500\n"}, 500},
	} {
		dir := t.TempDir()
		for name, v := range c.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(v), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := groupRoom(dir); got != c.room {
			t.Errorf("%v: room for %d, want %d", c.files, got, c.room)
		}
	}
}

func TestSnapshotRoom(t *testing.T) {
	self := map[int]bool{os.Getpid(): true}
	r, err := lookRoom(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.forSnapshots(map[int]uint64{os.Getpid(): 1 << 20}, t.TempDir()); err != nil {
		t.Errorf("for 1 MiB: %v", err)
	}
	// A single process cannot need more than all the anonymous memory there is,
	// so the many must be many.
	m, err := meminfo()
	if err != nil || m["MemTotal"] == 0 || m["MemAvailable"] == 0 || m["AnonPages"] == 0 {
		t.Fatalf("%v %v", m, err)
	}
	many := map[int]uint64{}
	for i := range m["MemTotal"]>>20 + 1 {
		many[-int(i)-1] = 1 << 20
	}
	if err := r.forSnapshots(many, t.TempDir()); err == nil || !strings.Contains(err.Error(), "MiB are available") {
		t.Errorf("for as many processes as there are MiB: %v", err)
	}
}
