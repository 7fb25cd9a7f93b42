package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/netlock"
	"github.com/fermata-cr/fermata/internal/resource"
)

// trash begins the names of checkpoints that are being removed.
const trash = ".removed-"

// magic begins the metadata file of every version.
const magic = "FERMATA\n"

// Remove deletes the checkpoint that a REF stands for. It is renamed first, so
// that nobody finds half of it; what an interrupted removal left under such a
// name goes with the next one. Damaged checkpoints are removed too.
//
// Nothing there is fault.ErrNotFound; something that is no checkpoint is
// fault.ErrRefused and stays untouched.
func (r Repo) Remove(ref string) error {
	dir, err := r.Path(ref)
	if err != nil {
		return err
	}
	st, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return fault.Errorf(fault.ErrNotFound, "no checkpoint %s (%s)", ref, dir)
	}
	if err != nil {
		return kind(err)
	}
	reason := "not a directory"
	if st.IsDir() {
		reason = why(dir, !IsPath(ref))
	}
	if reason != "" {
		return &fault.RefusedError{Reasons: []fault.Reason{{
			Object: dir, Why: reason, Remedy: "only checkpoints are removed; nothing was touched",
		}}}
	}
	links, locks := left(dir)
	parent := filepath.Dir(dir)
	gone := filepath.Join(parent, trash+filepath.Base(dir)+"-"+letters(8))
	if err := os.Rename(dir, gone); err != nil {
		return kind(fmt.Errorf("remove checkpoint %s: %w", ref, err))
	}
	for _, l := range links {
		l.remove()
	}
	for _, name := range locks {
		// Nobody will restore its connections: their peers may know now.
		if err := netlock.Unlock(name); err != nil {
			return kind(fmt.Errorf("remove checkpoint %s: %w", ref, err))
		}
	}
	if err := os.RemoveAll(gone); err != nil {
		return kind(fmt.Errorf("remove checkpoint %s: what is left of it is now %s: %w", ref, gone, err))
	}
	if strings.HasPrefix(ref, MemoryPrefix) {
		Memory().sweep()
	} else if !IsPath(ref) {
		r.sweep()
	}
	return nil
}

// sweep deletes what interrupted removals left in the repository; a failure
// leaves it for the next time.
func (r Repo) sweep() {
	names, err := os.ReadDir(r.dir)
	if err != nil {
		return
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), trash) && n.IsDir() {
			os.RemoveAll(filepath.Join(r.dir, n.Name()))
		}
	}
}

// why tells why dir is no checkpoint, "" when it is one. A checkpoint is known
// by the first bytes of its metadata. Of a file that was cut off inside them
// there is less to compare; that is enough inside a repository, where nothing
// else is, but not for just any directory.
func why(dir string, inRepo bool) string {
	path := filepath.Join(dir, image.MetaName)
	// A pipe or device of that name must not be waited for.
	if st, err := os.Lstat(path); err != nil {
		return fmt.Sprintf("not a checkpoint: it has no file %q", image.MetaName)
	} else if !st.Mode().IsRegular() {
		return fmt.Sprintf("not a checkpoint: %q in it is no regular file", image.MetaName)
	}
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	head := make([]byte, len(magic))
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err.Error()
	}
	if !bytes.HasPrefix([]byte(magic), head[:n]) || n < len(magic) && !inRepo {
		return fmt.Sprintf("not a checkpoint: %q in it is not fermata's", image.MetaName)
	}
	return ""
}

// hiddenLink is a name that a checkpoint has given to a file which had lost the
// one the program knew: nobody else needs it.
type hiddenLink struct {
	name     string
	dev, ino uint64
}

// left gives what there is of a checkpoint outside its directory: hidden links,
// and the names of locks on connections. Of one that cannot be read it is nothing.
func left(dir string) (links []hiddenLink, locks []string) {
	im, err := image.Read(dir)
	if err != nil {
		return nil, nil
	}
	all, err := image.All[*fm.FileExtra](im, "file-extra")
	if err != nil {
		return nil, nil
	}
	for _, x := range all {
		if name := x.GetLinkPath(); filepath.IsAbs(name) && strings.HasPrefix(filepath.Base(name), resource.LinkPrefix) {
			links = append(links, hiddenLink{name, x.GetDev(), x.GetIno()})
		}
	}
	return links, resource.NetLocks(im)
}

// remove removes the name, if it is still that file's. Where that may not be, it
// stays: the checkpoint is what was to be removed.
func (l hiddenLink) remove() {
	var st unix.Stat_t
	if unix.Lstat(l.name, &st) == nil && uint64(st.Dev) == l.dev && st.Ino == l.ino {
		_ = unix.Unlink(l.name)
	}
}
