package apps

// Python: an interpreter with a large heap, threads under its one lock, a pool
// of forked processes that take work from pipes under semaphores, and a child
// program on two pipes.
var _ = register(&App{
	Name:    "python",
	Needs:   []Need{{"/usr/bin/python3", "python3"}},
	Command: []string{"/usr/bin/python3", "work.py"},
})
