package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// testcase is a target with one respect in which it is large.
type testcase struct {
	name   string
	target string // targets/NAME.c
	count  int    // its argument
	runs   int
	bytes  int // of memory, when that is what it is about
}

var cases = []testcase{
	{name: "small program", target: "memory", count: 1, runs: 20},
	{name: "1,000 processes", target: "processes", count: 1000, runs: 5},
	{name: "1,000 threads", target: "threads", count: 1000, runs: 5},
	{name: "10,000 descriptors", target: "descriptors", count: 10000, runs: 5},
	{name: "10,000 memory areas", target: "areas", count: 10000, runs: 5},
	{name: "1 GiB", target: "memory", count: 1 << 10, runs: 5, bytes: 1 << 30},
	{name: "1 GiB, huge pages", target: "hugepages", count: 1 << 10, runs: 5, bytes: 1 << 30},
	{name: "1 GiB in 100 processes", target: "workers", count: 1 << 10, runs: 3, bytes: 1 << 30},
	{name: "4 GiB", target: "memory", count: 4 << 10, runs: 3, bytes: 4 << 30},
	{name: "4 GiB, huge pages", target: "hugepages", count: 4 << 10, runs: 3, bytes: 4 << 30},
	{name: "4 GiB, all written", target: "rewrites", count: 4 << 10, runs: 3, bytes: 4 << 30},
}

// numbers are the measurements of one tool, one entry a run.
type numbers struct {
	frozen, checkpoint, kill, restore []time.Duration
	size                              int64 // of the last checkpoint
}

// outcome is what a case gave.
type outcome struct {
	testcase
	by          []numbers // in the order of the tools
	copy, write []time.Duration
	fork        []time.Duration // of a program with as much memory, in small pages
}

// measure runs a case with every tool in turns.
func (b *bench) measure(c testcase) (*outcome, error) {
	bin, err := b.compile(c.target)
	if err != nil {
		return nil, err
	}
	o := &outcome{testcase: c, by: make([]numbers, len(b.tools))}
	for i := range max(1, int(float64(c.runs)*b.runs+0.5)) {
		if c.bytes > 0 {
			cp, w, err := bounds(b.images, c.bytes)
			if err != nil {
				return nil, err
			}
			o.copy, o.write = append(o.copy, cp), append(o.write, w)
			if c.target == "memory" {
				d, err := b.fork(c.count)
				if err != nil {
					return nil, err
				}
				o.fork = append(o.fork, d)
			}
		}
		for j, t := range b.tools {
			n := &o.by[j]
			if err := b.once(c, bin, t, n); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name(), err)
			}
			if b.verbose {
				fmt.Fprintf(b.out, "%s, run %d, %s: frozen %v, checkpoint %v, and kill %v, restore %v\n", c.name, i+1, t.name(), last(n.frozen), last(n.checkpoint), last(n.kill), last(n.restore))
			}
		}
	}
	return o, nil
}

func last(d []time.Duration) time.Duration { return d[len(d)-1] }

// compile builds a target.
func (b *bench) compile(name string) (string, error) {
	bin := filepath.Join(b.top, name)
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	src, err := source(name)
	if err != nil {
		return "", err
	}
	return bin, b.init.prepare("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", bin, src)
}

// source finds a target's source from the module's root or this directory.
func source(name string) (string, error) {
	for _, dir := range []string{"bench/targets", "targets"} {
		if src := filepath.Join(dir, name+".c"); exists(src) {
			return src, nil
		}
	}
	return "", fmt.Errorf("targets/%s.c: run this from the module's root", name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// once starts a target, saves it twice, restores it and ends it.
func (b *bench) once(c testcase, bin string, t tool, n *numbers) (err error) {
	dir, err := os.MkdirTemp(b.images, "run.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return err
	}
	defer out.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	target, err := b.init.start([]string{bin, strconv.Itoa(c.count)}, "/", []*os.File{null, out, null}, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, endGroup(target.pid)) }()
	if err := advance(out, 0); err != nil {
		return fmt.Errorf("the target did not start: %w", err)
	}

	img := filepath.Join(dir, "left")
	d, frozen, err := b.command(t.checkpoint(target.pid, img, false), img, t)
	if err != nil {
		return err
	}
	n.checkpoint, n.frozen = append(n.checkpoint, d), append(n.frozen, frozen)
	if err := advance(out, size(out)); err != nil {
		return fmt.Errorf("left running: %w", err)
	}
	if n.size, err = sizeOf(img); err != nil {
		return err
	}
	if err := os.RemoveAll(img); err != nil {
		return err
	}

	img = filepath.Join(dir, "killed")
	if d, _, err = b.command(t.checkpoint(target.pid, img, true), img, t); err != nil {
		return err
	}
	n.kill = append(n.kill, d)
	if err := gone(target.pid); err != nil {
		return err
	}

	if d, _, err = b.command(t.restore(img), "", t); err != nil {
		return err
	}
	n.restore = append(n.restore, d)
	if err := advance(out, size(out)); err != nil {
		return fmt.Errorf("restored: %w", err)
	}
	return nil
}

// command runs one command line of a tool and times it; img is where a
// checkpoint was made, whose frozen time is asked for.
func (b *bench) command(argv []string, img string, t tool) (took, frozen time.Duration, err error) {
	took, said, err := b.init.run(argv, "/")
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, t.explain(argv, said))
	}
	if img != "" {
		frozen, err = t.frozen(img, said)
	}
	return took, frozen, err
}

// advance waits until the output file is longer than that.
func advance(out *os.File, from int64) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if size(out) > from {
			return nil
		}
	}
	return fmt.Errorf("its output does not grow")
}

func size(f *os.File) int64 {
	st, err := f.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

// gone waits until no process of a session is left.
func gone(session int) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if unix.Kill(-session, 0) == unix.ESRCH {
			return nil
		}
	}
	return fmt.Errorf("processes of group %d are still there", session)
}

// endGroup kills a process group and waits until it is gone.
func endGroup(group int) error {
	if err := unix.Kill(-group, unix.SIGKILL); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return err
	}
	return gone(group)
}

func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			n += st.Size()
		}
		return err
	})
	return n, err
}
