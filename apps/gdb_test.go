package apps

import "fmt"

// gdb at its prompt in a terminal, tracing nothing: a debugger with symbols
// read, worker threads, line editing and history of values.
var _ = register(&App{
	Name:    "gdb",
	Needs:   []Need{{"tmux", "tmux"}, {"gdb", "gdb"}, {"cc", "gcc"}},
	Results: []string{"log"},
	Prepare: func(s *stage) { s.command("cc", "-g", "-O1", "-o", "program", "program.c") },
	Drive: func(s *stage, n int) {
		t := openTerminal(s, "gdb -q -nx -ex 'set pagination off' -ex 'set confirm off' -ex 'set logging file log' -ex 'set logging enabled on' ./program")
		t.await("(gdb)")
		commands := []string{
			"info line main", "list compare", "ptype struct node", "print root", "print/x sizeof(struct node)",
			"print numbers", "disassemble compare", "info scope main", "print (enum colour)8", "print $1.value.text",
			"print numbers[2]+numbers[3]", "whatis &root.left->right", "info functions compare", "break compare",
			"info breakpoints", "print $_gdb_setting(\"width\")", "set var $x = 17", "print $x * numbers[5]",
			"x/4dw &numbers", "delete 1", "info symbol compare", "python print(sum(i * i for i in range(1000)))",
		}
		t.session(len(commands), n, func(i int) {
			// The checkpoint finds a line half typed.
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
