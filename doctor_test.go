package fermata

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestDoctorHere: on a machine that runs this project's tests the main job is
// possible, and every feature has an answer that a person can use.
func TestDoctorHere(t *testing.T) {
	r := Doctor()
	if os.Geteuid() == 0 && !r.OK() {
		t.Errorf("the main job is not possible here: %+v", r.Abilities)
	}
	for _, a := range r.Abilities {
		if (a.Verdict == VerdictYes) != (len(a.Why) == 0) {
			t.Errorf("%s: %s with the reasons %q", a.ID, a.Verdict, a.Why)
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"id":"pagemap_scan"`, `"since":"6.7"`, `"id":"restore"`, `"kernel":"` + r.Kernel} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in the JSON", want)
		}
	}
}

func TestPlatform(t *testing.T) {
	for _, c := range []struct {
		release, arch string
		want          Verdict
	}{
		{"6.18.44", "amd64", VerdictYes}, {"5.15.0-91-generic", "amd64", VerdictYes},
		{"5.10.0", "amd64", VerdictLimited}, {"strange", "amd64", VerdictUnknown}, {"6.18.44", "arm64", VerdictNo},
	} {
		if got := platform(c.release, c.arch); got.Verdict != c.want {
			t.Errorf("%s on %s: %+v, want %s", c.release, c.arch, got, c.want)
		}
	}
}

// TestNotOK: without any one part of it, the main job is not possible.
func TestNotOK(t *testing.T) {
	all := func() DoctorReport {
		var r DoctorReport
		for _, id := range []string{"platform", "checkpoint", "restore", "restore_pidns"} {
			r.Abilities = append(r.Abilities, Ability{ID: id, Verdict: VerdictYes})
		}
		return r
	}
	if !all().OK() {
		t.Error("all yes is not OK")
	}
	for _, c := range []struct {
		no []int
		ok bool
	}{{[]int{0}, false}, {[]int{1}, false}, {[]int{2}, true}, {[]int{3}, true}, {[]int{2, 3}, false}} {
		r := all()
		for _, i := range c.no {
			r.Abilities[i].Verdict = VerdictNo
		}
		if r.OK() != c.ok {
			t.Errorf("no %v: %v", c.no, r.OK())
		}
	}
}
