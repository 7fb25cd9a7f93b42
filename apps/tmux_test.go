package apps

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// terminal is a tmux server with one window, in which a program runs that is
// talked to by keys and read from the screen. The server has made itself a
// daemon: it and what runs in it are the tree.
type terminal struct {
	s      *stage
	sock   string
	server int
}

// openTerminal starts a program in a terminal of 80 columns and 24 lines.
func openTerminal(s *stage, command string) *terminal {
	t := &terminal{s: s, sock: filepath.Join(s.Dir, "tmux")}
	t.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", command)
	pid, err := strconv.Atoi(strings.TrimSpace(t.tmux("display-message", "-p", "#{pid}")))
	if err != nil {
		s.failf("the tmux server's pid: %v", err)
	}
	t.server = pid
	s.roots = []int{pid}
	return t
}

// tmux runs a client of the server.
func (t *terminal) tmux(args ...string) string {
	return t.s.command(append([]string{"tmux", "-S", t.sock}, args...)...)
}

// screen is what a user sees, and where the cursor is.
func (t *terminal) screen() string {
	return t.tmux("capture-pane", "-p", "-e", ";", "display-message", "-p",
		"cursor #{cursor_x} #{cursor_y} size #{pane_width} #{pane_height} alternate #{alternate_on} running #{pane_current_command}")
}

// still is the screen once nothing moves on it any more.
func (t *terminal) still() (screen string) {
	same := 0
	t.s.await("end of changes on the screen", func() bool {
		now := t.screen()
		if same++; now != screen {
			same = 0
		}
		screen = now
		return same >= 3
	})
	return screen
}

// keys presses keys: the names that tmux knows, other text as it is.
func (t *terminal) keys(keys ...string) { t.tmux(append([]string{"send-keys"}, keys...)...) }

// await waits until a text is on the screen.
func (t *terminal) await(text string) {
	screen := ""
	defer func() {
		if p := recover(); p != nil {
			t.s.notef("the screen:\n%s", screen)
			panic(p)
		}
	}()
	t.s.await(fmt.Sprintf("%q on the screen", text), func() bool {
		screen = t.screen()
		return strings.Contains(screen, text)
	})
}

// point is a checkpoint, after which the screen must be what it was.
func (t *terminal) point() {
	before := t.still()
	t.s.point()
	if after := t.screen(); after != before {
		t.s.failf("the screen after restore %d: %s", t.s.cycles, difference(before, after))
	}
}

// session has steps of a dialogue, with n checkpoints spread over them, each
// between the keys of a step and those that say it is done.
func (t *terminal) session(steps, n int, step func(i int), done func(i int)) {
	for i := range steps {
		step(i)
		for t.s.cycles < n && i >= steps*(t.s.cycles+1)/(n+1) {
			t.point()
		}
		done(i)
	}
}

// end waits for the server's end, which follows its only window's.
func (t *terminal) end() {
	t.s.note("status", statusText(t.s.awaitEnd(t.server)))
}
