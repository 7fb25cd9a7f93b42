//go:build !amd64

package tracee

import "github.com/fermata-cr/fermata/internal/sys"

// No executor for this machine yet: NewRegion refuses, so nothing below runs.

var executorCode []byte

// Restarted needs an amd64 machine.
func Restarted(r sys.Regs) sys.Regs { return r }

// RestartBlock needs an amd64 machine.
func RestartBlock(*sys.Regs) bool { return false }

// BeginAnew needs an amd64 machine.
func BeginAnew(r sys.Regs, _ uint64) sys.Regs { return r }

func ucontext(sys.Regs, uint64, uint64, []byte) []byte { return nil }
func signalXstate(x []byte) []byte                     { return x }
func returnSlot(*sys.Regs) uint64                      { return 0 }
func callResult(*sys.Regs) int64                       { return 0 }

func attachRegs(r sys.Regs, _ *Gadgets, _, _, _, _ uint64) sys.Regs { return r }
func enterRegs(r sys.Regs, _, _ uint64) sys.Regs                    { return r }
func detachRegs(r sys.Regs, _ *Gadgets, _, _, _ uint64) sys.Regs    { return r }
func framePlace(*sys.Regs, []byte, int) (uint64, uint64)            { return 0, 0 }
func rseqAbort(sys.Regs, func(uint64, []byte) error, uint64) (sys.Regs, bool) {
	return sys.Regs{}, false
}

const (
	ucSize  = 0
	ucStack = 0
)

func stackOf(*sys.Regs) uint64                               { return 0 }
func callRegs(r sys.Regs, _, _ uint64, _ [6]uint64) sys.Regs { return r }

func deaf(*sys.Regs) bool { return false }

func unplaced(*sys.Regs) bool   { return false }
func again(r sys.Regs) sys.Regs { return r }

const nrSigreturn = 139

func onAltStack(*sys.Regs, []byte, uint64) bool                  { return false }
func waitsOnFutex(*sys.Regs) bool                                { return false }
func placeOf(*sys.Regs) (uint64, uint64)                         { return 0, 0 }
func underway(*sys.Regs, int, uint64, uint64) bool               { return false }
func home([]byte, sys.Regs, uint64)                              {}
func second([]byte, uint64, uint64, uint64, uint64)              {}
func exitRegs(r sys.Regs, _ *Gadgets) sys.Regs                   { return r }
func detachAndExit(r sys.Regs, _ *Gadgets, _, _ uint64) sys.Regs { return r }
func restartedBefore(*sys.Regs) bool                             { return false }
func numberIn([]byte) (uint64, bool)                             { return 0, false }
func numbered(r sys.Regs, _ uint64) sys.Regs                     { return r }
func savedPC([]byte, int, *sys.Regs) bool                        { return false }
func savedPoint([]byte, int) point                               { return point{} }

// BrokenOff needs an amd64 machine.
func BrokenOff(*sys.Regs) bool { return false }

// Reissued needs an amd64 machine.
func Reissued(r sys.Regs) sys.Regs { return r }

// IssuedAgain needs an amd64 machine.
func IssuedAgain(r sys.Regs) sys.Regs { return r }
