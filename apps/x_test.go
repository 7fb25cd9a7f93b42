package apps

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// An X server without a screen (TigerVNC's), a window manager, an xterm with a
// program in it and two more programs: eight processes that talk to each other over
// sockets, share what the server holds for them, and whose windows are its memory.
// The screen after each restore is the one before, bit by bit, and all go on.
var _ = register(&App{
	Name: "x",
	Needs: []Need{
		{"Xtigervnc", "tigervnc-standalone-server"}, {"twm", "twm"}, {"xterm", "xterm"}, {"xwd", "x11-apps"}, {"xdpyinfo", "x11-utils"},
	},
	Results: []string{"screen"},
	Drive: func(s *stage, n int) {
		root := s.start("bash", "work.sh")
		s.roots = []int{root}
		x := &display{s}
		const steps = 22
		for i := range steps {
			s.write(fmt.Sprintf("go-%d", i), nil)
			s.await(fmt.Sprintf("line %d", i), func() bool {
				_, err := os.Stat(filepath.Join(s.Dir, fmt.Sprintf("done-%d", i)))
				return err == nil
			})
			for s.cycles < n && i >= steps*(s.cycles+1)/(n+1) {
				before := x.still()
				s.point()
				if after := x.screen(); !bytes.Equal(before, after) {
					s.failf("the screen after restore %d is not the one before: %s", s.cycles, pixels(before, after))
				}
			}
		}
		s.write("screen", x.still())
		s.write("end", nil)
		s.note("status", statusText(s.awaitEnd(root)))
	},
})

// display is an X server's screen.
type display struct{ s *stage }

// screen is what is to be seen on it, as xwd(1) writes it.
func (d *display) screen() []byte {
	return []byte(d.s.command("xwd", "-display", ":77", "-root", "-silent"))
}

// still is the screen once nothing changes on it any more.
func (d *display) still() (screen []byte) {
	same := 0
	d.s.await("end of changes on the screen", func() bool {
		now := d.screen()
		if same++; !bytes.Equal(now, screen) {
			same = 0
		}
		screen = now
		return same >= 3
	})
	return screen
}

// pixels says in how many bytes two screens differ.
func pixels(a, b []byte) string {
	if len(a) != len(b) {
		return fmt.Sprintf("it has %d bytes, and had %d", len(b), len(a))
	}
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return fmt.Sprintf("%d of %d bytes differ", n, len(a))
}
