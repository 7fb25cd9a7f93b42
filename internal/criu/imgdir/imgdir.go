// Package imgdir reads and writes image directories of the interchange format:
// the files that CRIU, crit, checkpointctl and the container engines know. It
// converts between them and the named parts of package image, so that there is
// one engine, whichever format a checkpoint has.
//
// Most parts are the same messages under another name (files). What differs:
//
//   - pages lie in one file for each address space, in the order of its pagemap
//   - a process's kernel object ids are in ids-PID, its POSIX timers in its core
//   - extended registers are taken apart (fpregs)
//   - the path that stands for a removed file's is a file entry of its own
//
// What the schema has no field for, fermata's own messages, is kept in one more
// file, ExtraName. It adds to the others and is never needed: without it a
// directory is one that CRIU wrote.
package imgdir

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/magic"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/cgroup"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	filelock "github.com/checkpoint-restore/go-criu/v8/crit/images/file-lock"
	criu_fs "github.com/checkpoint-restore/go-criu/v8/crit/images/fs"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"
	pipedata "github.com/checkpoint-restore/go-criu/v8/crit/images/pipe-data"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	remapfilepath "github.com/checkpoint-restore/go-criu/v8/crit/images/remap-file-path"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/seccomp"
	sk_packet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-packet"
	tcpstream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/tty"

	"github.com/fermata-cr/fermata/internal/fault"
)

// InventoryName is the file that makes a directory an image directory. It is
// written last.
const InventoryName = "inventory.img"

// ExtraName is the file of what the interchange schema has no place for: parts
// of fermata's own messages, in the format of package image.
const ExtraName = "fermata-extra"

// Is tells whether a directory holds images of the interchange format.
func Is(dir string) bool {
	st, err := os.Stat(filepath.Join(dir, InventoryName))
	return err == nil && st.Mode().IsRegular()
}

// kind is a file, or one for each number, whose records are a part of ours as
// they are.
type kind struct {
	part, file string // name of the part; of the file, before "-N.img" or ".img"
	hex        bool   // N is in base 16
	magic      string
	message    func() proto.Message
	payload    func(proto.Message) int // bytes that follow a record
}

var kinds = []kind{
	{part: "pstree", file: "pstree", magic: "PSTREE", message: func() proto.Message { return &pstree.PstreeEntry{} }},
	{part: "files", file: "files", magic: "FILES", message: func() proto.Message { return &fdinfo.FileEntry{} }},
	{part: "fdinfo/", file: "fdinfo", magic: "FDINFO", message: func() proto.Message { return &fdinfo.FdinfoEntry{} }},
	{part: "fs/", file: "fs", magic: "FS", message: func() proto.Message { return &criu_fs.FsEntry{} }},
	{part: "core/", file: "core", magic: "CORE", message: func() proto.Message { return &criu_core.CoreEntry{} }},
	{part: "pipes-data", file: "pipes-data", magic: "PIPES_DATA", message: func() proto.Message { return &pipedata.PipeDataEntry{} }, payload: pipeBytes},
	{part: "fifo-data", file: "fifo-data", magic: "FIFO_DATA", message: func() proto.Message { return &pipedata.PipeDataEntry{} }, payload: pipeBytes},
	{part: "sk-queues", file: "sk-queues", magic: "SK_QUEUES", message: func() proto.Message { return &sk_packet.SkPacketEntry{} },
		payload: func(m proto.Message) int { return int(m.(*sk_packet.SkPacketEntry).GetLength()) }},
	{part: "tcp-stream/", file: "tcp-stream", hex: true, magic: "TCP_STREAM", message: func() proto.Message { return &tcpstream.TcpStreamEntry{} },
		payload: func(m proto.Message) int {
			e := m.(*tcpstream.TcpStreamEntry)
			return int(e.GetInqLen()) + int(e.GetOutqLen())
		}},
	{part: "tty-info", file: "tty-info", magic: "TTY_INFO", message: func() proto.Message { return &tty.TtyInfoEntry{} }},
	{part: "tty-data", file: "tty-data", magic: "TTY_DATA", message: func() proto.Message { return &tty.TtyDataEntry{} }},
	{part: "memfd-inodes", file: "memfd", magic: "MEMFD_INODE", message: func() proto.Message { return &memfd.MemfdInodeEntry{} }},
	{part: "file-locks", file: "filelocks", magic: "FILE_LOCKS", message: func() proto.Message { return &filelock.FileLockEntry{} }},
	{part: "cgroup", file: "cgroup", magic: "CGROUP", message: func() proto.Message { return &cgroup.CgroupEntry{} }},
	{part: "seccomp", file: "seccomp", magic: "SECCOMP", message: func() proto.Message { return &seccomp.SeccompEntry{} }},
	{part: "remap-file-path", file: "remap-fpath", magic: "REMAP_FPATH", message: func() proto.Message { return &remapfilepath.RemapFilePathEntry{} }},
}

func pipeBytes(m proto.Message) int { return int(m.(*pipedata.PipeDataEntry).GetBytes()) }

