package sys

import "golang.org/x/sys/unix"

// NrPoll is poll(2)'s number; machines without the call have none.
const NrPoll = unix.SYS_POLL

// NrEpollWait is epoll_wait(2)'s number.
const NrEpollWait = unix.SYS_EPOLL_WAIT
