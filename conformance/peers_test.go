package conformance

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	flagRecord = flag.Bool("record", false, "TestPeers: write peers.tsv, from which docs/coverage.md and docs/comparison.md are made")
	flagRounds = flag.Int("rounds", 3, "TestPeers: how often each tool carries a program through")
	flagOnly   = flag.String("only", "", "TestPeers: comma separated parts of the names of the programs (default: all)")
)

// TestPeers carries every program through by fermata and by the peers that the
// environment names (CRIU=path, DMTCP=directory of its commands), in turns and
// one at a time. It measures and records; what a peer cannot is no failure here.
func TestPeers(t *testing.T) {
	criu, dmtcp := os.Getenv("CRIU"), os.Getenv("DMTCP")
	if criu == "" && dmtcp == "" {
		t.Skip("a comparison: set CRIU to the path of a CRIU, DMTCP to the directory of DMTCP's commands")
	}
	if os.Geteuid() != 0 {
		t.Skip("CRIU needs root")
	}
	h := newHarness(t)
	type side struct {
		name string
		h    *harness
	}
	p := &Peers{Tools: []string{"fermata"}, By: map[string]map[string]Attempt{}}
	sides := []side{{"fermata", h}}
	add := func(name, tool, engine, about string) {
		sides = append(sides, side{name, &harness{dir: h.dir, shared: h, engine: engine, tool: tool}})
		p.Tools, p.About = append(p.Tools, name), append(p.About, about)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	p.About = append(p.About, fmt.Sprintf("Linux %s, %d rounds, the fermata of this source", unix.ByteSliceToString(uts.Release[:]), *flagRounds))
	version := func(cmd string) string {
		out, err := exec.Command(cmd, "--version").CombinedOutput()
		if len(out) == 0 { // DMTCP says it, and ends with 1
			t.Fatalf("%s --version: %v", cmd, err)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return strings.TrimPrefix(first, "Version: ")
	}
	if criu != "" {
		add("CRIU", criu, "criu", "CRIU "+version(criu))
	}
	if dmtcp != "" {
		add("DMTCP", dmtcp, "dmtcp", version(filepath.Join(dmtcp, "dmtcp_command")))
	}
	all, err := Programs("programs")
	if err != nil {
		t.Fatal(err)
	}
	for _, prog := range all {
		if prog.Refused != "" || !prog.runsIn("restore") || !wanted(prog.Name, *flagOnly) {
			continue
		}
		bin, err := h.build(prog)
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]Attempt{}
		took := map[string]*[2][]float64{}
		for range *flagRounds {
			for _, s := range sides {
				if a, ok := by[s.name]; ok && (!a.Works || s.name == "DMTCP") {
					continue // DMTCP takes seconds, and shows no less once
				}
				r := s.h.once(t, prog, bin, prog.Users[0], "restore", "")
				if r.Busy {
					r = s.h.once(t, prog, bin, prog.Users[0], "restore", "")
				}
				if r.Skipped != "" {
					continue
				}
				if took[s.name] == nil {
					took[s.name] = &[2][]float64{}
				}
				d := took[s.name]
				d[0] = append(d[0], r.Checkpoint.Seconds()*1000)
				d[1] = append(d[1], r.Restore.Seconds()*1000)
				if !r.OK {
					t.Logf("%s: %s: %s", prog.Name, s.name, r.Failure)
				}
				by[s.name] = Attempt{r.OK, reason(strings.NewReplacer(filepath.Dir(s.h.tool)+"/", "", s.h.tool+"/", "", h.dir+"/", "").Replace(r.Failure)), median(d[0]), median(d[1])}
			}
		}
		if _, ok := by["fermata"]; !ok {
			continue // the machine does not have the state
		}
		p.By[prog.Name] = by
		var line strings.Builder
		for _, s := range sides {
			a := by[s.name]
			fmt.Fprintf(&line, "  %s %v %.1f/%.1f %s", s.name, a.Works, a.Checkpoint, a.Restore, a.Why)
		}
		t.Logf("%s:%s", prog.Name, line.String())
		if !by["fermata"].Works {
			t.Errorf("%s: fermata: %s", prog.Name, by["fermata"].Why)
		}
	}
	if !*flagRecord {
		return
	}
	old, err := RecordedPeers()
	if err != nil {
		t.Fatal(err)
	}
	p.keep(old)
	if err := os.WriteFile("peers.tsv", p.Format(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wanted says whether the name has one of the parts.
func wanted(name, parts string) bool {
	return slices.ContainsFunc(strings.Split(parts, ","), func(p string) bool { return strings.Contains(name, p) })
}

// reason is the telling line of a failure: the first error of CRIU's log but for
// its limits of descriptors, which do not stop it; else the first line that says
// something.
func reason(failure string) string {
	best := ""
	for line := range strings.Lines(failure) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "program's log: ")
		if _, said, ok := strings.Cut(line, "Error ("); ok {
			if _, what, ok := strings.Cut(said, "): "); ok && !strings.Contains(what, "RLIMIT_NOFILE for self") {
				best = what
				break
			}
			continue
		}
		if best == "" || strings.HasSuffix(best, ":") || strings.HasSuffix(best, "exit status 1") {
			best = line
		}
	}
	if r := []rune(best); len(r) > 120 {
		best = string(r[:120]) + "…"
	}
	return best
}

// TestPeersRecord writes what it reads.
func TestPeersRecord(t *testing.T) {
	p, err := ParsePeers(peersRecord)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.Format(), peersRecord) {
		t.Error("peers.tsv is not in the form that TestPeers writes")
	}
	for _, bad := range []string{"x\ty\n", "tools\tfermata\na\tcriu\tworks\t1\t2\t\n", "tools\tfermata\na\tfermata\tworks\tone\t2\t\n"} {
		if _, err := ParsePeers([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
