package fermata

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/repo"
)

// Inspection is what a checkpoint holds, for people and programs to read.
type Inspection struct {
	Ref         string              `json:"ref"`
	Format      int                 `json:"format"`       // version of the image format
	Tool        string              `json:"tool"`         // fermata's version that wrote it
	Created     time.Time           `json:"created"`      // when the program was stopped for it
	Frozen      time.Duration       `json:"frozen_ns"`    // for how long
	Arch        string              `json:"arch"`         // GOARCH's name of the processor
	Kernel      string              `json:"kernel"`       // uname's release
	Host        string              `json:"host"`         // uname's node name
	SameBoot    bool                `json:"same_boot"`    // made since this machine was started
	Bytes       int64               `json:"bytes"`        // of all its files
	MemoryBytes int64               `json:"memory_bytes"` // of program memory in it
	Roots       []int               `json:"roots"`        // pids whose parents are outside
	Tasks       int                 `json:"tasks"`
	Threads     int                 `json:"threads"`
	Processes   []InspectedProcess  `json:"processes"`
	SavedFiles  []InspectedContents `json:"saved_files,omitempty"`
	Notes       []string            `json:"notes,omitempty"`
	ID          string              `json:"id,omitempty"`         // this checkpoint's, in hexadecimal
	Parent      string              `json:"parent,omitempty"`     // where the checkpoint was that it builds upon
	ParentID    string              `json:"parent_id,omitempty"`  // that one's
	Links       int                 `json:"links,omitempty"`      // checkpoints below it, the parent's with its own
	Shared      int64               `json:"shared,omitempty"`     // bytes of files that other directories have, too
	PageFiles   []InspectedPages    `json:"page_files,omitempty"` // where the memory lies
}

// InspectedPages is one file of memory of a checkpoint.
type InspectedPages struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	Of   string `json:"of,omitempty"` // id of the earlier checkpoint that wrote it
	// Codec is how it is stored, "" when it is as it was in memory; Stored the bytes
	// that the file has.
	Codec  string `json:"codec,omitempty"`
	Stored int64  `json:"stored"`
}

// InspectedProcess is one process of a checkpoint.
type InspectedProcess struct {
	PID         int    `json:"pid"`
	PPID        int    `json:"ppid"`
	PGID        int    `json:"pgid"`
	SID         int    `json:"sid"`
	Command     string `json:"command"`
	State       string `json:"state"`                 // "running", "stopped" or "zombie"
	ExitStatus  int    `json:"exit_status,omitempty"` // of a zombie, as wait(2) gives it
	Exe         string `json:"exe,omitempty"`
	Cwd         string `json:"cwd,omitempty"`
	Root        string `json:"root,omitempty"`
	UID         int    `json:"uid"` // effective
	GID         int    `json:"gid"`
	MemoryBytes int64  `json:"memory_bytes"` // saved, of its private memory
	// SharesMemory is the process before it whose whole memory this one uses
	// (clone(2), CLONE_VM); its areas and bytes are shown there.
	SharesMemory int               `json:"shares_memory_with,omitempty"`
	Threads      []InspectedThread `json:"threads,omitempty"`
	Areas        []InspectedArea   `json:"areas,omitempty"`
	Files        []InspectedFile   `json:"files,omitempty"`
}

// InspectedThread is one thread of a process.
type InspectedThread struct {
	TID     int    `json:"tid"`
	Command string `json:"command"`
}

// InspectedArea is one area of a process's memory map.
type InspectedArea struct {
	Start  uint64 `json:"start"`
	End    uint64 `json:"end"`
	Access string `json:"access"` // as in /proc/PID/maps: "rw-p"
	Offset uint64 `json:"offset"` // in the file or object
	What   string `json:"what"`   // path, or "[heap]", "[stack]", "anonymous", …
	Saved  int64  `json:"saved"`  // bytes of it in the checkpoint; what several areas share counts in each
}

// InspectedFile is one descriptor of a process.
type InspectedFile struct {
	FD      int    `json:"fd"`
	ID      int    `json:"id"`               // the same in all descriptors that share an open file
	Kind    string `json:"kind"`             // "file", "pipe", "unix socket", …
	What    string `json:"what"`             // path, address, …
	Access  string `json:"access,omitempty"` // "r", "w" or "rw"
	Offset  int64  `json:"offset,omitempty"`
	Cloexec bool   `json:"cloexec,omitempty"`
}

// InspectedContents is the content of a file that travels in the checkpoint.
type InspectedContents struct {
	Name string `json:"name"` // of the file in the checkpoint's directory
	Of   string `json:"of"`   // the path it had
	Size int64  `json:"size"`
}

// Inspect reads what a checkpoint holds. It looks at the metadata only and does
// not compare the memory's checksums (Verify does). It fails with ErrNotFound,
// ErrDamaged or ErrPermission.
func Inspect(dir string) (*Inspection, error) {
	im, err := image.Read(dir)
	if err != nil {
		return nil, err
	}
	in, err := inspect(im)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	in.Ref = dir
	in.Bytes, in.Shared, err = repo.Size(dir)
	return in, err
}

// inspect reads an image.
func inspect(im *image.Image) (*Inspection, error) {
	m, err := image.One[*fm.Manifest](im, "manifest")
	if err != nil {
		return nil, err
	}
	in := &Inspection{Processes: []InspectedProcess{}}
	in.manifest(m)
	r := inspector{im: im, files: map[uint32]*fdinfo.FileEntry{}, extra: map[uint32]*fm.FileExtra{}}
	if err := r.index(); err != nil {
		return nil, err
	}
	in.SavedFiles = r.savedFiles(m)
	tasks, err := image.All[*pstree.PstreeEntry](im, "pstree")
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		return nil, fault.Errorf(fault.ErrDamaged, "no processes in it")
	}
	owner := map[uint32]int{}
	for _, t := range tasks {
		p, err := r.process(t, owner)
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", t.GetPid(), err)
		}
		in.Processes = append(in.Processes, *p)
	}
	return in, nil
}

// manifest takes over what the image says about itself.
func (in *Inspection) manifest(m *fm.Manifest) {
	in.Format, in.Tool = int(m.GetVersion()), m.GetTool()
	in.Created, in.Frozen = time.Unix(0, m.GetCreatedNs()), time.Duration(m.GetFrozenNs())
	in.Arch, in.Kernel, in.Host = m.GetArch(), m.GetKernel(), m.GetHostname()
	in.MemoryBytes = int64(m.GetPageBytes())
	in.Tasks, in.Threads = int(m.GetTasks()), int(m.GetThreads())
	in.Roots = make([]int, 0, len(m.GetRoots()))
	for _, r := range m.GetRoots() {
		in.Roots = append(in.Roots, int(r))
	}
	in.Notes = m.GetNotes()
	in.ID, in.Parent, in.ParentID, in.Links = hex.EncodeToString(m.GetId()), m.GetParent(), hex.EncodeToString(m.GetParentId()), int(m.GetLinks())
	for _, f := range m.GetStores() {
		x := InspectedPages{Name: f.GetName(), Size: int64(f.GetSize()), Of: hex.EncodeToString(f.GetOf()), Stored: pagestore.Stored(f)}
		if c := pagestore.Codec(f.GetCodec()); c != pagestore.Plain {
			x.Codec = c.String()
		}
		in.PageFiles = append(in.PageFiles, x)
	}
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		in.SameBoot = string(bytes.TrimSpace(boot)) == m.GetBootId()
	}
}
