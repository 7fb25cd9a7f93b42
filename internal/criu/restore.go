package criu

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata"
	"github.com/fermata-cr/fermata/internal/criu/imgdir"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
)

func (c *command) restore(ctx context.Context) error {
	switch {
	case c.LazyPages:
		return later("restoring lazily")
	case len(c.External) > 0:
		return c.externals()
	case c.ExecCmd && len(c.Args) == 0:
		return usage("--exec-cmd needs a command behind \"--\"")
	case !imgdir.Is(c.images):
		return fault.Errorf(fault.ErrNotFound, "no images at %s: there is no %s", c.images, imgdir.InventoryName)
	}
	if err := c.script(ctx, "pre-restore", 0); err != nil {
		return err
	}
	began := time.Now()
	o := fermata.RestoreOptions{
		Files: fermata.FilesSize, Stopped: c.LeaveStopped, Foreground: c.ShellJob && !c.Detach,
		TCPClose: c.TCPClose,
		Ready: func(pids []int) error {
			if err := c.script(ctx, "post-restore", pids[0]); err != nil {
				return err
			}
			if err := c.writePid(pids[0]); err != nil {
				return err
			}
			return c.script(ctx, "pre-resume", pids[0])
		},
	}
	switch c.Cgroups {
	case "ignore":
		o.Cgroups = fermata.CgroupsIgnore
	case "none", "props":
		o.Cgroups = fermata.CgroupsKeep
	case "full":
		o.Cgroups = fermata.CgroupsForce
	case "strict":
		o.Cgroups = fermata.CgroupsStrict
	}
	var err error
	if o.Inherit, err = c.inherited(); err != nil {
		return err
	}
	res, err := fermata.Restore(ctx, c.images, o)
	if err != nil {
		return err
	}
	for _, n := range res.Notes {
		c.log.warnf("%s", n)
	}
	if err := imgdir.WriteRestoreStats(c.work, time.Since(began), uint64(res.Bytes)/sys.PageSize); err != nil {
		c.log.warnf("statistics: %v", err)
	}
	if err := c.script(ctx, "post-resume", res.Roots[0]); err != nil {
		c.log.warnf("%v", err)
	}
	c.log.infof("%d processes with %d threads in %v", res.Tasks, res.Threads, res.Total)
	if c.DisplayStats {
		fmt.Fprintf(c.stdout, "Restore time: %d us\nPages restored: %d\n", time.Since(began).Microseconds(), uint64(res.Bytes)/sys.PageSize)
	}
	c.log.infof("Restore finished successfully. Tasks resumed.")
	if err := c.ready(); err != nil {
		c.log.warnf("%v", err)
	}
	switch {
	case c.ExecCmd:
		c.log.close()
		return startCommand(c.Args)
	case c.Detach:
		return nil
	}
	return c.await(res.Roots[0])
}

// await waits for the root task and ends as it does.
func (c *command) await(pid int) error {
	for {
		var st unix.WaitStatus
		n, err := unix.Wait4(-1, &st, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("waiting for pid %d: %w", pid, err)
		case n != pid:
		case st.Exited():
			return exitCode(st.ExitStatus())
		case st.Signaled():
			return exitCode(128 + int(st.Signal()))
		}
	}
}

// inherited understands --inherit-fd fd[NUM]:RESOURCE.
func (c *command) inherited() (map[string]*os.File, error) {
	m := map[string]*os.File{}
	for _, a := range c.InheritFD {
		head, res, ok := strings.Cut(a, "]:")
		var n int
		if _, err := fmt.Sscanf(head, "fd[%d", &n); err != nil || !ok || res == "" {
			return nil, usage("--inherit-fd %s: not of the form fd[NUM]:RESOURCE", a)
		}
		d, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 100)
		if err != nil {
			return nil, usage("--inherit-fd %s: descriptor %d: %v", a, n, err)
		}
		m[res] = os.NewFile(uintptr(d), res)
	}
	return m, nil
}
