package procfs

// Statm is how large an address space is, in pages. On many processors the
// numbers are a little behind (fs/proc/task_mmu.c).
type Statm struct {
	Size     uint64 // mapped
	Resident uint64 // in memory
	Shared   uint64 // of these, pages of files and of shared memory
}

// ReadStatm gives the size of a process; zeroes for one that has exited.
func ReadStatm(pid int) (Statm, error) {
	return parseFile(pid, 0, "statm", whole, ParseStatm)
}

// ParseStatm parses /proc/PID/statm, whose further numbers say nothing more.
func ParseStatm(b []byte) (Statm, error) {
	s := scanner{b: b}
	var m Statm
	m.Size = s.dec()
	s.blanks()
	m.Resident = s.dec()
	s.blanks()
	m.Shared = s.dec()
	if s.bad {
		return Statm{}, badLine("statm", b)
	}
	return m, nil
}
