package apps

import (
	"os"
	"path/filepath"
)

// A PostgreSQL server during pgbench: a dozen processes of another user that
// share anonymous, SysV and POSIX memory, semaphores in it, latches made of
// signalfd, epoll and pipes, file locks; parallel workers that come and go; clients
// over unix and TCP sockets inside the tree, one in the middle of a transaction.
// The tables are the result.
var _ = register(&App{
	Name:    "postgresql",
	Needs:   []Need{{"pg_ctlcluster", "postgresql"}},
	Command: []string{"bash", "work.sh"},
	Prepare: func(s *stage) {
		openToOthers(s)
		if err := os.Chmod(s.Dir, 0o777); err != nil {
			s.failf("%v", err)
		}
		programs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
		if len(programs) == 0 {
			s.failf("no PostgreSQL server below /usr/lib/postgresql")
		}
		s.command("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups",
			filepath.Join(programs[len(programs)-1], "initdb"), "--no-sync", "--auth=trust", "--locale=C.UTF-8", "-D", "data")
	},
	Progress: func(s *stage) int { return s.size("server.log") },
})
