package apps

// A MariaDB server with clients that change the same tables at once: one process
// of some thirty threads that hold record locks on their files and wait for each
// other's, clients over unix and TCP sockets inside the tree. The tables are the result.
var _ = register(&App{
	Name: "mariadb",
	Needs: []Need{
		{"/usr/sbin/mariadbd", "mariadb-server-core"}, {"mariadb-install-db", "mariadb-server-core"},
		{"mariadb", "mariadb-client-core"},
	},
	Command: []string{"bash", "work.sh"},
	Prepare: func(s *stage) {
		openToOthers(s)
		s.command("mariadb-install-db", "--no-defaults", "--user=root", "--datadir="+s.Dir+"/data",
			"--innodb-log-file-size=8M", "--auth-root-authentication-method=normal", "--skip-test-db")
	},
	Progress: func(s *stage) int { return s.size("general.log") },
})
