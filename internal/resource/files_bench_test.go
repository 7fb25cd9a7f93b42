package resource

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/procfs"
)

const manyFiles = 10000

// TestFilesAlike: among many descriptions that look alike, those that are one
// are found.
func TestFilesAlike(t *testing.T) {
	c := startChild(t, "alike").collect()
	if n := len(c.dump.files); n != 1000 {
		t.Fatalf("%d descriptions, not 1000", n)
	}
	ids := map[int]uint32{}
	for _, e := range c.table {
		ids[int(e.GetFd())] = e.GetId()
	}
	for i := range 1000 {
		if a, b := ids[10+i], ids[1010+(i*7)%1000]; a != b || a == 0 {
			t.Fatalf("%d is file %d, its duplicate %d", 10+i, a, b)
		}
	}
}

func init() {
	raise := func() {
		must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: manyFiles + 100, Max: manyFiles + 100}))
	}
	fileChildren["many-files"] = func() {
		raise()
		for i := range manyFiles {
			as(10+i, open(fmt.Sprintf("f%d", i), unix.O_RDWR|unix.O_CREAT), nil)
		}
	}
	fileChildren["alike"] = func() {
		raise()
		for i := range 1000 {
			as(10+i, open("/dev/null", unix.O_RDWR), nil)
		}
		for i := range 1000 {
			must(unix.Dup3(10+i, 1010+(i*7)%1000, 0))
		}
	}
	fileChildren["many-one"] = func() {
		raise()
		for i := range manyFiles {
			as(10+i, open("/dev/null", unix.O_RDWR), nil)
		}
	}
}

// benchChild starts a program with 10,000 descriptors.
func benchChild(b *testing.B, name string) *child {
	t := &testing.T{}
	dir := b.TempDir()
	c := &child{t: t, dir: dir}
	must(c.run(name, dir, nil, b.TempDir()))
	b.Cleanup(c.kill)
	return c
}

func BenchmarkCollectFiles(b *testing.B) {
	for _, name := range []string{"many-files", "many-one"} {
		b.Run(name, func(b *testing.B) {
			c := benchChild(b, name)
			began := cpuTime()
			for b.Loop() {
				d := NewDump(image.New(), &fault.Refusals{})
				if _, err := collectFrom10(d, c.pid); err != nil {
					b.Fatal(err)
				}
				must(d.Complete())
				d.Close()
			}
			b.ReportMetric((cpuTime()-began)/float64(b.N), "cpu-ms/op")
		})
	}
}

func BenchmarkOpenFiles(b *testing.B) {
	for _, name := range []string{"many-files", "many-one"} {
		b.Run(name, func(b *testing.B) {
			c := benchChild(b, name)
			d := NewDump(image.New(), &fault.Refusals{})
			_, err := collectFrom10(d, c.pid)
			must(err)
			must(d.Complete())
			enc, err := d.Image.Encode()
			must(err)
			d.Close()
			began := cpuTime()
			for b.Loop() {
				im, err := image.Decode(enc)
				must(err)
				r, err := NewRestore(im, &fault.Refusals{})
				must(err)
				must(r.Check())
				must(r.Refuse.Err())
				must(r.OpenAll())
				b.StopTimer()
				r.Close()
				b.StartTimer()
			}
			b.ReportMetric((cpuTime()-began)/float64(b.N), "cpu-ms/op")
		})
	}
}

// collectFrom10 is Table for the descriptors from 10 on: the Go runtime of the
// program opens and closes some below.
func collectFrom10(d *Dump, pid int) (int, error) {
	fds, err := procfs.ReadFDs(pid)
	if err != nil {
		return 0, err
	}
	for _, fd := range fds {
		if fd < 10 {
			continue
		}
		if _, _, err := d.file(pid, fd, &FDState{}, nil); err != nil {
			return 0, err
		}
	}
	return len(fds), nil
}

// cpuTime gives the processor time of this process in milliseconds: what a busy
// machine does not change.
func cpuTime() float64 {
	var u unix.Rusage
	must(unix.Getrusage(unix.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
}
