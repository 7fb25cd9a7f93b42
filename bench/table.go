package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describe prints what is measured and on what.
func (b *bench) describe() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(b.images, &fs); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "machine      %s, %d processors, %d GiB, Linux %s\n", processor(), runtime.NumCPU(), (si.Totalram*uint64(si.Unit)+1<<29)>>30, unix.ByteSliceToString(u.Release[:]))
	fmt.Fprintf(b.out, "checkpoints  on %s\n", fsName(int64(fs.Type)))
	for _, t := range b.tools {
		v, err := t.version(b.init)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
		fmt.Fprintf(b.out, "%-12s %s\n", t.name(), v)
	}
	fmt.Fprintln(b.out)
	return nil
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				return strings.TrimSpace(v)
			}
		}
	}
	return runtime.GOARCH
}

func fsName(magic int64) string {
	switch magic {
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("a file system of type %#x", magic)
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	n := len(d)
	if n == 0 {
		return 0
	}
	return (d[(n-1)/2] + d[n/2]) / 2
}

func ms(d time.Duration) string {
	switch v := float64(d) / 1e6; {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

// measures are the columns.
var measures = []struct {
	title string
	of    func(*numbers) []time.Duration
}{
	{"frozen", func(n *numbers) []time.Duration { return n.frozen }},
	{"checkpoint", func(n *numbers) []time.Duration { return n.checkpoint }},
	{"checkpoint, kill", func(n *numbers) []time.Duration { return n.kill }},
	{"restore", func(n *numbers) []time.Duration { return n.restore }},
}

// print writes the table.
func (b *bench) print(table []*outcome) {
	w := b.out
	fmt.Fprintln(w, "medians, in milliseconds")
	peer := len(b.tools) > 1
	width := 18
	if peer {
		width = 27
	}
	line := fmt.Sprintf("%-21s %4s", "", "")
	for _, m := range measures {
		line += fmt.Sprintf("  %*s", width-2, m.title)
	}
	fmt.Fprintln(w, line)
	line = fmt.Sprintf("%-21s %4s", "", "runs")
	for range measures {
		if peer {
			line += fmt.Sprintf(" %9s %9s %6s", "fermata", "CRIU", "ratio")
		} else {
			line += strings.Repeat(" ", width)
		}
	}
	fmt.Fprintln(w, strings.TrimRight(line, " "))
	for _, o := range table {
		fmt.Fprintf(w, "%-21s %4d", o.name, len(o.by[0].restore))
		for _, m := range measures {
			own := median(m.of(&o.by[0]))
			if !peer {
				fmt.Fprintf(w, " %*s", width-1, ms(own))
				continue
			}
			other := median(m.of(&o.by[1]))
			fmt.Fprintf(w, " %9s %9s %6s", ms(own), ms(other), ratio(own, other))
		}
		fmt.Fprintln(w)
	}
	b.printBounds(table)
}

// ratio is below one when the first is the faster.
func ratio(a, b time.Duration) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

// printBounds sets the cases of much memory beside what bounds them.
func (b *bench) printBounds(table []*outcome) {
	w := b.out
	first := true
	for _, o := range table {
		if o.bytes == 0 {
			continue
		}
		if first {
			fmt.Fprintf(w, "\nbeside what bounds it, one thread copying or writing the same bytes, in GB/s\n%-21s %10s %10s  %-10s %10s %10s %10s\n",
				"", "copy", "write", "", "checkpoint", "with kill", "restore")
			first = false
		}
		rate := func(d time.Duration) string {
			return fmt.Sprintf("%.2f", float64(o.bytes)/1e9/d.Seconds())
		}
		for i, t := range b.tools {
			n := &o.by[i]
			name, cp, write := "", "", ""
			if i == 0 {
				name, cp, write = o.name, rate(median(o.copy)), rate(median(o.write))
			}
			fmt.Fprintf(w, "%-21s %10s %10s  %-10s %10s %10s %10s\n", name, cp, write, t.name(),
				rate(median(n.checkpoint)), rate(median(n.kill)), rate(median(n.restore)))
		}
	}
	for _, o := range table {
		if len(o.fork) > 0 {
			own := median(o.by[0].frozen)
			fmt.Fprintf(w, "%s: a fork of it takes %s ms, and it stands still for %s (%s)\n", o.name, ms(median(o.fork)), ms(own), ratio(own, median(o.fork)))
		}
	}
}

// The lines of a document between which record puts a table.
const (
	tableBegin = "<!-- bench: begin -->\n"
	tableEnd   = "<!-- bench: end -->\n"
)

// record puts a table into a document, in place of the one that is there.
func record(path, table string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: no place for a table (%s…%s)", path, strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	return os.WriteFile(path, []byte(before+tableBegin+"```\n"+table+"```\n"+tableEnd+after), 0o644)
}
