package apps

// Node: an event loop on epoll, eventfds and timers, worker threads with shared
// memory, a child process, a compiler that writes its own code.
var _ = register(&App{
	Name:    "node",
	Needs:   []Need{{"node", "nodejs"}},
	Command: []string{"node", "work.js"},
})
