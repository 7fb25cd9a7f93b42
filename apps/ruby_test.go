package apps

// Ruby: threads that take turns by a timer, a fiber, a child at the end of two
// pipes, a server and its clients in one process, a heap that is compacted.
var _ = register(&App{
	Name:    "ruby",
	Needs:   []Need{{"ruby", "ruby"}},
	Command: []string{"ruby", "work.rb"},
})
