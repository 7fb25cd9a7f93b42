package apps

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestInstallNamesEveryNeed holds install.sh to what the programs need: a
// package that is on this machine already would not be missed by a run.
func TestInstallNamesEveryNeed(t *testing.T) {
	script, err := os.ReadFile("install.sh")
	if err != nil {
		t.Fatal(err)
	}
	var lists []string
	for line := range strings.Lines(string(script)) {
		lists = append(lists, strings.TrimSpace(line))
	}
	for _, a := range apps {
		for _, n := range a.Needs {
			switch {
			case n.Command == "go": // whatever builds this test
			case !slices.ContainsFunc(lists, func(l string) bool {
				f := strings.Fields(l)
				return len(f) == 2 && f[1] == n.Package
			}):
				t.Errorf("%s needs %s: install.sh does not install %s", a.Name, n.Command, n.Package)
			}
		}
	}
}
