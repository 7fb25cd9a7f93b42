package tracee

import "github.com/fermata-cr/fermata/internal/procfs"

// FindSyscall looks up a `syscall` in a process's text, like FindGadgets, but
// nothing else: with a vdso that takes no search.
func FindSyscall(pid int, maps []procfs.VMA) (uint64, bool) {
	for i := range maps {
		if maps[i].Path == "[vdso]" {
			if at, _ := vdsoSyscall(pid, &maps[i]); at != 0 {
				return at, true
			}
		}
	}
	g, _ := FindGadgets(pid, maps)
	return g.Syscall, g.Syscall != 0
}
