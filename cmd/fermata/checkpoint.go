package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/repo"
)

func newCheckpoint() *cobra.Command {
	var (
		o          fermata.CheckpointOptions
		to         string
		parent     string
		compress   string
		snapshot   string
		lock       string
		kill, stop bool
		asJSON     *bool
	)
	c := &cobra.Command{
		Use:   "checkpoint [flags] PID...",
		Short: "Save a running program with all its processes",
		Long: paragraphs(`
Saves the process PID with every descendant and every thread. Several PIDs, a
session or a cgroup may be saved together: a job whose first process has ended
leaves orphans that share pipes and sockets.

The program is stopped for a moment, sees nothing of it and goes on, unless
--kill or --stop says otherwise. If it cannot be saved, every reason is named
and nothing is written. If anything fails, the program goes on as before.

With --parent, memory that is as it was in an earlier checkpoint of the program
is not written again: what is there is read and compared, byte for byte, and the
files that hold it belong to both checkpoints. Each of them can be restored,
moved or removed without the other.

With --track, what the program writes is tracked from this checkpoint on, and the
next one that has it as its --parent does not read the rest at all; tracking goes on
from that one, and so on, until the program ends or "fermata track --stop". It takes
Linux 6.7. It can be noticed: see docs/troubleshooting.md.

The last line of stdout is the REF of the new checkpoint.`),
		Example: `  # save a program; it goes on
  fermata checkpoint 4711

  # save it under a name of your own, and end it
  fermata checkpoint --to before-upgrade --kill 4711

  # save it into a directory
  fermata checkpoint --to /mnt/big/job1 4711

  # save a whole session, orphans and all: a login, say, or a setsid job
  fermata checkpoint --session 4700 --kill

  # save it again, writing only what has changed since
  fermata checkpoint --to monday 4711
  fermata checkpoint --to tuesday --parent monday 4711

  # the same without reading what it has not written
  fermata checkpoint --to monday --track 4711
  fermata checkpoint --to tuesday --parent monday 4711

  # take the content of files it is writing along
  fermata checkpoint --save-files 4711`,
		ValidArgsFunction: completePIDs,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case c.Flags().Changed("to") && to == "":
				return fault.Errorf(fault.ErrUsage, "--to: no REF given")
			case kill && stop:
				return fault.Errorf(fault.ErrUsage, "--kill and --stop exclude each other")
			case kill:
				o.After = fermata.AfterKill
			case stop:
				o.After = fermata.AfterStop
			}
			mode, ok := snapshotModes[snapshot]
			if !ok {
				return fault.Errorf(fault.ErrUsage, "--snapshot: %q is none of auto, always, never", snapshot)
			}
			o.Snapshot = mode
			if compress != "" {
				var err error
				if o.Compression, err = fermata.ParseCompression(compress); err != nil {
					return fmt.Errorf("--compress: %w", err)
				}
			}
			if c.Flags().Changed("parent") {
				dir, err := resolve(parent)
				if err != nil {
					return err
				}
				o.Parent = dir
			}
			if lock != "nftables" && lock != "skip" {
				return fault.Errorf(fault.ErrUsage, "--network-lock: %q is none of nftables, skip", lock)
			}
			o.NoNetworkLock = lock == "skip"
			return checkpoint(c, args, to, o, *asJSON)
		},
	}
	f := c.Flags()
	f.StringVar(&to, "to", "", "`REF` of the new checkpoint (default a new name in the repository)")
	f.StringVar(&parent, "parent", "", "build upon the earlier checkpoint `REF`: write only memory that differs from it")
	compressFlag(c, &compress)
	f.BoolVar(&o.Durable, "durable", false, "wait until the checkpoint is on the disk, so that it survives a power cut")
	f.BoolVar(&o.Dedup, "dedup", false, "store pages once that have the same content, wherever in the program they are")
	f.BoolVar(&kill, "kill", false, "end the program once the checkpoint is complete")
	f.BoolVar(&stop, "stop", false, "leave the program stopped, as by SIGSTOP")
	f.BoolVar(&o.Track, "track", false, "track what the program writes from now on, for a checkpoint with this one as its --parent")
	f.IntVar(&o.Session, "session", 0, "add every process of the session `SID`")
	f.StringVar(&o.Cgroup, "cgroup", "", "add every process of the cgroup at `DIR` and below it")
	f.BoolVar(&o.AllowSeccompRisk, "seccomp-risk", false, "save also programs that their own seccomp filter would end, should fermata be killed in the microseconds in which it works inside them")
	f.BoolVar(&o.SkipDontDump, "skip-dontdump", false, "leave out private memory that the program excludes from core dumps (MADV_DONTDUMP); it comes back as zeros")
	f.BoolVar(&o.TCPEstablished, "tcp-established", false, "save TCP connections whose peer is outside the program; with --kill the host keeps packets from them until they are restored")
	f.StringVar(&lock, "network-lock", "nftables", "what keeps packets from such connections, with --kill: `HOW` is nftables or skip (you see to that)")
	f.BoolVar(&o.SkipInFlight, "skip-in-flight", false, "leave out connections from outside that the program has not accepted yet")
	f.BoolVar(&o.SaveFiles, "save-files", false, "put the content of files open for writing into the checkpoint")
	f.StringVar(&snapshot, "snapshot", "auto", "save the memory from a copy-on-write snapshot while the program runs: `WHEN` is auto (when it is large), always or never")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Second, "give up when the program cannot be stopped within this `TIME`")
	asJSON = jsonFlag(c)
	return c
}

