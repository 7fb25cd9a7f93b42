package procfs

import (
	"bytes"
	"strings"
)

// Cgroup is one line of /proc/PID/cgroup (cgroups(7)).
type Cgroup struct {
	Hierarchy   int      // 0 for version 2
	Controllers []string // nil for version 2; "name=x" for a named hierarchy
	Path        string   // as seen from the reader's cgroup namespace: may begin with "/.."
	Deleted     bool     // the group has been removed ("(deleted)" after the path)
}

// ReadCgroup gives the control groups of a thread, or of a process's leader
// when tid is 0.
func ReadCgroup(pid, tid int) ([]Cgroup, error) {
	return parseFile(pid, tid, "cgroup", whole, ParseCgroup)
}

// ParseCgroup parses a cgroup file: lines "hierarchy:controllers:path".
func ParseCgroup(b []byte) ([]Cgroup, error) {
	var out []Cgroup
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		var c Cgroup
		s := scanner{b: line}
		c.Hierarchy = s.int()
		s.lit(':')
		controllers := s.until(':')
		if s.bad {
			return nil, badLine("cgroup", line)
		}
		if len(controllers) > 0 {
			c.Controllers = strings.Split(string(controllers), ",")
		}
		name, deleted := bytes.CutSuffix(line[s.i:], []byte(deletedMark))
		c.Path, c.Deleted = string(name), deleted
		out = append(out, c)
	}
	return out, nil
}
