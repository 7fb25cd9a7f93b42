package apps

// Apache's prefork server under load from inside its tree: processes of another
// user that share a scoreboard and take turns by a lock, programs that they start
// for a request, a graceful restart in the middle. What was served is the result:
// the log, and what the clients counted and summed up.
var _ = register(&App{
	Name:     "apache",
	Needs:    []Need{{"/usr/sbin/apache2", "apache2-bin"}, {"ab", "apache2-utils"}, {"curl", "curl"}},
	Command:  []string{"bash", "work.sh"},
	Prepare:  openToOthers,
	Progress: func(s *stage) int { return s.size("access.log") },
})
