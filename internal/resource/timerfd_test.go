package resource

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/procfs"
)

const tfdCancelOnSet = 2 // TFD_TIMER_CANCEL_ON_SET

func spec(value, interval time.Duration) *unix.ItimerSpec {
	return &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(value)), Interval: unix.NsecToTimespec(int64(interval))}
}

func clockNow(clock int) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(clock), &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

var timerfdRole = role("timerfd", func(a *actor) {
	make := func(n, clock, flags, set int, v *unix.ItimerSpec) {
		fd, err := unix.TimerfdCreate(clock, flags)
		if err == unix.EPERM {
			// An alarm clock without CAP_WAKE_ALARM.
			fd, err = unix.TimerfdCreate(plainClock(clock), flags)
		}
		a.at(fd, err, n)
		if v != nil {
			a.must(unix.TimerfdSettime(n, set, v, nil))
		}
	}
	const h = time.Hour
	make(100, unix.CLOCK_MONOTONIC, 0, 0, nil)
	make(101, unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK, 0, spec(h, 2*h))
	make(102, unix.CLOCK_MONOTONIC, 0, unix.TFD_TIMER_ABSTIME, spec(clockNow(unix.CLOCK_MONOTONIC)+h, 0))
	make(103, unix.CLOCK_BOOTTIME, 0, 0, spec(h, 0))
	make(104, unix.CLOCK_REALTIME, 0, unix.TFD_TIMER_ABSTIME|tfdCancelOnSet, spec(clockNow(unix.CLOCK_REALTIME)+h, h))
	make(105, unix.CLOCK_REALTIME, 0, 0, spec(h, 0))
	make(106, unix.CLOCK_BOOTTIME_ALARM, 0, 0, spec(h, 0))
	make(107, unix.CLOCK_REALTIME_ALARM, 0, unix.TFD_TIMER_ABSTIME, spec(clockNow(unix.CLOCK_REALTIME)+h, 0))
	make(108, unix.CLOCK_MONOTONIC, 0, 0, spec(1, 0))                                   // expired
	make(109, unix.CLOCK_MONOTONIC, 0, 0, spec(time.Millisecond, 300*time.Millisecond)) // expired, goes on
	make(110, unix.CLOCK_MONOTONIC, 0, 0, spec(time.Microsecond, time.Microsecond))     // expires faster than it can be read
	make(111, unix.CLOCK_MONOTONIC, 0, 0, spec(0, time.Millisecond))                    // disarmed, with an interval
	time.Sleep(650 * time.Millisecond)
	a.say("ready")
})

func timerState(t *testing.T, pid, fd int) *procfs.Timerfd {
	t.Helper()
	i, err := procfs.ReadFDInfo(pid, fd)
	if err != nil {
		t.Fatal(err)
	}
	return i.Timerfd
}

