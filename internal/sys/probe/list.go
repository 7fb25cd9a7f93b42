package probe

// The features, in the order in which they are shown. Version numbers are
// those of mainline; the options are the ones that Kconfig names.
var (
	PtraceSeize = &Feature{
		ID: "ptrace_seize", Title: "PTRACE_SEIZE of an own process", Kind: Kernel, Since: Version{3, 4},
		For:     "stops a program without disturbing it",
		Without: "nothing can be saved or restored",
		ask:     func() Result { return tracing().seize },
	}
	PtraceSigmask = &Feature{
		ID: "ptrace_getsigmask", Title: "PTRACE_GETSIGMASK", Kind: Kernel, Since: Version{3, 11},
		For:     "reads and sets each thread's blocked signals",
		Without: "nothing can be saved or restored",
		ask:     func() Result { return tracing().sigmask },
	}
	PtraceRseq = &Feature{
		ID: "ptrace_rseq", Title: "PTRACE_GET_RSEQ_CONFIGURATION", Kind: Kernel, Since: Version{5, 13}, Config: "CONFIG_RSEQ",
		For:     "reads the restartable-sequence area that glibc 2.35 and later registers",
		Without: "programs of a current C library cannot be saved",
		ask:     func() Result { return tracing().rseq },
	}
	SuspendSeccomp = &Feature{
		ID: "suspend_seccomp", Title: "PTRACE_O_SUSPEND_SECCOMP", Kind: Privilege, Since: Version{4, 3}, Config: "CONFIG_CHECKPOINT_RESTORE",
		For:     "keeps a program's own seccomp filter from judging the calls made on its behalf",
		Without: "needs CAP_SYS_ADMIN in the initial user namespace",
		Unused:  true,
		ask:     func() Result { return tracing().suspend },
	}
	SeccompFilter = &Feature{
		ID: "seccomp_get_filter", Title: "PTRACE_SECCOMP_GET_FILTER", Kind: Privilege, Since: Version{4, 4}, Config: "CONFIG_CHECKPOINT_RESTORE",
		For:     "reads a program's seccomp filters",
		Without: "needs CAP_SYS_ADMIN in the initial user namespace",
		Unused:  true,
		ask:     func() Result { return tracing().filter },
	}
	SetTID = &Feature{
		ID: "clone3_set_tid", Title: "clone3 with chosen pids", Kind: Privilege, Since: Version{5, 5},
		For:     "gives restored tasks the pids they had",
		Without: "restore only with --pidns, where user namespaces allow it; needs CAP_CHECKPOINT_RESTORE (5.9) or CAP_SYS_ADMIN over the pid namespace",
		ask:     askSetTID,
	}
	PidNS = &Feature{
		ID: "pid_namespace", Title: "new pid namespaces", Kind: Privilege, Since: Version{3, 8}, Config: "CONFIG_PID_NS",
		For:     "restores with --pidns when the pids are taken, or when this user may not choose pids",
		Without: "restore --pidns is not possible",
		ask:     askPidNS,
	}
	UserNS = &Feature{
		ID: "user_namespace", Title: "new user namespaces", Kind: Setting, Since: Version{3, 8}, Config: "CONFIG_USER_NS",
		For:     "lets an ordinary user be root of a namespace of its own and restore there",
		Without: "an ordinary user cannot restore, unless given CAP_CHECKPOINT_RESTORE",
		ask:     askUserNS,
	}
	TimeNS = &Feature{
		ID: "time_namespace", Title: "time namespaces", Kind: Privilege, Since: Version{5, 6}, Config: "CONFIG_TIME_NS",
		For:     "lets monotonic clocks go on from where they stopped, also after a reboot",
		Without: "a restored program sees its monotonic clock jump by the time it was away; needs CAP_SYS_ADMIN",
		ask:     askTimeNS,
	}
	Kcmp = &Feature{
		ID: "kcmp", Title: "kcmp", Kind: Kernel, Since: Version{3, 5}, Config: "CONFIG_KCMP",
		For:     "finds what tasks share: open files, memory, tables",
		Without: "nothing can be saved: sharing between tasks cannot be seen",
		ask:     askKcmp,
	}
	PidfdGetfd = &Feature{
		ID: "pidfd_getfd", Title: "pidfd_getfd", Kind: Kernel, Since: Version{5, 6},
		For:     "takes copies of a program's descriptors, to look at what is behind them",
		Without: "nothing can be saved",
		ask:     askPidfdGetfd,
	}
	FutexWaitv = &Feature{
		ID: "futex_waitv", Title: "futex_waitv", Kind: Kernel, Since: Version{5, 16}, Config: "CONFIG_FUTEX",
		For:     "hands work to a stopped program in a way that survives fermata's own death",
		Without: "nothing can be saved or restored",
		ask:     askFutexWaitv,
	}
	SysvShm = &Feature{
		ID: "sysv_shm", Title: "executable SysV shared memory", Kind: Kernel, Config: "CONFIG_SYSVIPC",
		For:     "is the memory that fermata and a stopped program share for an instant",
		Without: "nothing can be saved or restored",
		ask:     askSysvShm,
	}
	MemfdExec = &Feature{
		ID: "memfd_exec", Title: "executable memfd", Kind: Setting, Since: Version{3, 17},
		For:     "starts the seed from which a program is restored",
		Without: "nothing can be restored; the administrator forbids it by vm.memfd_noexec=2",
		ask:     askMemfdExec,
	}
	ProcessVM = &Feature{
		ID: "process_vm", Title: "process_vm_readv", Kind: Kernel, Since: Version{3, 2}, Config: "CONFIG_CROSS_MEMORY_ATTACH",
		For:     "copies a program's memory",
		Without: "nothing can be saved",
		ask:     askProcessVM,
	}
	PagemapScan = &Feature{
		ID: "pagemap_scan", Title: "PAGEMAP_SCAN ioctl", Kind: Kernel, Since: Version{6, 7}, Config: "CONFIG_PROC_PAGE_MONITOR",
		For:     "finds the pages to save in one call an area",
		Without: "/proc/PID/pagemap is read page by page, which takes longer for large programs",
		ask:     askPagemapScan,
	}
	ProcmapQuery = &Feature{
		ID: "procmap_query", Title: "PROCMAP_QUERY ioctl", Kind: Kernel, Since: Version{6, 11},
		For:     "reads single areas of a memory map without formatting all of it",
		Without: "memory maps are read as text",
		Unused:  true,
		ask:     askProcmapQuery,
	}
	UffdWPAsync = &Feature{
		ID: "uffd_wp_async", Title: "userfaultfd write tracking (WP_ASYNC)", Kind: Kernel, Since: Version{6, 7}, Config: "CONFIG_USERFAULTFD",
		For:     "follows which pages a program writes",
		Without: "a checkpoint that builds upon another reads and compares all memory",
		ask:     func() Result { return askUffd(uffdUserModeOnly, uffdFeatureWPAsync) },
	}
	UffdKernel = &Feature{
		ID: "uffd_kernel_mode", Title: "userfaultfd for faults inside the kernel", Kind: Privilege, Since: Version{4, 3}, Config: "CONFIG_USERFAULTFD",
		For:     "fills memory of a program that runs already",
		Without: "memory is filled before the program runs; needs CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1",
		Unused:  true,
		ask:     func() Result { return askUffd(0, 0) },
	}
	SoftDirty = &Feature{
		ID: "soft_dirty", Title: "soft-dirty bits", Kind: Kernel, Since: Version{3, 11}, Config: "CONFIG_MEM_SOFT_DIRTY",
		For:     "is the older way to follow written pages",
		Without: "nothing is lost where userfaultfd write tracking is there",
		Unused:  true,
		ask:     askSoftDirty,
	}
	MapFiles = &Feature{
		ID: "map_files", Title: "/proc/PID/map_files", Kind: Privilege, Since: Version{3, 3}, Config: "CONFIG_CHECKPOINT_RESTORE",
		For:     "opens the very files that a program has mapped, also deleted ones",
		Without: "mapped files are opened by their path, and programs that map deleted files or shared anonymous memory are refused; needs CAP_CHECKPOINT_RESTORE (5.9) or CAP_SYS_ADMIN in the initial user namespace",
		ask:     askMapFiles,
	}
	SetMMMap = &Feature{
		ID: "prctl_mm_map", Title: "PR_SET_MM_MAP", Kind: Kernel, Since: Version{3, 18}, Config: "CONFIG_CHECKPOINT_RESTORE",
		For:     "puts the heap, stack, argument and environment marks of a program back",
		Without: "nothing can be restored",
		ask:     askSetMMMap,
	}
	ProcTimers = &Feature{
		ID: "proc_timers", Title: "/proc/PID/timers", Kind: Kernel, Since: Version{3, 10}, Config: "CONFIG_CHECKPOINT_RESTORE",
		For:     "lists a program's POSIX timers",
		Without: "programs with POSIX timers cannot be saved",
		ask:     func() Result { return askExists("/proc/self/timers") },
	}
	TimerIDs = &Feature{
		ID: "timer_restore_ids", Title: "PR_TIMER_CREATE_RESTORE_IDS", Kind: Kernel, Since: Version{6, 15}, Config: "CONFIG_POSIX_TIMERS",
		For:     "creates POSIX timers with the numbers they had",
		Without: "timers are created and deleted until the number comes up, which takes longer when numbers are high",
		ask:     askTimerIDs,
	}
	ProcChildren = &Feature{
		ID: "proc_children", Title: "/proc/PID/task/TID/children", Kind: Kernel, Since: Version{3, 5}, Config: "CONFIG_PROC_CHILDREN",
		For:     "lists a task's children",
		Without: "programs with child processes cannot be saved",
		ask:     func() Result { return askExists("/proc/thread-self/children") },
	}
	TCPRepair = &Feature{
		ID: "tcp_repair", Title: "TCP_REPAIR", Kind: Privilege, Since: Version{3, 5},
		For:     "reads and sets the state of a TCP connection",
		Without: "needs CAP_NET_ADMIN over the network namespace",
		Unused:  true,
		ask:     askTCPRepair,
	}
	UnixDiag = &Feature{
		ID: "unix_diag", Title: "sock_diag for unix sockets", Kind: Kernel, Since: Version{3, 3}, Config: "CONFIG_UNIX_DIAG",
		For:     "finds the peer, queue and name of a unix socket",
		Without: "programs with unix sockets cannot be saved",
		ask:     askUnixDiag,
	}
	InetDiag = &Feature{
		ID: "inet_diag", Title: "sock_diag for TCP and UDP", Kind: Kernel, Since: Version{3, 3}, Config: "CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG",
		For:     "reads the state of TCP and UDP sockets",
		Without: "programs with TCP or UDP sockets cannot be saved",
		ask:     askInetDiag,
	}
	KernelMemory = &Feature{
		ID: "kernel_memory", Title: "a BPF program that reads the kernel's memory, and BTF", Kind: Privilege, Since: Version{5, 14}, Config: "CONFIG_BPF_SYSCALL, CONFIG_BPF_EVENTS, CONFIG_DEBUG_INFO_BTF",
		For:     "saves what no call shows: data over connections that nobody has accepted, terminal queues untouched, overruns of timers, MPTCP",
		Without: "such connections are refused, terminal queues are taken out and put back, pending overruns count anew; needs CAP_BPF and CAP_PERFMON, and no lockdown",
		ask:     askKernelMemory,
	}
	CgroupFreezer = &Feature{
		ID: "cgroup_freezer", Title: "cgroup freezer", Kind: Setting, Since: Version{2, 6}, Config: "CONFIG_CGROUP_FREEZER",
		For:     "stops a program that has a cgroup of its own all at once",
		Without: "tasks are stopped one by one",
		Unused:  true,
		ask:     askCgroupFreezer,
	}
	Hugetlb = &Feature{
		ID: "hugetlb", Title: "huge page pools", Kind: Setting, Since: Version{2, 6}, Config: "CONFIG_HUGETLBFS",
		For:     "holds the hugetlb areas of a restored program",
		Without: "programs with hugetlb areas cannot be restored",
		ask:     askHugetlb,
	}
	YamaScope = &Feature{
		ID: "yama_ptrace_scope", Title: "ptrace of other processes (Yama)", Kind: Setting, Since: Version{3, 4}, Config: "CONFIG_SECURITY_YAMA",
		For:     "lets a user save programs that fermata did not start",
		Without: "kernel.yama.ptrace_scope forbids tracing a process that is not a descendant; root, CAP_SYS_PTRACE, or kernel.yama.ptrace_scope=0 helps",
		ask:     askYama,
	}
	InitialUserNS = &Feature{
		ID: "initial_user_namespace", Title: "initial user namespace", Kind: Setting,
		For:     "capabilities count for the whole machine",
		Without: "capabilities count only inside this user namespace (a container, or a user's own); what needs the machine's root is refused",
		ask:     askInitialUserNS,
	}
	NoSeccomp = &Feature{
		ID: "no_seccomp", Title: "no seccomp filter on fermata itself", Kind: Setting,
		For:     "lets every system call through",
		Without: "a filter (of a container, for example) is in force here: what it forbids shows as missing above",
		ask:     askNoSeccomp,
	}
)

// All gives every feature, the capabilities last.
func All() []*Feature {
	return append([]*Feature{
		PtraceSeize, PtraceSigmask, PtraceRseq, SuspendSeccomp, SeccompFilter,
		SetTID, PidNS, UserNS, TimeNS,
		Kcmp, PidfdGetfd, FutexWaitv, SysvShm, MemfdExec, ProcessVM,
		PagemapScan, ProcmapQuery, UffdWPAsync, UffdKernel, SoftDirty, MapFiles, SetMMMap,
		ProcTimers, TimerIDs, ProcChildren,
		TCPRepair, UnixDiag, InetDiag, KernelMemory,
		CgroupFreezer, Hugetlb, YamaScope, InitialUserNS, NoSeccomp,
	}, Capabilities()...)
}
