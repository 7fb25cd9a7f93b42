package resource

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
)

func queueNames() (kept, gone string) {
	return fmt.Sprintf("fermata-test-kept-%d", os.Getppid()), fmt.Sprintf("fermata-test-gone-%d", os.Getppid())
}

var mqueueRole = role("mqueue", func(a *actor) {
	kept, gone := queueNames()
	for i, name := range []string{kept, gone} {
		fd, err := sys.MqOpen(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600, &sys.MqAttr{MaxMsg: 4, MsgSize: 5000})
		a.at(fd, err, 100+i)
		a.must(unix.Fchmod(100+i, 0o640))
		a.must(sys.MqSend(100+i, []byte("low"), 1))
		a.must(sys.MqSend(100+i, make([]byte, 5000), 3))
		a.must(sys.MqSend(100+i, []byte("more"), 3))
	}
	a.say("ready")
})

var mqueueHolderRole = role("mqueue holder", func(a *actor) { a.say("ready") })

// TestMqueue restores queues of which one is there still and one is gone.
func TestMqueue(t *testing.T) {
	p := start(t, mqueueRole, nil)
	kept, gone := fmt.Sprintf("fermata-test-kept-%d", os.Getpid()), fmt.Sprintf("fermata-test-gone-%d", os.Getpid())
	t.Cleanup(func() {
		_ = sys.MqUnlink(kept)
		_ = sys.MqUnlink(gone)
	})
	s := save(t, p.pid)
	p.quit()
	if err := sys.MqUnlink(gone); err != nil {
		t.Fatal(err)
	}
	r := s.open(t)
	check := func(fd int) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o777 != 0o640 {
			t.Errorf("mode %#o (%v)", st.Mode, err)
		}
		b := make([]byte, 5000)
		for _, want := range []struct {
			n    int
			prio uint32
		}{{5000, 3}, {4, 3}, {3, 1}} {
			if n, prio, err := sys.MqReceive(fd, b); err != nil || n != want.n || prio != want.prio {
				t.Errorf("received %d bytes, priority %d (%v), not %v", n, prio, err, want)
			}
		}
		if _, _, err := sys.MqReceive(fd, b); err != unix.ETIMEDOUT {
			t.Errorf("another message: %v", err)
		}
	}
	check(s.fd(t, r, p.pid, 100))
	check(s.fd(t, r, p.pid, 101))
	// A restore that does not come to its end takes back what it made.
	r.Close()
	if fd, err := sys.MqOpen(gone, unix.O_RDONLY, 0, nil); err != unix.ENOENT {
		t.Errorf("the queue is still there: %d, %v", fd, err)
	}
	// Whoever else has it keeps what it holds.
	fd, err := sys.MqOpen(kept, unix.O_RDWR, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sys.MqSend(fd, []byte("theirs"), 0); err != nil {
		t.Fatal(err)
	}
	held := os.NewFile(uintptr(fd), kept)
	other := start(t, mqueueHolderRole, nil, held)
	held.Close()
	r = s.open(t)
	fd = s.fd(t, r, p.pid, 100)
	if a, err := sys.MqGetattr(fd); err != nil || a.CurMsgs != 1 {
		t.Errorf("%d messages in a queue that another has (%v)", a.CurMsgs, err)
	}
	r.Close()
	other.quit()
	// Another queue of that name is a conflict.
	if err := sys.MqUnlink(kept); err != nil {
		t.Fatal(err)
	}
	if fd, err = sys.MqOpen(kept, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600, &sys.MqAttr{MaxMsg: 1, MsgSize: 1}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	var refuse fault.Refusals
	x, err := NewRestore(s.im, &refuse)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.Check(); err != nil {
		t.Fatal(err)
	}
	reasons(t, &refuse, "is another one: for 1 messages of 1 bytes where it had 4 of 5000")
}
