package repo

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
)

// MemoryPrefix begins the names of checkpoints that are kept in memory.
const MemoryPrefix = "mem:"

// EnvMemory is the environment variable that names the directory for them.
const EnvMemory = "FERMATA_MEMORY"

// Memory gives the repository of checkpoints that touch no disk: $FERMATA_MEMORY,
// else /dev/shm/fermata-UID. They last until they are removed or the machine
// stops, whatever ends meanwhile.
func Memory() Repo {
	if dir := os.Getenv(EnvMemory); filepath.IsAbs(dir) {
		return Repo{dir}
	}
	return Repo{"/dev/shm/fermata-" + strconv.Itoa(os.Geteuid())}
}

// CreateFor makes the directory of the repository that a name belongs to. That
// for memory must be on a file system that is in memory, and this user's alone:
// /dev/shm is everybody's.
func (r Repo) CreateFor(name string) error {
	if !strings.HasPrefix(name, MemoryPrefix) {
		return r.Create()
	}
	m := Memory()
	if err := m.Create(); err != nil {
		return err
	}
	return m.private()
}

// private tells why a memory repository cannot be trusted, nil when it can or is
// not there.
func (r Repo) private() error {
	var st unix.Stat_t
	if err := unix.Lstat(r.dir, &st); err == unix.ENOENT {
		return nil
	} else if err != nil {
		return kind(&os.PathError{Op: "lstat", Path: r.dir, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Geteuid()) || st.Mode&0o077 != 0 {
		return fault.Wrap(fault.ErrPermission, fmt.Errorf("%s is not a directory of this user alone: set %s to another", r.dir, EnvMemory))
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(r.dir, &fs); err != nil {
		return kind(&os.PathError{Op: "statfs", Path: r.dir, Err: err})
	}
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return fault.Errorf(fault.ErrUsage, "%s is not in memory (tmpfs): set %s to a directory that is", r.dir, EnvMemory)
	}
	return nil
}
