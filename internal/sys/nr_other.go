//go:build !amd64

package sys

// NrPoll is poll(2)'s number; this machine has only ppoll.
const NrPoll = 1 << 30

// NrEpollWait is epoll_wait(2)'s number; this machine has only epoll_pwait.
const NrEpollWait = 1<<30 + 1
