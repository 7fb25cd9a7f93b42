package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/repo"
	"github.com/fermata-cr/fermata/internal/sys/job"
)

// filesModes are the values of --files.
var filesModes = map[string]fermata.FilesMode{
	"strict": fermata.FilesStrict, "rollback": fermata.FilesRollback, "keep": fermata.FilesKeep,
}

// cgroupModes are the values of --cgroups.
var cgroupModes = map[string]fermata.CgroupMode{
	"restore": fermata.CgroupsRestore, "keep": fermata.CgroupsKeep, "ignore": fermata.CgroupsIgnore,
}

func newRestore() *cobra.Command {
	var (
		o      fermata.RestoreOptions
		detach bool
		files  string
		groups string
		asJSON *bool
	)
	c := &cobra.Command{
		Use:   "restore [flags] REF",
		Short: "Bring a saved program back to life",
		Long: paragraphs(`
Makes the program's processes again, with the pids they had, and lets them go
on. The checkpoint stays as it is and can be restored any number of times.

In the foreground fermata is the program's parent: the terminal and signals go
to the program, and fermata ends when it ends, with its exit status (128 plus
the signal's number when a signal ended it). --detach returns as soon as the
program runs, and prints its pid.

If files that the program has open or mapped changed since the checkpoint, they
are named and nothing is restored, unless --files says what to do:

  rollback  files open for writing are cut back to the size they had, or get
            back the content that checkpoint --save-files put aside
  keep      go on with the files as they are now

With --lazy the program runs at once; its memory comes when it is touched, and
the rest in the background, brought by a process called fermata-lazy that ends
when all is there. Until then the program depends on the checkpoint: if that
cannot be read or is damaged, or if fermata-lazy is killed, the program is ended
by SIGKILL and the reason is written to the system's log (and to standard error
in the foreground). The checkpoint stays as it is. Until then, too, the program
cannot be checkpointed.

With --copies N the program runs N times, each copy in a pid namespace of its own,
with the pids it had. Private memory is read once and shared by all copies until
they write to it; files, pipes, sockets and shared memory each copy gets anew. A
socket that listens where others can reach it can be had by one copy only. In the
foreground fermata waits for all copies and ends with the status of the first;
--detach prints a line with the pids of each.`),
		Example: `  # bring a program back into this terminal
  fermata restore python3-4711-kqzv

  # bring it back in the background
  fermata restore --detach /mnt/big/job1

  # its pids are taken: give it a pid namespace of its own
  fermata restore --pidns before-upgrade

  # it has much memory, and should run at once
  fermata restore --lazy before-upgrade

  # warmed up once, running a hundred times
  fermata restore --detach --copies 100 warm-python

  # its log has grown since: cut it back
  fermata restore --files=rollback before-upgrade`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeREFs(1),
		RunE: func(c *cobra.Command, args []string) error {
			mode, ok := filesModes[files]
			if !ok {
				return fault.Errorf(fault.ErrUsage, "--files: %q is none of strict, rollback, keep", files)
			}
			o.Files = mode
			if o.Cgroups, ok = cgroupModes[groups]; !ok {
				return fault.Errorf(fault.ErrUsage, "--cgroups: %q is none of restore, keep, ignore", groups)
			}
			if c.Flags().Changed("copies") && o.Copies < 1 {
				return fault.Errorf(fault.ErrUsage, "--copies: at least 1")
			}
			return restore(c, args[0], o, detach, *asJSON)
		},
	}
	f := c.Flags()
	f.BoolVar(&detach, "detach", false, "return when the program runs")
	f.BoolVar(&o.Lazy, "lazy", false, "let the program run before its memory is there")
	f.IntVar(&o.Copies, "copies", 0, "run the program `N` times, each in a new pid namespace")
	f.BoolVar(&o.PidNS, "pidns", false, "restore into a new pid namespace (an ordinary user must: and into a user namespace)")
	f.BoolVar(&o.Stopped, "stopped", false, "leave the program stopped, as by SIGSTOP")
	f.BoolVar(&o.TCPClose, "tcp-close", false, "make connected TCP sockets closed ones")
	f.StringVar(&files, "files", "strict", "the `MODE` for changed files: strict, rollback or keep")
	c.RegisterFlagCompletionFunc("files", cobra.FixedCompletions([]string{"strict", "rollback", "keep"}, cobra.ShellCompDirectiveNoFileComp))
	f.StringVar(&groups, "cgroups", "restore", "the `MODE` for control groups: restore (make those that are gone), keep (use those that exist) or ignore")
	c.RegisterFlagCompletionFunc("cgroups", cobra.FixedCompletions([]string{"restore", "keep", "ignore"}, cobra.ShellCompDirectiveNoFileComp))
	asJSON = jsonFlag(c)
	return c
}

