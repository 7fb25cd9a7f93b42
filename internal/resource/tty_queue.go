package resource

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
)

// What a pty holds in flight: input, written to the master, taken through the
// line discipline and not yet read from the slave; and output, written to the
// slave and not yet read from the master. No call of the kernel's gives either
// without taking it. Where its memory can be read nothing is taken
// (tty_kernel.go). Elsewhere it is taken, and put back at once, while every task
// that has the pty stands still.
//
// Putting back: output is written to the slave with output processing off.
// Input is written to the master under neutral settings, with echo on: the line
// discipline works asynchronously, and the echo coming back is how one knows
// that it has seen every byte. In canonical mode the queue consists of lines, a
// line may be ended by an end of file instead of a newline, and the last may
// only have been begun.
//
// Should fermata be killed in this window (some ten microseconds for output,
// some more for input; there is none for a pty with empty queues and no
// canonical mode), what was taken is lost, and the line may keep other
// settings; GuardTerminal tells a guardian of these.

// inputMax is how much input can be taken so. The line discipline's buffer has
// 4096 bytes; where it is full, more waits behind it that cannot be told apart.
const inputMax = 4000

// ptyLine is a piece of input that one read gives.
type ptyLine struct {
	data []byte
	eof  bool // ended by an end of file
}

// ptyQueues is what a pty holds.
type ptyQueues struct {
	input  []ptyLine
	begun  bool // the last line is not a whole one
	output []byte
	// stopped: output was stopped (^S).
	stopped bool
	call    bool   // by TCOOFF
	behind  []byte // input that waits for the line discipline
	packet  uint32 // what a master in packet mode has not been told
}

// ptyEnds are descriptors of this process to work on a pty; slave is -1 when there
// must be none. They may be the program's own, which block: nothing is read that
// is not there, and nothing written that has no room.
type ptyEnds struct {
	master, slave int
	was           *unix.Termios // the line's own settings
	locked        *unix.Termios
	packet        bool
	release       func()
}

func canonical(t *unix.Termios) bool {
	return t.Lflag&unix.ICANON != 0 && t.Lflag&unix.EXTPROC == 0
}

// enter makes the line settings changeable.
func (p *ptyEnds) enter(d *Dump) (err error) {
	if p.was, err = sys.Termios(p.master); err != nil {
		return fmt.Errorf("line settings: %w", err)
	}
	if d != nil && d.GuardTerminal != nil {
		p.release = d.GuardTerminal(p.master, p.was)
	}
	l, err := sys.LockedTermios(p.master)
	if err != nil {
		return fmt.Errorf("locked line settings: %w", err)
	}
	if *l != (unix.Termios{}) {
		if err := sys.SetLockedTermios(p.master, &unix.Termios{}); err != nil {
			return fmt.Errorf("unlocking the line settings: %w", err)
		}
		p.locked = l
	}
	on, err := unix.IoctlGetInt(p.master, unix.TIOCGPKT)
	if err != nil {
		return fmt.Errorf("packet mode: %w", err)
	}
	if on != 0 {
		if err := unix.IoctlSetPointerInt(p.master, unix.TIOCPKT, 0); err != nil {
			return fmt.Errorf("packet mode: %w", err)
		}
		p.packet = true
	}
	return nil
}

// leave puts the settings back.
func (p *ptyEnds) leave() error {
	var errs []error
	if err := sys.SetTermios(p.master, p.was); err != nil {
		errs = append(errs, fmt.Errorf("line settings back: %w", err))
	}
	if p.locked != nil {
		if err := sys.SetLockedTermios(p.master, p.locked); err != nil {
			errs = append(errs, fmt.Errorf("locking the line settings: %w", err))
		}
	}
	if p.packet {
		if err := unix.IoctlSetPointerInt(p.master, unix.TIOCPKT, 1); err != nil {
			errs = append(errs, fmt.Errorf("packet mode back: %w", err))
		}
	}
	if p.release != nil {
		p.release()
	}
	return errors.Join(errs...)
}

