package resource

import (
	"encoding/binary"
	"fmt"
	"sort"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

func member(fd int, events uint32, data uint64) error {
	return memberOf(100, fd, events, data)
}

func memberOf(ep, fd int, events uint32, data uint64) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(data), Pad: int32(data >> 32)}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("member %d: %w", fd, err)
	}
	return nil
}

func newEventfd(a *actor, n int, count uint64) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	a.at(fd, err, n)
	if count > 0 {
		_, err = unix.Write(n, binary.NativeEndian.AppendUint64(nil, count))
		a.must(err)
	}
}

// events gives what an epoll instance reports now, by data.
func events(a *actor, ep int) map[uint64]uint32 {
	ev := make([]unix.EpollEvent, 64)
	n, err := unix.EpollWait(ep, ev, 0)
	a.must(err)
	m := map[uint64]uint32{}
	for _, e := range ev[:n] {
		m[uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32] = e.Events
	}
	return m
}

func epollAt(a *actor, n int) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	a.at(fd, err, n)
}

// Data of the members is the number they are about.
var epollRole = role("epoll", func(a *actor) {
	epollAt(a, 100)
	newEventfd(a, 110, 0)
	a.must(member(110, unix.EPOLLIN, 110|1<<60))
	newEventfd(a, 111, 1)
	a.must(member(111, unix.EPOLLIN, 111))
	// An edge that was reported, and one that was not (in 101).
	newEventfd(a, 112, 1)
	a.must(member(112, unix.EPOLLIN|unix.EPOLLET, 112))
	// A one-shot that fired, one that did not.
	newEventfd(a, 113, 1)
	a.must(member(113, unix.EPOLLIN|unix.EPOLLONESHOT, 113))
	newEventfd(a, 114, 0)
	a.must(member(114, unix.EPOLLIN|unix.EPOLLONESHOT, 114))
	newEventfd(a, 115, 0)
	a.must(member(115, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, 115))
	newEventfd(a, 116, 0)
	a.must(member(116, unix.EPOLLIN|unix.EPOLLWAKEUP, 116))
	if got := events(a, 100); len(got) != 3 {
		panic(fmt.Sprint(got))
	}
	_, err := unix.Read(111, make([]byte, 8))
	a.must(err)

	// The number closed, the file alive under another.
	newEventfd(a, 117, 0)
	a.must(member(117, unix.EPOLLIN, 117))
	a.must(unix.Dup3(117, 127, unix.O_CLOEXEC))
	a.must(unix.Close(117))
	// The number another file's, which is a member by itself: the same number
	// twice.
	newEventfd(a, 118, 0)
	a.must(member(118, unix.EPOLLIN, 118))
	a.must(unix.Dup3(118, 128, unix.O_CLOEXEC))
	newEventfd(a, 119, 0)
	a.must(unix.Dup3(119, 118, 0)) // not close-on-exec
	a.must(member(118, unix.EPOLLIN, 119))

	epollAt(a, 101)
	newEventfd(a, 129, 1)
	a.must(memberOf(101, 129, unix.EPOLLIN|unix.EPOLLET, 129))
	// Nested: 102 watches 101 and 100.
	epollAt(a, 102)
	a.must(memberOf(102, 101, unix.EPOLLIN, 101))
	a.must(memberOf(102, 100, unix.EPOLLIN, 100))
	a.say("ready")
})

// members gives an instance's members as fdinfo has them, in an order of ours.
func members(t *testing.T, pid, ep int) (out []procfs.EpollTarget) {
	t.Helper()
	i, err := procfs.ReadFDInfo(pid, ep)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range i.Epoll {
		m.Ino, m.Dev = 0, 0
		out = append(out, m)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Data < out[j].Data })
	return out
}

// epollAfter runs in the rebuilt task: everything is reported that is to be and
// nothing else.
var epollAfter = role("epoll-after", func(a *actor) {
	var out []map[uint64]uint32
	see := func(ep int) { out = append(out, events(a, ep)) }
	see(100) // nothing
	see(102) // 101 has an edge
	see(101) // that
	see(102) // nothing
	for _, n := range []int{110, 111, 112, 113, 114, 115, 116, 127, 128, 118} {
		_, err := unix.Write(n, binary.NativeEndian.AppendUint64(nil, 1))
		a.must(err)
	}
	see(102) // 100
	see(100) // all of them but the fired one-shot
	see(100) // again, but for the edge and the one-shot
	fl, err := unix.FcntlInt(118, unix.F_GETFD, 0)
	a.must(err)
	if fl != 0 {
		out = append(out, map[uint64]uint32{uint64(fl): 118})
	}
	if _, err := unix.FcntlInt(117, unix.F_GETFD, 0); err != unix.EBADF {
		out = append(out, map[uint64]uint32{117: 0})
	}
	a.say(out)
})