// restore carries the verb out.
func restore(c *cobra.Command, ref string, o fermata.RestoreOptions, detach, asJSON bool) error {
	dir, err := resolve(ref)
	if err != nil {
		return err
	}
	bar := newProgress(c.ErrOrStderr())
	o.Progress = bar.callback()
	var tty *job.Terminal
	if !detach {
		// Before the program can change its modes.
		if tty = job.OpenTerminal(); tty != nil {
			defer tty.Close()
			o.Foreground = true
		}
	}
	ctx, w := watch(c.Context(), passed...)
	res, err := engineRestore(ctx, dir, o)
	bar.done()
	if err = w.operationDone(err); err != nil {
		return fmt.Errorf("restore %s: %w", ref, err)
	}
	var parent *foreground
	if !detach {
		// First of all: the program may want the terminal at once.
		if parent, err = newForeground(res.Roots, tty); err != nil {
			return fmt.Errorf("restore %s: the program runs, but not in the foreground: %w", ref, err)
		}
	}
	res.Ref = ref
	if err := announce(c, res, detach, asJSON); err != nil && detach {
		return err
	}
	if detach {
		return nil
	}
	// What came before the program was there is for the program.
	for _, s := range w.caught {
		parent.send(s.(syscall.Signal))
	}
	ended := make(chan struct{})
	var filled sync.WaitGroup
	if res.Filling != nil {
		filled.Go(func() {
			var err error
			select {
			case err = <-res.Filling:
			case <-ended:
				select { // for that reason, perhaps
				case err = <-res.Filling:
				case <-time.After(time.Second):
				}
			}
			if err != nil {
				fmt.Fprintf(c.ErrOrStderr(), "fermata: restore %s: %v\n", ref, err)
			}
		})
	}
	code, err := parent.run(w.ch)
	close(ended)
	filled.Wait()
	if err != nil {
		return fmt.Errorf("restore %s: the program ran, its status is lost: %w", ref, err)
	}
	return programEnded{code}
}

// announce writes what the user is told when the program runs. In the
// foreground the terminal is the program's by now.
func announce(c *cobra.Command, res *fermata.RestoreResult, detach, asJSON bool) error {
	if asJSON {
		return writeJSON(c.OutOrStdout(), res)
	}
	showNotes(c.ErrOrStderr(), res.Notes)
	if !detach {
		return nil
	}
	copies := res.Copies
	if len(copies) == 0 {
		copies = []fermata.Copy{{Roots: res.Roots}}
	}
	for _, k := range copies {
		roots := slices.Clone(k.Roots)
		slices.Sort(roots)
		if _, err := fmt.Fprintln(c.OutOrStdout(), strings.Trim(fmt.Sprint(roots), "[]")); err != nil {
			return err
		}
	}
	return nil
}

// resolve gives the directory of a REF.
func resolve(ref string) (string, error) {
	r, err := repo.Default()
	if err != nil && !repo.IsPath(ref) {
		return "", err
	}
	return r.Path(ref)
}
