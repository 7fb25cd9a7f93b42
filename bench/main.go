// Command bench measures checkpoint and restore of small C programs that are
// large in one respect each, and prints a table.
//
// Every number is the wall time of a whole command, from its start until it has
// ended, taken by the parent; only the time for which the target stood still is
// what the tool says of itself. With CRIU=path the same is done with CRIU, run
// by run in turns, and the table has the ratio of the medians. What bounds a
// checkpoint of much memory is measured in the same run: copying as many bytes
// by one thread, and writing them to a new file of the same file system.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fermata-cr/fermata/internal/inherited"
)

func main() {
	var (
		tool = flag.String("fermata", os.Getenv("FERMATA"), "the fermata command to measure (default: built from this module)")
		criu = flag.String("criu", os.Getenv("CRIU"), "the CRIU command to compare with (default: none)")
		dir  = flag.String("dir", "", "directory for checkpoints; its file system is part of what is measured (default: the temporary directory)")
		runs = flag.Float64("runs", 1, "factor to the number of runs of each case")
		only = flag.String("only", "", "comma separated parts of the names of the cases to run (default: all)")
		list = flag.Bool("v", false, "print every run")
		keep = flag.String("record", "", "also put the table into this `document`, in place of the one that is there")
	)
	flag.Parse()
	if flag.NArg() > 0 {
		fatal(fmt.Errorf("unexpected argument %q", flag.Arg(0)))
	}
	if os.Geteuid() != 0 {
		fatal(fmt.Errorf("root is needed to restore programs with the pids they had"))
	}
	var text strings.Builder
	b := &bench{out: io.MultiWriter(os.Stdout, &text), runs: *runs, verbose: *list}
	if _, err := b.run(*tool, *criu, *dir, *only); err != nil {
		fatal(err)
	}
	if *keep != "" {
		if err := record(*keep, text.String()); err != nil {
			fatal(err)
		}
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// bench is one run of the whole.
type bench struct {
	out     io.Writer
	runs    float64
	verbose bool
	top     string // everything temporary
	images  string // where checkpoints are written
	tools   []tool
	init    *reaper
}

func (b *bench) run(fermata, criu, dir, only string) (table []*outcome, err error) {
	if err := inherited.Drop(); err != nil {
		return nil, err
	}
	if b.top, err = os.MkdirTemp("", "fermata-bench."); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.top)
	if dir == "" {
		dir = b.top
	}
	if b.images, err = os.MkdirTemp(dir, "fermata-bench."); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.images)
	if b.init, err = newReaper(); err != nil {
		return nil, err
	}
	if fermata == "" {
		fermata = filepath.Join(b.top, "fermata")
		if err := b.init.prepare("env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-o", fermata, "github.com/fermata-cr/fermata/cmd/fermata"); err != nil {
			return nil, err
		}
	}
	if fermata, err = command(fermata); err != nil {
		return nil, err
	}
	b.tools = append(b.tools, fermataTool{fermata})
	if criu != "" {
		if criu, err = command(criu); err != nil {
			return nil, err
		}
		b.tools = append(b.tools, criuTool{criu})
	}
	if err := b.describe(); err != nil {
		return nil, err
	}
	for _, c := range cases {
		if !wanted(c.name, only) {
			continue
		}
		o, err := b.measure(c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		table = append(table, o)
	}
	if len(table) > 0 {
		b.print(table)
	}
	for _, x := range extras {
		if wanted(x.name, only) {
			if err := x.run(b, x.name); err != nil {
				return nil, fmt.Errorf("%s: %w", x.name, err)
			}
		}
	}
	return table, nil
}

// command finds a command as a shell would; it is run from another directory.
func command(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

func wanted(name, only string) bool {
	for _, o := range strings.Split(only, ",") {
		if strings.Contains(name, o) {
			return true
		}
	}
	return false
}
