package conformance

import (
	"os"
	"strings"
	"testing"
)

// TestCoverageIsCurrent regenerates docs/coverage.md and docs/comparison.md and
// compares.
func TestCoverageIsCurrent(t *testing.T) {
	all, err := Programs("programs")
	if err != nil {
		t.Fatal(err)
	}
	peers, err := RecordedPeers()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"coverage.md": Coverage(all, peers), "comparison.md": Comparison(all, peers)} {
		have, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if string(have) != want {
			t.Errorf("docs/%s is not what the programs and peers.tsv say; run go generate ./conformance", name)
		}
	}
}

// TestParseHeader shows that a header with a mistake is not taken.
func TestParseHeader(t *testing.T) {
	good := "// kind: pipes\n// state: a pipe\n// state: with content\n// users: root nobody\n// mutate: a.b c.d\n// pause: 2s\n#include <x>\n"
	p, err := ParseHeader("x", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if p.Kind != "pipes" || p.State != "a pipe with content" || len(p.Mutate) != 2 || p.Pause.Seconds() != 2 {
		t.Errorf("%+v", p)
	}
	for _, bad := range []struct{ from, to, want string }{
		{"// kind: pipes\n", "", "no kind"},
		{"// users: root nobody\n", "", "no users"},
		{"root nobody", "root", "does not say why"},
		{"root nobody", "root daemon", "unknown user"},
		{"// mutate: a.b c.d\n", "", "neither mutate nor refused"},
		{"// mutate:", "// mutant:", "unknown key"},
		{"// pause: 2s", "// pause: 2", "pause"},
		{"a pipe", "", "no value"},
	} {
		_, err := ParseHeader("x", []byte(strings.Replace(good, bad.from, bad.to, 1)))
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%q instead of %q: %v, want %q", bad.to, bad.from, err, bad.want)
		}
	}
}
