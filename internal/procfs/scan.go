package procfs

import "bytes"

// scanner walks over one line (or one small file) of kernel text. A failed
// method sets bad, which stays set; values read after that mean nothing. So a
// parser reads all its fields and looks at bad once.
type scanner struct {
	b   []byte
	i   int
	bad bool
}

// done says that nothing is left but blanks and newlines.
func (s *scanner) done() bool {
	for j := s.i; j < len(s.b); j++ {
		if c := s.b[j]; c != ' ' && c != '\t' && c != '\n' {
			return false
		}
	}
	return true
}

// blanks skips spaces and tabs.
func (s *scanner) blanks() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t') {
		s.i++
	}
}

// lit demands the byte c.
func (s *scanner) lit(c byte) {
	if s.i >= len(s.b) || s.b[s.i] != c {
		s.bad = true
		return
	}
	s.i++
}

// try takes c if it comes next.
func (s *scanner) try(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// prefix takes p if it comes next.
func (s *scanner) prefix(p string) bool {
	if len(s.b)-s.i >= len(p) && string(s.b[s.i:s.i+len(p)]) == p {
		s.i += len(p)
		return true
	}
	return false
}

// word takes what comes up to the next space, tab, newline or end; it must not
// be empty. The result is part of the buffer.
func (s *scanner) word() []byte {
	j := s.i
	for j < len(s.b) && s.b[j] != ' ' && s.b[j] != '\t' && s.b[j] != '\n' {
		j++
	}
	w := s.b[s.i:j]
	if len(w) == 0 {
		s.bad = true
	}
	s.i = j
	return w
}

// until takes what comes before c, and c itself.
func (s *scanner) until(c byte) []byte {
	j := bytes.IndexByte(s.b[s.i:], c)
	if j < 0 {
		s.bad = true
		return nil
	}
	w := s.b[s.i : s.i+j]
	s.i += j + 1
	return w
}

// dec takes an unsigned decimal number.
func (s *scanner) dec() uint64 {
	const most = ^uint64(0)
	start, v := s.i, uint64(0)
	for s.i < len(s.b) {
		d := uint64(s.b[s.i] - '0')
		if d > 9 {
			break
		}
		if v > most/10 || v*10 > most-d {
			s.bad = true
		}
		v = v*10 + d
		s.i++
	}
	if s.i == start {
		s.bad = true
	}
	return v
}

// sdec takes a decimal number that may be negative.
func (s *scanner) sdec() int64 {
	neg := s.try('-')
	v := s.dec()
	if neg {
		if v > 1<<63 {
			s.bad = true
		}
		return -int64(v)
	}
	if v > 1<<63-1 {
		s.bad = true
	}
	return int64(v)
}

// int takes a decimal number of the kernel's type int.
func (s *scanner) int() int {
	v := s.sdec()
	if v != int64(int32(v)) {
		s.bad = true
	}
	return int(v)
}

// dec32 takes an unsigned decimal number of 32 bits.
func (s *scanner) dec32() uint32 { return s.narrow(s.dec()) }

// hex takes a hexadecimal number without 0x.
func (s *scanner) hex() uint64 {
	start, v := s.i, uint64(0)
	for s.i < len(s.b) {
		d := hexDigit[s.b[s.i]]
		if d < 0 {
			break
		}
		if v>>60 != 0 {
			s.bad = true
		}
		v = v<<4 | uint64(d)
		s.i++
	}
	if s.i == start {
		s.bad = true
	}
	return v
}

// hex32 takes a hexadecimal number of 32 bits.
func (s *scanner) hex32() uint32 { return s.narrow(s.hex()) }

// hex0x takes a hexadecimal number that begins with 0x.
func (s *scanner) hex0x() uint64 {
	if !s.prefix("0x") {
		s.bad = true
	}
	return s.hex()
}

// oct takes an octal number.
func (s *scanner) oct() uint64 {
	start, v := s.i, uint64(0)
	for s.i < len(s.b) {
		d := uint64(s.b[s.i] - '0')
		if d > 7 {
			break
		}
		if v>>61 != 0 {
			s.bad = true
		}
		v = v<<3 | d
		s.i++
	}
	if s.i == start {
		s.bad = true
	}
	return v
}

func (s *scanner) narrow(v uint64) uint32 {
	if v>>32 != 0 {
		s.bad = true
	}
	return uint32(v)
}

// hexDigit gives the value of a hexadecimal digit, -1 for other bytes; the
// kernel prints small letters only.
var hexDigit = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i := range 10 {
		t['0'+i] = int8(i)
	}
	for i := range 6 {
		t['a'+i] = int8(10 + i)
	}
	return t
}()

// cutLine splits off the first line, without its newline.
func cutLine(b []byte) (line, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// cutKey splits "Key:<blanks>value<blanks>"; ok is false without a colon.
func cutKey(line []byte) (key, value []byte, ok bool) {
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return nil, nil, false
	}
	return line[:i], trimBlanks(line[i+1:]), true
}

// trimBlanks removes spaces and tabs at both ends.
func trimBlanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// unescapeOctal undoes the kernel's \ooo escapes (mangle_path, seq_escape) into
// a new string. A backslash without three octal digits stays.
func unescapeOctal(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && b[i+1]-'0' < 4 && b[i+2]-'0' < 8 && b[i+3]-'0' < 8 {
			out = append(out, (b[i+1]-'0')<<6|(b[i+2]-'0')<<3|(b[i+3]-'0'))
			i += 3
			continue
		}
		out = append(out, b[i])
	}
	return string(out)
}

// number parses the whole of b with take, blanks and one newline around it
// allowed.
func number[T any](what string, b []byte, take func(*scanner) T) (T, error) {
	s := scanner{b: b}
	s.blanks()
	v := take(&s)
	if s.bad || !s.done() {
		var zero T
		return zero, badLine(what, b)
	}
	return v, nil
}
