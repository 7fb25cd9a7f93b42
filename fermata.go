// Package fermata checkpoints, restores, clones and migrates running Linux
// programs: any binary, without its help, from user space.
//
// Checkpoint saves a process with its whole tree into a directory; Restore
// brings it back, with the same pids, to go on exactly where it was. Verify
// and Inspect look at a checkpoint without running it, Doctor says what this
// machine and this user allow.
//
// Every error can be told apart with errors.Is and the sentinels of this
// package. A cancelled context leaves a target running and a restore undone.
package fermata

import (
	"io"
	"os"
	"time"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/pagestore"
)

// After says what becomes of the target once its checkpoint is published.
type After int

const (
	// AfterResume lets the program go on; nothing it can see has changed.
	AfterResume After = iota
	// AfterKill ends every task of the tree, and returns when the pids are free.
	AfterKill
	// AfterStop leaves every task stopped, as by SIGSTOP.
	AfterStop
)

// Layout is how a checkpoint lies on disk.
type Layout int

const (
	// LayoutNative is fermata's own: a directory that appears when it is whole.
	LayoutNative Layout = iota
	// LayoutImages is the interchange format: plain image files as CRIU, crit and
	// the container engines know them, in a directory that exists already. The
	// file inventory.img comes last.
	LayoutImages
)

// SnapshotMode says how the memory of a program that goes on is saved.
type SnapshotMode int

const (
	// SnapshotAuto copies little memory at once, and of more makes a
	// copy-on-write snapshot that is written while the program runs. Where that
	// cannot be done, or could take more memory than there is, the program
	// stands still until its memory is written, and a note says so.
	SnapshotAuto SnapshotMode = iota
	// SnapshotAlways makes a snapshot of small programs too.
	SnapshotAlways
	// SnapshotNever lets the program stand still until its memory is written.
	SnapshotNever
)

// FilesMode says what Restore does with files that changed since the checkpoint.
type FilesMode int

const (
	// FilesStrict refuses, naming each changed file.
	FilesStrict FilesMode = iota
	// FilesRollback cuts files open for writing back to their saved size, or
	// puts their saved content back when the checkpoint has it.
	FilesRollback
	// FilesKeep goes on with the files as they are now.
	FilesKeep
	// FilesSize refuses only regular files whose size is another.
	FilesSize
)

// Progress is one report of a long operation.
type Progress struct {
	Phase string // "freeze", "collect", "memory", "verify", "publish", "open", "rebuild", "fill", "release"
	Done  int64  // bytes (memory, verify, fill) or tasks (the others) done so far
	Total int64  // the same unit; 0 when not known yet
}

// Compression is how a checkpoint's memory is stored.
type Compression = pagestore.Compression

// ParseCompression reads "none", "fast" (s2), "zstd" or "zstd:LEVEL" with a level
// from 1 to 22. The error is ErrUsage.
func ParseCompression(s string) (Compression, error) { return pagestore.ParseCompression(s) }

// CgroupMode says what Restore does about control groups.
type CgroupMode int

const (
	// CgroupsRestore puts tasks back into the control groups they were in, and
	// makes those again that are gone, with their settings. Where that cannot
	// be, a note says so.
	CgroupsRestore CgroupMode = iota
	// CgroupsKeep puts tasks back into those that exist.
	CgroupsKeep
	// CgroupsIgnore leaves tasks in the calling process's control groups.
	CgroupsIgnore
	// CgroupsForce is CgroupsRestore, and groups that exist get the saved
	// settings.
	CgroupsForce
	// CgroupsStrict is CgroupsRestore, and a group that exists is an error.
	CgroupsStrict
)

// CheckpointOptions steers Checkpoint. The zero value saves the tree into a
// new directory of the default repository and lets the program go on.
type CheckpointOptions struct {
	// To is the directory to create. It must not exist; its parent must. Empty:
	// a new one in the default repository ($FERMATA_REPO, else
	// /var/lib/fermata for root, $XDG_STATE_HOME/fermata for others).
	To string
	// Parent is the directory of an earlier checkpoint of the same program, or
	// empty. Memory that is as it was there, byte for byte, is not written again:
	// the files that hold it belong to both checkpoints then (link(2); where that
	// is not possible they are copied, and a note says so). Each of the two is
	// whole by itself and can be removed without harm to the other.
	Parent string
	// Durable: all of the checkpoint is on the disk when it has its name. Without it
	// the kernel writes it there in the minute that follows.
	Durable bool
	// Dedup finds pages that are equal, in all the memory of the tree and whatever
	// processes have them, and stores them once. Without it only pages that
	// processes share are stored once, which are known by their frames; where the
	// kernel does not show these (CAP_SYS_ADMIN) it is done as with it.
	Dedup bool
	// Compression is how the memory is stored; the zero value stores it as it is.
	Compression Compression
	// Track follows what the program writes from this checkpoint on, so that the next
	// one that has this one as its Parent saves and reads these pages alone. It goes on
	// with each checkpoint that builds upon the one before, until StopTracking, the end
	// of the program or that of the process that keeps it (fermata-keeper). Where it
	// cannot be (it takes Linux 6.7) a note says so, and the next one compares.
	Track bool
	// After says what becomes of the program.
	After After
	// ExtraRoots are further processes whose trees belong to the same checkpoint.
	ExtraRoots []int
	// Session and Cgroup, when set, add every process of a session id, or of a
	// cgroup directory (and those below it), to the roots.
	Session int
	Cgroup  string
	// SkipDontDump leaves out the pages of private anonymous memory that the
	// program has excluded from core dumps (MADV_DONTDUMP); it comes back as zeros.
	SkipDontDump bool
	// SaveFiles puts the content of regular files open for writing into the
	// checkpoint.
	SaveFiles bool
	// TCPEstablished saves TCP connections whose peer is outside the tree, on this
	// host or another; else they are refused. With AfterKill packets are kept from
	// them, by the host's packet filter (nf_tables), until they are restored on
	// this host, unless NoNetworkLock says that the caller sees to that. It needs
	// CAP_NET_ADMIN.
	TCPEstablished bool
	NoNetworkLock  bool
	// SkipInFlight leaves out connections from outside the tree that wait to be
	// accepted; else they are refused.
	SkipInFlight bool
	// AllowSeccompRisk saves also tasks whose own seccomp filters would end
	// them, should this process be killed in the microseconds in which it works
	// inside them; else they are refused.
	AllowSeccompRisk bool
	// Snapshot says how the memory of a program that goes on is saved.
	Snapshot SnapshotMode
	// Timeout bounds the freeze; 0 means 10 s.
	Timeout time.Duration
	// Layout says how the checkpoint lies on disk.
	Layout Layout
	// PageServer: with LayoutImages, the connection to a page server that the
	// memory goes to instead of into the directory (CRIU's protocol).
	PageServer io.ReadWriter
	// PagesOnly: with LayoutImages, write nothing but the memory, for a later
	// checkpoint that builds upon it.
	PagesOnly bool
	// NoWait: with AfterKill, do not wait until the pids are free.
	NoWait bool
	// Review, when set, sees what was collected before anything is written, and
	// may add reasons to refuse. It is for this module's own commands.
	Review func(*image.Image, *fault.Refusals)
	// Progress, when set, is called from the checkpointing goroutine.
	Progress func(Progress)
}

