package imgdir

// cpuid executes CPUID.
func cpuid(leaf, sub uint32) (eax, ebx uint32)

// stateSize gives the bytes of an XSAVE area in the standard format, with every
// component that the kernel has switched on (CPUID 0xD, 0: EBX).
func stateSize() int {
	_, n := cpuid(0xd, 0)
	return int(n)
}

// componentAt gives where a component lies in it, 0 when there is none (CPUID
// 0xD, c: size in EAX, offset in EBX).
func componentAt(c int) int {
	size, at := cpuid(0xd, uint32(c))
	if size == 0 {
		return 0
	}
	return int(at)
}
