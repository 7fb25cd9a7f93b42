package apps

// Erlang: two nodes that talk over TCP and the daemon by which they find each
// other, a scheduler thread for each processor and more for files and timers, an
// allocator with mappings all over the address space, a helper that starts port
// programs. What the nodes have told each other is the result.
var _ = register(&App{
	Name:    "erlang",
	Needs:   []Need{{"erl", "erlang-base"}, {"epmd", "erlang-base"}},
	Command: []string{"bash", "work.sh"},
})
