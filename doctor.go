package fermata

import (
	"fmt"
	"os"
	"runtime"

	"github.com/fermata-cr/fermata/internal/sys/probe"
)

// Oldest is the oldest kernel that fermata is meant for.
const Oldest = "5.15"

// Verdict is the answer to whether something can be done here.
type Verdict string

const (
	// VerdictYes: it works here.
	VerdictYes Verdict = "yes"
	// VerdictLimited: it works, except for what the reasons name.
	VerdictLimited Verdict = "limited"
	// VerdictNo: it does not work here.
	VerdictNo Verdict = "no"
	// VerdictUnknown: a probe could not tell.
	VerdictUnknown Verdict = "unknown"
)

// DoctorReport is what this kernel, this user and this machine allow.
type DoctorReport struct {
	Kernel    string         `json:"kernel"`  // uname's release
	Machine   string         `json:"machine"` // uname's machine
	UID       int            `json:"uid"`     // effective
	Abilities []Ability      `json:"abilities"`
	Features  []MachineProbe `json:"features"`
}

// Ability is something a user may want to do.
type Ability struct {
	ID      string   `json:"id"`    // stable, for programs
	Title   string   `json:"title"` // for people
	Verdict Verdict  `json:"verdict"`
	Why     []string `json:"why,omitempty"` // what is missing and what that means
}

// MachineProbe is one question to the machine and its answer.
type MachineProbe struct {
	ID      string `json:"id"`               // stable, for programs
	Title   string `json:"title"`            // for people
	Kind    string `json:"kind"`             // "kernel", "privilege" or "setting"
	State   string `json:"state"`            // "yes", "no" or "unknown"
	Detail  string `json:"detail,omitempty"` // what was seen
	Since   string `json:"since,omitempty"`  // first kernel that has it
	Config  string `json:"config,omitempty"` // kernel options it needs
	For     string `json:"for"`              // what fermata does with it
	Without string `json:"without"`          // what its absence means for a user
	Unused  bool   `json:"unused,omitempty"` // nothing in this version depends on it
}

// OK reports whether programs can be saved and restored here, with the same
// pids or in a pid namespace of their own.
func (r DoctorReport) OK() bool {
	can := func(id string) bool {
		for _, a := range r.Abilities {
			if a.ID == id {
				return a.Verdict == VerdictYes || a.Verdict == VerdictLimited
			}
		}
		return false
	}
	return can("platform") && can("checkpoint") && (can("restore") || can("restore_pidns"))
}

// Doctor asks the machine by trying what fermata would do, in ways that change
// nothing. It takes some milliseconds: some questions start a process.
func Doctor() DoctorReport {
	r := DoctorReport{UID: os.Geteuid()}
	var err error
	if r.Kernel, r.Machine, err = probe.Release(); err != nil {
		r.Kernel, r.Machine = "unknown: "+err.Error(), runtime.GOARCH
	}
	for _, f := range probe.All() {
		got := f.Probe()
		r.Features = append(r.Features, MachineProbe{
			ID: f.ID, Title: f.Title, Kind: string(f.Kind), State: got.State.String(), Detail: got.Detail,
			Since: f.Since.String(), Config: f.Config, For: f.For, Without: f.Without, Unused: f.Unused,
		})
	}
	r.Abilities = append(r.Abilities, platform(r.Kernel, runtime.GOARCH))
	for _, a := range abilities() {
		r.Abilities = append(r.Abilities, a.judge())
	}
	return r
}

// platform judges the kernel's version and the processor.
func platform(release, arch string) Ability {
	a := Ability{ID: "platform", Title: "run fermata on this kernel and processor", Verdict: VerdictYes}
	oldest, _ := probe.ParseVersion(Oldest)
	v, ok := probe.ParseVersion(release)
	switch {
	case !ok:
		a.Verdict = VerdictUnknown
		a.Why = append(a.Why, fmt.Sprintf("the kernel's version %q cannot be read", release))
	case v.Less(oldest):
		a.Verdict = VerdictLimited
		a.Why = append(a.Why, fmt.Sprintf("kernel %s is older than %s, the oldest that fermata is tried on", v, Oldest))
	}
	if arch != "amd64" {
		a.Verdict = VerdictNo
		a.Why = append(a.Why, "fermata drives programs on x86-64 only; this is "+arch)
	}
	return a
}

// ability says what an Ability depends on: without one of needs it is not
// there, without one of wants it is limited.
type ability struct {
	id, title    string
	needs, wants []*probe.Feature
}

// judge asks for everything an ability depends on.
func (a ability) judge() Ability {
	out := Ability{ID: a.id, Title: a.title, Verdict: VerdictYes}
	note := func(f *probe.Feature, worst Verdict) {
		r := f.Probe()
		if r.State == probe.Yes {
			return
		}
		why := f.Title + ": "
		if r.State == probe.Unknown {
			worst = VerdictUnknown
			why += "could not be found out (" + r.Detail + ")"
		} else {
			why += f.Without
		}
		if rank[worst] > rank[out.Verdict] {
			out.Verdict = worst
		}
		out.Why = append(out.Why, why)
	}
	for _, f := range a.needs {
		note(f, VerdictNo)
	}
	for _, f := range a.wants {
		note(f, VerdictLimited)
	}
	return out
}

// rank orders verdicts; the worst of several counts.
var rank = map[Verdict]int{VerdictYes: 0, VerdictLimited: 1, VerdictUnknown: 2, VerdictNo: 3}

// abilities lists what a user may want, the main job first.
func abilities() []ability {
	caps := map[string]*probe.Feature{}
	for _, f := range probe.Capabilities() {
		caps[f.ID] = f
	}
	type fs = []*probe.Feature
	return []ability{
		{"checkpoint", "save programs of this user",
			fs{probe.PtraceSeize, probe.PtraceSigmask, probe.Kcmp, probe.PidfdGetfd, probe.SysvShm, probe.FutexWaitv, probe.ProcessVM},
			fs{probe.PtraceRseq, probe.YamaScope, probe.ProcChildren, probe.ProcTimers, probe.MapFiles}},
		{"checkpoint_others", "save programs of other users",
			fs{caps["cap_sys_ptrace"], probe.InitialUserNS}, fs{caps["cap_kill"]}},
		{"restore", "restore programs with the pids they had",
			fs{probe.SetTID, probe.SetMMMap, probe.MemfdExec}, fs{caps["cap_sys_resource"], caps["cap_sys_nice"]}},
		{"restore_pidns", "restore into a new pid namespace (--pidns)",
			fs{probe.PidNS, probe.SetMMMap, probe.MemfdExec}, nil},
		{"restore_others", "restore programs of other users",
			fs{caps["cap_setuid"], caps["cap_setgid"]}, fs{caps["cap_setpcap"], caps["cap_dac_override"], caps["cap_chown"], caps["cap_fowner"]}},
		{"sockets", "sockets inside the program", fs{probe.UnixDiag, probe.InetDiag}, nil},
		{"clocks", "monotonic clocks that go on from where they stopped", fs{probe.TimeNS}, nil},
		{"hugetlb", "hugetlb memory", fs{probe.Hugetlb}, nil},
	}
}
