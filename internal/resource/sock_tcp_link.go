package resource

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// What brings the ends of TCP connections into their state, once both are there.

// fillTCP sends what was on its way and closes what was closed.
func (u *inetRestore) fillTCP() error {
	for _, s := range u.all {
		if s.mate == nil {
			continue
		}
		if err := s.resend(); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
	}
	for _, s := range u.all {
		if s.mate == nil || s.gone {
			continue
		}
		if err := s.end(); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
	}
	return nil
}

// resend sends to the other end what it had not received, and, if it has not
// got that yet, what it had not read.
func (s *inetEnd) resend() error {
	b := s.out
	if !s.mate.queued {
		b = append(append([]byte(nil), s.mate.in...), b...)
		if len(s.mate.in) > 0 {
			wide(s.mate.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
			// Who may not force it, gets room by the low-water mark.
			_ = unix.SetsockoptInt(s.mate.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, len(s.mate.in))
		}
	}
	if len(b) == 0 {
		return nil
	}
	if err := s.pour(b); err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Second); !s.mate.queued; time.Sleep(time.Millisecond) {
		n, err := unix.IoctlGetInt(s.mate.fd, unix.SIOCINQ)
		if err != nil {
			return err
		}
		if n >= len(s.mate.in) {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("only %d of %d bytes arrived", n, len(s.mate.in))
		}
	}
	return nil
}

// end closes an end as far as it was closed, after its peer where that did first.
func (s *inetEnd) end() error {
	if s.is(tcpShutRD) {
		if err := unix.Shutdown(s.fd, unix.SHUT_RD); err != nil {
			return fmt.Errorf("shutdown for reading: %w", err)
		}
	}
	if s.mate.gone {
		if s.x.GetError() {
			if err := unix.SetsockoptLinger(s.mate.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				return err
			}
		}
		unix.Close(s.mate.fd)
		s.mate.fd = -1
		if err := await(s.fd, unix.POLLRDHUP); err != nil {
			return fmt.Errorf("the peer's end: %w", err)
		}
		if s.x.GetError() {
			return nil // reset
		}
	}
	if sentFIN(s.state()) || s.is(tcpOver) {
		if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil {
			return fmt.Errorf("shutdown: %w", err)
		}
	}
	return nil
}
