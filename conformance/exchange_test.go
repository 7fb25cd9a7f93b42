package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
		name, dump, restore, server string
		cannot                      map[string]string
	}{
		{"itself", own, own, "", notInImages},
		{"to_criu", own, peer, "", criuCannotTake},
		{"from_criu", peer, own, "", notInCRIUImages},
		{"served", own, own, own, notInImages},
		{"served_by_criu", own, own, peer, notInImages},
		{"serving_criu", peer, peer, own, criuAlone},
	} {
		t.Run(way.name, func(t *testing.T) {
			served := strings.Contains(way.name, "serv")
			if way.dump == "" || way.restore == "" || way.server == "" && served {
				t.Skip("set CRIU to the path of a CRIU")
			}
			if served && !*flagIsolate {
				t.Skip("the port of the page server would be everybody's")
			}
			for _, p := range all {
				if p.Refused != "" || p.CRIUCannot("restore") != "" || !p.runsIn("restore") || testing.Short() && !p.Short {
					continue
				}
				if served && p.Kind != "memory" {
					continue // the rest does not go through the server
				}
				t.Run(p.Name, func(t *testing.T) {
					if why := way.cannot[p.Name]; why != "" && !*flagAll {
						t.Skip(why)
					}
					if why := criuCannot[p.Name]; why != "" && way.name != "itself" && !*flagAll {
						t.Skip("CRIU " + why)
					}
					t.Parallel()
					x := &harness{dir: h.dir, jobs: h.jobs, shared: h, engine: "exchange", tool: way.dump, restorer: way.restore, server: way.server}
					x.run(t, p, "root", "restore", "")
				})
			}
		})
	}
}

// notInImages are the programs whose state a directory in CRIU's format has no
// room for: they are refused.
var notInImages = map[string]string{
	"mem_sysv": "CRIU keeps System V segments with their namespace",
	"file_aio": "the events of a ring are fermata's own record",
}

// criuAlone are the programs whose state CRIU cannot carry by itself in a
// directory, whoever keeps the pages.
var criuAlone = map[string]string{
	"mem_sysv":     "CRIU keeps System V segments with their namespace",
	"mem_left_out": "CRIU does not tell a program that it was restored",
}

// criuCannot are the programs whose state CRIU does not bring back from its own
// images either.
var criuCannot = map[string]string{
	"mem_mdwe":                 "does not save it",
	"sock_mptcp":               "refuses MPTCP",
	"sock_tcp_pending_data":    "refuses connections not yet accepted",
	"sock_unix_pending_closed": "refuses connections not yet accepted and closed",
	"sock_unix_pending_data":   "refuses data of connections not yet accepted",
	"task_leader_exited":       "cannot save a process without its main thread",
	"task_seccomp_filter":      "does not save the flags of filters",
	"task_seccomp_list":        "does not save the flags of filters",
}

// criuCannotTake are the programs whose state CRIU does not bring back from
// fermata's images, and why.
var criuCannotTake = map[string]string{
	"file_epoll_dup":       "CRIU adds members by number, and refuses the second of two with one number",
	"mem_shared_private":   "CRIU knows private views of shared memory only as those of memfds",
	"sock_tcp_half_closed": "CRIU binds the ends of a connection anew",
	"task_cgroup":          "CRIU wants the controllers of every hierarchy",
	"tty_hup_signal":       "the device numbers of terminals are written otherwise",
	"tty_pair":             "the device numbers of terminals are written otherwise",
}

// notInCRIUImages are the programs whose state fermata does not bring back from
// CRIU's images, and why.
var notInCRIUImages = map[string]string{
	"sock_tcp_half_closed": "an end without a descriptor is not in CRIU's images",
	"sock_unix_shutdown":   "the sender of queued messages is not in CRIU's images when it is closed",
	"task_cgroup":          "CRIU names the groups of version 2 otherwise",
	"tty_hup_signal":       "which name a terminal was opened by is not in CRIU's images",
	"tty_pair":             "which name a terminal was opened by is not in CRIU's images",
}
