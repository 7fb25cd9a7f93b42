package resource

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
)

// The kernel's anonymous inodes (fs/anon_inodes.c) give their descriptors links
// of the form "anon_inode:NAME". No file of a file system can have such a link:
// its path begins with "/" or "(unreachable)".

// settable are the status flags that fcntl(F_SETFL) can change (SETFL_MASK in
// fs/fcntl.c, and O_ASYNC of files that know it); O_DIRECT and O_NOATIME are
// left out, as they ask more of a file.
const settable = unix.O_APPEND | unix.O_NONBLOCK | unix.O_ASYNC

// setStatus gives a fresh description the status flags it had.
func setStatus(fd int, flags uint32) error {
	if flags&settable == 0 {
		return nil
	}
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("status flags: %w", err)
	}
	want := have&^settable | int(flags)&settable
	if want == have {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, want); err != nil {
		return fmt.Errorf("status flags %#o: %w", want, err)
	}
	return nil
}

// finish closes fd when err is not nil, so that an Open can end with it.
func finish(fd int, err error) (int, error) {
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func entryOf(t fdinfo.FdTypes) *fdinfo.FileEntry {
	return &fdinfo.FileEntry{Type: t.Enum(), Id: proto.Uint32(0)}
}

// bracketed tells whether a link has the form "NAME:[NUMBER]".
func bracketed(link, name string) bool {
	rest, ok := strings.CutPrefix(link, name+":[")
	if !ok {
		return false
	}
	n, ok := strings.CutSuffix(rest, "]")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
}
