package track

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tiny"
)

// Name is what ps shows of a keeper, with the pids whose memory it is about.
const Name = "fermata-keeper"

// A keeper cannot be asked anything: what it holds is in its record (record.go), and
// who may trace it takes that from it with pidfd_getfd(2). So there is no door for
// others, and nothing that could wake it up but the end of the program.

// The keeper's descriptors; keeper_amd64.s knows the first two.
const (
	fdWord = iota
	fdEpoll
	fdSpaces
)

// Keep starts a keeper for address spaces and writes its record. The Spaces stay the
// caller's, who may close them then. Should this process end at any instant, there
// is either a keeper with a whole record or none.
func Keep(r *Record, spaces []*Space) (err error) {
	var word [2]int
	if err := unix.Pipe2(word[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(word[1])
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		unix.Close(word[0])
		return err
	}
	files := []uintptr{fdWord: uintptr(word[0]), fdEpoll: uintptr(ep)}
	args := []string{Name}
	var own []int
	defer func() {
		for _, fd := range append(own, word[0], ep) {
			unix.Close(fd)
		}
	}()
	r.Spaces = nil
	for _, s := range spaces {
		p, err := unix.PidfdOpen(s.PID, 0)
		if err == unix.ESRCH {
			continue // it has ended meanwhile
		}
		if err != nil {
			return fmt.Errorf("pid %d: %w", s.PID, err)
		}
		own = append(own, p)
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, p, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}); err != nil {
			return fmt.Errorf("pid %d: epoll: %w", s.PID, err)
		}
		r.Spaces = append(r.Spaces, Kept{PID: s.PID, Start: s.Start, FD: len(files)})
		// The pidfd too: an entry of the epoll instance is one of an open file.
		files = append(files, uintptr(s.fd), uintptr(p))
		args = append(args, strconv.Itoa(s.PID))
	}
	if len(r.Spaces) == 0 {
		return nil
	}
	prog := tiny.Memfd(Name, keeperCode())
	if prog < 0 {
		return fmt.Errorf("a keeper cannot be started: %w", sys.ErrArch)
	}
	own = append(own, prog)
	faultpoint.At("keeper.start")
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", prog), args, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("a keeper: %w", err)
	}
	faultpoint.At("keeper.started")
	go reap(pid)
	st, err := procfs.ReadStat(pid, 0)
	if err != nil {
		return fmt.Errorf("the keeper: %w", err)
	}
	r.Keeper, r.KeeperStart = pid, st.StartTime
	if err := r.save(); err != nil {
		return err
	}
	faultpoint.At("keeper.recorded")
	if _, err := unix.Write(word[1], []byte{1}); err != nil {
		return fmt.Errorf("the keeper: %w", err)
	}
	faultpoint.At("keeper.told")
	return nil
}

// reap takes a keeper's end, so that no zombie is left while this process lives.
func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// open gives a pidfd of the record's keeper; an error when it has gone.
func (r *Record) open() (int, error) {
	fd, err := unix.PidfdOpen(r.Keeper, 0)
	if err != nil {
		return -1, err
	}
	if !r.alive() {
		unix.Close(fd)
		return -1, os.ErrNotExist
	}
	return fd, nil
}

// Take gives duplicates of what the keeper holds, without those of processes that
// are gone.
func (r *Record) Take() ([]*Space, error) {
	k, err := r.open()
	if err != nil {
		return nil, fmt.Errorf("the keeper, pid %d: %w", r.Keeper, err)
	}
	defer unix.Close(k)
	var out []*Space
	for _, x := range r.Spaces {
		if st, err := procfs.ReadStat(x.PID, 0); err != nil || st.StartTime != x.Start {
			continue
		}
		fd, err := unix.PidfdGetfd(k, x.FD, 0)
		if err != nil {
			for _, s := range out {
				s.Close()
			}
			return nil, fmt.Errorf("the keeper, pid %d: descriptor %d: %w", r.Keeper, x.FD, err)
		}
		unix.CloseOnExec(fd)
		out = append(out, &Space{PID: x.PID, Start: x.Start, fd: fd})
	}
	return out, nil
}

// Stop ends the keeper and removes its record: the program's memory is not tracked
// any more, unless this process still has what Take gave.
func (r *Record) Stop() error {
	faultpoint.At("keeper.stop")
	// The record first: without it nobody believes the keeper.
	if err := r.remove(); err != nil {
		return err
	}
	fd, err := r.open()
	if err != nil {
		return nil // it has gone
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("the keeper, pid %d: %w", r.Keeper, err)
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if n, err := unix.Poll(p, 1000); n > 0 || err != nil && err != unix.EINTR {
			return err
		}
	}
	return fmt.Errorf("the keeper, pid %d, does not end", r.Keeper)
}
