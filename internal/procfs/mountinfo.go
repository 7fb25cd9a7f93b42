package procfs

import (
	"bytes"
	"strings"
)

// Mount is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	ID, Parent         int
	DevMajor, DevMinor uint32
	Root               string // the mounted directory, within its file system
	RootDeleted        bool   // that directory ("//deleted" in the text) has been unlinked
	MountPoint         string // as seen from the task's root
	Options            string // of the mount: "rw,nosuid,relatime"

	// The optional fields; 0 and false when they are not there.
	Shared        int // peer group
	Master        int // peer group that this mount receives from
	PropagateFrom int // nearest dominant peer group under the task's root
	Unbindable    bool
	Optional      []string // optional fields of a later kernel, as they are

	FSType       string // with its subtype: "fuse.sshfs"
	Source       string // "none" or empty without one
	SuperOptions string // of the super block, as the file system prints them
}

// ReadMountInfo gives the mounts of a process's mount namespace, those that are
// below its root directory, in the order of the text.
func ReadMountInfo(pid int) ([]Mount, error) {
	return parseFile(pid, 0, "mountinfo", stream, ParseMountInfo)
}

// ParseMountInfo parses a mountinfo file. Fields are parted by single spaces,
// so that an empty source stays a field of its own.
func ParseMountInfo(b []byte) ([]Mount, error) {
	out := make([]Mount, 0, bytes.Count(b, []byte{'\n'})+1)
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		m, ok := parseMount(line)
		if !ok {
			return nil, badLine("mountinfo", line)
		}
		out = append(out, m)
	}
	return out, nil
}

func parseMount(line []byte) (m Mount, ok bool) {
	s := scanner{b: line}
	m.ID = s.int()
	s.lit(' ')
	m.Parent = s.int()
	s.lit(' ')
	m.DevMajor = s.dec32()
	s.lit(':')
	m.DevMinor = s.dec32()
	s.lit(' ')
	root := s.until(' ')
	// No path has two slashes in a row, so this mark cannot be a name.
	root, m.RootDeleted = bytes.CutSuffix(root, []byte("//deleted"))
	m.Root = unescapeOctal(root)
	m.MountPoint = unescapeOctal(s.until(' '))
	m.Options = string(s.until(' '))
	for !s.bad {
		field := s.until(' ')
		if string(field) == "-" {
			break
		}
		if !s.bad && !m.optional(field) {
			return Mount{}, false
		}
	}
	m.FSType = unescapeOctal(s.until(' '))
	m.Source = unescapeOctal(s.until(' '))
	if s.bad {
		return Mount{}, false
	}
	m.SuperOptions = string(line[s.i:])
	return m, true
}

// optional takes one field between the mount options and the "-".
func (m *Mount) optional(field []byte) bool {
	s := scanner{b: field}
	switch {
	case s.prefix("shared:"):
		m.Shared = s.int()
	case s.prefix("master:"):
		m.Master = s.int()
	case s.prefix("propagate_from:"):
		m.PropagateFrom = s.int()
	case string(field) == "unbindable":
		m.Unbindable = true
		return true
	default:
		m.Optional = append(m.Optional, string(field))
		return true
	}
	return !s.bad && s.i == len(field)
}

// HasOption says whether the comma-separated options have the given one.
func HasOption(options, want string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == want {
			return true
		}
	}
	return false
}
