package rebuild

import (
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// cursor walks runs in ascending order of addresses.
type cursor struct {
	r    *fm.PageRuns
	i    int
	done uint64 // bytes of run i already taken
}

func newCursor(r *fm.PageRuns) *cursor { return &cursor{r: r} }

// next gives the first piece at or after start and before end.
func (c *cursor) peek(start, end uint64) (at, n, off uint64, ok bool) {
	for c.i < len(c.r.GetVaddr()) {
		v, l, o := c.r.GetVaddr()[c.i], c.r.GetPages()[c.i]*sys.PageSize, c.r.GetOff()[c.i]
		if v+l <= start {
			c.i++
			continue
		}
		if v >= end {
			return 0, 0, 0, false
		}
		if v < start {
			o += start - v
			l -= start - v
			v = start
		}
		if v+l > end {
			l = end - v
		}
		return v, l, o, true
	}
	return 0, 0, 0, false
}

// diff walks [start,end) of two lists of runs: write gets what only the first
// has or has otherwise, drop what only the second has. Without inherited the
// second counts as empty.
func diff(mine, theirs *cursor, start, end uint64, inherited bool, write func(at, n, off uint64) error, drop func(at, n uint64) error) error {
	for at := start; at < end; {
		ma, mn, mo, mok := mine.peek(at, end)
		var ta, tn, to uint64
		tok := false
		if inherited {
			ta, tn, to, tok = theirs.peek(at, end)
		}
		var err error
		switch {
		case !mok && !tok:
			return nil
		case mok && (!tok || ma < ta):
			n := mn
			if tok {
				n = min(n, ta-ma)
			}
			err = write(ma, n, mo)
			at = ma + n
		case tok && (!mok || ta < ma):
			n := tn
			if mok {
				n = min(n, ma-ta)
			}
			err = drop(ta, n)
			at = ta + n
		default: // both begin here
			n := min(mn, tn)
			if mo != to {
				err = write(ma, n, mo)
			}
			at = ma + n
		}
		if err != nil {
			return err
		}
	}
	return nil
}