func pollFD(fd int, events int16, d time.Duration) int16 {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		_, err := unix.Poll(p, int(d.Milliseconds()))
		if err == nil {
			return p[0].Revents
		}
		if err != unix.EINTR {
			return 0
		}
	}
}

// empty tells whether it is plain that the pty holds nothing. Of a line that was
// only begun nothing shows.
func (p *ptyEnds) empty() (bool, error) {
	t, err := sys.Termios(p.master)
	if err != nil {
		return false, fmt.Errorf("line settings: %w", err)
	}
	if pollFD(p.master, unix.POLLIN, 0)&unix.POLLIN != 0 || canonical(t) && p.slave >= 0 {
		return false, nil
	}
	if p.slave < 0 {
		return true, nil
	}
	ev := pollFD(p.slave, unix.POLLIN|unix.POLLOUT, 0)
	n, err := unix.IoctlGetInt(p.slave, unix.TIOCINQ)
	if err != nil {
		return false, fmt.Errorf("TIOCINQ: %w", err)
	}
	return n == 0 && ev == unix.POLLOUT, nil
}

// peek gives what the pty holds; it holds the same afterwards.
func (p *ptyEnds) peek(d *Dump) (q *ptyQueues, err error) {
	q = &ptyQueues{}
	out := pollFD(p.master, unix.POLLIN, 0)&unix.POLLIN != 0
	in := false
	t, err := sys.Termios(p.master)
	if err != nil {
		return nil, fmt.Errorf("line settings: %w", err)
	}
	if p.slave >= 0 {
		// Where nothing can be read yet, the poll also has the line discipline
		// take what is on its way.
		ev := pollFD(p.slave, unix.POLLIN|unix.POLLOUT, 0)
		n, err := unix.IoctlGetInt(p.slave, unix.TIOCINQ)
		if err != nil {
			return nil, fmt.Errorf("TIOCINQ: %w", err)
		}
		if n > inputMax {
			return nil, fault.Errorf(fault.ErrRefused, "%d bytes of input wait in the terminal, more than can be kept: try again when the program has read some", n)
		}
		// Of a line that was only begun nothing shows.
		in = n > 0 || ev&unix.POLLIN != 0 || canonical(t)
		q.stopped = !out && ev&unix.POLLOUT == 0
	}
	if !in && !out {
		return q, nil
	}
	if err := p.enter(d); err != nil {
		return nil, errors.Join(err, p.leave())
	}
	defer func() {
		if lerr := p.leave(); err == nil && lerr != nil {
			err = lerr
		}
		if err == nil && q.stopped {
			err = p.stop(p.was, false)
		}
	}()
	if out {
		if q.output, err = drain(p.master); err != nil {
			return nil, err
		}
		if p.slave >= 0 {
			q.stopped = pollFD(p.slave, unix.POLLOUT, 0)&unix.POLLOUT == 0
		}
	}
	if in {
		rerr := p.takeInput(q)
		if err := errors.Join(rerr, p.putInput(q)); err != nil {
			return nil, err
		}
	}
	return q, p.putOutput(q.output)
}

// drain reads from a master all that is there.
func drain(master int) ([]byte, error) {
	var out []byte
	b := make([]byte, 16<<10)
	for pollFD(master, unix.POLLIN, 0)&unix.POLLIN != 0 {
		n, err := unix.Read(master, b)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EIO || err == nil && n == 0 {
			break // no slave, and all was read
		}
		if err != nil {
			return out, fmt.Errorf("reading output: %w", err)
		}
		out = append(out, b[:n]...)
	}
	return out, nil
}

