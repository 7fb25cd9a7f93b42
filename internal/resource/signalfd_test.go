package resource

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

var signalfdRole = role("signalfd", func(a *actor) {
	make := func(n int, mask uint64, flags int) {
		fd, err := unix.Signalfd(-1, &unix.Sigset_t{Val: [16]uint64{mask}}, flags)
		a.at(fd, err, n)
	}
	make(100, 0, 0)
	make(101, 1<<(unix.SIGUSR1-1)|1<<63, unix.SFD_NONBLOCK)
	make(102, ^uint64(0), 0)
	a.say("ready")
})

func TestSignalfd(t *testing.T) {
	p := start(t, signalfdRole, nil)
	s := save(t, p.pid)
	r := s.open(t)
	for _, n := range []int{100, 101, 102} {
		want, err := procfs.ReadFDInfo(p.pid, n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := procfs.ReadFDInfo(unix.Getpid(), s.fd(t, r, p.pid, n))
		if err != nil {
			t.Fatal(err)
		}
		if got.SigMask != want.SigMask || !got.HasSigmask {
			t.Errorf("%d: mask %#x, want %#x", n, got.SigMask, want.SigMask)
		}
		if nb := got.Flags&unix.O_NONBLOCK != 0; nb != (n == 101) {
			t.Errorf("%d: O_NONBLOCK %v", n, nb)
		}
	}
}
