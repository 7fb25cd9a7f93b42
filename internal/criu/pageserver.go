package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/criu/imgdir"
	"github.com/fermata-cr/fermata/internal/fault"
)

// listenEnv names the descriptor on which a page server in the background
// listens: it is this program started again.
const listenEnv = "FERMATA_PAGE_SERVER_FD"

// pageServer takes the pages of one dump.
func (c *command) pageServer(ctx context.Context) error {
	switch {
	case c.LazyPages:
		return later("serving lazy pages")
	case c.PSSocket >= 0:
		conn, err := net.FileConn(os.NewFile(uintptr(c.PSSocket), "ps-socket"))
		if err != nil {
			return usage("--ps-socket %d: %v", c.PSSocket, err)
		}
		return c.serve(ctx, conn)
	}
	l, err := c.listen()
	if err != nil {
		return err
	}
	defer l.Close()
	if c.Daemon {
		return c.background(l)
	}
	if err := c.writePid(os.Getpid()); err != nil {
		return err
	}
	if err := c.ready(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conn, err := l.Accept()
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return c.serve(ctx, conn)
}

// listen opens the server's socket, or takes that which it was started with.
func (c *command) listen() (*net.TCPListener, error) {
	if v := os.Getenv(listenEnv); v != "" {
		fd, err := strconv.Atoi(v)
		if err != nil {
			return nil, fmt.Errorf("%s=%s: %w", listenEnv, v, err)
		}
		c.Daemon, c.PidFile, c.StatusFD = false, "", -1 // seen to already
		l, err := net.FileListener(os.NewFile(uintptr(fd), "page server"))
		if err != nil {
			return nil, err
		}
		return l.(*net.TCPListener), nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(c.Address, strconv.Itoa(c.Port)))
	if err != nil {
		return nil, err
	}
	c.log.infof("Page server listens on %s", l.Addr())
	return l.(*net.TCPListener), nil
}

// background starts the server in the background: whoever called finds it
// listening.
func (c *command) background(l *net.TCPListener) error {
	f, err := l.File()
	if err != nil {
		return err
	}
	defer f.Close()
	x := exec.Command("/proc/self/exe", os.Args[1:]...)
	x.Args[0] = os.Args[0]
	x.Env = append(os.Environ(), listenEnv+"=3")
	x.ExtraFiles = []*os.File{f}
	x.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.log.close() // it writes on into the same file
	if err := x.Start(); err != nil {
		return fmt.Errorf("starting the page server: %w", err)
	}
	if err := c.writePid(x.Process.Pid); err != nil {
		return errors.Join(err, x.Process.Kill())
	}
	return c.ready()
}

func (c *command) serve(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := c.parent(); err != nil {
		return err
	}
	parent := filepath.Join(c.images, imgdir.ParentName)
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	began := time.Now()
	n, err := imgdir.Serve(conn, c.images, parent)
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	if c.PSSocket < 0 {
		// The side that closes first keeps the address for a while.
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = conn.Read(make([]byte, 1))
	}
	if c.AutoDedup && parent != "" {
		freed, err := imgdir.Dedup(c.images)
		if err != nil {
			return err
		}
		c.log.infof("%d pages of earlier images freed", freed)
	}
	c.log.infof("%d pages received in %v", n, time.Since(began))
	return nil
}

// toServer connects to the page server that a dump's memory goes to.
func (c *command) toServer(ctx context.Context) (io.ReadWriteCloser, error) {
	if c.PSSocket >= 0 {
		// The caller may keep it: it is not ours to close.
		fd, err := unix.FcntlInt(uintptr(c.PSSocket), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, usage("--ps-socket %d: %v", c.PSSocket, err)
		}
		f := os.NewFile(uintptr(fd), "ps-socket")
		defer f.Close()
		conn, err := net.FileConn(f)
		if err != nil {
			return nil, usage("--ps-socket %d: %v", c.PSSocket, err)
		}
		return conn, nil
	}
	if c.Address == "" || strings.HasPrefix(c.Address, "/") || c.Port == 0 {
		return nil, usage("where is the page server? Give --address and --port, or --ps-socket")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(c.Address, strconv.Itoa(c.Port)))
	if err != nil {
		return nil, fault.Errorf(fault.ErrNotFound, "no page server: %w", err)
	}
	return conn, nil
}
