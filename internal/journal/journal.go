// Package journal notes what a dead fermata would leave behind, so that another
// process can put it right: one entry for each debt, written before the debt is
// made and crossed out after it is paid.
//
// A journal is a memfd. The writer maps it, so that an entry costs some stores
// and survives the writer, however that ends; the reader has the descriptor.
package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// Kind says what an entry's values mean.
type Kind uint32

// The kinds of debts. Values not named are 0.
const (
	// Target is a process of the tree that is being saved: its pid, and its
	// start time in clock ticks since boot (/proc/PID/stat, field 22), 0 when it
	// is not known.
	Target Kind = iota + 1
	// Region is a segment for the executor: the pid whose address space it is
	// for, its System V key, its address there and its size in bytes; one more
	// than its id once it is made.
	Region
	// Sharer is another process in a region's address space: its pid, the key.
	Sharer
	// Lent are bytes of a process's memory that were replaced for a moment: pid,
	// address; what was there and, as long, what was put there.
	Lent
	// Stop is a SIGSTOP that was taken and is owed to a process: pid, start time.
	Stop
	// Doom is a process that is to be ended: pid, start time. It counts once
	// there is a Sentence: all of them are to be ended, or none.
	Doom
	Sentence
	// Draft is a checkpoint on its way: its directory and, behind a NUL, the
	// name it will get; the directory's device and inode once it is made.
	Draft
	// Link is a name that was given to a file: the name, device and inode, which
	// are 0 where the name alone says that it is fermata's. It stays when the
	// draft is published.
	Link
	// Sockopt is an option of a socket that was changed for a moment: the
	// socket's inode, level, option, the value's length, up to 16 bytes of it.
	Sockopt
	// Terminal are line settings that were changed for a moment: the device
	// number of the terminal; the settings as struct termios2.
	Terminal
	// Freezer is a cgroup that was frozen, or made to run, for a moment: the
	// device and inode of its directory, 1 if it has to be frozen in the end, 0
	// if it has to run; the path of its freezer file.
	Freezer
	// NetLock is a lock on connections (package netlock), in the network namespace
	// of the writer: its name; 1 when it belongs to a checkpoint that is whole, and
	// is to be removed only if the tree goes on.
	NetLock
)

// TempPrefix begins the names of files that fermata makes for a moment.
const TempPrefix = ".fermata-ghost-"

// Layout, in bytes: a header page, the entries, the text.
const (
	magic       = 0x6c6e72756f6a2e66 // "f.journl"
	headerSize  = 4096
	entrySize   = 64
	maxEntries  = 1 << 17
	textOff     = headerSize + maxEntries*entrySize
	textSize    = 1 << 20
	size        = textOff + textSize
	values      = 6
	offBeat     = 8  // also read by the guardian's assembly
	offPatience = 12 // milliseconds, likewise
	offWriter   = 16
	offUsed     = 20
	// An entry: kind, state, values, where its text is and how long.
	offState   = 4
	offValues  = 8
	offTextAt  = 56
	offTextLen = 60
	live       = 1
)

var le = binary.LittleEndian

// Journal is a journal being written. All methods may be called on nil, which
// notes nothing, and by several goroutines.
type Journal struct {
	fd   int
	mem  []byte
	mu   sync.Mutex
	used int
	text int
	// texts are the entries with a text, in the order of the texts, up to the last
	// that is live: what lies behind it is free.
	texts []int
	free  []int
	owed  int // live entries but Targets, which are no debt
}

// New makes an empty journal.
func New(writer int) (*Journal, error) {
	fd, err := unix.MemfdCreate("fermata-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("journal: %w", err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("journal: %w", err)
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	le.PutUint64(mem, magic)
	le.PutUint32(mem[offWriter:], uint32(writer))
	return &Journal{fd: fd, mem: mem}, nil
}

// FD gives the descriptor, which belongs to the journal.
func (j *Journal) FD() int { return j.fd }

// Close gives the journal up; what it says stays as it is for the reader.
func (j *Journal) Close() {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.mem != nil {
		unix.Munmap(j.mem)
		unix.Close(j.fd)
		j.mem = nil
	}
}

// Beat says that the writer makes progress.
func (j *Journal) Beat() {
	if j != nil && j.mem != nil {
		atomic.AddUint32(sys.Word(j.mem, offBeat), 1)
	}
}

// Patience sets after how long without a Beat the writer counts as hung; 0 is
// never. It counts as a beat.
func (j *Journal) Patience(d time.Duration) {
	if j != nil && j.mem != nil {
		atomic.StoreUint32(sys.Word(j.mem, offPatience), uint32(min(d.Milliseconds(), 1<<31-1)))
		j.Beat()
	}
}

// Owing tells whether anything is left that somebody must see to.
func (j *Journal) Owing() bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.owed > 0
}

// Entry is one entry of a journal being written. A nil one notes nothing.
type Entry struct {
	j *Journal
	i int
}

