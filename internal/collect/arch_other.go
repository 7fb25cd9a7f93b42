//go:build !amd64

package collect

import (
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// The engine refuses other machines before any of this runs.

const auditArch = 0

func callOf(*sys.Regs) (nr uint64, args [6]uint64)         { return 0, args }
func issuedCall(int, *sys.Regs) uint64                     { return 0 }
func setTimeout(*sys.Regs, uint64, [6]uint64, uint64) bool { return false }
func compat(*sys.Regs) bool                                { return false }
func setArch(*criu_core.CoreEntry, *sys.Regs, uint64)      {}
func debugRegisters(tracee.Traced) ([]uint64, error)       { return nil, nil }
func beforeCall(int, *sys.Regs) bool                       { return false }

// SetDebugRegisters needs an amd64 machine.
func SetDebugRegisters(tracee.Traced, []uint64) error { return sys.ErrArch }
func (c *Collector) askArch(*Task, *batch)            {}
