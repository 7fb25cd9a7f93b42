package fermata

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
)

// permitted gives an error that the kernel answered with "not permitted" its
// kind, and says what would help.
func permitted(err error) error {
	if err == nil || fault.Kind(err) || !(errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) {
		return err
	}
	if os.Geteuid() != 0 {
		err = fmt.Errorf("%w: as an ordinary user this is not possible here: run fermata as root (fermata doctor says what is missing)", err)
	}
	return fault.Wrap(ErrPermission, err)
}
