package track

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// Range is a part of an address space.
type Range struct{ Start, End uint64 }

// Features is what a userfaultfd must be enabled with.
const Features = sys.UffdWPAsync

// Available tells why this kernel cannot track writes, nil when it can.
func Available() error {
	fd, err := sys.Userfaultfd(unix.O_CLOEXEC | sys.UffdUserModeOnly)
	if err != nil {
		return fmt.Errorf("userfaultfd: %w", err)
	}
	defer unix.Close(fd)
	if err := sys.UffdEnable(fd, Features); err != nil {
		return fmt.Errorf("userfaultfd with asynchronous write protection (Linux 6.7): %w", err)
	}
	return nil
}

// Space is an address space whose writes are tracked. It owns its userfaultfd.
type Space struct {
	// PID is the process whose address space it is, Start its start time: clock
	// ticks since boot.
	PID   int
	Start uint64
	fd    int
}

// NewSpace enables a userfaultfd that a task has made, which becomes the Space's.
func NewSpace(pid int, start uint64, fd int) (*Space, error) {
	if err := sys.UffdEnable(fd, Features); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("pid %d: enabling a userfaultfd: %w", pid, err)
	}
	return &Space{PID: pid, Start: start, fd: fd}, nil
}

// Close gives the userfaultfd up. Where nobody else holds it the kernel lifts all
// protection.
func (s *Space) Close() {
	if s != nil && s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// Arm registers areas, given in ascending order; those that are registered already
// stay as they are. It gives, for each, whether it is ours now.
func (s *Space) Arm(areas []Range) (ours []bool, err error) {
	ours = make([]bool, len(areas))
	for i := 0; i < len(areas); {
		j := i + 1
		for j < len(areas) && areas[j].Start == areas[j-1].End {
			j++
		}
		ok, err := s.register(areas[i].Start, areas[j-1].End)
		if err != nil {
			return nil, err
		}
		for k := i; k < j; k++ {
			if ours[k] = ok; ok || j == i+1 {
				continue
			}
			if ours[k], err = s.register(areas[k].Start, areas[k].End); err != nil {
				return nil, err
			}
		}
		i = j
	}
	return ours, nil
}

// register registers a range; false: it cannot be, or is another's.
func (s *Space) register(start, end uint64) (bool, error) {
	switch err := sys.UffdRegister(s.fd, start, end-start, sys.UffdWP); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOMEM):
		return false, nil
	default:
		return false, fmt.Errorf("pid %d: registering %#x-%#x: %w", s.PID, start, end, err)
	}
}

// Acts tells whether the userfaultfd is one of the address space behind an open
// /proc/PID/pagemap: what it does to the page at an address of a registered area
// shows there. The page is as before afterwards; where it was another address
// space's, it counts as written there. The tasks must stand still.
func (s *Space) Acts(pagemap *os.File, page uint64) (bool, error) {
	look := func() (bool, error) {
		var e [1]uint64
		if err := sys.ReadPagemap(int(pagemap.Fd()), page, e[:]); err != nil {
			return false, fmt.Errorf("pid %d: pagemap %#x: %w", s.PID, page, err)
		}
		return e[0]&sys.PMUffdWP != 0, nil
	}
	was, err := look()
	if err != nil {
		return false, err
	}
	if sys.UffdProtect(s.fd, page, sys.PageSize, !was) != nil {
		return false, nil // of an address space that is gone, or has nothing there
	}
	now, err := look()
	if perr := sys.UffdProtect(s.fd, page, sys.PageSize, was && now != was); err == nil && perr != nil {
		err = fmt.Errorf("pid %d: write protection of %#x: %w", s.PID, page, perr)
	}
	return now != was, err
}

// Spoil makes the pages of a range count as written.
func (s *Space) Spoil(r Range) error {
	if err := sys.UffdProtect(s.fd, r.Start, r.End-r.Start, false); err != nil {
		return fmt.Errorf("pid %d: write protection of %#x-%#x: %w", s.PID, r.Start, r.End, err)
	}
	return nil
}
