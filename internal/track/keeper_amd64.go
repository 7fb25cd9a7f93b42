package track

import "github.com/fermata-cr/fermata/internal/tiny"

// keep is never called here: its code becomes a program.
func keep()

// keepPC gives the address of keep's machine code.
func keepPC() uintptr

var keepEnd = []byte{0x66, 0x0f, 0x0b, 'K', 'E', 'E', 'P', 'S'}

// keeperCode gives the keeper's bytes.
func keeperCode() []byte { return tiny.Code(keepPC(), keepEnd) }
