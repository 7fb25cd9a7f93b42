package apps

import (
	"os"
	"path/filepath"
)

// nginx under load from inside its tree: a master and two workers of another
// user, which share memory and a channel each, hold listeners of one port group,
// of IPv4, IPv6 and unix sockets, and serve connections whose other ends are in
// ab and curl, with data on its way in both directions. What was served is
// the result: the log, and what the clients counted and summed up.
var _ = register(&App{
	Name:     "nginx",
	Needs:    []Need{{"/usr/sbin/nginx", "nginx-light"}, {"ab", "apache2-utils"}, {"curl", "curl"}},
	Command:  []string{"bash", "work.sh"},
	Prepare:  openToOthers,
	Progress: func(s *stage) int { return s.size("access.log") },
})

// openToOthers lets other users into the program's directory: servers that are
// started by root have workers that are not.
func openToOthers(s *stage) {
	if err := os.Chmod(s.Top, 0o755); err != nil {
		s.failf("%v", err)
	}
}

// size is the length of a file of the program's directory, 0 if it is not there.
func (s *stage) size(name string) int {
	fi, err := os.Stat(filepath.Join(s.Dir, name))
	if err != nil {
		return 0
	}
	return int(fi.Size())
}
