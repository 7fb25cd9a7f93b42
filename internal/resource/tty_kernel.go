package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// What a pty holds, read from the kernel's memory (struct n_tty_data of
// drivers/tty/n_tty.c, struct tty_buffer): nothing is taken out, so nothing is
// lost whatever becomes of this process. Only here show input that the line
// discipline has not looked at, since it has no room for more, and the report
// that a master in packet mode has not read (ctrl.pktstatus).

const ttyBufferSize = 4096 // N_TTY_BUF_SIZE

// peekKernel is peek without taking anything.
func (p *ptyEnds) peekKernel(k *kmem.Reader) (q *ptyQueues, err error) {
	q = &ptyQueues{}
	if p.slave >= 0 {
		pollFD(p.slave, unix.POLLIN|unix.POLLOUT, 0) // has the line discipline take what it can
	}
	if p.was, err = sys.Termios(p.master); err != nil {
		return nil, fmt.Errorf("line settings: %w", err)
	}
	master := k.File(p.master).Ptr("private_data", "tty_file_private").Ptr("tty", "tty_struct")
	slave := master.Ptr("link", "tty_struct")
	out, _ := inDiscipline(k, master)
	for _, x := range [][]byte{out, arrived(k, master)} {
		q.output = append(q.output, x...)
	}
	q.packet = uint32(slave.Uint("ctrl.pktstatus"))
	if p.slave < 0 {
		return q, k.Err()
	}
	in, ends := inDiscipline(k, slave)
	if !canonical(p.was) {
		if len(in) > 0 {
			q.input = append(q.input, ptyLine{data: in})
		}
	} else {
		begin := 0
		for i, end := range ends {
			switch {
			case !end:
				continue
			case in[i] == 0: // __DISABLED_CHAR stands for an end of file
				q.input = append(q.input, ptyLine{data: in[begin:i], eof: true})
			default:
				q.input = append(q.input, ptyLine{data: in[begin : i+1]})
			}
			begin = i + 1
		}
		if begin < len(in) {
			q.input = append(q.input, ptyLine{data: in[begin:]})
			q.begun = true
		}
	}
	q.behind = arrived(k, slave)
	q.stopped, q.call = slave.Uint("flow.stopped") != 0, slave.Uint("flow.tco_stopped") != 0
	return q, k.Err()
}

// inDiscipline reads what a line discipline holds for its reader, and where lines
// end in it.
func inDiscipline(k *kmem.Reader, t kmem.Object) (b []byte, ends []bool) {
	l := t.Ptr("disc_data", "n_tty_data")
	if l.Nil() {
		return nil, nil
	}
	tail, head := l.Uint("read_tail"), l.Uint("read_head")
	if head-tail > ttyBufferSize {
		k.Fail(kmem.ErrChanged)
		return nil, nil
	}
	buf, flags := l.Bytes("read_buf", ttyBufferSize), l.Bytes("read_flags", ttyBufferSize/8)
	for ; tail != head; tail++ {
		i := tail % ttyBufferSize
		b = append(b, buf[i])
		ends = append(ends, flags[i/8]>>(i%8)&1 != 0)
	}
	return b, ends
}

// arrived reads what waits for the line discipline.
func arrived(k *kmem.Reader, t kmem.Object) (b []byte) {
	bytes := t.Ptr("port", "tty_port").Ptr("buf.head", "tty_buffer")
	for n := 0; !bytes.Nil(); bytes = bytes.Ptr("next", "tty_buffer") {
		from, to := bytes.Int("read"), bytes.Int("commit")
		if n++; from < 0 || to < from || to > 1<<20 || n > 1<<16 {
			k.Fail(kmem.ErrChanged)
			return nil
		}
		b = append(b, k.Bytes(bytes.Addr+bytes.Offset("data")+uint64(from), to-from)...)
	}
	return b
}

// report makes a pty in packet mode report what it had to report
// (ioctl_tty(2), TIOCPKT_*; drivers/tty/pty.c, n_tty.c, tty_io.c). idle says
// that nothing is queued, so that flushing loses nothing. It gives what cannot be
// reported.
func (p *ptyEnds) report(status uint32, idleIn, idleOut bool) (lost uint32, err error) {
	var errs []error
	do := func(err error) { errs = append(errs, err) }
	toggle := func(change func(t *unix.Termios)) {
		t := *p.was
		change(&t)
		do(sys.SetTermios(p.master, &t))
		do(sys.SetTermios(p.master, p.was))
	}
	if status&unix.TIOCPKT_FLUSHREAD != 0 {
		if idleIn {
			do(unix.IoctlSetInt(p.slave, unix.TCFLSH, unix.TCIFLUSH))
		} else {
			lost |= unix.TIOCPKT_FLUSHREAD
		}
	}
	if status&unix.TIOCPKT_FLUSHWRITE != 0 {
		if idleOut {
			do(unix.IoctlSetInt(p.slave, unix.TCFLSH, unix.TCOFLUSH))
		} else {
			lost |= unix.TIOCPKT_FLUSHWRITE
		}
	}
	if status&unix.TIOCPKT_START != 0 {
		do(unix.IoctlSetInt(p.slave, unix.TCXONC, unix.TCOOFF))
		do(unix.IoctlSetInt(p.slave, unix.TCXONC, unix.TCOON))
	}
	if status&unix.TIOCPKT_IOCTL != 0 {
		toggle(func(t *unix.Termios) { t.Lflag ^= unix.EXTPROC })
	}
	if status&(unix.TIOCPKT_NOSTOP|unix.TIOCPKT_DOSTOP) != 0 {
		toggle(func(t *unix.Termios) {
			t.Iflag |= unix.IXON
			t.Cc[unix.VSTOP], t.Cc[unix.VSTART] = 'S'&0x1f, 'Q'&0x1f
			if status&unix.TIOCPKT_DOSTOP != 0 {
				t.Iflag &^= unix.IXON
			}
		})
	}
	return lost, errors.Join(errs...)
}