func TestEpoll(t *testing.T) {
	p := start(t, epollRole, nil)
	before := map[int][]procfs.EpollTarget{}
	for _, ep := range []int{100, 101, 102} {
		before[ep] = members(t, p.pid, ep)
	}
	s := save(t, p.pid)
	r := s.open(t)
	b := s.rebuild(t, r, p.pid)
	s.inTask(t, r, map[uint32]bool{}, map[int]*rebuilt{p.pid: b}, p.pid)
	for ep, want := range before {
		if got := members(t, b.pid, ep); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d: members\n%+v, want\n%+v", ep, got, want)
		}
	}
	if got := members(t, p.pid, 100); fmt.Sprint(got) != fmt.Sprint(before[100]) {
		t.Errorf("the saved program's members are now\n%+v", got)
	}
	var got []map[uint64]uint32
	b.ask("run epoll-after", &got)
	const in = unix.EPOLLIN
	want := []map[uint64]uint32{
		{}, {101: in}, {129: in}, {}, {100: in},
		{110 | 1<<60: in, 111: in, 112: in, 114: in, 115: in, 116: in, 117: in, 118: in, 119: in},
		{110 | 1<<60: in, 111: in, 115: in, 116: in, 117: in, 118: in, 119: in},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("reported\n%v, want\n%v", got, want)
	}
}

// TestEpollNotReady: a fired one-shot whose file is not ready for anything can
// only come near.
func TestEpollNotReady(t *testing.T) {
	p := start(t, epollPipeRole, nil)
	s := save(t, p.pid)
	r := s.open(t)
	var notes []string
	r.Note = func(f string, a ...any) { notes = append(notes, fmt.Sprintf(f, a...)) }
	b := s.rebuild(t, r, p.pid)
	s.inTask(t, r, map[uint32]bool{}, map[int]*rebuilt{p.pid: b}, p.pid)
	got := members(t, b.pid, 100)
	if len(got) != 1 || got[0].Events != unix.EPOLLONESHOT|unix.EPOLLERR|unix.EPOLLHUP || len(notes) != 1 {
		t.Errorf("%+v, notes %q", got, notes)
	}
}

var epollPipeRole = role("epoll-not-ready", func(a *actor) {
	// A timer that expired, was reported, and was read.
	epollAt(a, 100)
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	a.at(fd, err, 101)
	a.must(unix.TimerfdSettime(101, 0, spec(1, 0), nil))
	a.must(member(101, unix.EPOLLIN|unix.EPOLLONESHOT, 101))
	ev := make([]unix.EpollEvent, 1)
	for n := 0; n == 0; {
		n, err = unix.EpollWait(100, ev, -1)
		if err != unix.EINTR {
			a.must(err)
		}
		n = max(n, 0)
	}
	_, err = unix.Read(101, make([]byte, 8))
	a.must(err)
	a.say("ready")
})

// Two tasks share an instance; neither has all members.
var epollSharedRole = role("epoll-shared", func(a *actor) {
	epollAt(a, 100)
	newEventfd(a, 101, 1)
	a.must(member(101, unix.EPOLLIN, 101))
	newEventfd(a, 102, 1)
	a.must(member(102, unix.EPOLLIN, 102))
	oob := unix.UnixRights(100, 102)
	a.must(unix.Sendmsg(3, []byte{0}, oob, nil, 0))
	line := a.say("ready")
	if line == "forget" {
		a.must(unix.Close(102))
	}
	a.say("ready")
})

var epollPeerRole = role("epoll-peer", func(a *actor) {
	oob := make([]byte, unix.CmsgSpace(8))
	_, o, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0)
	a.must(err)
	m, err := unix.ParseSocketControlMessage(oob[:o])
	a.must(err)
	fds, err := unix.ParseUnixRights(&m[0])
	a.at(fds[0], err, 100)
	a.at(fds[1], err, 103)
	a.say("ready")
})

func TestEpollShared(t *testing.T) {
	fds := socketFiles(t)
	p := start(t, epollSharedRole, nil, fds[0])
	q := start(t, epollPeerRole, nil, fds[1])
	p.ask("forget", nil)
	before := members(t, p.pid, 100)
	for _, order := range [][]int{{p.pid, q.pid}, {q.pid, p.pid}} {
		s := save(t, order...)
		r := s.open(t)
		procs := map[int]*rebuilt{}
		for _, pid := range order {
			procs[pid] = s.rebuild(t, r, pid)
		}
		s.inTask(t, r, map[uint32]bool{}, procs, order...)
		for _, b := range procs {
			if got := members(t, b.pid, 100); fmt.Sprint(got) != fmt.Sprint(before) {
				t.Errorf("members\n%+v, want\n%+v", got, before)
			}
		}
	}
	// Without the other task, one member's file is nobody's.
	save(t, p.pid).refused(t, "added as descriptor 102")
}

func TestKcmpEpollTarget(t *testing.T) {
	p := start(t, epollRole, nil)
	for _, c := range []struct {
		fd, tfd, toff int
		same          bool
		err           error
	}{{110, 110, 0, true, nil}, {111, 110, 0, false, nil}, {110, 110, 1, false, unix.ENOENT}, {150, 110, 0, false, unix.EBADF}} {
		n, err := sys.KcmpEpollTarget(p.pid, c.fd, p.pid, 100, c.tfd, c.toff)
		if err != c.err || err == nil && (n == 0) != c.same {
			t.Errorf("%+v: %d, %v", c, n, err)
		}
	}
}
