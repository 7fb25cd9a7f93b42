package sys

import "golang.org/x/sys/unix"

// What Kcmp compares (include/uapi/linux/kcmp.h, Linux 3.5).
const (
	KcmpFile    = 0
	KcmpVM      = 1
	KcmpFiles   = 2
	KcmpFS      = 3
	KcmpSighand = 4
	KcmpIO      = 5
	KcmpSysVSem = 6
)

// Kcmp compares a kernel object of two tasks: 0 when it is the same, 1 or 2 for
// an order that is stable while both exist. a and b are descriptors for
// KcmpFile, else 0.
func Kcmp(pid1, pid2, what, a, b int) (int, error) {
	r, _, e := unix.RawSyscall6(unix.SYS_KCMP, uintptr(pid1), uintptr(pid2), uintptr(what), uintptr(a), uintptr(b), 0)
	if e != 0 {
		return 0, e
	}
	return int(r), nil
}

// GetRobustList reads where a thread's list of robust futexes begins
// (get_robust_list(2)).
func GetRobustList(tid int) (head, size uint64, err error) { return getRobustList(tid) }

// Prctl numbers that x/sys lacks (include/uapi/linux/prctl.h).
const (
	PrGetTidAddress         = 40 // 3.5, CONFIG_CHECKPOINT_RESTORE
	PrTimerCreateRestoreIDs = 77 // 6.15
	PrSetMM                 = 35
	PrSetMMMap              = 14
	PrSetMMExeFile          = 13
)