// takeInput reads all that the slave would give.
func (p *ptyEnds) takeInput(q *ptyQueues) error {
	b := make([]byte, 8<<10)
	read := func() (int, error) {
		for {
			n, err := unix.Read(p.slave, b)
			switch err {
			case nil:
				return n, nil
			case unix.EAGAIN:
				return -1, nil
			case unix.EINTR:
			default:
				return -1, fmt.Errorf("reading input: %w", err)
			}
		}
	}
	if canonical(p.was) {
		for pollFD(p.slave, unix.POLLIN, 0)&unix.POLLIN != 0 {
			n, err := read()
			if err != nil {
				return err
			}
			if n < 0 {
				break
			}
			l := ptyLine{data: append([]byte(nil), b[:n]...)}
			l.eof = !p.ended(l.data)
			q.input = append(q.input, l)
		}
	}
	// Out of canonical mode a line that was begun shows. The settings are put
	// back with the queue empty, which is when they change nothing. No read
	// waits for more than there is.
	t := *p.was
	t.Lflag &^= unix.ICANON
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := sys.SetTermios(p.master, &t); err != nil {
		return fmt.Errorf("line settings: %w", err)
	}
	var rest []byte
	for {
		n, err := unix.IoctlGetInt(p.slave, unix.TIOCINQ)
		if err != nil {
			return fmt.Errorf("TIOCINQ: %w", err)
		}
		if n == 0 {
			break
		}
		if n, err = read(); err != nil {
			return err
		}
		if n <= 0 {
			break
		}
		rest = append(rest, b[:n]...)
	}
	if len(rest) > 0 {
		q.input = append(q.input, ptyLine{data: rest})
		q.begun = canonical(p.was)
	}
	return nil
}

// ended tells whether a line ends by one of the line's own delimiters.
func (p *ptyEnds) ended(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	c := b[len(b)-1]
	return c == '\n' || c != 0 && (c == p.was.Cc[unix.VEOL] || c == p.was.Cc[unix.VEOL2] && p.was.Lflag&unix.IEXTEN != 0)
}

// neutral are settings under which the line passes every byte on as it is, in
// the same mode, and echoes it.
func (p *ptyEnds) neutral(lines bool) unix.Termios {
	t := *p.was
	t.Iflag, t.Oflag = 0, 0
	t.Lflag = unix.ECHO
	eol := t.Cc[unix.VEOL]
	t.Cc = [len(t.Cc)]uint8{}
	t.Cc[unix.VMIN] = 1
	if lines {
		t.Lflag |= unix.ICANON
		t.Cc[unix.VEOL] = eol
		if p.was.Lflag&unix.IEXTEN != 0 {
			t.Lflag |= unix.IEXTEN
			t.Cc[unix.VEOL2] = p.was.Cc[unix.VEOL2]
		}
	}
	return t
}

// putInput puts input into the line discipline's queue, which is empty, and
// waits until it is there.
func (p *ptyEnds) putInput(q *ptyQueues) error {
	lines := canonical(p.was)
	t := p.neutral(lines)
	var all []byte
	for _, l := range q.input {
		all = append(all, l.data...)
	}
	if lines {
		free := unused(all, t.Cc[unix.VEOL], t.Cc[unix.VEOL2])
		if len(free) < 3 {
			return fault.Errorf(fault.ErrRefused, "input that waits in the terminal uses every byte there is: try again when the program has read it")
		}
		t.Cc[unix.VEOF], t.Cc[unix.VERASE] = free[0], free[1]
		all = all[:0]
		for _, l := range q.input {
			all = append(all, l.data...)
			if l.eof {
				all = append(all, t.Cc[unix.VEOF])
			}
		}
		if n := len(q.input); n > 0 && q.input[n-1].eof {
			// Nothing echoes an end of file: one more byte does, and the next
			// erases it.
			all = append(all, free[2], t.Cc[unix.VERASE])
		}
	}
	if err := sys.SetTermios(p.master, &t); err != nil {
		return fmt.Errorf("line settings: %w", err)
	}
	echo := 0
	for _, c := range all {
		if !lines || c != t.Cc[unix.VEOF] {
			echo++
		}
	}
	end := time.Now().Add(2 * time.Second)
	for rest := all; len(rest) > 0 || echo > 0; {
		if len(rest) > 0 {
			n, err := unix.Write(p.master, rest[:min(len(rest), 512)])
			if err != nil && err != unix.EINTR && err != unix.EAGAIN {
				return fmt.Errorf("putting input back: %w", err)
			}
			rest = rest[max(n, 0):]
		}
		if pollFD(p.master, unix.POLLIN, 20*time.Millisecond)&unix.POLLIN != 0 {
			b, err := drain(p.master)
			if err != nil {
				return err
			}
			echo -= len(b)
		} else if time.Now().After(end) {
			return fmt.Errorf("putting input back: the terminal does not take it (%d bytes not seen)", echo)
		}
	}
	return nil
}

