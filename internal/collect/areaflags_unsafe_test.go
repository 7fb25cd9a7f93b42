package collect

import "unsafe"

// addressOf gives where bytes lie. Sound: what is mapped does not move.
func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
