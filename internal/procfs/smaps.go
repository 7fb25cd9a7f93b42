package procfs

import (
	"bytes"
	"slices"
)

// Smap is one area of /proc/PID/smaps: the area, its flags, and those of its
// counters that tell how it was set up. Sizes are bytes.
type Smap struct {
	VMA
	Flags          VMFlags
	KernelPageSize uint64
	MMUPageSize    uint64
	Rss            uint64
	// SharedPages is what of Rss other address spaces map too, clean or dirty.
	SharedPages   uint64
	Anonymous     uint64
	AnonHugePages uint64
	Swap          uint64
	Locked        uint64 // how much of Rss is in mlocked areas, by Pss
	ProtectionKey int    // 0 where the CPU has no protection keys
	HasKey        bool   // the CPU has protection keys
	THPeligible   bool
}

// ReadSmapsFlags gives the areas of a process with their flags. The kernel
// walks the page tables of every area for it, so that it costs much more than
// ReadMaps and grows with what is mapped. A task without an address space has
// none.
func ReadSmapsFlags(pid int) ([]Smap, error) {
	var p smapsParser
	err := readLines(pid, 0, "smaps", p.feed)
	return noneWithoutMM(p.out, err)
}

// ParseSmaps parses /proc/PID/smaps. Lines that it does not know are skipped.
func ParseSmaps(b []byte) ([]Smap, error) {
	var p smapsParser
	if err := p.feed(b); err != nil {
		return nil, err
	}
	return p.out, nil
}

// smapsParser takes the file in pieces of whole lines.
type smapsParser struct {
	out   []Smap
	names pathCache
}

func (p *smapsParser) feed(b []byte) error {
	// Every area of every kernel has one such line.
	p.out = slices.Grow(p.out, bytes.Count(b, []byte("\nVmFlags:")))
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		// The keys begin with a capital letter, an area with a hexadecimal
		// digit, which the kernel prints in small letters.
		if len(line) > 0 && hexDigit[line[0]] >= 0 {
			p.out = append(p.out, Smap{})
			if !p.out[len(p.out)-1].VMA.parse(line, &p.names) {
				return badLine("smaps", line)
			}
			continue
		}
		if len(p.out) == 0 || !p.out[len(p.out)-1].line(line) {
			return badLine("smaps", line)
		}
	}
	return nil
}

// line takes one line below the head of an area; false when it knows the key
// but not the value.
func (m *Smap) line(line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return false
	}
	s := scanner{b: line, i: colon + 1}
	s.blanks()
	switch string(line[:colon]) {
	case "VmFlags":
		m.Flags = parseVMFlags(line[s.i:])
		return true
	case "KernelPageSize":
		m.KernelPageSize = s.kB()
	case "MMUPageSize":
		m.MMUPageSize = s.kB()
	case "Rss":
		m.Rss = s.kB()
	case "Shared_Clean", "Shared_Dirty":
		m.SharedPages += s.kB()
	case "Anonymous":
		m.Anonymous = s.kB()
	case "AnonHugePages":
		m.AnonHugePages = s.kB()
	case "Swap":
		m.Swap = s.kB()
	case "Locked":
		m.Locked = s.kB()
	case "ProtectionKey":
		m.ProtectionKey, m.HasKey = s.int(), true
	case "THPeligible":
		m.THPeligible = s.bool()
	default:
		return true
	}
	return !s.bad
}
