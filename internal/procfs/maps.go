package procfs

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
)

// VMA is one area of /proc/PID/maps (proc_pid_maps(5)).
type VMA struct {
	Start, End uint64 // End is the first address behind the area
	Offset     uint64 // in the file, bytes
	Ino        uint64 // 0 without a file

	// Path is the name of the file as the reader would see it, or the kernel's
	// name for the area ("[heap]", "[anon:x]", "/memfd:x", "/dev/zero",
	// "/SYSV…", "anon_inode:…"), or "" for plain anonymous memory.
	//
	// The text is not quite unambiguous; what decides is the file itself
	// (/proc/PID/map_files, PROCMAP_QUERY):
	//   - " (deleted)" at the end is taken off and Deleted set, but a file may
	//     really be called so. RawPath gives the text as it was.
	//   - the kernel writes a newline as \012 but leaves a backslash alone, so
	//     a name with these four characters in it looks the same; Escaped says
	//     that some were replaced.
	Path string

	DevMajor, DevMinor uint32 // of the file's super block
	Read, Write, Exec  bool
	Shared             bool // MAP_SHARED, else MAP_PRIVATE
	Deleted            bool
	Escaped            bool
}

// deletedMark is what the kernel's d_path adds to the name of an unlinked file.
const deletedMark = " (deleted)"

// RawPath is Path with " (deleted)" put back.
func (v *VMA) RawPath() string {
	if v.Deleted {
		return v.Path + deletedMark
	}
	return v.Path
}

// Len is the size of the area in bytes.
func (v *VMA) Len() uint64 { return v.End - v.Start }

// TrimDeleted takes the " (deleted)" off the text of a /proc link, and says
// whether it was there. A file may really be called so.
func TrimDeleted(s string) (string, bool) { return strings.CutSuffix(s, deletedMark) }

// ReadMaps gives the areas of a process in the order of their addresses. A task
// without an address space has none. It needs the right to trace the process.
func ReadMaps(pid int) ([]VMA, error) {
	return noneWithoutMM(parseFile(pid, 0, "maps", stream, ParseMaps))
}

// ParseMaps parses /proc/PID/maps.
func ParseMaps(b []byte) ([]VMA, error) {
	if len(b) == 0 {
		return nil, nil
	}
	out := make([]VMA, 0, bytes.Count(b, []byte{'\n'})+1)
	var names pathCache
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		out = append(out, VMA{})
		if !out[len(out)-1].parse(line, &names) {
			return nil, badLine("maps", line)
		}
	}
	return out, nil
}

// pathCache keeps the last name, because the areas of one file stand together.
type pathCache struct {
	raw              []byte
	path             string
	deleted, escaped bool
}

// parse takes one line of maps or the head line of smaps:
// "start-end rwxp offset major:minor inode     name".
func (v *VMA) parse(line []byte, names *pathCache) bool {
	s := scanner{b: line}
	v.Start = s.hex()
	s.lit('-')
	v.End = s.hex()
	s.lit(' ')
	if s.bad || len(line)-s.i < 5 || line[s.i+4] != ' ' || v.End < v.Start {
		return false
	}
	p := line[s.i : s.i+4]
	v.Read, v.Write, v.Exec, v.Shared = p[0] == 'r', p[1] == 'w', p[2] == 'x', p[3] == 's'
	if !v.Read && p[0] != '-' || !v.Write && p[1] != '-' || !v.Exec && p[2] != '-' || !v.Shared && p[3] != 'p' {
		return false
	}
	s.i += 5
	v.Offset = s.hex()
	s.lit(' ')
	v.DevMajor = s.hex32()
	s.lit(':')
	v.DevMinor = s.hex32()
	s.lit(' ')
	v.Ino = s.dec()
	if s.bad {
		return false
	}
	if s.i == len(line) {
		return true
	}
	if line[s.i] != ' ' {
		return false
	}
	for s.i < len(line) && line[s.i] == ' ' {
		s.i++
	}
	raw := line[s.i:]
	if len(raw) == 0 {
		return true
	}
	if !bytes.Equal(raw, names.raw) {
		names.set(raw)
	}
	v.Path, v.Deleted, v.Escaped = names.path, names.deleted, names.escaped
	return true
}

func (c *pathCache) set(raw []byte) {
	c.raw = raw
	name, deleted := bytes.CutSuffix(raw, []byte(deletedMark))
	c.deleted = deleted
	c.escaped = bytes.Contains(name, []byte(`\012`))
	if c.escaped {
		c.path = string(bytes.ReplaceAll(name, []byte(`\012`), []byte{'\n'}))
	} else {
		c.path = string(name)
	}
}

// ReadMapsUpTo is ReadMaps of a process whose map has fewer than most bytes of text.
// Of another one it gives no areas, and whole is false.
func ReadMapsUpTo(pid, most int) (maps []VMA, whole bool, err error) {
	p := path(pid, 0, "maps")
	fd, err := openRead(p, 0)
	if err == nil {
		defer syscall.Close(fd)
		b, n := make([]byte, most), 0
		if n, err = fill(fd, b); err == nil {
			if n == most {
				return nil, false, nil
			}
			if maps, err = ParseMaps(b[:n]); err != nil {
				err = fmt.Errorf("%s: %w", p, err)
			}
			return maps, true, err
		}
	}
	maps, err = noneWithoutMM([]VMA(nil), taskError(pid, 0, p, err))
	return maps, true, err
}
