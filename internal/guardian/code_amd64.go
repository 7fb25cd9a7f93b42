package guardian

import "github.com/fermata-cr/fermata/internal/tiny"

// watch is never called here: its code becomes a program.
func watch()

// watchPC gives the address of watch's machine code.
func watchPC() uintptr

var watchEnd = []byte{0x66, 0x0f, 0x0b, 'W', 'A', 'T', 'C', 'H'}

// watchCode gives the watch's bytes.
func watchCode() []byte { return tiny.Code(watchPC(), watchEnd) }
