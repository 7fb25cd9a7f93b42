// Package freezerfile writes the files that freeze and thaw control groups. It is
// a package by itself because the guardian needs no more of package cgroup, and
// begins before the schema of what is saved is there.
package freezerfile

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// The two interfaces, each a file in the group's directory:
//
//	cgroup.freeze  version 2 (Linux 5.2), "0" or "1": what the group itself is
//	               set to. A frozen task can be traced and reaches its ptrace
//	               stop, but does not run from there
//	               (Documentation/admin-guide/cgroup-v2.rst).
//	freezer.state  version 1, "THAWED" or "FROZEN"; freezer.self_freezing is
//	               what the group itself is set to. A frozen task does not reach
//	               its ptrace stop (cgroup-v1/freezer-subsystem.rst).
//
// Both freeze what is below the group, too.
// The names of these files.
const (
	File2 = "cgroup.freeze"
	File1 = "freezer.state"
)

// words gives what is written to a freezer file for a state.
func words(file string, frozen bool) string {
	switch {
	case file == File1 && frozen:
		return "FROZEN"
	case file == File1:
		return "THAWED"
	case frozen:
		return "1"
	}
	return "0"
}

// Set freezes or thaws the group with the freezer file path, if its directory
// is still the one with these numbers. Others than freezer files are left alone.
func Set(path string, dev, ino uint64, frozen bool) error {
	at := strings.LastIndexByte(path, '/') + 1
	dir, file := path[:at], path[at:]
	if file != File1 && file != File2 {
		return fmt.Errorf("%s: not a freezer", path)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if uint64(st.Dev) != dev || st.Ino != ino {
		return fmt.Errorf("%s: another group by now", dir)
	}
	return write(path, words(file, frozen))
}

func write(path, s string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(s))
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
