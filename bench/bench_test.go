package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSmallProgram carries one case through once, so that the benchmarks still
// work when they are wanted. How long anything takes is not judged.
func TestSmallProgram(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: programs are restored with their pids")
	}
	var out strings.Builder
	b := &bench{out: &out, runs: 0.01}
	table, err := b.run(os.Getenv("FERMATA"), "", "", "small program")
	if err != nil {
		t.Fatal(err)
	}
	if len(table) != 1 {
		t.Fatalf("%d cases", len(table))
	}
	for _, m := range measures {
		d := m.of(&table[0].by[0])
		if len(d) != 1 || d[0] <= 0 {
			t.Errorf("%s: %v", m.title, d)
		}
	}
	// A MiB is what the target has written to.
	if n := table[0].by[0].size; n < 1<<20 {
		t.Errorf("a checkpoint of %d bytes", n)
	}
	t.Logf("\n%s", &out)
}

func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(path, []byte("above\n"+tableBegin+"old\n"+tableEnd+"below\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := record(path, "new\n"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if want := "above\n" + tableBegin + "```\nnew\n```\n" + tableEnd + "below\n"; err != nil || string(b) != want {
		t.Errorf("%v, %q", err, b)
	}
	if err := os.WriteFile(path, []byte("no place"), 0o600); err != nil {
		t.Fatal(err)
	}
	if record(path, "new\n") == nil {
		t.Error("a document without a place for it")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		d    []time.Duration
		want time.Duration
	}{{nil, 0}, {[]time.Duration{5}, 5}, {[]time.Duration{9, 1, 5}, 5}, {[]time.Duration{8, 2, 4, 1}, 3}} {
		if got := median(c.d); got != c.want {
			t.Errorf("median of %v: %v", c.d, got)
		}
	}
}
