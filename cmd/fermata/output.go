package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata"
)

// writeJSON writes one document.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// size formats a number of bytes.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit])
}

// short formats a duration with three digits or so.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// plural gives "1 task" or "2 tasks".
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if one == "process" {
		return fmt.Sprintf("%d processes", n)
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// showNotes tells the user what the library noted.
func showNotes(w io.Writer, notes []string) {
	for _, n := range notes {
		fmt.Fprintf(w, "fermata: note: %s\n", clean(n))
	}
}

// terminal gives w's descriptor when it is a terminal.
func terminal(w io.Writer) (fd int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile {
		return -1, false
	}
	fd = int(f.Fd())
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return fd, err == nil
}

// progress draws one line on a terminal, and nothing anywhere else.
type progress struct {
	w     io.Writer
	start time.Time
	last  time.Time
	width int
	drawn bool
}

// Operations shorter than quiet draw nothing; a line is drawn at most every
// tick.
const (
	quiet = 200 * time.Millisecond
	tick  = 100 * time.Millisecond
)

// newProgress gives a progress line, nil when w is no terminal.
func newProgress(w io.Writer) *progress {
	fd, ok := terminal(w)
	if !ok {
		return nil
	}
	p := &progress{w: w, start: time.Now(), width: 80}
	if ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
		p.width = int(ws.Col)
	}
	return p
}

// callback is what the library's options take; nil for no terminal.
func (p *progress) callback() func(fermata.Progress) {
	if p == nil {
		return nil
	}
	return p.draw
}

// draw shows one report.
func (p *progress) draw(r fermata.Progress) {
	now := time.Now()
	if now.Sub(p.start) < quiet || now.Sub(p.last) < tick {
		return
	}
	p.last, p.drawn = now, true
	line := r.Phase
	switch {
	case inBytes(r.Phase) && r.Total > 0:
		line += fmt.Sprintf("  %s of %s (%d %%)", size(r.Done), size(r.Total), r.Done*100/r.Total)
	case inBytes(r.Phase):
		line += "  " + size(r.Done)
	case r.Total > 0:
		line += fmt.Sprintf("  %d of %d", r.Done, r.Total)
	case r.Done > 0:
		line += fmt.Sprintf("  %d", r.Done)
	}
	line += "  " + now.Sub(p.start).Round(tick).String()
	if len(line) >= p.width {
		line = line[:max(p.width-1, 0)]
	}
	// Back to the first column, the text, and the rest of the line cleared.
	fmt.Fprintf(p.w, "\r%s\x1b[K", line)
}

// inBytes tells the phases that count bytes from those that count tasks.
func inBytes(phase string) bool {
	return phase == "memory" || phase == "verify" || phase == "fill"
}

// done clears the line.
func (p *progress) done() {
	if p != nil && p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}
