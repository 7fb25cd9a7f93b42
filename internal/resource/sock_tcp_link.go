package resource

import (
	"errors"
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
		if err := s.takeUrgent(); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
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
	b, urgent := s.out, []int{int(s.x.GetUrgentOut()) - 1}
	if !s.mate.queued {
		b = append(append([]byte(nil), s.mate.in...), b...)
		if urgent[0] >= 0 {
			urgent[0] += len(s.mate.in)
		}
		urgent = append([]int{int(s.mate.x.GetUrgent()) - 1}, urgent...)
		if len(s.mate.in) > 0 {
			wide(s.mate.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
			// Who may not force it, gets room by the low-water mark.
			_ = unix.SetsockoptInt(s.mate.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, len(s.mate.in))
		}
	}
	if len(b) == 0 {
		return nil
	}
	if err := s.pourUrgent(b, urgent...); err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Second); !s.mate.queued; time.Sleep(time.Millisecond) {
		n, err := unix.IoctlGetInt(s.mate.fd, unix.SIOCINQ)
		if err != nil {
			return err
		}
		if u := int(s.mate.x.GetUrgent()); n >= len(s.mate.in) || u > 0 && n >= u-1 { // counted up to there
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("only %d of %d bytes arrived", n, len(s.mate.in))
		}
	}
	return nil
}

// pourUrgent is pour with urgent bytes at some places, in order; -1 is none.
func (s *inetEnd) pourUrgent(b []byte, at ...int) error {
	done := 0
	for _, i := range at {
		if i < done || i >= len(b) {
			continue
		}
		if err := s.pour(b[done:i]); err != nil {
			return err
		}
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			_, err := unix.SendmsgN(s.fd, b[i:i+1], nil, nil, unix.MSG_OOB|unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) && time.Now().Before(end) {
				continue
			}
			if err != nil {
				return fmt.Errorf("sending an urgent byte again: %w", err)
			}
			break
		}
		done = i + 1
	}
	return s.pour(b[done:])
}

// takeUrgent brings an end into the state in which its program has read the urgent
// byte, where it has.
func (s *inetEnd) takeUrgent() error {
	if s.x.GetUrgent() == 0 {
		return nil
	}
	if err := await(s.fd, unix.POLLPRI); err != nil {
		return fmt.Errorf("the urgent byte: %w", err)
	}
	if !s.x.GetUrgentRead() {
		return nil
	}
	if _, _, err := unix.Recvfrom(s.fd, make([]byte, 1), unix.MSG_OOB); err != nil {
		return fmt.Errorf("the urgent byte: %w", err)
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
