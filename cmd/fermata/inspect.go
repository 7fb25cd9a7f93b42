package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/fermata-cr/fermata"
	"github.com/fermata-cr/fermata/internal/fault"
)

func newInspect() *cobra.Command {
	var (
		pid    int
		brief  bool
		asJSON *bool
	)
	c := &cobra.Command{
		Use:   "inspect [flags] REF",
		Short: "Show what a checkpoint holds",
		Long: paragraphs(`
Shows the process tree, and of each process the threads, the memory map, the
open files and how much of them is in the checkpoint. Nothing is executed.`),
		Example: `  fermata inspect python3-4711-kqzv

  # only the tree
  fermata inspect --brief python3-4711-kqzv

  # one process of it
  fermata inspect --pid 4712 /mnt/big/job1

  # the open files of the first process, for a program
  fermata inspect --json /mnt/big/job1 | jq '.processes[0].files'`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeREFs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := resolve(args[0])
			if err != nil {
				return err
			}
			in, err := engineInspect(dir)
			if err != nil {
				return fmt.Errorf("inspect %s: %w", args[0], err)
			}
			in.Ref = args[0]
			if pid != 0 {
				in.Processes = slices.DeleteFunc(in.Processes, func(p fermata.InspectedProcess) bool { return p.PID != pid })
				if len(in.Processes) == 0 {
					return fault.Errorf(fault.ErrNotFound, "inspect %s: no process %d in it", args[0], pid)
				}
			}
			if *asJSON {
				return writeJSON(c.OutOrStdout(), in)
			}
			return showInspection(c.OutOrStdout(), in, brief)
		},
	}
	c.Flags().IntVar(&pid, "pid", 0, "show the process `PID` only")
	c.Flags().BoolVar(&brief, "brief", false, "show the tree only")
	asJSON = jsonFlag(c)
	return c
}

// showInspection writes an inspection for people.
func showInspection(w io.Writer, in *fermata.Inspection, brief bool) error {
	out := &lines{w: w}
	out.f("checkpoint  %s\n", in.Ref)
	boot := "an earlier boot"
	if in.SameBoot {
		boot = "this boot"
	}
	out.f("made        %s by fermata %s on %s (%s, kernel %s, %s)\n", in.Created.Local().Format(time.DateTime), in.Tool, clean(in.Host), in.Arch, clean(in.Kernel), boot)
	out.f("holds       %s, %s; %s, of it %s of memory\n", plural(in.Tasks, "process"), plural(in.Threads, "thread"), size(in.Bytes), size(in.MemoryBytes))
	out.f("stopped for %s\n", short(in.Frozen))
	if in.Links > 0 {
		out.f("builds upon %s, %s below it; %s are in files that it shares\n", clean(in.Parent), plural(in.Links, "checkpoint"), size(in.Shared))
	}
	codecs := map[string]int64{}
	for _, f := range in.PageFiles {
		if f.Codec != "" {
			codecs[f.Codec] += f.Stored
		}
	}
	for _, name := range slices.Sorted(maps.Keys(codecs)) {
		out.f("compressed  %s with %s\n", size(codecs[name]), name)
	}
	for _, n := range in.Notes {
		out.f("note        %s\n", clean(n))
	}
	out.f("\n")
	showTree(out, in)
	if !brief {
		for i := range in.Processes {
			showProcess(out, &in.Processes[i])
		}
		if len(in.SavedFiles) > 0 {
			out.f("\nfiles whose content is in the checkpoint\n")
			for _, s := range in.SavedFiles {
				out.f("  %10s  %s\n", size(s.Size), clean(s.Of))
			}
		}
	}
	return out.err
}

