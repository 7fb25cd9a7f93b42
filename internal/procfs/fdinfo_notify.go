package procfs

import "encoding/hex"

// FileHandle is what name_to_handle_at(2) would give for a watched file, for
// open_by_handle_at(2); all zero where its file system cannot make one.
type FileHandle struct {
	Type int
	Data []byte
}

// InotifyWatch is one watch of an inotify instance.
type InotifyWatch struct {
	WD          int
	Ino         uint64
	Dev         uint64 // the kernel's own dev_t: major<<20 | minor
	Mask        uint32 // IN_* bits as the kernel keeps them
	IgnoredMask uint32
	Handle      FileHandle
}

// Fanotify is the state of a fanotify group.
type Fanotify struct {
	Flags      uint32 // fanotify_init's flags
	EventFlags uint32 // fanotify_init's event_f_flags
	Marks      []FanotifyMark
}

// FanotifyKind says what a mark is on.
type FanotifyKind uint8

// What can be marked.
const (
	FanotifyInode FanotifyKind = iota
	FanotifyMount
	FanotifyFilesystem
	FanotifyMountNS
	FanotifyOther // something that this list does not have
)

// FanotifyMark is one mark of a fanotify group.
type FanotifyMark struct {
	Kind        FanotifyKind
	Ino         uint64 // of an inode mark
	Dev         uint64 // of an inode or file system mark, major<<20 | minor
	MntID       int    // of a mount mark
	MntNS       uint64 // of a mount namespace mark
	MFlags      uint32 // FAN_MARK_* that stay with the mark
	Mask        uint64
	IgnoredMask uint64
	Handle      FileHandle
}

// watch is what the lines of inotify and fanotify have in common: words of the
// form key:value, the values hexadecimal.
type watch struct {
	wd, ino, dev, mntID, mntNS    uint64
	mflags, mask, ignored         uint64
	flags, eventFlags             uint64
	hasIno, hasDev, hasMnt, hasNS bool
	hasGroup                      bool
	handle                        FileHandle
}

func (w *watch) parse(line []byte) bool {
	size := 0 // of the handle
	s := scanner{b: line}
	for s.blanks(); s.i < len(line) && !s.bad; s.blanks() {
		switch string(s.until(':')) {
		case "wd":
			w.wd = uint64(s.hex32())
		case "ino":
			w.ino, w.hasIno = s.hex(), true
		case "sdev":
			w.dev, w.hasDev = s.hex(), true
		case "mnt_id":
			w.mntID, w.hasMnt = uint64(s.hex32()), true
		case "mnt_ns":
			w.mntNS, w.hasNS = s.dec(), true
		case "mflags":
			w.mflags = uint64(s.hex32())
		case "mask":
			w.mask = s.hex()
		case "ignored_mask":
			w.ignored = s.hex()
		case "flags":
			w.flags, w.hasGroup = uint64(s.hex32()), true
		case "event-flags":
			w.eventFlags = uint64(s.hex32())
		case "fhandle-bytes":
			size = int(s.hex32())
		case "fhandle-type":
			w.handle.Type = int(s.hex32())
		case "f_handle":
			text := s.word()
			w.handle.Data = make([]byte, hex.DecodedLen(len(text)))
			if _, err := hex.Decode(w.handle.Data, text); err != nil {
				return false
			}
		default:
			s.word()
		}
	}
	if w.handle.Data == nil {
		w.handle.Type = 0
	}
	return !s.bad && size == len(w.handle.Data)
}

// inotifyLine takes what follows "inotify ".
func (f *FDInfo) inotifyLine(line []byte) bool {
	var w watch
	if !w.parse(line) || !w.hasIno || w.mask>>32 != 0 || w.ignored>>32 != 0 {
		return false
	}
	f.Inotify = append(f.Inotify, InotifyWatch{
		WD: int(int32(w.wd)), Ino: w.ino, Dev: w.dev,
		Mask: uint32(w.mask), IgnoredMask: uint32(w.ignored), Handle: w.handle,
	})
	return true
}

// fanotifyLine takes what follows "fanotify ".
func (f *FDInfo) fanotifyLine(line []byte) bool {
	var w watch
	if !w.parse(line) {
		return false
	}
	if f.Fanotify == nil {
		f.Fanotify = new(Fanotify)
	}
	m := FanotifyMark{
		Ino: w.ino, Dev: w.dev, MntID: int(w.mntID), MntNS: w.mntNS,
		MFlags: uint32(w.mflags), Mask: w.mask, IgnoredMask: w.ignored, Handle: w.handle,
	}
	switch {
	case w.hasGroup:
		f.Fanotify.Flags, f.Fanotify.EventFlags = uint32(w.flags), uint32(w.eventFlags)
		return true
	case w.hasIno:
		m.Kind = FanotifyInode
	case w.hasMnt:
		m.Kind = FanotifyMount
	case w.hasNS:
		m.Kind = FanotifyMountNS
	case w.hasDev:
		m.Kind = FanotifyFilesystem
	default:
		m.Kind = FanotifyOther
	}
	f.Fanotify.Marks = append(f.Fanotify.Marks, m)
	return true
}
