package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What only fermata does with memory: pages that come later, copies that share
// theirs, checkpoints that are kept in memory, many a second; and what the kernel
// asks for making memory copy-on-write.

// extra is such a measurement; it prints its own lines.
type extra struct {
	name string
	run  func(b *bench, name string) error
}

var extras = []extra{
	{"lazy 1 MiB", func(b *bench, n string) error { return b.lazily(n, 1) }},
	{"lazy 4 GiB", func(b *bench, n string) error { return b.lazily(n, 4<<10) }},
	{"lazy 8 GiB", func(b *bench, n string) error { return b.lazily(n, 8<<10) }},
	{"100 copies", (*bench).copies},
	{"ten a second", (*bench).rounds},
	{"copy-on-write 1 GiB", (*bench).protect},
}

// subject is a target that runs.
type subject struct {
	pid int
	out *os.File
	dir string
}

// subject starts a target whose output grows.
func (b *bench) subject(argv ...string) (_ *subject, err error) {
	s := &subject{}
	if s.dir, err = os.MkdirTemp(b.images, "run."); err != nil {
		return nil, err
	}
	if s.out, err = os.Create(filepath.Join(s.dir, "output")); err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	p, err := b.init.start(argv, "/", []*os.File{null, s.out, null}, true)
	if err != nil {
		return nil, err
	}
	s.pid = p.pid
	return s, advance(s.out, 0)
}

func (s *subject) end() error {
	if s == nil {
		return nil
	}
	s.out.Close()
	return errors.Join(endGroup(s.pid), os.RemoveAll(s.dir))
}

// fermata runs a command line and gives how long that took and its result.
func (b *bench) fermata(res any, args ...string) (time.Duration, error) {
	argv := append([]string{b.tools[0].(fermataTool).path}, args...)
	took, said, err := b.init.run(argv, "/")
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, said)
	}
	if res != nil {
		err = json.Unmarshal([]byte(said), res)
	}
	return took, err
}

func (b *bench) times(n int) int { return max(1, int(float64(n)*b.runs+0.5)) }

// fork measures a fork of so many MiB.
func (b *bench) fork(mib int) (time.Duration, error) {
	bin, err := b.compile("fork")
	if err != nil {
		return 0, err
	}
	_, said, err := b.init.run([]string{bin, strconv.Itoa(mib)}, "/")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(said), 10, 64)
	return time.Duration(n), err
}

// protect measures the ways to keep memory as it is while the program goes on.
func (b *bench) protect(name string) error {
	bin, err := b.compile("protect")
	if err != nil {
		return err
	}
	var all [4][]time.Duration
	for range b.times(5) {
		_, said, err := b.init.run([]string{bin, "1024"}, "/")
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		for i, f := range strings.Fields(said) {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil || i >= len(all) {
				return fmt.Errorf("it says %q", said)
			}
			all[i] = append(all[i], time.Duration(n))
		}
	}
	fork := median(all[0])
	fmt.Fprintf(b.out, "%-21s fork(2) %s ms; write protection by userfaultfd %s (%s), by two threads %s (%s); tracking %s (%s)\n", name, ms(fork),
		ms(median(all[1])), ratio(median(all[1]), fork), ms(median(all[2])), ratio(median(all[2]), fork), ms(median(all[3])), ratio(median(all[3]), fork))
	return nil
}

// lazily restores a program eagerly and lazily, in turns: the whole command until
// the program runs, and until all its memory is there.
func (b *bench) lazily(name string, mib int) error {
	bin, err := b.compile("memory")
	if err != nil {
		return err
	}
	s, err := b.subject(bin, strconv.Itoa(mib))
	defer func() { err = errors.Join(err, s.end()) }()
	if err != nil {
		return err
	}
	img := filepath.Join(s.dir, "saved")
	if _, err := b.fermata(nil, "checkpoint", "--kill", "--to", img, strconv.Itoa(s.pid)); err != nil {
		return err
	}
	var eager, begins, there []time.Duration
	for i := range b.times(5) {
		for _, lazy := range []bool{false, true} {
			if err := gone(s.pid); err != nil {
				return err
			}
			args := []string{"restore", "--detach", "--files=keep", img}
			if lazy {
				args = append(args, "--lazy")
			}
			began := time.Now()
			took, err := b.fermata(nil, args...)
			if err != nil {
				return err
			}
			switch {
			case !lazy:
				eager = append(eager, took)
			default:
				begins = append(begins, took)
				for len(handlers()) > 0 {
					time.Sleep(time.Millisecond)
				}
				there = append(there, time.Since(began))
			}
			if err := advance(s.out, size(s.out)); err != nil {
				return fmt.Errorf("restored: %w", err)
			}
			if err := endGroup(s.pid); err != nil {
				return err
			}
		}
		if b.verbose {
			fmt.Fprintf(b.out, "%s, run %d: eager %v, runs after %v, all there after %v\n", name, i+1, last(eager), last(begins), last(there))
		}
	}
	fmt.Fprintf(b.out, "%-21s the program runs after %s ms, all its memory is there after %s; restored eagerly: %s (ratio %s)\n",
		name, ms(median(begins)), ms(median(there)), ms(median(eager)), ratio(median(there), median(eager)))
	return err
}

// handlers gives the processes that bring pages.
func handlers() (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, p := range all {
		if c, err := os.ReadFile(p); err == nil && strings.HasPrefix(string(c), "fermata-lazy") {
			pids = append(pids, p)
		}
	}
	return pids
}

// pythonTarget has some 200 MiB of small objects.
const pythonTarget = `
import time
x = [(i, str(i)) for i in range(1200000)]
while True:
    print(len(x), flush=True)
    time.sleep(0.005)
`

