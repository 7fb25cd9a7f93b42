package imgdir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Pages may go to another machine while a program is dumped there: to a page
// server, which writes them as a dump here would. The protocol is CRIU's, that of
// its versions since 2: messages of 32 bytes, of which each that adds pages is
// followed by these.
//
//	open, for a pagemap           → one byte: is there one in the parent directory
//	is there one in the parent    → four bytes
//	pages, with the pagemap's flags; those that are not present carry no bytes
//	close                         → four bytes, 0: all has arrived
//
// The machine's byte order is used, which is one and the same on all that CRIU and
// fermata know to restore from.
type message struct {
	cmd       uint32 // below 16 bits of flags of a pagemap entry
	pages, at uint64
	dst       uint64 // the number of a process or object, and a byte: which of both
}

const (
	messageSize = 32

	msgAdd        = 1 // pages that are present
	msgHole       = 2 // pages of the parent directory
	msgOpen       = 3 // no answer
	msgOpenAnswer = 4
	msgParent     = 5
	msgAddFlags   = 6
	msgClose      = 0x1023
	msgForceClose = 0x1024

	ofProcess = 1
	ofShared  = 2

	// mostPages is more than an address space has.
	mostPages = 1 << 35

	// firstServed is the first number of a server's pages files: those of the dump
	// itself, should it write some into the same directory, are below.
	firstServed = 0x10001
)

func (m *message) encode() []byte {
	b := make([]byte, messageSize)
	binary.LittleEndian.PutUint32(b, m.cmd)
	binary.LittleEndian.PutUint64(b[8:], m.pages)
	binary.LittleEndian.PutUint64(b[16:], m.at)
	binary.LittleEndian.PutUint64(b[24:], m.dst)
	return b
}

func decodeMessage(b []byte) message {
	return message{
		cmd: binary.LittleEndian.Uint32(b), pages: binary.LittleEndian.Uint64(b[8:]),
		at: binary.LittleEndian.Uint64(b[16:]), dst: binary.LittleEndian.Uint64(b[24:]),
	}
}

// pagemapName gives the file that a message is about.
func (m *message) pagemapName() (string, error) {
	switch id := m.dst >> 8; m.dst & 0xff {
	case ofProcess:
		return fmt.Sprintf("pagemap-%d.img", id), nil
	case ofShared:
		return fmt.Sprintf("pagemap-shmem-%d.img", id), nil
	}
	return "", fmt.Errorf("message %#x is about an object of the unknown kind %d", m.cmd, m.dst&0xff)
}

// destination is the same the other way round.
func destination(pagemap string) (dst uint64, err error) {
	var id uint64
	if _, err := fmt.Sscanf(pagemap, "pagemap-shmem-%d.img", &id); err == nil {
		return id<<8 | ofShared, nil
	}
	if _, err := fmt.Sscanf(pagemap, "pagemap-%d.img", &id); err == nil {
		return id<<8 | ofProcess, nil
	}
	return 0, fmt.Errorf("%s is no pagemap", pagemap)
}

// Serve takes the pages of one dump from conn and writes them into dir; parent is
// the directory that it builds upon, or "". They get their names when the other
// side says that it has sent all; when it fails before, nothing is left.
func Serve(conn io.ReadWriter, dir, parent string) (pages uint64, err error) {
	s := &server{conn: conn, final: dir, parent: parent, next: firstServed}
	s.dir = filepath.Join(dir, fmt.Sprintf(".pages-%d", os.Getpid()))
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return 0, err
	}
	defer os.RemoveAll(s.dir)
	defer func() {
		if cerr := s.done(); err == nil && cerr != nil {
			err = cerr
		}
	}()
	s.buf = make([]byte, pieceSize)
	for {
		var b [messageSize]byte
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			return s.n, fmt.Errorf("the dump has ended without saying that all is there: %w", err)
		}
		m := decodeMessage(b[:])
		over, err := s.take(&m)
		if over || err != nil {
			return s.n, err
		}
	}
}

// server is a page server at work.
type server struct {
	conn               io.ReadWriter
	dir, final, parent string
	w                  *pageWriter // of the pagemap that is open, or nil
	dst                uint64
	next               uint32
	n                  uint64
	buf                []byte
}

// take does what a message says; over after the last one.
func (s *server) take(m *message) (over bool, err error) {
	switch cmd := m.cmd & 0xffff; cmd {
	case msgOpen, msgOpenAnswer:
		if err := s.open(m); err != nil {
			return false, err
		}
		if cmd == msgOpenAnswer {
			_, err = s.conn.Write([]byte{byte(s.above(m))})
		}
	case msgParent:
		_, err = s.conn.Write(binary.LittleEndian.AppendUint32(nil, uint32(s.above(m))))
	case msgAdd:
		err = s.add(m, pagePresent)
	case msgHole:
		err = s.add(m, pageParent)
	case msgAddFlags:
		err = s.add(m, m.cmd>>16)
	case msgClose, msgForceClose:
		if err := s.publish(); err != nil {
			return false, err
		}
		_, err := s.conn.Write(make([]byte, 4))
		return true, err
	default:
		err = fmt.Errorf("unknown message %#x", m.cmd)
	}
	return false, err
}

