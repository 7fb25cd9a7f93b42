package apps

import "fmt"

// gdb with its program stopped: at a breakpoint, at a watchpoint of the processor,
// in the middle of a function that it steps through, with a signal that the
// program is about to get, on its way out of a function; the program has a second
// thread. Each checkpoint finds a command half typed. What gdb says of the program,
// and what that does in the end, is the result.
var _ = register(&App{
	Name:    "gdbstopped",
	Needs:   []Need{{"tmux", "tmux"}, {"gdb", "gdb"}, {"cc", "gcc"}},
	Results: []string{"log"},
	Prepare: func(s *stage) {
		s.command("cc", "-g", "-O0", "-pthread", "-o", "program", "program.c")
	},
	Drive: func(s *stage, n int) {
		// Names of threads and processes differ from run to run.
		t := openTerminal(s, "gdb -q -nx -ex 'set pagination off' -ex 'set confirm off' -ex 'set debuginfod enabled off' -ex 'set print thread-events off' -ex 'set print inferior-events off'"+
			" -ex 'set logging file log' -ex 'break insert' -ex run -ex 'set logging enabled on' -ex 'set print frame-info location' ./program")
		t.await("(gdb)")
		t.await("insert")
		commands := []string{
			"backtrace 1", "print key", "info registers rip rsp", "next", "print n", "next", "x/2i $pc", "stepi", "print $eflags",
			"watch total", "continue", "print total", "info watchpoints", "delete 2", "continue", "finish", "tbreak noted", "disable 1", "continue",
			"print sig", "backtrace 3", "up 2", "print changes", "print *list", "print list->next->next->key", "thread apply 2 -q print ticks > 0",
			"set var list->next->key = 1", "handle SIGUSR2 stop print", "call (int)raise(12)", "print total * 2", "signal 0", "print $_exitcode",
		}
		t.session(len(commands), n, func(i int) {
			t.keys("-l", commands[i])
			t.await("(gdb) " + commands[i])
		}, func(i int) {
			t.keys("Enter")
			t.keys("-l", fmt.Sprintf("printf \"step %%d is done\\n\", %d", i))
			t.keys("Enter")
			t.await(fmt.Sprintf("step %d is done\n(gdb)", i))
		})
		t.keys("quit", "Enter")
		t.end()
	},
})