// showTree draws who is whose child.
func showTree(out *lines, in *fermata.Inspection) {
	children := map[int][]*fermata.InspectedProcess{}
	inside := map[int]bool{}
	for i := range in.Processes {
		inside[in.Processes[i].PID] = true
	}
	var roots []*fermata.InspectedProcess
	for i := range in.Processes {
		p := &in.Processes[i]
		if inside[p.PPID] && p.PPID != p.PID {
			children[p.PPID] = append(children[p.PPID], p)
		} else {
			roots = append(roots, p)
		}
	}
	// A damaged image may hold a circle; each process is drawn once.
	drawn := map[int]bool{}
	var draw func(p *fermata.InspectedProcess, lead, branch string)
	draw = func(p *fermata.InspectedProcess, lead, branch string) {
		if drawn[p.PID] {
			return
		}
		drawn[p.PID] = true
		out.f("%s%s%d %s", lead, branch, p.PID, clean(p.Command))
		if p.State != "running" {
			out.f(" (%s)", p.State)
		}
		if n := len(p.Threads); n > 1 {
			out.f(" %s", plural(n, "thread"))
		}
		if p.MemoryBytes > 0 {
			out.f(" %s", size(p.MemoryBytes))
		}
		out.f("\n")
		switch branch {
		case "├─ ":
			lead += "│  "
		case "└─ ":
			lead += "   "
		}
		for i, k := range children[p.PID] {
			if i == len(children[p.PID])-1 {
				draw(k, lead, "└─ ")
			} else {
				draw(k, lead, "├─ ")
			}
		}
	}
	for _, p := range roots {
		draw(p, "", "")
	}
	for i := range in.Processes {
		draw(&in.Processes[i], "", "")
	}
}

// showProcess writes everything about one process.
func showProcess(out *lines, p *fermata.InspectedProcess) {
	out.f("\nprocess %d %s\n", p.PID, clean(p.Command))
	out.f("  parent %d, group %d, session %d, uid %d, gid %d, %s\n", p.PPID, p.PGID, p.SID, p.UID, p.GID, p.State)
	for _, f := range []struct{ name, value string }{{"program", p.Exe}, {"directory", p.Cwd}, {"root", p.Root}} {
		if f.value != "" && f.value != "/" || f.name == "directory" && f.value != "" {
			out.f("  %s %s\n", f.name, clean(f.value))
		}
	}
	if len(p.Threads) > 1 {
		out.f("  threads")
		for i, t := range p.Threads {
			if i > 0 && i%6 == 0 {
				out.f("\n         ")
			}
			out.f(" %d %s", t.TID, clean(t.Command))
			if i < len(p.Threads)-1 {
				out.f(",")
			}
		}
		out.f("\n")
	}
	if p.SharesMemory != 0 {
		out.f("  memory shared with process %d\n", p.SharesMemory)
	}
	if len(p.Files) > 0 {
		out.f("  open files\n")
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, f := range p.Files {
			fmt.Fprintf(t, "    %d\t%s\t%s\t%s\n", f.FD, f.Access, f.Kind, clean(f.What))
		}
		t.Flush()
	}
	if len(p.Areas) > 0 {
		out.f("  memory\n")
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, a := range p.Areas {
			saved := "-"
			if a.Saved > 0 {
				saved = size(a.Saved)
			}
			fmt.Fprintf(t, "    %x-%x\t%s\t%s\t%s\t%s\n", a.Start, a.End, a.Access, size(int64(a.End-a.Start)), saved, clean(a.What))
		}
		t.Flush()
	}
}

// lines is a writer that keeps its first error.
type lines struct {
	w   io.Writer
	err error
}

func (l *lines) f(format string, a ...any) { fmt.Fprintf(l, format, a...) }

// Write makes lines a writer for others.
func (l *lines) Write(b []byte) (int, error) {
	if l.err == nil {
		_, l.err = l.w.Write(b)
	}
	return len(b), l.err
}

// clean makes a string that a program chose harmless to a terminal.
func clean(s string) string {
	ok := func(r rune) bool { return r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) && r != '\uFFFD' }
	if !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := rune(s[i]), 1
		if r >= 0x80 {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		if ok(r) {
			b.WriteString(s[i : i+n])
		} else {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		}
		i += n
	}
	return b.String()
}
