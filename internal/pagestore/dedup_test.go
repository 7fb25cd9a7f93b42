package pagestore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestDedup writes contents with pages that are equal to others, in long runs and
// single, before and behind them, in both files: each is stored once, and every
// page is found again.
func TestDedup(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	for _, n := range []int{1, 3, 300, 6000} {
		for _, how := range []string{"none", "fast"} {
			for _, memory := range []bool{true, false} {
				t.Run(fmt.Sprint(n, how, memory), func(t *testing.T) {
					content, runs := pages(rnd, n), cut(rnd, n)
					for range n / 40 {
						k := 1 + rnd.IntN(min(n, 400)/2)
						from, to := rnd.IntN(n-k+1), rnd.IntN(n-k+1)
						copy(content[to*page:(to+k)*page], content[from*page:])
					}
					different := map[[page]byte]bool{}
					for i := range n {
						different[[page]byte(content[i*page:])] = true
					}
					delete(different, [page]byte{})
					meant := clone(runs)
					o := Options{Dedup: true}
					var err error
					if o.Compression, err = ParseCompression(how); err != nil {
						t.Fatal(err)
					}
					dir := t.TempDir()
					var w *Written
					if memory {
						w, err = WriteMemory(dir, content, o)
					} else {
						w, err = Write(dir, uint64(len(content)), func(off uint64, b []byte) error { copy(b, content[off:]); return nil }, o)
					}
					if err != nil {
						t.Fatal(err)
					}
					files, _ := w.Settle(nil, runs)
					s, err := Open(dir, files)
					if err != nil {
						t.Fatal(err)
					}
					defer s.Close()
					like(t, s, runs, meant, content)
					if s.Size() != uint64(len(different))*page || s.Size()+w.Zeros+w.Equal != uint64(len(content)) {
						t.Errorf("%d bytes for %d different pages; %d of zeros, %d equal, of %d", s.Size(), len(different), w.Zeros, w.Equal, len(content))
					}
				})
			}
		}
	}
}

// TestDedupCollision: pages of one hash that are not equal are all written.
func TestDedupCollision(t *testing.T) {
	content := pages(rand.New(rand.NewPCG(13, 14)), 500)
	table := newPageTable(func(off uint64, b []byte) error { copy(b, content[off:]); return nil })
	w := &writer{o: &Options{}, seen: table}
	// As if the first page had been seen with the hash of every other.
	if _, err := w.equal(0, content[:Chunk]); err != nil {
		t.Fatal(err)
	}
	for i := range table.shards {
		for h := range table.shards[i].off {
			table.shards[i].off[h] = 0
		}
	}
	clear(w.to[:])
	any, err := w.equal(1, content[page:page+Chunk])
	for i, to := range w.to {
		if to != 0 && string(content[(i+1)*page:(i+2)*page]) != string(content[:page]) {
			t.Fatalf("page %d is taken for the first: %v, %v", i+1, any, err)
		}
	}
	boom := errors.New("boom")
	table.src = func(uint64, []byte) error { return boom }
	clear(w.to[:])
	if _, err := w.equal(2, content[page:page+Chunk]); err != boom {
		t.Errorf("the source fails: %v", err)
	}
}
