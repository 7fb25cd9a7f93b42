package apps

import "fmt"

// Emacs in a terminal: a Lisp image mapped from its dump, a thread of its own
// for signals and timers, a program that it talks to through a pseudo-terminal of
// its own, undo history, half a command in the middle. The screen is what it was
// right after each restore, and the file in the end is what was typed.
var _ = register(&App{
	Name:    "emacs",
	Needs:   []Need{{"tmux", "tmux"}, {"emacs", "emacs-nox"}},
	Results: []string{"text"},
	Drive: func(s *stage, n int) {
		t := openTerminal(s, "emacs -nw -Q --eval '(progn (setq visible-cursor nil echo-keystrokes 0.1 copy-region-blink-delay 0 auto-save-interval 0) (setq p (start-process \"other\" \"other\" \"cat\")))' text")
		t.await("text")
		t.session(22, n, func(i int) {
			switch i % 3 {
			case 0:
				t.keys("M->", "Enter", fmt.Sprintf("int line%d = %d; /*", i, i*i))
				t.await(fmt.Sprintf("line%d = %d; /*", i, i*i))
			case 1:
				t.keys("M-<", "C-Space", "C-n", "C-n", "C-n", "M-w", "M-x", "yank")
				t.await("yank")
			case 2:
				t.keys("M-x", "replace-str")
				t.await("replace-str")
			}
		}, func(i int) {
			switch i % 3 {
			case 0:
				t.keys(" typed */", "Enter", "C-_", "C-_")
			case 1:
				t.keys("Enter")
			case 2:
				t.keys("ing", "Enter", "count", "Enter", fmt.Sprintf("count%d", i), "Enter")
			}
			t.keys("M-:", fmt.Sprintf("(progn (process-send-string p \"%d\\n\") (message \"step %%d done\" %d))", i, i), "Enter")
			t.await(fmt.Sprintf("step %d done", i))
		})
		t.keys("M-:", "(progn (accept-process-output p 1) (goto-char (point-max)) (insert-buffer-substring \"other\") (message \"%s\" 'inserted))", "Enter")
		t.await("inserted")
		t.keys("C-x", "C-s", "C-x", "C-c", "yes", "Enter")
		t.end()
	},
})
