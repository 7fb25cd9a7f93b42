package memory

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

const subjectEnv = "FERMATA_MEMORY_SUBJECT"

// TestMain: started anew with a number of pages in its environment, this program
// has that much memory and says where.
func TestMain(m *testing.M) {
	n, err := strconv.Atoi(os.Getenv(subjectEnv))
	if err != nil {
		os.Exit(m.Run())
	}
	mem := anonymous(n * sys.PageSize)
	for i := range n {
		copy(mem[i*sys.PageSize:], fmt.Sprint("page ", i))
	}
	fmt.Println(uintptr(unsafe.Pointer(&mem[0])))
	bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(0)
}

func anonymous(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil {
		panic(err)
	}
	if err := unix.Madvise(b, unix.MADV_POPULATE_WRITE); err != nil {
		panic(err)
	}
	return b
}

// subject starts a process with so many pages of memory and gives it and where
// they are.
func subject(t testing.TB, pages int) (pid int, at uint64) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprint(subjectEnv, "=", pages))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if at, err = strconv.ParseUint(strings.TrimSpace(line), 10, 64); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, at
}

// noted notes all pages of a subject.
func noted(t testing.TB, pid int, at uint64, pages int) *Outgoing {
	t.Helper()
	p, err := OpenPagemap(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o, runs := NewOutgoing(), NewRuns()
	t.Cleanup(o.Close)
	err = p.Own([]Range{{at, at + uint64(pages)*sys.PageSize}}, func(_ int, start, end uint64, _ bool) error {
		return o.AddRun(p, start, end, false, runs)
	})
	if err != nil || o.Total() != uint64(pages)*sys.PageSize {
		t.Fatalf("%d pages noted as %d bytes: %v", pages, o.Total(), err)
	}
	return o
}

// TestTake: several threads bring what one would have brought, and the error of
// any is the result.
func TestTake(t *testing.T) {
	for _, pages := range []int{1, 511, 512, 513, 5000} {
		pid, at := subject(t, pages)
		o := noted(t, pid, at, pages)
		b := make([]byte, o.Total())
		if err := o.Take(b); err != nil {
			t.Fatal(err)
		}
		for i := range pages {
			if want := append([]byte(fmt.Sprint("page ", i)), 0); !bytes.HasPrefix(b[i*sys.PageSize:], want) {
				t.Fatalf("page %d of %d: %q", i, pages, b[i*sys.PageSize:][:20])
			}
		}
		if err := o.Take(make([]byte, o.Total()+sys.PageSize)); err == nil {
			t.Errorf("%d pages: more than there is", pages)
		}
	}
}

// BenchmarkTake copies 1 GiB out of another process into memory that is there,
// and beside it what two threads reach that do nothing but process_vm_readv into
// a warm buffer.
func BenchmarkTake(b *testing.B) {
	const n = 1 << 30
	pid, at := subject(b, n/sys.PageSize)
	o := noted(b, pid, at, n/sys.PageSize)
	to := anonymous(n)
	defer unix.Munmap(to)
	b.Run("take", func(b *testing.B) {
		b.SetBytes(n)
		for b.Loop() {
			if err := o.Take(to); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bound", func(b *testing.B) {
		b.SetBytes(n)
		var buf [2][]byte
		for i := range buf {
			buf[i] = anonymous(128 << 10)
		}
		for b.Loop() {
			var wg sync.WaitGroup
			for i := range buf {
				wg.Go(func() {
					piece := uint64(len(buf[i]))
					for from := uint64(i) * n / 2; from < uint64(i+1)*n/2; from += piece {
						if _, err := sys.ReadMemV(pid, buf[i], []sys.Range{{Addr: at + from, Len: piece}}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		}
	})
}
