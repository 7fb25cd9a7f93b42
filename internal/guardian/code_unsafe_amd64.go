package guardian

import (
	"bytes"
	"unsafe"
)

// watch is never called here: its code becomes a program.
func watch()

// watchPC gives the address of watch's machine code.
func watchPC() uintptr

var watchEnd = []byte{0x66, 0x0f, 0x0b, 'W', 'A', 'T', 'C', 'H'}

const watchMax = 1024

// watchCode gives the watch's bytes.
//
// Sound: the text segment is mapped for the life of the process, watchPC points
// at the start of a function that is known to end in the marker, and more than
// watchMax bytes of text follow it (the Go runtime).
func watchCode() []byte {
	pc := watchPC()
	text := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&pc))), watchMax)
	n := bytes.Index(text, watchEnd)
	if n < 0 {
		return nil
	}
	return bytes.Clone(text[:n])
}
