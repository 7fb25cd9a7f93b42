package criu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	filelock "github.com/checkpoint-restore/go-criu/v8/crit/images/file-lock"

	"github.com/fermata-cr/fermata"
	"github.com/fermata-cr/fermata/internal/criu/imgdir"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// preDump saves the memory while the tree goes on: the dump that follows, with
// --prev-images-dir, writes only what has changed by then.
func (c *command) preDump(ctx context.Context) error {
	c.LeaveRunning = true
	return c.save(ctx, true)
}

func (c *command) dump(ctx context.Context) error { return c.save(ctx, false) }

func (c *command) save(ctx context.Context, pagesOnly bool) error {
	if c.Tree == 0 {
		return usage("which process? Give its pid with --tree")
	}
	switch {
	case c.LazyPages:
		return later("dumping lazily")
	case len(c.External) > 0:
		return c.externals()
	}
	o := fermata.CheckpointOptions{
		To: c.images, Layout: fermata.LayoutImages, PagesOnly: pagesOnly, After: fermata.AfterKill, NoWait: true,
		Timeout: time.Duration(c.Timeout) * time.Second, Review: c.review,
		AllowSeccompRisk: true, // as CRIU has it
		// With --tcp-close they are closed at once: nothing needs to wait for them.
		TCPEstablished: c.TCP || c.TCPClose, NoNetworkLock: c.NetworkLock == "skip" || c.TCPClose, SkipInFlight: c.SkipInFlight,
	}
	if c.Timeout == 0 {
		o.Timeout = 24 * time.Hour
	}
	switch {
	case c.LeaveRunning:
		o.After = fermata.AfterResume
	case c.LeaveStopped:
		o.After = fermata.AfterStop
	}
	if err := c.parent(); err != nil {
		return err
	}
	if err := c.script(ctx, "pre-dump", c.Tree); err != nil {
		return err
	}
	if c.PageServer {
		conn, err := c.toServer(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		o.PageServer = conn
	}
	res, err := fermata.Checkpoint(ctx, c.Tree, o)
	if err != nil {
		return err
	}
	for _, n := range res.Notes {
		c.log.warnf("%s", n)
	}
	if c.work != c.images {
		// Statistics belong to the work directory.
		if err := os.Rename(filepath.Join(c.images, imgdir.DumpStatsName), filepath.Join(c.work, imgdir.DumpStatsName)); err != nil {
			c.log.warnf("statistics: %v", err)
		}
	}
	if err := c.script(ctx, "post-dump", c.Tree); err != nil {
		return err
	}
	if c.AutoDedup && c.PrevDir != "" {
		n, err := imgdir.Dedup(c.images)
		if err != nil {
			return err
		}
		c.log.infof("%d pages of earlier images freed", n)
	}
	c.log.infof("%d processes with %d threads, frozen for %v, %v in all", res.Tasks, res.Threads, res.Frozen, res.Total)
	if c.DisplayStats {
		fmt.Fprintf(c.stdout, "Frozen time: %d us\nBytes written: %d\n", res.Frozen.Microseconds(), res.Bytes)
	}
	if pagesOnly {
		c.log.infof("Pre-dumping finished successfully")
		return nil
	}
	c.log.infof("Dumping finished successfully")
	return nil
}

// externals judges the --external resources: what names none of this machine's
// own namespaces is for containers.
func (c *command) externals() error {
	return later(fmt.Sprintf("--external %s", c.External[0]))
}

// parent makes the link to the directory that this dump builds upon.
func (c *command) parent() error {
	if c.PrevDir == "" {
		return nil
	}
	link := filepath.Join(c.images, imgdir.ParentName)
	target := c.PrevDir
	if _, err := os.Stat(filepath.Join(c.images, target)); filepath.IsAbs(target) || err != nil {
		if st, err := os.Stat(target); err != nil || !st.IsDir() {
			return usage("--prev-images-dir %s: not a directory below %s", target, c.images)
		}
	}
	if now, err := os.Readlink(link); err == nil && now == target {
		return nil
	}
	if err := os.Symlink(target, link); err != nil {
		return fmt.Errorf("link to the previous images: %w", err)
	}
	return nil
}

// review refuses what the caller has not allowed with an option.
func (c *command) review(im *image.Image, refuse *fault.Refusals) {
	if locks, err := image.All[*filelock.FileLockEntry](im, "file-locks"); err == nil && !c.FileLocks {
		for _, l := range locks {
			refuse.Add(fault.Reason{PID: int(l.GetPid()), Object: fmt.Sprintf("fd %d", l.GetFd()), Why: "it holds a file lock", Remedy: "allow that with --file-locks"})
		}
	}
	extras, err := image.All[*fm.FileExtra](im, "file-extra")
	if err != nil {
		return
	}
	for _, x := range extras {
		if n := int64(x.GetSize()); x.GetDeleted() && n > c.GhostLimit {
			refuse.Add(fault.Reason{Object: fmt.Sprintf("file %d", x.GetId()), Why: fmt.Sprintf("a deleted file with %d bytes of data is above the limit of %d", n, c.GhostLimit), Remedy: "raise it with --ghost-limit"})
		}
	}
	if c.TCPClose {
		if err := closeTCP(im); err != nil {
			refuse.Add(fault.Reason{Object: "TCP connections", Why: err.Error()})
		}
	}
	files, err := image.All[*fdinfo.FileEntry](im, "files")
	if err != nil {
		return
	}
	for _, f := range files {
		if s := f.GetIsk(); s != nil && s.GetProto() == unix.IPPROTO_TCP && established(s.GetState()) && !c.TCP && !c.TCPClose {
			refuse.Add(fault.Reason{Object: fmt.Sprintf("file %d", f.GetId()), Why: "a connected TCP socket", Remedy: "allow that with --tcp-established, or let it be closed with --tcp-close"})
		}
	}
}

// closeTCP makes closed sockets of connected ones.
func closeTCP(im *image.Image) error {
	const closed = 7
	files, err := image.All[*fdinfo.FileEntry](im, "files")
	if err != nil {
		return err
	}
	shut := map[uint32]bool{}
	for _, f := range files {
		s := f.GetIsk()
		if s == nil || s.GetProto() != unix.IPPROTO_TCP || !established(s.GetState()) {
			continue
		}
		s.State, s.SrcPort, s.DstPort = proto.Uint32(closed), proto.Uint32(0), proto.Uint32(0)
		for _, a := range [][]uint32{s.SrcAddr, s.DstAddr} {
			clear(a)
		}
		im.Drop(image.Of("tcp-stream", int(s.GetIno())))
		shut[f.GetId()] = true
	}
	extras, err := image.All[*fm.SockExtra](im, "sock-extra")
	if err != nil {
		return err
	}
	for _, x := range extras {
		if shut[x.GetId()] {
			x.Peer, x.PeerGone, x.Error, x.Data = nil, nil, nil, proto.Uint32(tcpOver)
			delete(shut, x.GetId())
		}
	}
	for id := range shut {
		im.Add("sock-extra", &fm.SockExtra{Id: proto.Uint32(id), Data: proto.Uint32(tcpOver)})
	}
	return nil
}

// tcpOver is in sock_extra.data of a socket that was connected and is so no more.
const tcpOver = 1

// established tells whether a TCP state (include/net/tcp_states.h) is that of a
// connection.
func established(state uint32) bool {
	const closed, listen = 7, 10
	return state != closed && state != listen && state != 0
}
