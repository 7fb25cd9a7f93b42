package resource

import (
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/ext-file"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
)

// Kinds of which the interchange schema knows nothing write entries of type
// EXT, which stands there for files that somebody else opens again. Which kind an
// entry is of says file_extra.ext.
var extKinds = map[string]Kind{}

// registerExt adds such a kind; its Types are none.
func registerExt(k Kind) {
	if extKinds[k.Name()] != nil {
		panic("resource: " + k.Name() + " is registered twice")
	}
	Register(k)
	extKinds[k.Name()] = k
}

// extEntry gives the entry of a file of such a kind.
func (d *Dump) extEntry(f *File, k Kind) (*fdinfo.FileEntry, error) {
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	d.Extra(f).Ext = proto.String(k.Name())
	e := entryOf(fdinfo.FdTypes_EXT)
	e.Ext = &ext_file.ExtFileEntry{Id: proto.Uint32(f.ID), Fown: o}
	return e, nil
}

// kindOf gives the kind that opens an entry, or nil.
func (r *Restore) kindOf(e *fdinfo.FileEntry) Kind {
	if e.GetType() == fdinfo.FdTypes_EXT {
		return extKinds[r.Extra(e.GetId()).GetExt()]
	}
	return KindOf(e.GetType())
}
