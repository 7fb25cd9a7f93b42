package kmem

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// TestAreaIterator: the iterator gives the areas that /proc shows.
func TestAreaIterator(t *testing.T) {
	a, err := OpenAreas()
	if err != nil {
		if os.Geteuid() == 0 && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	defer a.Close()
	parent := os.Getppid() // which stands still, or nearly so
	for try := 0; ; try++ {
		all, err := a.Of(parent)
		if err != nil {
			t.Fatal(err)
		}
		maps, err := procfs.ReadMaps(parent)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(maps); n > 0 && maps[n-1].Path == "[vsyscall]" {
			maps = maps[:n-1] // of no address space
		}
		same := len(all) == len(maps)
		for i := 0; same && i < len(all); i++ {
			same = all[i].Start == maps[i].Start && all[i].End == maps[i].End && all[i].Flags&1 != 0 == maps[i].Read
		}
		if same && len(all) > 5 {
			break
		}
		if try == 20 {
			t.Fatalf("%d areas, /proc shows %d", len(all), len(maps))
		}
	}
	if all, err := a.Of(1 << 22); err == nil && len(all) > 0 {
		t.Errorf("%d areas of a thread that does not exist", len(all))
	}
}

func BenchmarkAreaIterator(b *testing.B) {
	for range b.N {
		a, err := OpenAreas()
		if err != nil {
			b.Fatal(err)
		}
		a.Close()
	}
}