// above is 1 when the parent directory has the pagemap, too.
func (s *server) above(m *message) int {
	name, err := m.pagemapName()
	if s.parent == "" || err != nil {
		return 0
	}
	if _, err := os.Stat(filepath.Join(s.parent, name)); err != nil {
		return 0
	}
	return 1
}

func (s *server) open(m *message) error {
	if err := s.done(); err != nil {
		return err
	}
	name, err := m.pagemapName()
	if err != nil {
		return err
	}
	w := &pageWriter{dir: s.dir, f: &pageFile{name: name}, out: make([]byte, 0)}
	if w.m, err = create(s.dir, name, "PAGEMAP"); err != nil {
		return err
	}
	w.m.add(&pagemap.PagemapHead{PagesId: proto.Uint32(s.next)}, nil)
	if w.pages, err = os.OpenFile(filepath.Join(s.dir, fmt.Sprintf("pages-%d.img", s.next)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return errors.Join(err, w.m.close())
	}
	s.w, s.dst = w, m.dst
	s.next++
	return nil
}

// add writes pages that follow the message.
func (s *server) add(m *message, flags uint32) error {
	if s.w == nil || s.dst != m.dst {
		if err := s.open(m); err != nil {
			return err
		}
	}
	if m.at%sys.PageSize != 0 || m.pages > mostPages || m.at>>56 != 0 {
		return fmt.Errorf("%d pages at %#x: not to be believed", m.pages, m.at)
	}
	left := m.pages * sys.PageSize
	s.w.entry(m.at, left, flags)
	if flags&pagePresent == 0 {
		return nil
	}
	s.n += m.pages
	for left > 0 {
		b := s.buf[:min(left, uint64(len(s.buf)))]
		if _, err := io.ReadFull(s.conn, b); err != nil {
			return fmt.Errorf("pages at %#x: %w", m.at, err)
		}
		if _, err := s.w.pages.Write(b); err != nil {
			return err
		}
		left -= uint64(len(b))
	}
	return nil
}

// done closes the files that are open.
func (s *server) done() error {
	if s.w == nil {
		return nil
	}
	w := s.w
	s.w = nil
	w.flushEntry()
	return errors.Join(w.m.close(), w.pages.Close())
}

// publish gives the files their names.
func (s *server) publish() error {
	if err := s.done(); err != nil {
		return err
	}
	all, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, pages := range []bool{true, false} { // a pagemap never names pages that are not there
		for _, f := range all {
			if strings.HasPrefix(f.Name(), "pages-") == pages {
				if err := os.Rename(filepath.Join(s.dir, f.Name()), filepath.Join(s.final, f.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Remote is a connection to a page server.
type Remote struct{ conn io.ReadWriter }

// ToServer gives the page server at the other end of a connection.
func ToServer(conn io.ReadWriter) *Remote { return &Remote{conn} }

// open begins a pagemap.
func (r *Remote) open(name string) (dst uint64, err error) {
	if dst, err = destination(name); err != nil {
		return 0, err
	}
	m := message{cmd: msgOpenAnswer, dst: dst}
	if _, err := r.conn.Write(m.encode()); err != nil {
		return 0, fmt.Errorf("the page server: %w", err)
	}
	var above [1]byte
	if _, err := io.ReadFull(r.conn, above[:]); err != nil {
		return 0, fmt.Errorf("the page server does not answer: %w", err)
	}
	return dst, nil
}

// put sends pages.
func (r *Remote) put(dst, at uint64, b []byte, flags uint32) error {
	m := message{cmd: flags<<16 | msgAddFlags, pages: uint64(len(b)) / sys.PageSize, at: at, dst: dst}
	_, err := r.conn.Write(m.encode())
	if err == nil {
		_, err = r.conn.Write(b)
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		err = fmt.Errorf("it has ended (%w)", err)
	}
	if err != nil {
		return fmt.Errorf("the page server: %w", err)
	}
	return nil
}

// finish says that all pages are sent, and waits until they are written.
func (r *Remote) finish() error {
	m := message{cmd: msgClose}
	if _, err := r.conn.Write(m.encode()); err != nil {
		return fmt.Errorf("the page server: %w", err)
	}
	var status [4]byte
	if _, err := io.ReadFull(r.conn, status[:]); err != nil {
		return fmt.Errorf("the page server does not say that all has arrived: %w", err)
	}
	if n := int32(binary.LittleEndian.Uint32(status[:])); n != 0 {
		return fault.Errorf(fault.ErrDamaged, "the page server failed (%d)", n)
	}
	return nil
}
