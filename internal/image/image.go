// Package image is a checkpoint's metadata: named parts, each a list of
// protobuf records of one message type. The messages are those of CRIU's image
// schema, the field's interchange format, and fermata's own (package fm) for
// what that has no place for. docs/image-format.md is the specification.
package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/wire"
)

// Version is the format this code writes, and the newest it reads. Of version 1,
// every offset is that of content in a plain file.
const Version = 2

// MetaName is the metadata's file in a checkpoint's directory.
const MetaName = "metadata"

var magic = [8]byte{'F', 'E', 'R', 'M', 'A', 'T', 'A', '\n'}

// Castagnoli gives the table of every checksum in a checkpoint (CRC-32C).
func Castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Record is one entry of a part: a message and, for some, bytes behind it.
type Record struct {
	Msg     proto.Message
	Payload []byte
}

type part struct {
	typ     protoreflect.FullName
	records []Record
	raw     [][]byte // the messages as read; decoded on demand
	extra   [][]byte // what is behind them, nil where there is nothing in the part
	decoded sync.Once
	err     error // of that
	read    int   // how many records there were
}

// Image is the metadata of one checkpoint. Adding is safe from several
// goroutines; reading is, once nothing is added any more.
type Image struct {
	mu    sync.Mutex
	parts map[string]*part
	order []string
	ahead *ahead
}

// ahead is the encoding of the first parts, made in advance.
type ahead struct {
	parts map[string]bool
	b     []byte
	done  chan struct{}
}

// New gives an empty image.
func New() *Image { return &Image{parts: map[string]*part{}} }

// Of names the part of one task, file table or other numbered thing.
func Of(base string, id int) string { return base + "/" + strconv.Itoa(id) }

// Add appends a record to a part; all records of a part have one type.
func (im *Image) Add(name string, m proto.Message, payload ...byte) {
	im.mu.Lock()
	defer im.mu.Unlock()
	p := im.parts[name]
	if p == nil {
		p = &part{typ: m.ProtoReflect().Descriptor().FullName()}
		im.parts[name] = p
		im.order = append(im.order, name)
	} else {
		im.ahead = nil
	}
	p.records = append(p.records, Record{m, payload})
}

// Replace makes m the only record of a part.
func (im *Image) Replace(name string, m proto.Message) {
	im.Drop(name)
	im.Add(name, m)
}

// Drop removes a part; it tells whether there was one.
func (im *Image) Drop(name string) bool {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.parts[name] == nil {
		return false
	}
	im.ahead = nil
	delete(im.parts, name)
	for i, n := range im.order {
		if n == name {
			im.order = append(im.order[:i], im.order[i+1:]...)
			break
		}
	}
	return true
}

// Names gives the parts in the order they were added.
func (im *Image) Names() []string { return append([]string(nil), im.order...) }

// NamesOf gives the parts base/N, in numeric order.
func (im *Image) NamesOf(base string) (ids []int) {
	for _, n := range im.order {
		if b, id, ok := strings.Cut(n, "/"); ok && b == base {
			if v, err := strconv.Atoi(id); err == nil {
				ids = append(ids, v)
			}
		}
	}
	sort.Ints(ids)
	return ids
}

// Count gives how many records a part had when the image was read.
func (im *Image) Count(name string) int {
	if p := im.parts[name]; p != nil {
		return p.read
	}
	return 0
}

// Records decodes and gives a part's records; none when there is no such part.
func (im *Image) Records(name string) ([]Record, error) {
	im.mu.Lock()
	p := im.parts[name]
	im.mu.Unlock()
	if p == nil {
		return nil, nil
	}
	p.decoded.Do(func() {
		if p.raw != nil {
			p.err = p.decode(name)
		}
	})
	return p.records, p.err
}

// decode makes records of what was read.
func (p *part) decode(name string) error {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(p.typ)
	if err != nil {
		return fault.Errorf(fault.ErrDamaged, "part %s: message type %s is not known here: written by another version?", name, p.typ)
	}
	recs := make([]Record, len(p.raw))
	bad, err := wire.UnmarshalAll(p.raw, mt.Zero().Interface(), func(i int, m proto.Message) { recs[i].Msg = m })
	if err != nil {
		return fault.Errorf(fault.ErrDamaged, "part %s, record %d: %w", name, bad, err)
	}
	for i, x := range p.extra {
		recs[i].Payload = x
	}
	p.records, p.raw, p.extra = recs, nil, nil
	return nil
}