// compressFlag adds --compress to a verb.
func compressFlag(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "compress", "", "store the memory compressed: `HOW` is fast (without a value, too), zstd, zstd:LEVEL (1 to 22) or none")
	c.Flags().Lookup("compress").NoOptDefVal = "fast"
	c.RegisterFlagCompletionFunc("compress", cobra.FixedCompletions([]string{"fast", "zstd", "none"}, cobra.ShellCompDirectiveNoFileComp))
}

var snapshotModes = map[string]fermata.SnapshotMode{
	"auto": fermata.SnapshotAuto, "always": fermata.SnapshotAlways, "never": fermata.SnapshotNever,
}

// checkpoint carries the verb out.
func checkpoint(c *cobra.Command, args []string, to string, o fermata.CheckpointOptions, asJSON bool) error {
	if o.Timeout <= 0 {
		return fault.Errorf(fault.ErrUsage, "--timeout must be positive")
	}
	if o.Session < 0 {
		return fault.Errorf(fault.ErrUsage, "--session: %d is no session id", o.Session)
	}
	var pids []int
	for _, a := range args {
		pid, err := parsePID(a)
		if err != nil {
			return err
		}
		pids = append(pids, pid)
	}
	first := 0
	switch {
	case len(pids) > 0:
		first, o.ExtraRoots = pids[0], pids[1:]
	case o.Session == 0 && o.Cgroup == "":
		return fault.Errorf(fault.ErrUsage, "which program? Give a PID, --session or --cgroup")
	}
	ref, err := place(to, first, &o)
	if err != nil {
		return err
	}
	bar := newProgress(c.ErrOrStderr())
	o.Progress = bar.callback()
	ctx, w := watch(c.Context())
	res, err := engineCheckpoint(ctx, first, o)
	bar.done()
	err = w.operationDone(err)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if asJSON {
		out := *res
		out.Ref = ref
		return writeJSON(c.OutOrStdout(), struct {
			fermata.CheckpointResult
			Dir string `json:"dir"`
		}{out, o.To})
	}
	showNotes(c.ErrOrStderr(), res.Notes)
	if _, ok := terminal(c.ErrOrStderr()); ok {
		fmt.Fprintf(c.ErrOrStderr(), "saved %s, %s, %s in %s; stopped for %s\n",
			plural(res.Tasks, "process"), plural(res.Threads, "thread"), size(res.Bytes), short(res.Total), short(res.Frozen))
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), ref)
	return err
}

// place decides where the checkpoint goes and makes the repository when it goes
// there. It gives the REF to tell the user.
func place(to string, pid int, o *fermata.CheckpointOptions) (ref string, err error) {
	command := "job"
	if pid != 0 {
		// Said here already, so that no repository is made for nobody.
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if errors.Is(err, os.ErrNotExist) {
			return "", fault.Errorf(fault.ErrNotFound, "no process with pid %d", pid)
		}
		command = strings.TrimSuffix(string(b), "\n")
	} else if o.Session != 0 {
		pid = o.Session
	}
	r, err := repo.Default()
	if err != nil && !repo.IsPath(to) {
		return "", err
	}
	if to == "" {
		if to, err = r.NewName(command, pid); err != nil {
			return "", err
		}
	}
	if o.To, err = r.Path(to); err != nil {
		return "", err
	}
	if repo.IsPath(to) {
		return to, nil
	}
	return to, r.CreateFor(to)
}

// parsePID reads a process id.
func parsePID(s string) (int, error) {
	pid, err := strconv.ParseInt(s, 10, 32)
	if err != nil || pid <= 0 {
		return 0, fault.Errorf(fault.ErrUsage, "%q is no pid", s)
	}
	return int(pid), nil
}
