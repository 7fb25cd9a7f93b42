package tracee

import (
	"bytes"
	"unsafe"
)

// executor is never called here: its code is copied into tasks.
func executor()

// executorPC gives the address of executor's machine code.
func executorPC() uintptr

var executorEnd = []byte{0x66, 0x0f, 0x0b, 'F', 'E', 'R', 'M', 'A'}

const executorMax = 2048

// executorCode gives the executor's bytes, with its end marker.
//
// Sound: the text segment is mapped for the life of the process, executorPC
// points at the start of a function that is known to end in the marker, and
// more than executorMax bytes of text follow it (the Go runtime).
var executorCode = func() []byte {
	pc := executorPC()
	text := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&pc))), executorMax)
	n := bytes.Index(text, executorEnd)
	if n < 0 {
		return nil
	}
	return bytes.Clone(text[:n+len(executorEnd)])
}()
