package collect

import (
	"testing"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// TestVMBits: the kernel's flags mean what they are taken for, and it is noticed
// when they do not.
func TestVMBits(t *testing.T) {
	k, err := kmem.Open()
	if err != nil {
		t.Skip(err)
	}
	defer k.Close()
	if err := VMBitsKnown(k); err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[uint64]procfs.VMFlags{
		0x1:     procfs.VMRead,
		0x20073: procfs.VMDontCopy | procfs.VMRead | procfs.VMWrite | procfs.VMMayRead | procfs.VMMayWrite | procfs.VMMayExec,
	} {
		if f, ok := vmFlags(raw); f != want || !ok {
			t.Errorf("%#x: %v %v, want %v", raw, f, ok, want)
		}
	}
	if _, ok := vmFlags(1 << 42); ok {
		t.Error("an unknown bit is no reason to ask smaps")
	}
}