// CheckpointResult is what a finished checkpoint can say about itself.
type CheckpointResult struct {
	Ref     string `json:"ref"`
	PIDs    []int  `json:"pids"`
	Tasks   int    `json:"tasks"`   // processes
	Threads int    `json:"threads"` // threads of all of them
	Bytes   int64  `json:"bytes"`   // size of the checkpoint
	Written int64  `json:"written"` // memory written for it; less than it has where it builds upon another
	// Mode says what memory was written: all of it (ModeFull), or that which differs
	// from the parent's, found by comparing (ModeCompared) or because the program's
	// writes were tracked (ModeTracked).
	Mode string `json:"mode"`
	// WrittenPages, where writes are tracked, are the pages that were written since the
	// parent, or which the tracking begins with.
	WrittenPages uint64        `json:"written_pages,omitempty"`
	Frozen       time.Duration `json:"frozen_ns"`
	Total        time.Duration `json:"total_ns"`
	Notes        []string      `json:"notes,omitempty"`
}

// Values of CheckpointResult.Mode.
const (
	ModeFull     = "full"
	ModeCompared = "compared"
	ModeTracked  = "tracked"
)

// RestoreOptions steers Restore.
type RestoreOptions struct {
	// Files says what to do about files that changed since the checkpoint.
	Files FilesMode
	// Cgroups says what to do about control groups.
	Cgroups CgroupMode
	// PidNS restores into a new pid namespace, for when the pids are taken.
	PidNS bool
	// Lazy lets the program run before its memory is there: pages come when they
	// are touched, and the others in the background. Until all are in place,
	// what goes wrong with the checkpoint's storage, or the death of the process
	// that brings them, ends the program with SIGKILL. Where it is not possible
	// (it needs CAP_SYS_PTRACE), all memory comes at once, and a note says so.
	Lazy bool
	// Copies, when it is not 0, restores the tree that many times, each in a pid
	// namespace of its own; private memory is read once and shared copy-on-write.
	// It does not go with Lazy.
	Copies int
	// Stopped leaves every restored task stopped (SIGSTOP).
	Stopped bool
	// TCPClose makes connected TCP sockets closed ones, as if the connection had
	// ended and been read to its end.
	TCPClose bool
	// Inherit has open files that stand for files of the checkpoint, by what
	// those were: "pipe:[7]", "socket:[7]", a path without its first slash.
	Inherit map[string]*os.File
	// Ready, when set, is called when every task is whole and before the first
	// one runs, with their pids; an error undoes the restore.
	Ready func(pids []int) error
	// Foreground: the program takes over the terminal that the calling process
	// was started from, whose settings become those the program had made. The
	// caller passes it the terminal's foreground.
	Foreground bool
	// Progress, when set, is called from the restoring goroutine.
	Progress func(Progress)
}

// RestoreResult describes the restored tree, which runs when Restore returns.
type RestoreResult struct {
	// Filling, where memory comes later, gives nil when all of it is in place, or
	// why the program had to be ended. Nobody needs to read it.
	Filling <-chan error `json:"-"`

	Ref     string        `json:"ref"`
	PIDs    []int         `json:"pids"`
	Roots   []int         `json:"roots"` // children of the calling process
	Tasks   int           `json:"tasks"`
	Threads int           `json:"threads"`
	Bytes   int64         `json:"bytes"`           // memory filled
	Later   int64         `json:"later,omitempty"` // memory that comes later (RestoreOptions.Lazy)
	Total   time.Duration `json:"total_ns"`
	Notes   []string      `json:"notes,omitempty"` // what could not be exactly as before, by documented rule
	// Copies, with RestoreOptions.Copies, has one entry for each; PIDs are then
	// those inside the namespaces, Roots those of all copies, as seen here.
	Copies []Copy `json:"copies,omitempty"`
}

// Copy is one of several copies of a tree, as seen from outside.
type Copy struct {
	Init  int   `json:"init"`  // of its pid namespace; ends with the last task
	Roots []int `json:"roots"` // children of the calling process
}
