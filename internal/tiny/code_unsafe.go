package tiny

import (
	"bytes"
	"unsafe"
)

// codeMax is more than any of these programs has.
const codeMax = 1024

// Code gives the machine code of a function from its first instruction, at pc, up
// to its end marker; nil when that is not found.
//
// Sound: the text segment is mapped for the life of the process, and pc is the
// address of a function of it that is known to end in the marker; behind it lie
// more than codeMax bytes of text (the Go runtime).
func Code(pc uintptr, end []byte) []byte {
	text := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&pc))), codeMax)
	n := bytes.Index(text, end)
	if n < 0 {
		return nil
	}
	return bytes.Clone(text[:n])
}
