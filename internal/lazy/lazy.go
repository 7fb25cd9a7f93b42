// Package lazy lets a restored program run before its memory is there: pages
// come when they are touched, and the others in the background, until nothing
// depends on the checkpoint any more.
//
// Each address space has a userfaultfd (userfaultfd(2)) that its task made and
// no longer holds. Two processes do, both this program under another name:
//
//   - the handler reads pages from the store, answers faults and fills;
//   - the watch does nothing but wait for the handler's end.
//
// When the last holder of a userfaultfd goes, the kernel lets the program read
// zeros where pages are missing. So if either of the two dies before all is
// done, the other still holds it: the handler starts another watch; the watch
// ends the program with SIGKILL. The same happens when the store cannot be read
// or a checksum is wrong. The checkpoint stays as it is and can be restored
// again.
//
// What the program does to its address space meanwhile comes as events in the
// order in which it happened, and stops the program until it was read: see
// space.go for why no page can get lost on the way.
package lazy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Names as ps shows them.
const (
	Name      = "fermata-lazy"
	NameWatch = "fermata-lazy-watch"
)

// mark is set in the environment of the two only.
const mark = "FERMATA_LAZY"

// Features is what a userfaultfd must be enabled with.
const Features = sys.UffdEventFork | sys.UffdEventRemap | sys.UffdEventRemove | sys.UffdEventUnmap

// Available tells why this process cannot restore lazily, nil when it can: it
// needs the kernel's own accesses to wait for pages, too, which takes
// CAP_SYS_PTRACE.
func Available() error {
	fd, err := sys.Userfaultfd(unix.O_CLOEXEC | unix.O_NONBLOCK)
	if err != nil {
		return fmt.Errorf("userfaultfd: %w", err)
	}
	defer unix.Close(fd)
	if err := sys.UffdEnable(fd, Features); err != nil {
		return fmt.Errorf("userfaultfd with events: %w", err)
	}
	return nil
}

// Run is a range of an address space whose content is missing, and where in the
// store it is; all in bytes, whole pages.
type Run struct{ At, Len, Off uint64 }

// Space is an address space with missing pages. Every area that a run is in is
// registered with the userfaultfd, for missing pages, from end to end.
type Space struct {
	Uffd int
	Runs []Run // in ascending order of At, no two of the same page
}

// Plan is what is left to do for a tree.
type Plan struct {
	Spaces []Space
	PIDs   []int // of the tree: what ends when its memory cannot be had
	Stores []*fm.StoreFile
	Files  []*os.File // the store's
}

// Kinds of messages. Descriptors come in messages of their own.
const (
	msgPlan   = 'P' // with a memfd of the encoded plan
	msgFiles  = 'F' // descriptors: the store's files, then userfaultfds; to the watch: pidfds and userfaultfds
	msgReady  = 'R' // from the handler: faults are answered
	msgGo     = 'G' // the program runs
	msgDone   = 'D' // everything is in place
	msgFailed = 'X' // with a text
)

const fdsPerMessage = 200 // below SCM_MAX_FD, 253

// Handler is the restoring process's side.
type Handler struct {
	pid  int
	sock int
}

// Start starts a handler, which waits for its plan.
func Start() (*Handler, error) {
	pid, sock, err := spawn(Name)
	if err != nil {
		return nil, fmt.Errorf("handler of lazy pages: %w", err)
	}
	return &Handler{pid, sock}, nil
}

// spawn starts this program under a name, with a socket as its descriptor 0.
// It has no other descriptors, and the root directory as its working directory;
// a session of its own it makes for itself.
func spawn(name string) (pid, sock int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, -1, err
	}
	defer unix.Close(p[1])
	pid, err = syscall.ForkExec("/proc/self/exe", []string{name}, &syscall.ProcAttr{
		Dir: "/", Env: []string{mark + "=1"}, Files: []uintptr{uintptr(p[1])},
	})
	if err != nil {
		unix.Close(p[0])
		return 0, -1, err
	}
	return pid, p[0], nil
}

// Hand gives the handler its plan and returns when faults are answered. The
// descriptors stay the caller's.
func (h *Handler) Hand(p *Plan) error {
	fd, err := p.encode()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := send(h.sock, msgPlan, nil, fd); err != nil {
		return err
	}
	var fds []int
	for _, f := range p.Files {
		fds = append(fds, int(f.Fd()))
	}
	for _, s := range p.Spaces {
		fds = append(fds, s.Uffd)
	}
	if err := sendFiles(h.sock, fds); err != nil {
		return err
	}
	kind, text, _, err := receive(h.sock)
	switch {
	case err != nil:
		return fmt.Errorf("handler of lazy pages: %w", err)
	case kind != msgReady:
		return fmt.Errorf("handler of lazy pages: %s", text)
	}
	return nil
}

