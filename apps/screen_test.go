package apps

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// GNU screen with a shell and an editor in its windows, attached to a terminal
// of tmux: its server has made itself a daemon, so the tree has two roots, and
// the client on the terminal is in the one, its server in the other. What both
// show is what they showed right after each restore.
var _ = register(&App{
	Name:    "screen",
	Needs:   []Need{{"screen", "screen"}, {"tmux", "tmux"}, {"vim", "vim"}},
	Results: []string{"typed", "edited"},
	Drive: func(s *stage, n int) {
		// It wants a directory of its own, which nobody else can enter.
		if err := os.Mkdir(s.Dir+"/sockets", 0o700); err != nil {
			s.failf("%v", err)
		}
		s.write("screenrc", []byte("startup_message off\nhardstatus alwayslastline '%w'\ndefscrollback 2000\n"))
		t := openTerminal(s, "env SCREENDIR="+s.Dir+"/sockets sh -c 'screen -c screenrc -dmS work bash --norc; until screen -ls work | grep -q Detached; do sleep 0.02; done; exec screen -r work'")
		t.await("bash")
		server := screenServer(s)
		s.roots = append(s.roots, server)
		t.keys("PS1='at [$?] '; clear", "Enter")
		t.await("at [0]")
		t.keys("C-a", ":screen -t other vim -u NONE -i NONE -N -c 'set nomore' edited", "Enter")
		t.await("\"edited\" [New]")
		t.keys("C-a", "0")
		t.await("at [0]")
		t.session(22, n, func(i int) {
			switch i % 2 {
			case 0: // a line half typed, and one of the windows in copy mode now and then
				t.keys(fmt.Sprintf("echo 'step %d' done $((%d * 7)) | tee -a typed", i, i))
				t.await(fmt.Sprintf("(%d * 7)) | tee -a typed", i))
				if i%4 == 0 {
					t.keys("C-a", "[")
					t.await("Copy mode")
				}
			case 1:
				t.keys("C-a", "1")
				t.keys("G", "o", fmt.Sprintf("line %d", i))
				t.await(fmt.Sprintf("line %d", i))
			}
		}, func(i int) {
			switch i % 2 {
			case 0:
				if i%4 == 0 {
					t.keys("q")
					t.await("Copy mode aborted")
				}
				t.keys("Enter")
				t.await(fmt.Sprintf("step %d done %d", i, i*7))
			case 1:
				t.keys(" whole", "Escape", ":w", "Enter")
				t.await("written")
				t.keys("C-a", "0")
				t.await("at [0]")
			}
		})
		t.keys("C-a", "1", ":q", "Enter")
		t.await("at [0]")
		t.keys("exit 0", "Enter")
		t.end()
		s.note("server", statusText(s.awaitEnd(server)))
	},
})

// screenServer finds the daemon that screen has left to the supervisor.
func screenServer(s *stage) (pid int) {
	s.await("a server of screen", func() bool {
		var all []string
		tids, _ := os.ReadDir("/proc/self/task")
		for _, t := range tids {
			kids, _ := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
			all = append(all, strings.Fields(string(kids))...)
		}
		i := slices.IndexFunc(all, func(k string) bool {
			cmd, _ := os.ReadFile("/proc/" + k + "/cmdline")
			return strings.HasPrefix(string(cmd), "SCREEN\x00")
		})
		if i < 0 {
			return false
		}
		pid, _ = strconv.Atoi(all[i])
		return true
	})
	return pid
}
