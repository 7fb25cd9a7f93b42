package resource

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
)

// Objects that the kernel does not let anyone read out and make again. They are
// refused by the name a user knows them under, with what can be done about it.

// refusedNames are the names of anonymous inodes, without "anon_inode:", their
// brackets and anything from the first colon on.
var refusedNames = map[string]struct{ what, remedy string }{
	"userfaultfd":      {"userfaultfd", "end what handles the program's page faults"},
	"perf_event":       {"performance counter (perf event)", "stop profiling, or close it"},
	"bpf-map":          {"BPF map", "close it; a pinned one can be opened again by the program"},
	"bpf-prog":         {"BPF program", "close it; an attached or pinned one stays"},
	"bpf_link":         {"BPF link", "pin it and close it"},
	"bpf-link":         {"BPF link", "pin it and close it"},
	"bpf_iter":         {"BPF iterator", "read it to its end and close it"},
	"bpf-token":        {"BPF token", "close it"},
	"bpf-stats":        {"BPF run-time statistics", "close it"},
	"btf":              {"BPF type information", "close it"},
	"fanotify":         {"fanotify group", "close it before the checkpoint, and mark again afterwards"},
	"kvm-vm":           {"KVM virtual machine", "save the guest with its own monitor (QEMU: savevm, migrate)"},
	"kvm-vcpu":         {"KVM virtual processor", "save the guest with its own monitor (QEMU: savevm, migrate)"},
	"kvm":              {"KVM device", "save the guest with its own monitor (QEMU: savevm, migrate)"},
	"kvm-vcpu-stats":   {"KVM statistics", "close it"},
	"kvm-vm-stats":     {"KVM statistics", "close it"},
	"kvm-gmem":         {"KVM guest memory", "save the guest with its own monitor (QEMU: savevm, migrate)"},
	"seccomp notify":   {"seccomp listener", "end the supervised program first, or checkpoint without its supervisor"},
	"landlock-ruleset": {"Landlock ruleset", "close it: rules that are in force stay, the ruleset is needed only to add them"},
	"sync_file":        {"GPU fence (sync file)", "let the GPU finish, and close it"},
	"dma_buf":          {"DMA buffer", "close what shows the program's graphics"},
	"vfio-device":      {"VFIO device", "release the device"},
	"vfio_device":      {"VFIO device", "release the device"},
	"iommufd":          {"IOMMU context", "release the devices in it"},
	"fscontext":        {"file system being configured (fsopen)", "let the program finish mounting it"},
	"gpio-line":        {"GPIO line", "release it"},
	"gpio-event":       {"GPIO line", "release it"},
	"infinibandevent":  {"InfiniBand event queue", "close the program's RDMA connections"},
	"drm_syncobj":      {"GPU fence (sync object)", "let the GPU finish, and close it"},
	"secretmem":        {"secret memory (memfd_secret)", "nobody but the program can read it, by design: have it free that memory"},
}

// anonymous are the kinds of anonymous inodes that no other kind took.
type anonymous struct{}

func init() {
	Register(anonymous{})
	Register(hiddenFile{})
}

func (anonymous) Name() string            { return "anonymous inode" }
func (anonymous) Types() []fdinfo.FdTypes { return nil }

// Priority makes it the last to be asked.
func (anonymous) Priority() int { return 2000 }

func (anonymous) Match(f *File) bool { return strings.HasPrefix(f.Link, "anon_inode:") }

func (anonymous) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	name := strings.TrimPrefix(f.Link, "anon_inode:")
	key, _, _ := strings.Cut(name, ":")
	refuseByName(d, f, strings.Trim(key, "[]"), name)
	return nil, nil
}

func refuseByName(d *Dump, f *File, key, name string) {
	x, ok := refusedNames[key]
	if !ok {
		d.Refusal(f, "kernel object "+name+": no way is known to read it out and make it again", "close it before the checkpoint")
		return
	}
	d.Refusal(f, x.what+": the kernel gives no way to read it out and make it again", x.remedy)
}

func (anonymous) Open(*Restore, *fdinfo.FileEntry) (int, error) { return -1, errRefusedKind }

var errRefusedKind = errors.New("this kind is never in an image")

// hiddenFile are files of file systems that only the kernel mounts, whose links
// look like paths: "/dmabuf:NAME", "/secretmem (deleted)". A file of any file
// system may be called so, hence the look at the file system's number
// (include/uapi/linux/magic.h).
type hiddenFile struct{}

const (
	dmaBufMagic    = 0x444d4142
	secretMemMagic = 0x5345434d
)

func (hiddenFile) Name() string            { return "file of a hidden file system" }
func (hiddenFile) Types() []fdinfo.FdTypes { return nil }

func (hiddenFile) Match(f *File) bool { return hiddenName(f) != "" }

func hiddenName(f *File) string {
	var magic int64
	var name string
	switch {
	case strings.HasPrefix(f.Link, "/dmabuf:"):
		magic, name = dmaBufMagic, "dma_buf"
	case strings.HasPrefix(f.Link, "/secretmem"):
		magic, name = secretMemMagic, "secretmem"
	default:
		return ""
	}
	var st unix.Statfs_t
	if err := unix.Statfs(f.Path(), &st); err != nil || int64(st.Type) != magic {
		return ""
	}
	return name
}

func (hiddenFile) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	n := hiddenName(f)
	refuseByName(d, f, n, n)
	return nil, nil
}

func (hiddenFile) Open(*Restore, *fdinfo.FileEntry) (int, error) { return -1, errRefusedKind }
