package fermata

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	criu_fs "github.com/checkpoint-restore/go-criu/v8/crit/images/fs"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pipe"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	sk_unix "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-unix"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

func u32(n uint32) *uint32 { return proto.Uint32(n) }
func u64(n uint64) *uint64 { return proto.Uint64(n) }

// sample is an image of a program of two threads, a child that shares its
// memory, and a zombie.
func sample() *image.Image {
	im := image.New()
	im.Add("manifest", &fm.Manifest{
		Version: u32(1), Tool: proto.String("0.1"), Arch: proto.String("amd64"), Kernel: proto.String("6.1.0"), BootId: proto.String("x"),
		CreatedNs: proto.Int64(1_700_000_000_000_000_000), MonotonicNs: proto.Int64(1), BoottimeNs: proto.Int64(1),
		Roots: []uint32{100}, Tasks: u32(3), Threads: u32(3), PageBytes: u64(7 * 4096), FrozenNs: u64(1_500_000),
		Hostname: proto.String("here"), Notes: []string{"the clock jumps"},
		Saved: []*fm.SavedFile{{Name: proto.String("file-2"), Size: u64(10), Crc: proto.Uint32(0)}},
	})
	im.Add("pstree", &pstree.PstreeEntry{Pid: u32(100), Ppid: u32(0), Pgid: u32(100), Sid: u32(50), Threads: []uint32{100, 101}})
	im.Add("pstree", &pstree.PstreeEntry{Pid: u32(110), Ppid: u32(100), Pgid: u32(100), Sid: u32(50), Threads: []uint32{110}})
	im.Add("pstree", &pstree.PstreeEntry{Pid: u32(120), Ppid: u32(100), Pgid: u32(100), Sid: u32(50), Threads: []uint32{120}})
	core := func(id int, comm string, state uint32, thread string) {
		im.Add(image.Of("core", id), &criu_core.CoreEntry{
			Tc:  &criu_core.TaskCoreEntry{TaskState: u32(state), ExitCode: u32(256), Comm: proto.String(comm)},
			Ids: &criu_core.TaskKobjIdsEntry{VmId: u32(1), FilesId: u32(5), FsId: u32(1), SighandId: u32(1)},
			ThreadCore: &criu_core.ThreadCoreEntry{Comm: proto.String(thread), Creds: &creds.CredsEntry{
				Uid: u32(1), Gid: u32(2), Euid: u32(1000), Egid: u32(1001),
			}},
		})
	}
	core(100, "server", collect.StateAlive, "server")
	core(101, "", 0, "worker")
	core(110, "child", collect.StateStopped, "child")
	core(120, "gone", collect.StateDead, "")
	fs := &criu_fs.FsEntry{CwdId: u32(3), RootId: u32(4)}
	im.Add("fs/100", fs)
	im.Add("fs/110", fs)
	fd := func(n, id, flags uint32, t fdinfo.FdTypes) {
		im.Add("fdinfo/5", &fdinfo.FdinfoEntry{Fd: u32(n), Id: u32(id), Flags: u32(flags), Type: t.Enum()})
	}
	fd(7, 5, 0, fdinfo.FdTypes_PIPE)
	fd(0, 1, 0, fdinfo.FdTypes_REG)
	fd(3, 2, 1, fdinfo.FdTypes_REG)
	fd(8, 6, 0, fdinfo.FdTypes_INETSK)
	fd(9, 7, 0, fdinfo.FdTypes_INETSK)
	fd(10, 8, 0, fdinfo.FdTypes_UNIXSK)
	fd(11, 9, 0, fdinfo.FdTypes_MEMFD)
	fd(12, 77, 0, fdinfo.FdTypes_TIMERFD)
	reg := func(id uint32, name string, flags, mode uint32, pos uint64) {
		im.Add("files", &fdinfo.FileEntry{Type: fdinfo.FdTypes_REG.Enum(), Id: u32(id), Reg: &regfile.RegFileEntry{
			Id: u32(id), Flags: u32(flags), Pos: u64(pos), Name: proto.String(name), Mode: u32(mode),
		}})
	}
	reg(1, "/dev/null", unix.O_RDWR, unix.S_IFCHR, 0)
	reg(2, "/tmp/log", unix.O_WRONLY, unix.S_IFREG, 10)
	reg(3, "/srv", unix.O_PATH, unix.S_IFDIR, 0)
	reg(4, "/", unix.O_PATH, unix.S_IFDIR, 0)
	reg(10, "/usr/bin/server", 0, unix.S_IFREG, 0)
	im.Add("files", &fdinfo.FileEntry{Type: fdinfo.FdTypes_PIPE.Enum(), Id: u32(5), Pipe: &pipe.PipeEntry{PipeId: u32(33), Flags: u32(unix.O_WRONLY)}})
	im.Add("files", &fdinfo.FileEntry{Type: fdinfo.FdTypes_INETSK.Enum(), Id: u32(6), Isk: &sk_inet.InetSkEntry{
		Family: u32(unix.AF_INET), Type: u32(unix.SOCK_STREAM), Proto: u32(unix.IPPROTO_TCP), State: u32(1),
		SrcPort: u32(4000), DstPort: u32(80), SrcAddr: []uint32{binary.NativeEndian.Uint32([]byte{127, 0, 0, 1})}, DstAddr: []uint32{binary.NativeEndian.Uint32([]byte{10, 0, 0, 2})},
	}})
	im.Add("files", &fdinfo.FileEntry{Type: fdinfo.FdTypes_INETSK.Enum(), Id: u32(7), Isk: &sk_inet.InetSkEntry{
		Family: u32(unix.AF_INET6), Type: u32(unix.SOCK_STREAM), Proto: u32(unix.IPPROTO_TCP), State: u32(10), SrcPort: u32(443), SrcAddr: make([]uint32, 4),
	}})
	im.Add("files", &fdinfo.FileEntry{Type: fdinfo.FdTypes_UNIXSK.Enum(), Id: u32(8), Usk: &sk_unix.UnixSkEntry{
		Ino: u32(900), Peer: u32(901), Type: u32(unix.SOCK_DGRAM), State: u32(1), Name: []byte("\x00name"),
	}})
	im.Add("files", &fdinfo.FileEntry{Type: fdinfo.FdTypes_MEMFD.Enum(), Id: u32(9), Memfd: &memfd.MemfdFileEntry{InodeId: u32(1), Flags: u32(unix.O_RDWR), Pos: u64(4)}})
	im.Add("memfd-inodes", &memfd.MemfdInodeEntry{InodeId: u64(1), Name: proto.String("buf"), Size: u64(99)})
	im.Add("file-extra", &fm.FileExtra{Id: u32(2), Deleted: proto.Bool(true), Saved: proto.String("file-2")})
	area := func(start, end, off, shmid uint64, prot, flags, status uint32) *vma.VmaEntry {
		return &vma.VmaEntry{Start: u64(start), End: u64(end), Pgoff: u64(off), Shmid: u64(shmid), Prot: u32(prot), Flags: u32(flags), Status: u32(status)}
	}
	im.Add("mm/100", &mm.MmEntry{ExeFileId: u32(10), Vmas: []*vma.VmaEntry{
		area(0x400000, 0x402000, 0, 10, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE, collect.VMAFilePrivate),
		area(0x600000, 0x610000, 0, 0, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE, collect.VMAHeap|collect.VMAAnonPrivate),
		area(0x700000, 0x704000, 0x1000, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, collect.VMAAnonShared),
		area(0x800000, 0x801000, 0, 0, 0, unix.MAP_PRIVATE, collect.VMAAnonPrivate),
	}})
	im.Add("mm-extra/100", &fm.MmExtra{Vmas: []*fm.VmaExtra{{}, {}, {}, {Name: proto.String("guard")}}})
	im.Add("pages/100", &fm.PageRuns{Vaddr: []uint64{0x601000, 0x600000, 0x60f000}, Pages: []uint64{3, 1, 1}, Off: []uint64{0, 0, 0}})
	im.Add("shm", &fm.ShmObject{Id: u64(4), Size: u64(0x10000), Pages: &fm.PageRuns{Vaddr: []uint64{0, 0x4000}, Pages: []uint64{2, 4}, Off: []uint64{0, 0}}})
	return im
}

