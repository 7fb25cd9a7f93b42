package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timerfd"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// A timerfd (timerfd_create(2), fs/timerfd.c) has a clock, the time to its next
// expiry, an interval, the flags it was set with and the number of expirations
// that were not read. fdinfo has all of them since Linux 3.17.
//
// The rule of time: a timer of CLOCK_MONOTONIC or CLOCK_BOOTTIME expires when
// the clock of the restored task shows what it would have shown, however long
// the checkpoint lay. Of CLOCK_REALTIME, which nobody can stop, a timer set with
// TFD_TIMER_ABSTIME expires at its time of day (at once, with every missed
// interval counted, when that is past), a relative one after what was left.
//
// FileExtra.data is what the timer's clock showed, in the task, when the rest
// was read, in nanoseconds.
type timerfdKind struct{}

func init() { Register(timerfdKind{}) }

func (timerfdKind) Name() string            { return "timerfd" }
func (timerfdKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_TIMERFD} }
func (timerfdKind) Match(f *File) bool      { return f.Link == "anon_inode:[timerfd]" }

func (timerfdKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	s := f.Info.Timerfd
	if s == nil {
		return nil, errors.New("fdinfo has no clockid")
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	zero := procfs.Timespec{}
	if s.Value == zero && (s.Interval != zero || s.Ticks == 0) {
		if s, err = f.timerNow(); err != nil {
			return nil, err
		}
	}
	now, err := d.taskClock(f.PID, plainClock(s.ClockID))
	if err != nil {
		return nil, err
	}
	d.Extra(f).Data = proto.Uint64(uint64(now))
	e := entryOf(fdinfo.FdTypes_TIMERFD)
	e.Tfd = &timerfd.TimerfdEntry{
		Id: proto.Uint32(f.ID), Flags: proto.Uint32(f.Flags()), Fown: o,
		Clockid: proto.Uint32(uint32(s.ClockID)), Ticks: proto.Uint64(s.Ticks), SettimeFlags: proto.Uint32(s.SettimeFlags),
		Vsec: proto.Uint64(uint64(s.Value.Sec)), Vnsec: proto.Uint64(uint64(s.Value.Nsec)),
		Isec: proto.Uint64(uint64(s.Interval.Sec)), Insec: proto.Uint64(uint64(s.Interval.Nsec)),
	}
	return e, nil
}

// timerNow reads a timer again of which fdinfo showed no time left.
//
// One with an interval has expired and stands still until somebody reads it or
// asks for its time, as the kernel then finds out by arithmetic what was missed:
// asking gives the phase, which fdinfo does not show, and changes no number that
// the program can get. (Waiting in an edge-triggered epoll, the timer may be
// reported at its next expiry too.) One without may have been due in just this
// instant; a second look tells it from one that is disarmed.
//
// Having been asked, a timer with a short interval may have expired again before
// fdinfo is read: time left and expirations would be of two instants, and none
// left would be saved, which is a timer that never expires. So both are taken
// when fdinfo shows that it runs; from one that is too fast for that, the
// expiration it stands still at is taken back, to come at once after a restore.
func (f *File) timerNow() (*procfs.Timerfd, error) {
	interval := f.Info.Timerfd.Interval != procfs.Timespec{}
	var fd int
	if interval {
		var done func()
		var err error
		if fd, done, err = f.borrow(); err != nil {
			return nil, err
		}
		defer done()
	}
	for try := 1; ; try++ {
		if interval {
			var v unix.ItimerSpec
			if err := unix.TimerfdGettime(fd, &v); err != nil {
				return nil, fmt.Errorf("timerfd_gettime: %w", err)
			}
		}
		info, err := procfs.ReadFDInfo(f.PID, f.FD)
		if err != nil {
			return nil, err
		}
		s := info.Timerfd
		switch {
		case s == nil:
			return nil, errors.New("fdinfo has no clockid")
		case !interval || s.Value != procfs.Timespec{}:
			return s, nil
		case s.Ticks == 0 && try == 3: // disarmed, with an interval
			return s, nil
		case s.Ticks > 0 && try >= 100:
			s.Value.Nsec = 1
			s.Ticks--
			return s, nil
		}
	}
}

// plainClock gives the clock that an alarm clock follows.
func plainClock(id int) int {
	switch id {
	case unix.CLOCK_REALTIME_ALARM:
		return unix.CLOCK_REALTIME
	case unix.CLOCK_BOOTTIME_ALARM:
		return unix.CLOCK_BOOTTIME
	}
	return id
}

type timensKey struct{ pid int }

// taskClock reads a clock as a task sees it, in nanoseconds: the time namespace
// (time_namespaces(7), Linux 5.6) shifts CLOCK_MONOTONIC and CLOCK_BOOTTIME.
func (d *Dump) taskClock(pid, clock int) (int64, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(clock), &t); err != nil {
		return 0, fmt.Errorf("clock %d: %w", clock, err)
	}
	now := t.Nano()
	if clock == unix.CLOCK_REALTIME {
		return now, nil
	}
	offsets := func(pid int) (procfs.TimensOffsets, error) {
		return Value(d, timensKey{pid}, func() (procfs.TimensOffsets, error) { return procfs.ReadTimensOffsets(pid) })
	}
	theirs, err := offsets(pid)
	if err != nil {
		return 0, err
	}
	ours, err := offsets(unix.Getpid())
	if err != nil {
		return 0, err
	}
	if clock == unix.CLOCK_BOOTTIME {
		return now + nanos(theirs.Boottime) - nanos(ours.Boottime), nil
	}
	return now + nanos(theirs.Monotonic) - nanos(ours.Monotonic), nil
}

