package apps

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
)

// xz -T2 at work on a large file: worker threads that wait for each other on
// condition variables, a file read and a file written through descriptors with
// offsets.
var _ = register(&App{
	Name:    "xz",
	Needs:   []Need{{"xz", "xz-utils"}},
	Command: []string{"xz", "-T2", "-5", "--block-size=256KiB", "--keep", "large"},
	Prepare: func(s *stage) { s.write("large", text(8<<20)) },
	Progress: func(s *stage) int {
		// Output in KiB: it gets a block at a time.
		st, err := os.Stat(filepath.Join(s.Dir, "large.xz"))
		if err != nil {
			return 0
		}
		return int(st.Size() >> 10)
	},
	Result: func(s *stage) string {
		back := sha256.Sum256([]byte(s.command("xz", "-dc", "large.xz")))
		return fmt.Sprintf("%x\n%x", sha256.Sum256([]byte(s.read("large.xz"))), back)
	},
})

// text makes n bytes that compress about as well as prose.
func text(n int) []byte {
	rnd := rand.New(rand.NewSource(1))
	words := make([]string, 5000)
	for i := range words {
		w := make([]byte, 2+rnd.Intn(9))
		for j := range w {
			w[j] = "etaoinshrdlucmfwypvbgkqjxz"[min(rnd.Intn(26), rnd.Intn(26))]
		}
		words[i] = string(w)
	}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[min(rnd.Intn(len(words)), rnd.Intn(len(words)))])
		b.WriteByte(" \n"[rnd.Intn(12)/11])
	}
	return b.Bytes()[:n]
}
