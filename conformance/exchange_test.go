package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestExchange carries image directories of the interchange format from one tool
// to another: the compatible command dumps and restores, and, when $CRIU is the
// path of a CRIU, each restores what the other dumped. The programs are those
// whose state CRIU can carry.
func TestExchange(t *testing.T) {
	if *flagEngine != "fermata" {
		t.Skip("it has engines of its own")
	}
	if os.Geteuid() != 0 {
		t.Skip("CRIU needs root")
	}
	h := newHarness(t)
	own := filepath.Join(h.dir, "criu") // called so, it is the compatible command
	if h.tool == "" {
		t.Skip("no tool")
	}
	tool, err := exec.LookPath(h.tool)
	if err != nil {
		t.Fatal(err)
	}
	if tool, err = filepath.Abs(tool); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tool, own); err != nil {
		t.Fatal(err)
	}
	peer := os.Getenv("CRIU")
	all, err := Programs("programs")
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []struct {
		name, dump, restore string
		cannot              map[string]string
	}{
		{"itself", own, own, nil},
		{"to_criu", own, peer, criuCannotTake},
		{"from_criu", peer, own, notInCRIUImages},
	} {
		t.Run(way.name, func(t *testing.T) {
			if way.dump == "" || way.restore == "" {
				t.Skip("set CRIU to the path of a CRIU")
			}
			for _, p := range all {
				if p.Refused != "" || p.CRIUCannot("restore") != "" || !p.runsIn("restore") || testing.Short() && !p.Short {
					continue
				}
				t.Run(p.Name, func(t *testing.T) {
					if why := way.cannot[p.Name]; why != "" && !*flagAll {
						t.Skip(why)
					}
					t.Parallel()
					x := &harness{dir: h.dir, jobs: h.jobs, shared: h, engine: "exchange", tool: way.dump, restorer: way.restore}
					x.run(t, p, "root", "restore", "")
				})
			}
		})
	}
}

// criuCannotTake are the programs whose state CRIU does not bring back from
// fermata's images, and why.
var criuCannotTake = map[string]string{}

// notInCRIUImages are the programs whose state fermata does not bring back from
// CRIU's images, and why.
var notInCRIUImages = map[string]string{}
