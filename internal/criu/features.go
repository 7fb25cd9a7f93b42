package criu

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys/probe"
)

// since tells whether the kernel is at least of a version.
func since(major, minor int) func() bool {
	return func() bool {
		r, _, err := probe.Release()
		if err != nil {
			return false
		}
		v, ok := probe.ParseVersion(r)
		return ok && !v.Less(probe.Version{Major: major, Minor: minor})
	}
}

// probed asks one of doctor's questions.
func probed(id string) func() bool {
	return func() bool {
		for _, f := range probe.All() {
			if f.ID == id {
				return f.Have()
			}
		}
		return false
	}
}

// fdinfoHas tells whether the description of an open file has a line.
func fdinfoHas(word string) func() bool {
	return func() bool {
		b, err := os.ReadFile("/proc/self/fdinfo/0")
		return err == nil && strings.Contains(string(b), word)
	}
}

// notYet are features of containers, which have no use before those are
// restored.
func notYet() bool { return false }

// featureProbes are the features that callers ask for, by CRIU's names: whether
// this kernel has them.
var featureProbes = map[string]func() bool{
	"mnt_id": fdinfoHas("mnt_id:"), "timerfd": since(3, 17), "fdinfo_lock": since(4, 1), "loginuid": loginuid,
	"mem_dirty_track": probed("pagemap_scan"), "pagemap_scan": probed("pagemap_scan"), "pagemap_scan_guard_pages": since(6, 15),
	"aio_remap": since(3, 18), "tun": exists("/dev/net/tun"), "tun_ns": exists("/dev/net/tun"), "userns": exists("/proc/self/ns/user"),
	"seccomp_suspend": exists("/proc/sys/kernel/seccomp/actions_avail"), "seccomp_filters": exists("/proc/sys/kernel/seccomp/actions_avail"),
	"cgroupns": exists("/proc/self/ns/cgroup"), "tcp_half_closed": since(4, 2), "compat_cr": notYet, "can_map_vdso": since(4, 8),
	"uffd": probed("uffd"), "uffd-noncoop": probed("uffd"), "sk_ns": since(4, 10), "sk_unix_file": since(5, 4),
	"net_diag_raw": since(4, 9), "nsid": since(4, 9), "link_nsid": since(4, 10), "kcmp_epoll": since(4, 13),
	"timens": exists("/proc/self/ns/time_for_children"), "external_net_ns": since(4, 10), "clone3_set_tid": since(5, 5),
	"newifindex": since(4, 0), "nftables": nftables, "network_lock_nftables": nftables, "has_ipt_legacy": exists("/proc/net/ip_tables_names"),
	"pidfd_store": since(5, 6), "ns_pid": since(5, 6), "sockopt_buf_lock": since(5, 15), "memfd_hugetlb": since(4, 14),
	"move_mount_set_group": since(5, 15), "openat2": since(5, 6), "get_rseq_conf": since(5, 13), "ipv6_freebind": since(4, 15),
	"timer_cr_ids": since(6, 15), "overlayfs_maps": since(6, 8), "breakpoints": since(3, 3),
	"apparmor_stacking": exists("/sys/kernel/security/apparmor/features/domain/stack"), "autofs": notYet,
}

// loginuid tells whether a task's login uid can be set.
func loginuid() bool {
	f, err := os.OpenFile("/proc/self/loginuid", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// nftables tells whether the kernel takes its messages.
func nftables() bool {
	const nfnetlink = 12 // NETLINK_NETFILTER
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, nfnetlink)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}