func (k *kind) numbered() bool { return strings.HasSuffix(k.part, "/") }

// name gives the file's name for a part's number.
func (k *kind) name(id string) (string, error) {
	if !k.numbered() {
		return k.file + ".img", nil
	}
	if k.hex {
		var n uint64
		if _, err := fmt.Sscanf(id, "%d", &n); err != nil {
			return "", fmt.Errorf("part %s%s: %w", k.part, id, err)
		}
		id = fmt.Sprintf("%x", n)
	}
	return k.file + "-" + id + ".img", nil
}

var magics = magic.LoadMagic().ByName

var le = binary.LittleEndian

// file is an image file being written.
type file struct {
	f   *os.File
	w   *bufio.Writer
	err error
}

// create begins an image file: two words that say what it is. The inventory has
// but one.
func create(dir, name, magic string) (*file, error) {
	first := uint32(magics["IMG_COMMON"])
	if magic == "STATS" || magic == "IRMAP_CACHE" {
		first = uint32(magics["IMG_SERVICE"])
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	o := &file{f: f, w: bufio.NewWriter(f)}
	if magic != "INVENTORY" {
		o.word(first)
	}
	m, ok := magics[magic]
	if !ok {
		f.Close()
		return nil, fmt.Errorf("%s: no magic number %q", name, magic)
	}
	o.word(uint32(m))
	return o, nil
}

func (o *file) word(v uint32) {
	var b [4]byte
	le.PutUint32(b[:], v)
	o.bytes(b[:])
}

func (o *file) bytes(b []byte) {
	if o.err == nil {
		_, o.err = o.w.Write(b)
	}
}

// add writes a record and what follows it. A message that lacks a field which
// the schema requires is an error.
func (o *file) add(m proto.Message, payload []byte) {
	if o.err != nil {
		return
	}
	b, err := proto.Marshal(m)
	if err != nil {
		o.err = fmt.Errorf("%s: %w", o.f.Name(), err)
		return
	}
	o.word(uint32(len(b)))
	o.bytes(b)
	o.bytes(payload)
}

func (o *file) close() error {
	if o.err == nil {
		o.err = o.w.Flush()
	}
	if err := o.f.Close(); o.err == nil {
		o.err = err
	}
	return o.err
}

// writeOne writes a file of some records.
func writeOne(dir, name, magic string, all ...proto.Message) error {
	o, err := create(dir, name, magic)
	if err != nil {
		return err
	}
	for _, m := range all {
		o.add(m, nil)
	}
	return o.close()
}

// reader reads an image file.
type reader struct {
	name string
	f    *os.File
	r    *bufio.Reader
	at   int64 // where the next record begins
	size int64
}

// open opens an image file and checks what it says it is; nil, nil when there is
// none.
func open(dir, name, magic string) (*reader, error) {
	path := filepath.Join(dir, name)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	r := &reader{name: path, f: f, r: bufio.NewReaderSize(f, 64<<10), size: st.Size()}
	w, err := r.word()
	if err == nil && (w == uint32(magics["IMG_COMMON"]) || w == uint32(magics["IMG_SERVICE"])) {
		w, err = r.word()
	}
	if err == nil && w != uint32(magics[magic]) {
		err = fmt.Errorf("magic number %#x, not that of %s", w, magic)
	}
	if err != nil {
		f.Close()
		return nil, fault.Errorf(fault.ErrDamaged, "%s: %w", path, err)
	}
	return r, nil
}

func (r *reader) close() { r.f.Close() }

func (r *reader) word() (uint32, error) {
	var b [4]byte
	n, err := io.ReadFull(r.r, b[:])
	r.at += int64(n)
	return le.Uint32(b[:]), err
}

func (r *reader) take(n int) ([]byte, error) {
	if n < 0 || int64(n) > r.size-r.at {
		return nil, fault.Errorf(fault.ErrDamaged, "%s: truncated: %d bytes wanted at %d of %d", r.name, n, r.at, r.size)
	}
	b := make([]byte, n)
	k, err := io.ReadFull(r.r, b)
	r.at += int64(k)
	if err != nil {
		return nil, fault.Errorf(fault.ErrDamaged, "%s: %w", r.name, err)
	}
	return b, nil
}

// next reads the next record into m; false at the end.
func (r *reader) next(m proto.Message) (bool, error) {
	n, err := r.word()
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, fault.Errorf(fault.ErrDamaged, "%s: %w", r.name, err)
	}
	b, err := r.take(int(n))
	if err != nil {
		return false, err
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return false, fault.Errorf(fault.ErrDamaged, "%s: %w", r.name, err)
	}
	return true, nil
}

// readOne reads the first record of a file; false when there is no such file.
func readOne(dir, name, magic string, m proto.Message) (bool, error) {
	r, err := open(dir, name, magic)
	if r == nil || err != nil {
		return false, err
	}
	defer r.close()
	ok, err := r.next(m)
	if err == nil && !ok {
		err = fault.Errorf(fault.ErrDamaged, "%s: empty", r.name)
	}
	return ok, err
}