// Go says that the program runs. The channel gives what became of it: nil when
// all its memory is in place, or why the program was ended. Nobody needs to
// wait for it: the handler goes on without the caller.
func (h *Handler) Go() (<-chan error, error) {
	if err := send(h.sock, msgGo, nil); err != nil {
		return nil, fmt.Errorf("handler of lazy pages: %w", err)
	}
	c := make(chan error, 1)
	go func() {
		kind, text, _, err := receive(h.sock)
		switch {
		case kind == msgFailed:
			err = errors.New(string(text))
		case err != nil:
			err = fmt.Errorf("the handler of lazy pages has ended: %w; the program was ended", err)
		}
		h.Close()
		c <- err
	}()
	return c, nil
}

// Close dismisses a handler that has no program to look after, and reaps it.
func (h *Handler) Close() {
	if h == nil || h.sock < 0 {
		return
	}
	unix.Close(h.sock)
	h.sock = -1
	reap(h.pid)
}

func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// send sends one message with descriptors.
func send(sock int, kind byte, text []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(sock, append([]byte{kind}, text...), oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

func sendFiles(sock int, fds []int) error {
	for len(fds) > 0 {
		n := min(len(fds), fdsPerMessage)
		if err := send(sock, msgFiles, nil, fds[:n]...); err != nil {
			return err
		}
		fds = fds[n:]
	}
	return nil
}

// receive waits for a message; io.EOF as ECONNRESET when the other has gone.
func receive(sock int) (kind byte, text []byte, fds []int, err error) {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*fdsPerMessage))
	var n, on int
	for {
		n, on, _, _, err = unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil && n == 0 {
		err = unix.ECONNRESET
	}
	if err != nil {
		return 0, nil, nil, err
	}
	if on > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:on])
		if err != nil {
			return 0, nil, nil, err
		}
		for i := range msgs {
			got, err := unix.ParseUnixRights(&msgs[i])
			if err != nil {
				return 0, nil, nil, err
			}
			fds = append(fds, got...)
		}
	}
	return buf[0], buf[1:n], fds, nil
}

var le = binary.LittleEndian

// encode writes a plan, without its descriptors, into a memfd.
func (p *Plan) encode() (int, error) {
	m, err := proto.MarshalOptions{AllowPartial: true}.Marshal(&fm.Manifest{Stores: p.Stores})
	if err != nil {
		return -1, err
	}
	b := le.AppendUint64(nil, uint64(len(m)))
	b = append(b, m...)
	b = le.AppendUint64(b, uint64(len(p.PIDs)))
	for _, pid := range p.PIDs {
		b = le.AppendUint64(b, uint64(pid))
	}
	b = le.AppendUint64(b, uint64(len(p.Spaces)))
	for _, s := range p.Spaces {
		b = le.AppendUint64(b, uint64(len(s.Runs)))
		for _, r := range s.Runs {
			b = le.AppendUint64(b, r.At)
			b = le.AppendUint64(b, r.Len)
			b = le.AppendUint64(b, r.Off)
		}
	}
	fd, err := unix.MemfdCreate(Name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	for done := 0; done < len(b); {
		n, err := unix.Pwrite(fd, b[done:], int64(done))
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		done += n
	}
	return fd, nil
}

var errPlan = errors.New("the plan is cut off")

// decode reads what encode wrote.
func decode(b []byte) (p *Plan, err error) {
	p = &Plan{}
	defer func() {
		if recover() != nil {
			p, err = nil, errPlan // beyond the end
		}
	}()
	next := func() (v uint64) {
		v, b = le.Uint64(b), b[8:]
		return v
	}
	n := next()
	var m fm.Manifest
	if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(b[:n], &m); err != nil {
		return nil, err
	}
	p.Stores, b = m.GetStores(), b[n:]
	for n = next(); n > 0; n-- {
		p.PIDs = append(p.PIDs, int(next()))
	}
	for n = next(); n > 0; n-- {
		s := Space{Uffd: -1}
		for k := next(); k > 0; k-- {
			s.Runs = append(s.Runs, Run{next(), next(), next()})
		}
		p.Spaces = append(p.Spaces, s)
	}
	return p, nil
}