func nanos(t procfs.Timespec) int64 { return t.Sec*1e9 + t.Nsec }

// Late: until the tasks' clock runs, nobody knows when it will show what.
func (timerfdKind) Late(r *Restore, e *fdinfo.FileEntry) bool {
	t := e.GetTfd()
	return r.Clock != nil && plainClock(int(t.GetClockid())) != unix.CLOCK_REALTIME && t.GetVsec()|t.GetVnsec() != 0
}

func (timerfdKind) Check(r *Restore, e *fdinfo.FileEntry) error {
	fd, err := unix.TimerfdCreate(int(e.GetTfd().GetClockid()), unix.TFD_CLOEXEC)
	if err != nil {
		x := fault.Reason{
			Object: fmt.Sprintf("file %d: timerfd of clock %d", e.GetId(), e.GetTfd().GetClockid()),
			Why:    fmt.Sprintf("cannot be made here: %v", err),
		}
		if errors.Is(err, unix.EPERM) {
			x.Remedy = "restore with CAP_WAKE_ALARM"
		}
		r.Refuse.Add(x)
		return nil
	}
	return unix.Close(fd)
}

func (timerfdKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	t := e.GetTfd()
	clock := int(t.GetClockid())
	fd, err := unix.TimerfdCreate(clock, unix.TFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("timerfd_create of clock %d: %w", clock, err)
	}
	flags := int(t.GetSettimeFlags())
	left := int64(t.GetVsec())*1e9 + int64(t.GetVnsec())
	v := unix.ItimerSpec{Interval: unix.Timespec{Sec: int64(t.GetIsec()), Nsec: int64(t.GetInsec())}}
	if left > 0 {
		var now unix.Timespec
		if err := unix.ClockGettime(int32(plainClock(clock)), &now); err != nil {
			return finish(fd, fmt.Errorf("clock %d: %w", clock, err))
		}
		v.Value = unix.NsecToTimespec(r.expiry(e, flags, left, now.Nano()))
	}
	// Set even when disarmed: the flags and the interval are state.
	if err := unix.TimerfdSettime(fd, flags, &v, nil); err != nil {
		return finish(fd, fmt.Errorf("timerfd_settime(%#x, %+v): %w", flags, v, err))
	}
	if n := t.GetTicks(); n > 0 {
		if err := sys.SetTimerfdTicks(fd, n); err != nil {
			return finish(fd, fmt.Errorf("%d expirations: %w", n, err))
		}
	}
	return finish(fd, setStatus(fd, t.GetFlags()))
}

// expiry gives the value to set a timer to: relative, or on this process's
// clock, which shows now, when flags has TFD_TIMER_ABSTIME.
func (r *Restore) expiry(e *fdinfo.FileEntry, flags int, left, now int64) int64 {
	clock := plainClock(int(e.GetTfd().GetClockid()))
	x := r.Extra(e.GetId())
	absolute := flags&unix.TFD_TIMER_ABSTIME != 0
	switch {
	case x.Data == nil:
	case clock == unix.CLOCK_REALTIME:
		if absolute {
			return int64(x.GetData()) + left
		}
	case r.Clock != nil:
		// The tasks' clock may have gone on since that reading, or begun anew
		// somewhat before it.
		if now, ok := r.Clock(clock); ok {
			left = max(1, left+int64(x.GetData())-now)
		}
	}
	if absolute {
		return now + left
	}
	return left
}