// copies restores one copy and 101 of a program of python's: the difference is
// what a hundred take. Its private memory is compared with that of a restore.
func (b *bench) copies(name string) (err error) {
	s, err := b.subject("/usr/bin/python3", "-c", pythonTarget)
	defer func() { err = errors.Join(err, s.end()) }()
	if err != nil {
		return err
	}
	whole, err := private(s.pid)
	if err != nil {
		return err
	}
	img := filepath.Join(s.dir, "saved")
	if _, err := b.fermata(nil, "checkpoint", "--kill", "--to", img, strconv.Itoa(s.pid)); err != nil {
		return err
	}
	var each, first []time.Duration
	var own int64
	for range b.times(5) {
		var took [2]time.Duration
		for k, n := range []int{1, 101} {
			var r struct {
				Copies []struct {
					Init  int   `json:"init"`
					Roots []int `json:"roots"`
				} `json:"copies"`
			}
			if took[k], err = b.fermata(&r, "restore", "--detach", "--json", "--files=keep", "--copies", strconv.Itoa(n), img); err != nil {
				return err
			}
			var sum int64
			for _, c := range r.Copies {
				p, perr := private(c.Roots[0])
				err = errors.Join(err, perr)
				sum += p
			}
			own = sum / int64(len(r.Copies))
			for _, c := range r.Copies {
				err = errors.Join(err, unix.Kill(c.Init, unix.SIGKILL))
			}
			for _, c := range r.Copies {
				for unix.Kill(c.Roots[0], 0) == nil {
					time.Sleep(time.Millisecond)
				}
			}
			if err != nil {
				return err
			}
		}
		first, each = append(first, took[0]), append(each, (took[1]-took[0])/100)
		if b.verbose {
			fmt.Fprintf(b.out, "%s: one %v, each further %v\n", name, took[0], last(each))
		}
	}
	fmt.Fprintf(b.out, "%-21s of python3, %d MiB: the first %s ms, each further one %s ms; private memory of each %.1f MiB, %.1f %% of a restore's\n",
		name, whole>>20, ms(median(first)), ms(median(each)), float64(own)/(1<<20), 100*float64(own)/float64(whole))
	return nil
}

// private gives the memory that a process shares with nobody.
func private(pid int) (n int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "Private_Dirty:" || f[0] == "Private_Clean:") {
			k, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, err
			}
			n += k << 10
		}
	}
	return n, nil
}

// rounds lets a program of 64 MiB work, alone and with ten checkpoints a second
// into memory, in turns, and compares how much it gets done; and sets it back.
func (b *bench) rounds(name string) (err error) {
	const every = 100 * time.Millisecond
	bin, err := b.compile("dirty")
	if err != nil {
		return err
	}
	s, err := b.subject(bin, "64")
	defer func() { err = errors.Join(err, s.end()) }()
	if err != nil {
		return err
	}
	var frozen, took, alone, beside []time.Duration // the last two: for a unit of work
	prefix, serial := fmt.Sprintf("mem:bench-%d-", os.Getpid()), 0
	name1 := func(n int) string { return prefix + strconv.Itoa(n) }
	defer func() {
		if serial > 0 {
			_, rerr := b.fermata(nil, "remove", name1(serial))
			err = errors.Join(err, rerr)
		}
	}()
	work := func(d time.Duration, also func() error) (time.Duration, error) {
		from, began := done(s.out), time.Now()
		for i := 1; time.Since(began) < d; i++ {
			if err := also(); err != nil {
				return 0, err
			}
			time.Sleep(time.Until(began.Add(time.Duration(i) * every)))
		}
		n := done(s.out) - from
		if n <= 0 {
			return 0, fmt.Errorf("the target does no work")
		}
		return time.Since(began) / time.Duration(n), nil
	}
	for range b.times(6) {
		d, err := work(2*time.Second, func() error { return nil })
		if err != nil {
			return err
		}
		alone = append(alone, d)
		d, err = work(2*time.Second, func() error {
			var r struct {
				Frozen time.Duration `json:"frozen_ns"`
			}
			t, err := b.fermata(&r, "checkpoint", "--json", "--to", name1(serial+1), strconv.Itoa(s.pid))
			if err != nil {
				return err
			}
			serial++
			frozen, took = append(frozen, r.Frozen), append(took, t)
			if serial > 1 {
				_, err = b.fermata(nil, "remove", name1(serial-1))
			}
			return err
		})
		if err != nil {
			return err
		}
		beside = append(beside, d)
	}
	back, err := b.fermata(nil, "rollback", "--files=keep", name1(serial))
	if err != nil {
		return err
	}
	if err := advance(s.out, size(s.out)); err != nil {
		return fmt.Errorf("set back: %w", err)
	}
	slower := 100 * (float64(median(beside))/float64(median(alone)) - 1)
	fmt.Fprintf(b.out, "%-21s 64 MiB, 1 %% of it written between two checkpoints into memory: stands still for %s ms, a checkpoint takes %s, the program is slower by %.1f %%; rollback %s ms\n",
		name, ms(median(frozen)), ms(median(took)), slower, ms(back))
	return nil
}

// done reads the last number of a target's output.
func done(f *os.File) int64 {
	text := make([]byte, 64)
	n, _ := f.ReadAt(text, max(0, size(f)-int64(len(text))))
	lines := strings.Split(strings.TrimSpace(string(text[:n])), "\n")
	v, _ := strconv.ParseInt(lines[len(lines)-1], 10, 64)
	return v
}
