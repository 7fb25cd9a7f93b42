package apps

// PHP's pool of processes behind nginx: a master that counts its children in
// shared memory and by events of epoll, children that wait in accept for the
// same listener and are replaced after some requests, an opcode cache that they
// share, sessions under file locks.
var _ = register(&App{
	Name: "php",
	Needs: []Need{
		{"/usr/sbin/phpenmod", "php-fpm"}, {"/usr/sbin/nginx", "nginx-light"}, {"curl", "curl"},
	},
	Command:  []string{"bash", "work.sh"},
	Prepare:  openToOthers,
	Progress: func(s *stage) int { return s.size("access.log") },
})
