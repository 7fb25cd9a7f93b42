// Package criu is the command that CRIU's users can call instead: the same
// actions, option spellings, images and log lines, over fermata's engine. It
// runs when the binary is called as criu, or as "fermata criu".
package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata"
	"github.com/fermata-cr/fermata/internal/fault"
)

// Compatible is the version of CRIU whose options and images are meant. Callers
// compare it with what they need.
const Compatible = "4.2"

// command is one run.
type command struct {
	*Options
	log            *logger
	stdout, stderr io.Writer
	images         string // absolute
	work           string // absolute: logs, pid files, statistics
}

var actions = map[string]func(*command, context.Context) error{
	"dump": (*command).dump, "pre-dump": (*command).preDump, "restore": (*command).restore, "check": (*command).check,
	"dedup": (*command).dedup, "page-server": (*command).pageServer, "lazy-pages": (*command).lazyPages,
	"service": (*command).service, "swrk": (*command).service, "cpuinfo": (*command).cpuinfo,
}

// Main runs a command line, without the program's name, and gives the exit code:
// 0, or 1 for any error, as CRIU does.
func Main(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "Error (fermata): %v\n", err)
		return 1
	}
	switch {
	case o.Version:
		fmt.Fprintf(stdout, "Version: %s\nfermata %s\n", Compatible, fermata.Version)
		return 0
	case o.Help:
		fmt.Fprint(stdout, Help())
		return 0
	}
	act := actions[o.Action]
	if act == nil {
		if o.Action == "" {
			fmt.Fprintf(stderr, "Error (fermata): which action? See %s --help\n", "fermata criu")
		} else {
			fmt.Fprintf(stderr, "Error (fermata): unknown action %q\n", o.Action)
		}
		return 1
	}
	c := &command{Options: o, stdout: stdout, stderr: stderr}
	if err := c.places(); err != nil {
		fmt.Fprintf(stderr, "Error (fermata): %v\n", err)
		return 1
	}
	if c.log, err = openLog(o, c.work, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "Error (fermata): %v\n", err)
		return 1
	}
	defer c.log.close()
	c.log.debugf("fermata %s, called as CRIU %s: %s", fermata.Version, Compatible, strings.Join(args, " "))
	for _, g := range o.granted {
		c.log.infof("%s", g)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	err = act(c, ctx)
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	if err != nil {
		c.report(err)
		return 1
	}
	return 0
}

// exitCode is an end that is no failure of ours.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// report logs an error, each reason of a refusal by itself.
func (c *command) report(err error) {
	var refused *fault.RefusedError
	if errors.As(err, &refused) {
		for _, r := range refused.Reasons {
			c.log.errorf("%s", r)
		}
	} else {
		c.log.errorf("%v", err)
	}
	switch c.Action {
	case "dump":
		c.log.errorf("Dumping FAILED.")
	case "pre-dump":
		c.log.errorf("Pre-dumping FAILED.")
	case "restore":
		c.log.errorf("Restoring FAILED.")
	}
}

// places finds the directories. The images' must exist.
func (c *command) places() (err error) {
	c.images = c.ImagesDir
	if c.images == "" {
		c.images = "."
	}
	if c.images, err = filepath.Abs(c.images); err != nil {
		return err
	}
	if st, err := os.Stat(c.images); err != nil || !st.IsDir() {
		if err == nil {
			err = unix.ENOTDIR
		}
		return usage("the images directory %s: %v", c.images, err)
	}
	c.work = c.images
	if c.WorkDir != "" {
		if c.work, err = filepath.Abs(c.WorkDir); err != nil {
			return err
		}
	}
	for i, s := range c.ActionScript {
		if c.ActionScript[i], err = filepath.Abs(s); err != nil {
			return err
		}
	}
	return nil
}

// inWork gives a path that is relative to the work directory.
func (c *command) inWork(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.work, name)
}

func (c *command) writePid(pid int) error {
	if c.PidFile == "" {
		return nil
	}
	f, err := os.OpenFile(c.inWork(c.PidFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("the pid file: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// ready tells whoever waits at --status-fd that requests are taken.
func (c *command) ready() error {
	if c.StatusFD < 0 {
		return nil
	}
	_, err := unix.Write(c.StatusFD, []byte{0})
	if cerr := unix.Close(c.StatusFD); err == nil {
		err = cerr
	}
	c.StatusFD = -1
	if err != nil {
		return fmt.Errorf("--status-fd: %w", err)
	}
	return nil
}

// script runs the action scripts for a moment of the work; pid is that of the
// root task, 0 when it does not matter.
func (c *command) script(ctx context.Context, moment string, pid int) error {
	for _, s := range c.ActionScript {
		c.log.infof("Running %s script %s", moment, s)
		x := exec.CommandContext(ctx, "/bin/sh", "-c", s)
		x.Env = append(os.Environ(), "CRTOOLS_SCRIPT_ACTION="+moment, "CRTOOLS_IMAGE_DIR="+c.images)
		if pid != 0 {
			x.Env = append(x.Env, "CRTOOLS_INIT_PID="+strconv.Itoa(pid))
		}
		x.Stdout, x.Stderr = c.stdout, c.stderr
		if err := x.Run(); err != nil {
			return fmt.Errorf("action script %s at %s: %w", s, moment, err)
		}
	}
	return nil
}

// later is the error of what is not done yet.
func later(what string) error {
	return fault.Errorf(fault.ErrRefused, "%s: this version of fermata does not do that yet", what)
}

// startCommand replaces this process by the command behind "--": it becomes the
// parent of the restored tree.
func startCommand(args []string) error {
	if len(args) == 0 {
		return usage("--exec-cmd needs a command behind \"--\"")
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}