func TestTimerfd(t *testing.T) {
	p := start(t, timerfdRole, nil)
	began := time.Now()
	s := save(t, p.pid)
	r := s.open(t)
	// Theirs goes on from the checkpoint on, ours from the restore on: they may
	// differ by what all this takes.
	apart := func(d time.Duration) bool { return d.Abs() > time.Since(began)+5*time.Millisecond }
	for n := 100; n <= 108; n++ {
		want, got := timerState(t, p.pid, n), timerState(t, unix.Getpid(), s.fd(t, r, p.pid, n))
		if apart(time.Duration(nanos(want.Value) - nanos(got.Value))) {
			t.Errorf("%d: %v left, want %v", n, got.Value, want.Value)
		}
		w, g := *want, *got
		w.Value, g.Value = procfs.Timespec{}, procfs.Timespec{}
		if w != g {
			t.Errorf("%d: %+v, want %+v", n, g, w)
		}
		if (nanos(got.Value) == 0) != (n == 100 || n == 108) {
			t.Errorf("%d: %v left", n, got.Value)
		}
	}
	// The periodic one had expired three times (1, 301 and 601 ms after its
	// start); about 250 ms were left to the next.
	fd := s.fd(t, r, p.pid, 109)
	var b [8]byte
	if _, err := unix.Read(fd, b[:]); err != nil {
		t.Fatal(err)
	}
	if n := binary.NativeEndian.Uint64(b[:]); n < 3 || n > 4 {
		t.Errorf("periodic timer had expired %d times", n)
	}
	a, o := timerState(t, p.pid, 109), timerState(t, unix.Getpid(), fd)
	if d := time.Duration(nanos(a.Value) - nanos(o.Value)); apart(d) {
		t.Errorf("periodic timer: phase differs by %v", d)
	}
	// However soon a timer expires again while it is looked at, it goes on.
	fd = s.fd(t, r, p.pid, 110)
	for range 2 {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000); n != 1 {
			t.Fatalf("the fast timer does not expire (%v)", err)
		}
		if _, err := unix.Read(fd, b[:]); err != nil {
			t.Fatal(err)
		}
		if n := binary.NativeEndian.Uint64(b[:]); n < 1 {
			t.Errorf("the fast timer has expired %d times", n)
		}
	}
	if got := timerState(t, unix.Getpid(), s.fd(t, r, p.pid, 111)); nanos(got.Value) != 0 || nanos(got.Interval) != 1e6 || got.Ticks != 0 {
		t.Errorf("the disarmed timer: %+v", got)
	}
}

// openTimer restores timer n of s, saved some time ago, for tasks with a clock.
func openTimer(t *testing.T, s *saved, n int, ago time.Duration, clock func(int) (int64, bool)) *procfs.Timerfd {
	t.Helper()
	r, err := NewRestore(s.im, &s.refuse)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Clock = clock
	for _, table := range s.tables {
		for _, e := range table {
			if int(e.GetFd()) != n {
				continue
			}
			x := r.Extra(e.GetId())
			*x.Data -= uint64(ago)
			fd, err := KindOf(fdinfo.FdTypes_TIMERFD).Open(r, r.Entry(e.GetId()))
			*x.Data += uint64(ago)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			return timerState(t, unix.Getpid(), fd)
		}
	}
	t.Fatal("no such timer")
	return nil
}

// TestTimerfdLater: a checkpoint that lay for some time.
func TestTimerfdLater(t *testing.T) {
	near := func(what string, v procfs.Timespec, want time.Duration) {
		t.Helper()
		if d := time.Duration(nanos(v)) - want; d.Abs() > 30*time.Second { // of half an hour
			t.Errorf("%s: %v left, want %v", what, time.Duration(nanos(v)), want)
		}
	}
	const h = time.Hour
	s := save(t, start(t, timerfdRole, nil).pid)
	mono := func(int) (int64, bool) { return int64(clockNow(unix.CLOCK_MONOTONIC)), true }
	near("wall clock, absolute", openTimer(t, s, 104, h/2, mono).Value, h/2)
	if v := openTimer(t, s, 104, h+h/2, mono); v.Interval.Sec != 3600 || v.Value.Sec != 0 {
		t.Errorf("wall clock, absolute, past: %+v", v)
	}
	near("wall clock, relative", openTimer(t, s, 105, h/2, mono).Value, h)
	// The tasks' clock stood still in the meantime: nothing changes.
	shifted := func(int) (int64, bool) { now, _ := mono(0); return now - int64(h/2), true }
	near("monotonic", openTimer(t, s, 101, h/2, shifted).Value, h)
	near("monotonic, absolute", openTimer(t, s, 102, h/2, shifted).Value, h)
	// It went on: the timer is nearer.
	near("monotonic, running clock", openTimer(t, s, 102, h/2, mono).Value, h/2)
	// Without knowing the clock: what was left.
	near("monotonic, unknown clock", openTimer(t, s, 102, h/2, nil).Value, h)
	near("monotonic, clock that began anew", openTimer(t, s, 102, h/2, func(int) (int64, bool) { return 0, false }).Value, h)
}
