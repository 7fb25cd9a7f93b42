//go:build !amd64

package sys

// Regs is the machine's general register file; only amd64 is driven so far.
type Regs struct{}

// GetRegs needs an amd64 machine.
func GetRegs(int) (Regs, error) { return Regs{}, ErrArch }

// SetRegs needs an amd64 machine.
func SetRegs(int, *Regs) error { return ErrArch }

// RegsSize is the size of Regs.
const RegsSize = 0

// DecodeRegs needs an amd64 machine.
func DecodeRegs([]byte) (r Regs) { return r }

// EncodeRegs needs an amd64 machine.
func EncodeRegs(*Regs) []byte { return nil }