// unused gives bytes that occur in none of the data.
func unused(data []byte, not ...byte) (out []byte) {
	var seen [256]bool
	for _, c := range data {
		seen[c] = true
	}
	for _, c := range not {
		seen[c] = true
	}
	seen[0], seen['\n'], seen[0xff] = true, true, true // no character, a delimiter, an escape of the echo
	for c, s := range seen {
		if !s {
			out = append(out, byte(c))
		}
	}
	return out
}

const (
	ldiscRoom   = 4095 // bytes that a line discipline holds (N_TTY_BUF_SIZE)
	smallBuffer = 256  // MIN_TTYB_SIZE
)

// putOutput writes output for the master to read, as it is.
func (p *ptyEnds) putOutput(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	slave := p.slave
	if slave < 0 {
		// The slaves are closed: one more opening and closing is the same.
		var err error
		if slave, err = sys.PtyPeer(p.master, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK); err != nil {
			return fmt.Errorf("putting output back: %w", err)
		}
		defer unix.Close(slave)
	}
	t := *p.was
	t.Oflag &^= unix.OPOST
	t.Iflag &^= unix.IXON // goes on when it was stopped
	t.Lflag &^= unix.TOSTOP
	if err := sys.SetTermios(p.master, &t); err != nil {
		return fmt.Errorf("line settings: %w", err)
	}
	end := time.Now().Add(2 * time.Second)
	// The kernel's buffers for it are limited, but those of up to 256 bytes that
	// were used once (drivers/tty/tty_buffer.c, the free list). What the master's
	// line discipline takes at once is written so, and what finds no more room.
	small := min(len(b), ldiscRoom)
	for len(b) > 0 {
		piece := len(b)
		if small > 0 {
			piece = min(piece, smallBuffer)
		}
		n, err := unix.Write(slave, b[:piece])
		if err != nil && err != unix.EINTR && err != unix.EAGAIN {
			return fmt.Errorf("putting output back: %w", err)
		}
		b = b[max(n, 0):]
		small -= max(n, 0)
		if n <= 0 {
			small = len(b)
			if time.Now().After(end) {
				return fmt.Errorf("putting output back: the terminal does not take the last %d bytes", len(b))
			}
			pollFD(slave, unix.POLLOUT, time.Millisecond)
		}
	}
	return nil
}

// stop stops output as it was stopped: by the stop character where the line has
// one, so that the start character makes it go on.
func (p *ptyEnds) stop(t *unix.Termios, call bool) error {
	c := t.Cc[unix.VSTOP]
	if call || t.Iflag&unix.IXON == 0 || c == 0 {
		if err := unix.IoctlSetInt(p.slave, unix.TCXONC, unix.TCOOFF); err != nil {
			return fmt.Errorf("stopping output: %w", err)
		}
		return nil
	}
	if _, err := unix.Write(p.master, []byte{c}); err != nil {
		return fmt.Errorf("stopping output: %w", err)
	}
	for end := time.Now().Add(2 * time.Second); pollFD(p.slave, unix.POLLOUT, 0)&unix.POLLOUT != 0; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			return errors.New("stopping output: the terminal does not stop")
		}
	}
	return nil
}
