package tracee

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

func TestStopKind(t *testing.T) {
	const trap = int(unix.SIGTRAP)
	for _, x := range []struct {
		what      string
		sig, code int
		message   uint64
		seized    bool
		kind      uint32
		name      string
	}{
		{"a breakpoint", trap, 0x80, 0, true, StopSignal, ""},                   // SI_KERNEL
		{"a single step", trap, 2, 0, false, StopSignal, ""},                    // TRAP_TRACE
		{"a trap of unknown cause", trap, 5, 0, false, StopSignal, ""},          // TRAP_UNK
		{"a trap that somebody sent", trap, -6, 0, false, StopSignal, ""},       // SI_TKILL
		{"a timer's signal", int(unix.SIGALRM), -2, 0, false, StopSignal, ""},   // SI_TIMER
		{"a call's entry", trap, trap | 0x80, 1, false, StopEntry, ""},          //
		{"a call's exit", trap, trap | 0x80, 2, true, StopExit, ""},             //
		{"an entry without sysgood", trap, trap, 1, false, StopEntry, ""},       //
		{"an interrupt", trap, trap | 128<<8, 0, true, StopAsked, ""},           //
		{"a group-stop", int(unix.SIGSTOP), 19 | 128<<8, 0, true, 0, "control"}, //
		{"an exec", trap, trap | unix.PTRACE_EVENT_EXEC<<8, 77, true, 0, "exec"},
		{"a clone", trap, trap | unix.PTRACE_EVENT_CLONE<<8, 77, false, 0, "clone"},
	} {
		var si sys.Siginfo
		le.PutUint32(si[0:], uint32(x.sig))
		le.PutUint32(si[8:], uint32(int32(x.code)))
		kind, name := StopKind(&si, x.message, x.seized)
		if kind != x.kind || !strings.Contains(name, x.name) || (name == "") != (x.name == "") {
			t.Errorf("%s: kind %d %q, not %d %q", x.what, kind, name, x.kind, x.name)
		}
	}
}
