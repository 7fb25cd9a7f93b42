package sys

// Calls of prctl(2) that x/sys lacks (include/uapi/linux/prctl.h).
const (
	PrSetMemoryMerge = 67 // Linux 6.4
	PrGetMemoryMerge = 68
	PrFutexHash      = 78 // 6.16
	FutexHashSet     = 1
	FutexHashGet     = 2
	PrMCEKill        = 33
	PrMCEKillGet     = 34
	MCEKillSet       = 1
	MCEKillDefault   = 2
	// TimerCreateRestoreIDsGet is an argument of PrTimerCreateRestoreIDs.
	TimerCreateRestoreIDsGet = 2
)

// NumaBits is how many nodes a mask given to get_mempolicy(2) and mbind(2) has
// room for: more than any kernel (MAX_NUMNODES). The call wants one more.
const NumaBits = 1024

// MpolFAddr asks get_mempolicy(2) about an address (MPOL_F_ADDR,
// include/uapi/linux/mempolicy.h).
const MpolFAddr = 2