// Add notes a debt. Where the journal is full it gives nil: the debt is then not
// known to the guardian.
func (j *Journal) Add(k Kind, v ...uint64) *Entry { return j.AddText(k, "", v...) }

// AddText is Add with a text.
func (j *Journal) AddText(k Kind, text string, v ...uint64) *Entry {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.mem == nil || j.text+len(text) > textSize {
		return nil
	}
	i := j.used
	if n := len(j.free); n > 0 {
		i = j.free[n-1]
		j.free = j.free[:n-1]
	} else if i >= maxEntries {
		return nil
	}
	e := j.mem[headerSize+i*entrySize:][:entrySize]
	clear(e[offValues:])
	le.PutUint32(e, uint32(k))
	for n, x := range v {
		le.PutUint64(e[offValues+8*n:], x)
	}
	if text != "" {
		copy(j.mem[textOff+j.text:], text)
		le.PutUint32(e[offTextAt:], uint32(j.text))
		le.PutUint32(e[offTextLen:], uint32(len(text)))
		j.text += len(text)
		j.texts = append(j.texts, i)
	}
	// The state comes last: an entry counts when it is whole.
	atomic.StoreUint32(sys.Word(e, offState), live)
	if i == j.used {
		j.used++
		atomic.StoreUint32(sys.Word(j.mem, offUsed), uint32(j.used))
	}
	if k != Target {
		j.owed++
	}
	return &Entry{j, i}
}

// Set changes a value of an entry.
func (e *Entry) Set(n int, v uint64) {
	if e == nil {
		return
	}
	e.j.mu.Lock()
	defer e.j.mu.Unlock()
	if e.j.mem != nil {
		le.PutUint64(e.j.mem[headerSize+e.i*entrySize+offValues+8*n:], v)
	}
}

// Done crosses an entry out: the debt is paid. It must not be used again.
func (e *Entry) Done() {
	if e == nil {
		return
	}
	e.j.mu.Lock()
	defer e.j.mu.Unlock()
	if e.j.mem != nil {
		at := headerSize + e.i*entrySize
		if Kind(le.Uint32(e.j.mem[at:])) != Target {
			e.j.owed--
		}
		atomic.StoreUint32(sys.Word(e.j.mem, at+offState), 0)
		// An entry with a text is not used again while the text is in the list.
		if le.Uint32(e.j.mem[at+offTextLen:]) == 0 {
			e.j.free = append(e.j.free, e.i)
		}
		e.j.trim()
	}
}

// trim frees the texts behind the last live one: most entries live for moments.
func (j *Journal) trim() {
	for n := len(j.texts); n > 0; n = len(j.texts) {
		e := j.mem[headerSize+j.texts[n-1]*entrySize:]
		if le.Uint32(e[offState:]) == live {
			return
		}
		j.text = int(le.Uint32(e[offTextAt:]))
		j.free = append(j.free, j.texts[n-1])
		j.texts = j.texts[:n-1]
	}
}

// Record is one entry that was not crossed out.
type Record struct {
	Kind Kind
	V    [values]uint64
	Text string
}

// Book is what a journal says.
type Book struct {
	Writer  int // pid
	Records []Record
}

// ErrDamaged: what the descriptor refers to is no journal.
var ErrDamaged = errors.New("not a journal")

// Read reads the journal behind a descriptor.
func Read(fd int) (*Book, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size != size {
		return nil, ErrDamaged
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(mem)
	if le.Uint64(mem) != magic {
		return nil, ErrDamaged
	}
	b := &Book{Writer: int(int32(le.Uint32(mem[offWriter:])))}
	used := min(int(le.Uint32(mem[offUsed:])), maxEntries-1)
	// One more than counted: its writer may have died before it counted it.
	for i := range used + 1 {
		e := mem[headerSize+i*entrySize:][:entrySize]
		if le.Uint32(e[offState:]) != live {
			continue
		}
		r := Record{Kind: Kind(le.Uint32(e))}
		for n := range r.V {
			r.V[n] = le.Uint64(e[offValues+8*n:])
		}
		at, n := int(le.Uint32(e[offTextAt:])), int(le.Uint32(e[offTextLen:]))
		if at+n <= textSize && at >= 0 && n >= 0 {
			r.Text = string(mem[textOff+at : textOff+at+n])
		}
		b.Records = append(b.Records, r)
	}
	return b, nil
}

// Of gives the records of a kind.
func (b *Book) Of(k Kind) (out []Record) {
	for _, r := range b.Records {
		if r.Kind == k {
			out = append(out, r)
		}
	}
	return out
}

// Pulse reads the header's beat and patience through the descriptor.
func Pulse(fd int) (beat uint32, patience time.Duration, err error) {
	var b [8]byte
	if _, err := unix.Pread(fd, b[:], offBeat); err != nil {
		return 0, 0, err
	}
	return le.Uint32(b[:]), time.Duration(le.Uint32(b[4:])) * time.Millisecond, nil
}