// largePart is from how many bytes on a part is decoded ahead.
const largePart = 64 << 10

// DecodeAhead begins to decode large parts in the background, the last ones
// first, since whoever reads the image begins at the front.
func (im *Image) DecodeAhead() {
	var large []string
	for _, name := range im.order {
		n := 0
		for _, b := range im.parts[name].raw {
			n += len(b)
		}
		if n >= largePart {
			large = append(large, name)
		}
	}
	if len(large) < 2 {
		return
	}
	go func() {
		for _, name := range slices.Backward(large) {
			_, _ = im.Records(name) // an error is for who wants the part
		}
	}()
}

// All gives the messages of a part.
func All[T proto.Message](im *Image, name string) ([]T, error) {
	recs, err := im.Records(name)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(recs))
	for i, r := range recs {
		m, ok := r.Msg.(T)
		if !ok {
			return nil, fault.Errorf(fault.ErrDamaged, "part %s holds %s, not %T", name, r.Msg.ProtoReflect().Descriptor().FullName(), out[i])
		}
		out[i] = m
	}
	return out, nil
}

// ErrNoPart: the image lacks a part that it must have.
var ErrNoPart = errors.New("no such part")

// One gives the only message of a part.
func One[T proto.Message](im *Image, name string) (T, error) {
	all, err := All[T](im, name)
	if err == nil && len(all) != 1 {
		err = fault.Wrap(fault.ErrDamaged, fmt.Errorf("part %s: %d records where one is needed: %w", name, len(all), ErrNoPart))
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return all[0], nil
}

const headerSize = 16
const trailerSize = 16

// EncodeAhead begins to encode in the background what the image has, for the
// Encode to come. Meanwhile parts may be added, but no message changed, except
// in parts that later names.
func (im *Image) EncodeAhead(later func(name string) bool) {
	var names []string
	a := &ahead{parts: map[string]bool{}, done: make(chan struct{})}
	for _, n := range im.order {
		if !later(n) {
			names, a.parts[n] = append(names, n), true
		}
	}
	parts, err := im.take(names)
	if err != nil {
		return // as Encode will find
	}
	im.ahead = a
	go func() {
		defer close(a.done)
		a.b = appendParts(nil, parts)
	}()
}

// take gives parts as they are now, decoded.
func (im *Image) take(names []string) ([]named, error) {
	out := make([]named, len(names))
	for i, n := range names {
		recs, err := im.Records(n)
		if err != nil {
			return nil, err
		}
		out[i] = named{n, im.parts[n].typ, recs}
	}
	return out, nil
}

type named struct {
	name    string
	typ     protoreflect.FullName
	records []Record
}

// Encode gives the metadata file's bytes.
func (im *Image) Encode() ([]byte, error) {
	le := binary.LittleEndian
	b := make([]byte, 0, 64<<10)
	b = append(b, magic[:]...)
	b = le.AppendUint32(b, Version)
	b = le.AppendUint32(b, uint32(len(im.order)))
	names := im.order
	if a := im.ahead; a != nil {
		<-a.done
		b, names = append(b, a.b...), slices.DeleteFunc(slices.Clone(names), func(n string) bool { return a.parts[n] })
	}
	parts, err := im.take(names)
	if err != nil {
		return nil, err
	}
	b = appendParts(b, parts)
	b = le.AppendUint64(b, uint64(len(b)+trailerSize))
	b = le.AppendUint32(b, crc32.Checksum(b, Castagnoli()))
	b = append(b, "END\n"...)
	return b, nil
}

// appendParts appends the encodings of parts.
func appendParts(b []byte, parts []named) []byte {
	le := binary.LittleEndian
	for _, p := range parts {
		b = le.AppendUint16(b, uint16(len(p.name)))
		b = le.AppendUint16(b, uint16(len(p.typ)))
		b = le.AppendUint32(b, uint32(len(p.records)))
		b = append(b, p.name...)
		b = append(b, p.typ...)
		for _, r := range p.records {
			at := len(b)
			b = le.AppendUint32(b, 0)
			b = le.AppendUint32(b, uint32(len(r.Payload)))
			b = wire.Append(b, r.Msg)
			le.PutUint32(b[at:], uint32(len(b)-at-8))
			b = append(b, r.Payload...)
		}
	}
	return b
}

// Decode reads a metadata file. Anything that is not whole, byte for byte, is
// fault.ErrDamaged. The image shares memory with b, which must not change.
func Decode(b []byte) (*Image, error) {
	le := binary.LittleEndian
	bad := func(f string, a ...any) (*Image, error) {
		return nil, fault.Errorf(fault.ErrDamaged, "metadata: "+f, a...)
	}
	if len(b) < headerSize+trailerSize {
		return bad("truncated at %d bytes", len(b))
	}
	if [8]byte(b) != magic {
		return bad("not a fermata checkpoint")
	}
	if v := le.Uint32(b[8:]); v > Version || v == 0 {
		return bad("format version %d; this fermata reads up to %d", v, Version)
	}
	end := len(b) - trailerSize
	if string(b[len(b)-4:]) != "END\n" || le.Uint64(b[end:]) != uint64(len(b)) {
		return bad("truncated at %d bytes", len(b))
	}
	if crc32.Checksum(b[:len(b)-8], Castagnoli()) != le.Uint32(b[len(b)-8:]) {
		return bad("checksum differs: the file was altered or the disk lost it")
	}
	im := New()
	at := headerSize
	need := func(n int) bool { return n >= 0 && at+n <= end }
	for range le.Uint32(b[12:]) {
		if !need(8) {
			return bad("part header beyond the end")
		}
		nl, tl, nr := int(le.Uint16(b[at:])), int(le.Uint16(b[at+2:])), int(le.Uint32(b[at+4:]))
		at += 8
		if !need(nl + tl) {
			return bad("part name beyond the end")
		}
		name := string(b[at : at+nl])
		p := &part{typ: protoreflect.FullName(b[at+nl : at+nl+tl])}
		at += nl + tl
		if im.parts[name] != nil {
			return bad("part %q twice", name)
		}
		if nr > (end-at)/8 {
			return bad("part %s: %d records beyond the end", name, nr)
		}
		p.raw, p.read = make([][]byte, 0, nr), nr
		for i := range nr {
			if !need(8) {
				return bad("part %s: record beyond the end", name)
			}
			ml, pl := int(le.Uint32(b[at:])), int(le.Uint32(b[at+4:]))
			at += 8
			if !need(ml) || !need(ml+pl) {
				return bad("part %s: record beyond the end", name)
			}
			p.raw = append(p.raw, b[at:at+ml:at+ml])
			if pl > 0 {
				if p.extra == nil {
					p.extra = make([][]byte, nr)
				}
				p.extra[i] = b[at+ml : at+ml+pl : at+ml+pl]
			}
			at += ml + pl
		}
		im.parts[name] = p
		im.order = append(im.order, name)
	}
	if at != end {
		return bad("%d bytes behind the last part", end-at)
	}
	return im, nil
}

// Open opens a file of a checkpoint for reading. What is no regular file is
// fault.ErrDamaged, and not waited for, as a pipe's other end would be.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fault.Errorf(fault.ErrDamaged, "%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// maxMeta bounds what Read takes into memory.
const maxMeta = 4 << 30

// Read reads a checkpoint directory's metadata.
func Read(dir string) (*Image, error) {
	f, err := Open(dir + "/" + MetaName)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			if _, derr := os.Stat(dir); derr == nil {
				return nil, fault.Errorf(fault.ErrDamaged, "%s: not a checkpoint: no file %q in it", dir, MetaName)
			}
			return nil, fault.Errorf(fault.ErrNotFound, "no checkpoint at %s", dir)
		}
		if errors.Is(err, syscall.ENOTDIR) {
			return nil, fault.Errorf(fault.ErrDamaged, "%s: not a checkpoint: not a directory", dir)
		}
		if errors.Is(err, os.ErrPermission) {
			return nil, fault.Wrap(fault.ErrPermission, err)
		}
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > maxMeta {
		return nil, fault.Errorf(fault.ErrDamaged, "%s: metadata is not a file of sensible size", dir)
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fault.Errorf(fault.ErrDamaged, "%s: %w", dir, err)
	}
	im, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return im, nil
}
