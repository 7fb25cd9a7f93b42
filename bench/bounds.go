package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// bounds measures what a checkpoint of n bytes cannot be faster than, with one
// thread: copying them from memory to memory that is there already, and writing
// them to a new file in dir. (A file in the page cache: nobody waits for the
// disk here, and neither tool does.)
func bounds(dir string, n int) (cp, write time.Duration, err error) {
	piece := min(n, 1<<30)
	anon := func(n int) ([]byte, error) {
		return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	}
	from, err := anon(n)
	if err != nil {
		return 0, 0, fmt.Errorf("%d bytes to copy: %w", n, err)
	}
	defer unix.Munmap(from)
	to, err := anon(piece)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Munmap(to)
	for i := 0; i < n; i += 4096 { // no two pages are the same one
		from[i] = byte(i >> 12)
	}
	began := time.Now()
	for i := 0; i < n; i += piece {
		copy(to, from[i:min(i+piece, n)])
	}
	cp = time.Since(began)

	path := filepath.Join(dir, "bound")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, 0, err
	}
	defer os.Remove(path)
	defer f.Close()
	began = time.Now()
	for i := 0; i < n; i += 1 << 20 {
		if _, err := f.Write(from[i:min(i+1<<20, n)]); err != nil {
			return 0, 0, err
		}
	}
	return cp, time.Since(began), nil
}