// write puts an image into a directory.
func write(t *testing.T, im *image.Image) string {
	t.Helper()
	b, err := im.Encode()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, image.MetaName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInspect(t *testing.T) {
	dir := write(t, sample())
	in, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	if in.Tasks != 3 || in.Threads != 3 || in.MemoryBytes != 7*4096 || in.Host != "here" || in.SameBoot || in.Bytes == 0 || len(in.Notes) != 1 {
		t.Errorf("%+v", in)
	}
	if want := []InspectedContents{{"file-2", "/tmp/log", 10}}; !reflect.DeepEqual(in.SavedFiles, want) {
		t.Errorf("saved %+v, want %+v", in.SavedFiles, want)
	}
	if len(in.Processes) != 3 {
		t.Fatalf("%d processes", len(in.Processes))
	}
	p := in.Processes[0]
	if p.Command != "server" || p.State != "running" || p.Exe != "/usr/bin/server" || p.Cwd != "/srv" || p.Root != "/" || p.UID != 1000 || p.GID != 1001 || p.MemoryBytes != 5*4096 {
		t.Errorf("%+v", p)
	}
	if want := []InspectedThread{{100, "server"}, {101, "worker"}}; !reflect.DeepEqual(p.Threads, want) {
		t.Errorf("threads %+v", p.Threads)
	}
	if want := []InspectedArea{
		{0x400000, 0x402000, "r-xp", 0, "/usr/bin/server", 0},
		{0x600000, 0x610000, "rw-p", 0, "[heap]", 5 * 4096},
		{0x700000, 0x704000, "rw-s", 0x1000, "shared memory", 2 * 4096},
		{0x800000, 0x801000, "---p", 0, "anonymous, named guard", 0},
	}; !reflect.DeepEqual(p.Areas, want) {
		t.Errorf("areas\n%+v\nwant\n%+v", p.Areas, want)
	}
	if want := []InspectedFile{
		{0, 1, "device", "/dev/null", "rw", 0, false},
		{3, 2, "file", "/tmp/log (deleted) (content saved)", "w", 10, true},
		{7, 5, "pipe", "pipe 33", "w", 0, false},
		{8, 6, "TCP socket", "127.0.0.1:4000 to 10.0.0.2:80 established", "rw", 0, false},
		{9, 7, "TCP socket", "[::]:443 listening", "rw", 0, false},
		{10, 8, "unix datagram socket", "socket 900 @name to socket 901", "rw", 0, false},
		{11, 9, "memfd", `"buf", 99 bytes`, "rw", 4, false},
		{12, 77, "timerfd", "not in the image", "", 0, false},
	}; !reflect.DeepEqual(p.Files, want) {
		t.Errorf("files\n%+v\nwant\n%+v", p.Files, want)
	}
	if c := in.Processes[1]; c.State != "stopped" || c.SharesMemory != 100 || len(c.Areas) != 0 || len(c.Files) != 8 {
		t.Errorf("child %+v", c)
	}
	if z := in.Processes[2]; z.State != "zombie" || z.ExitStatus != 256 || len(z.Files) != 0 {
		t.Errorf("zombie %+v", z)
	}
}

// TestInspectDamaged: what is wrong has its kind, at whatever place it is.
func TestInspectDamaged(t *testing.T) {
	if _, err := Inspect(filepath.Join(t.TempDir(), "no")); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	for _, part := range []string{"manifest", "pstree", "core/100", "core/101", "fs/110", "mm/100", "pages/100"} {
		im := sample()
		im.Drop(part)
		if _, err := Inspect(write(t, im)); !errors.Is(err, ErrDamaged) {
			t.Errorf("without %s: %v", part, err)
		}
	}
	for name, runs := range map[string]*fm.PageRuns{
		"lengths":  {Vaddr: []uint64{0x1000}},
		"overlap":  {Vaddr: []uint64{0x1000, 0x2000}, Pages: []uint64{2, 1}},
		"overflow": {Vaddr: []uint64{0xfffffffffffff000}, Pages: []uint64{2}},
		"huge":     {Vaddr: []uint64{0}, Pages: []uint64{1 << 53}},
	} {
		im := sample()
		im.Replace("pages/100", runs)
		if _, err := Inspect(write(t, im)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSavedRuns(t *testing.T) {
	r, err := newSavedRuns(&fm.PageRuns{Vaddr: []uint64{0x5000, 0x1000}, Pages: []uint64{2, 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want uint64 }{
		{0, 0x1000, 0}, {0, 0x2000, 0x1000}, {0x1000, 0x2000, 0x1000}, {0x1800, 0x2000, 0x800}, {0x2000, 0x5000, 0},
		{0, 0x6000, 0x2000}, {0x6000, 0x8000, 0x1000}, {0, 1 << 40, 0x3000}, {0x8000, 0x7000, 0}, {0x7000, 0x9000, 0},
	} {
		if got := r.within(c.from, c.to); got != c.want {
			t.Errorf("%#x-%#x: %#x, want %#x", c.from, c.to, got, c.want)
		}
	}
}

// FuzzInspect: whatever stands in an image whose checksum is right, it is shown
// or called damaged.
func FuzzInspect(f *testing.F) {
	b, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	const trailer = 16
	f.Add(b[:len(b)-trailer])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(nil), body...)
		b = binary.LittleEndian.AppendUint64(b, uint64(len(b)+trailer))
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		b = append(b, "END\n"...)
		im, err := image.Decode(b)
		if err != nil {
			return
		}
		in, err := inspect(im)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("not called damaged: %v", err)
			}
			return
		}
		if out, err := json.Marshal(in); err != nil || !strings.Contains(string(out), `"processes":[{`) {
			t.Errorf("%v: %s", err, out)
		}
	})
}
