package apps

// redis-server holding a hundred thousand keys: a large heap, an event loop on
// epoll with a TCP and a unix listener, clients inside the tree, one of which
// stays connected through every checkpoint. Its own digest of all keys is the
// result.
var _ = register(&App{
	Name:    "redis",
	Needs:   []Need{{"redis-server", "redis-server"}, {"redis-cli", "redis-tools"}},
	Command: []string{"bash", "work.sh"},
})
