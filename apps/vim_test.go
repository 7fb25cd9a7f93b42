package apps

import "fmt"

// vim inside tmux: a server that is a daemon on a unix socket, a pseudo-terminal
// pair with a session and a controlling terminal, an editor in raw mode with a
// swap file, undo history, registers and marks. The screen is what it was right
// after each restore, and the file in the end is what was typed.
var _ = register(&App{
	Name:    "vim",
	Needs:   []Need{{"tmux", "tmux"}, {"vim", "vim"}},
	Results: []string{"text.c"},
	Drive: func(s *stage, n int) {
		t := openTerminal(s, "vim -u NONE -i NONE -N -c 'set ruler showcmd showmode nomore undolevels=1000' text.c")
		t.await("text.c")
		t.session(33, n, func(i int) {
			// Half a command, left in the middle: insert mode, an operator that
			// waits for its motion, a line being typed.
			switch i % 3 {
			case 0:
				t.keys("G", "o", fmt.Sprintf("int line%d = %d; /*", i, i*i))
				t.await(fmt.Sprintf("line%d = %d; /*", i, i*i))
			case 1:
				t.keys("Escape", fmt.Sprintf("%dG", i+1), "mx", "\"qyy", "P", "2", "d")
				t.await("2d")
			case 2:
				t.keys("Escape", fmt.Sprintf(":%%s/count/count%d", i))
				t.await(fmt.Sprintf(":%%s/count/count%d", i))
			}
		}, func(i int) {
			switch i % 3 {
			case 0:
				t.keys(" typed */")
				t.keys("Escape", "u", "C-r")
			case 1:
				t.keys("w", "\"qp", "'x")
			case 2:
				t.keys("/e", "Enter", "u", "C-r")
			}
			t.keys(fmt.Sprintf(":echo 'step %d' . ' done'", i), "Enter")
			t.await(fmt.Sprintf("step %d done", i))
		})
		t.keys(":wq", "Enter")
		t.end()
	},
})
