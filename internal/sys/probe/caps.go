package probe

import (
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// capFeature is one capability as a feature.
func capFeature(bit int, name, id, does, without string) *Feature {
	return &Feature{
		ID: id, Title: name, Kind: Privilege, For: does, Without: without,
		ask: func() Result { return capability(bit) },
	}
}

// Capabilities gives one feature for each capability that matters to some
// program (capabilities(7)). They are those of the calling thread's effective
// set; what they are worth outside its user namespace is another feature.
var Capabilities = sync.OnceValue(func() []*Feature {
	return []*Feature{
		capFeature(unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "cap_sys_ptrace",
			"traces programs of other users", "only own programs can be saved"),
		capFeature(unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "cap_sys_admin",
			"makes time and pid namespaces, takes a terminal over", "monotonic clocks jump at a restore, and terminals of other sessions cannot be taken over"),
		capFeature(unix.CAP_CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE", "cap_checkpoint_restore",
			"chooses pids, opens mapped files, without being root (5.9)", "CAP_SYS_ADMIN, or a user namespace of one's own, must stand in for it"),
		capFeature(unix.CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE", "cap_sys_resource",
			"raises hard limits, lowers oom_score_adj, makes pipes larger than the limit", "hard limits above those of fermata's own process, and lower values of oom_score_adj, do not come back at a restore"),
		capFeature(unix.CAP_SETUID, "CAP_SETUID", "cap_setuid",
			"restores user ids", "programs that have several user ids, or another user's, cannot be restored"),
		capFeature(unix.CAP_SETGID, "CAP_SETGID", "cap_setgid",
			"restores group ids and supplementary groups", "programs whose groups differ from fermata's own cannot be restored"),
		capFeature(unix.CAP_SETPCAP, "CAP_SETPCAP", "cap_setpcap",
			"restores bounding sets and securebits", "programs that dropped capabilities from their bounding set cannot be restored"),
		capFeature(unix.CAP_KILL, "CAP_KILL", "cap_kill",
			"signals programs of other users", "checkpoint --kill and --stop work for own programs only"),
		capFeature(unix.CAP_SYS_NICE, "CAP_SYS_NICE", "cap_sys_nice",
			"restores real-time scheduling and negative nice values", "programs with real-time scheduling or negative nice values cannot be restored"),
		capFeature(unix.CAP_IPC_LOCK, "CAP_IPC_LOCK", "cap_ipc_lock",
			"locks memory beyond the limit", "programs with more locked memory than RLIMIT_MEMLOCK cannot be restored"),
		capFeature(unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", "cap_dac_override",
			"opens files that their modes deny", "programs that hold files which this user may not open cannot be restored"),
		capFeature(unix.CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", "cap_dac_read_search",
			"opens files by their handle", "inotify watches are found by path only"),
		capFeature(unix.CAP_CHOWN, "CAP_CHOWN", "cap_chown",
			"gives deleted files back to their owners", "programs that hold deleted files of other users cannot be restored"),
		capFeature(unix.CAP_FOWNER, "CAP_FOWNER", "cap_fowner",
			"sets modes and times of others' files", "saved contents cannot be put back into other users' files"),
		capFeature(unix.CAP_SYS_CHROOT, "CAP_SYS_CHROOT", "cap_sys_chroot",
			"restores a root directory", "programs that called chroot cannot be restored"),
		capFeature(unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "cap_net_admin",
			"restores socket marks and forced buffer sizes", "programs with socket marks or buffers beyond the limits cannot be restored"),
		capFeature(unix.CAP_NET_RAW, "CAP_NET_RAW", "cap_net_raw",
			"restores raw and packet sockets", "programs with raw or packet sockets cannot be restored"),
		capFeature(unix.CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", "cap_net_bind_service",
			"binds ports below 1024", "programs that listen on ports below 1024 cannot be restored"),
		capFeature(unix.CAP_LEASE, "CAP_LEASE", "cap_lease",
			"takes leases on others' files", "programs with leases on others' files cannot be restored"),
		capFeature(unix.CAP_WAKE_ALARM, "CAP_WAKE_ALARM", "cap_wake_alarm",
			"restores timers that wake the machine", "programs with alarm timers cannot be restored"),
		capFeature(unix.CAP_BLOCK_SUSPEND, "CAP_BLOCK_SUSPEND", "cap_block_suspend",
			"restores epoll entries that keep the machine awake", "epoll entries lose EPOLLWAKEUP"),
	}
})

// capability reports whether a capability is in the effective set.
func capability(bit int) Result {
	v, err := statusField("CapEff")
	if err != nil {
		return unsure("read capabilities", err)
	}
	set, err := strconv.ParseUint(v, 16, 64)
	if err != nil {
		return unsure("read capabilities", err)
	}
	if set&(1<<bit) == 0 {
		return no("")
	}
	return yes("")
}
