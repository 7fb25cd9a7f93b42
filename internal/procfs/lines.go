package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"syscall"
)

// piece is how much of a long file is read before it is parsed.
const piece = 128 << 10

var pieces = sync.Pool{New: func() any { b := make([]byte, piece); return &b }}

// readLines reads a file that can be megabytes long (10,000 areas of smaps are
// 8 MiB) and gives it to take in pieces of whole lines, in order, which take must
// not keep. Of a long one, a piece is parsed while the kernel writes the next.
func readLines(pid, tid int, name string, take func([]byte) error) error {
	p := path(pid, tid, name)
	fd, err := openRead(p, 0)
	if err != nil {
		return taskError(pid, tid, p, err)
	}
	defer syscall.Close(fd)
	var parsing sync.WaitGroup
	var bad error
	defer parsing.Wait()
	buf := pieces.Get().(*[]byte)
	defer func() { pieces.Put(buf) }()
	for rest := 0; ; {
		n, err := fill(fd, (*buf)[rest:])
		if err != nil {
			return taskError(pid, tid, p, err)
		}
		b := (*buf)[:rest+n]
		end := rest+n < piece
		whole := b
		if !end {
			if whole = b[:bytes.LastIndexByte(b, '\n')+1]; len(whole) == 0 {
				return fmt.Errorf("%s: %w", p, badLine(name, b[:64]))
			}
		}
		parsing.Wait()
		if err := bad; err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if end {
			if err := take(whole); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			return nil
		}
		next := pieces.Get().(*[]byte)
		rest = copy(*next, b[len(whole):])
		full := buf
		parsing.Go(func() {
			bad = take(whole)
			pieces.Put(full)
		})
		buf = next
	}
}

// fill reads until b is full or the file ends.
func fill(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		m, err := syscall.Read(fd, b[n:])
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}
