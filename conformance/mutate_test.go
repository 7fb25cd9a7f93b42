package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/cgroup"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	criucore "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/eventfd"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/eventpoll"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/fifo"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/file-lock"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/fs"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/fsnotify"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/ghost-file"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/pidfd"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/pipe"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/pipe-data"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/remap-file-path"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/seccomp"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/signalfd"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-packet"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-unix"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/timens"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/timerfd"
	_ "github.com/checkpoint-restore/go-criu/v8/crit/images/tty"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Mutations are the tests of the tests: a part of the image is taken out, and
// a program that checks for it must not pass any more. Metadata is protobuf
// messages whatever files they are in, so a mutation names a message:
//
//	task_core_entry.oom_score_adj    the field is cleared in every such message
//	                                 (a required scalar becomes zero)
//	task_core_entry.personality=0    the field is set
//	fermata.thread_extra.xstate[576:832]  these bytes become zero
//	rseq_entry                       every such message is taken out
//	part:pages                       a whole part of the image is taken out
//	rseq_entry|fermata.x             each of them, wherever it is found
//
// A message with a value that is already there doesn't count as mutated, and a
// mutation that finds nothing is an error: it would prove nothing.

// mutation is one of those that are about messages.
type mutation struct {
	message, field, value string
	set                   bool
	lo, hi                int // of the bytes to clear; hi 0: not that form
}

// parseMutations reads alternatives, separated by |.
func parseMutations(what string) ([]mutation, error) {
	var all []mutation
	for _, w := range strings.Split(what, "|") {
		m, err := parseMutation(w)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func parseMutation(what string) (m mutation, err error) {
	what, m.value, m.set = strings.Cut(what, "=")
	if _, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(what)); err == nil {
		m.message = what
		return m, nil
	}
	what, span, ok := strings.Cut(what, "[")
	if ok {
		if _, err := fmt.Sscanf(span, "%d:%d]", &m.lo, &m.hi); err != nil || m.hi <= m.lo {
			return m, fmt.Errorf("%s[%s: not a span of bytes", what, span)
		}
	}
	i := strings.LastIndexByte(what, '.')
	if i < 0 {
		return m, fmt.Errorf("%s: no such message", what)
	}
	m.message, m.field = what[:i], what[i+1:]
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(m.message))
	if err != nil {
		return m, fmt.Errorf("%s: no such message", m.message)
	}
	if mt.Descriptor().Fields().ByName(protoreflect.Name(m.field)) == nil {
		return m, fmt.Errorf("%s has no field %s", m.message, m.field)
	}
	return m, nil
}

// apply changes msg and everything below it, and counts.
func (m mutation) apply(msg protoreflect.Message) (n int, err error) {
	d := msg.Descriptor()
	if m.field != "" && string(d.FullName()) == m.message {
		k, err := m.change(msg, d.Fields().ByName(protoreflect.Name(m.field)))
		if err != nil {
			return n, err
		}
		n += k
	}
	msg.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind || fd.IsMap() {
			return true
		}
		if m.field == "" && string(fd.Message().FullName()) == m.message {
			if fd.IsList() {
				n += v.List().Len()
			} else {
				n++
			}
			msg.Clear(fd)
			return true
		}
		var k int
		if fd.IsList() {
			for i := range v.List().Len() {
				k, err = m.apply(v.List().Get(i).Message())
				n += k
				if err != nil {
					return false
				}
			}
			return true
		}
		k, err = m.apply(v.Message())
		n += k
		return err == nil
	})
	return n, err
}

func (m mutation) change(msg protoreflect.Message, fd protoreflect.FieldDescriptor) (int, error) {
	scalar := !fd.IsList() && fd.Kind() != protoreflect.MessageKind
	var to protoreflect.Value
	switch {
	case m.hi > 0 && fd.Kind() != protoreflect.BytesKind:
		return 0, fmt.Errorf("%s.%s has no bytes", m.message, m.field)
	case m.hi > 0:
		b := slices.Clone(msg.Get(fd).Bytes())
		if len(b) <= m.lo {
			return 0, nil
		}
		clear(b[m.lo:min(m.hi, len(b))])
		to = protoreflect.ValueOfBytes(b)
	case m.set && !scalar:
		return 0, fmt.Errorf("%s.%s is not a scalar", m.message, m.field)
	case m.set:
		v, err := parseScalar(fd, m.value)
		if err != nil {
			return 0, err
		}
		to = v
	case !msg.Has(fd):
		return 0, nil
	case scalar && fd.Cardinality() == protoreflect.Required:
		to = fd.Default()
	default:
		msg.Clear(fd)
		return 1, nil
	}
	if msg.Has(fd) && msg.Get(fd).Equal(to) {
		return 0, nil
	}
	msg.Set(fd, to)
	return 1, nil
}

func parseScalar(fd protoreflect.FieldDescriptor, s string) (protoreflect.Value, error) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s), nil
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(s)), nil
	case protoreflect.BoolKind:
		v, err := strconv.ParseBool(s)
		return protoreflect.ValueOfBool(v), err
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		v, err := strconv.ParseUint(s, 0, 32)
		return protoreflect.ValueOfUint32(uint32(v)), err
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		v, err := strconv.ParseUint(s, 0, 64)
		return protoreflect.ValueOfUint64(v), err
	case protoreflect.Int32Kind, protoreflect.Sint32Kind:
		v, err := strconv.ParseInt(s, 0, 32)
		return protoreflect.ValueOfInt32(int32(v)), err
	case protoreflect.Int64Kind, protoreflect.Sint64Kind:
		v, err := strconv.ParseInt(s, 0, 64)
		return protoreflect.ValueOfInt64(v), err
	case protoreflect.EnumKind:
		v, err := strconv.ParseInt(s, 0, 32)
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(v)), err
	}
	return protoreflect.Value{}, fmt.Errorf("%s: no values of kind %s", fd.FullName(), fd.Kind())
}

// mutateFermata changes a checkpoint's metadata, and makes it whole again: it
// is the program, not a checksum, that must find what is missing.
func mutateFermata(dir, what string) (int, error) {
	im, err := image.Read(dir)
	if err != nil {
		return 0, err
	}
	n := 0
	if what == "part:pages" {
		what = "fermata.page_runs" // the content of memory, all of it
	}
	if part, ok := strings.CutPrefix(what, "part:"); ok {
		for _, name := range im.Names() {
			if base, _, _ := strings.Cut(name, "/"); base == part && im.Drop(name) {
				n++
			}
		}
	} else if n, err = mutateParts(im, what); err != nil {
		return n, err
	}
	b, err := im.Encode()
	if err != nil {
		return n, err
	}
	return n, os.WriteFile(filepath.Join(dir, image.MetaName), b, 0o600)
}

func mutateParts(im *image.Image, what string) (n int, err error) {
	all, err := parseMutations(what)
	if err != nil {
		return 0, err
	}
	for _, name := range im.Names() {
		recs, err := im.Records(name)
		if err != nil {
			return n, err
		}
		dropped := false
		var keep []image.Record
		for _, r := range recs {
			msg := r.Msg.ProtoReflect()
			if slices.ContainsFunc(all, func(m mutation) bool {
				return m.field == "" && m.message == string(msg.Descriptor().FullName())
			}) {
				n++
				dropped = true
				continue
			}
			for _, m := range all {
				k, err := m.apply(msg)
				n += k
				if err != nil {
					return n, err
				}
			}
			keep = append(keep, r)
		}
		if dropped {
			im.Drop(name)
			for _, r := range keep {
				im.Add(name, r.Msg, r.Payload...)
			}
		}
	}
	return n, nil
}

// criuFiles says what the entries of CRIU's image files are, by prefix; only
// files without payload between the entries. A pagemap begins with a head.
var criuFiles = []struct{ prefix, message string }{
	{"core-", "core_entry"}, {"fs-", "fs_entry"}, {"mm-", "mm_entry"}, {"pstree", "pstree_entry"}, {"ids-", "task_kobj_ids_entry"},
	{"files.img", "file_entry"}, {"fdinfo-", "fdinfo_entry"}, {"timens-", "timens_entry"}, {"pagemap-", "pagemap_entry"},
	{"remap-fpath", "remap_file_path_entry"}, {"memfd", "memfd_inode_entry"}, {"eventpoll-tfd", "eventpoll_tfd_entry"},
	{"tty-info", "tty_info_entry"}, {"filelocks", "file_lock_entry"}, {"inotify-wd", "inotify_wd_entry"},
}

// mutateCRIU changes the images of CRIU, to see that the programs can fail.
func mutateCRIU(img, what string) (int, error) {
	if part, ok := strings.CutPrefix(what, "part:"); ok {
		files := imageFiles(img, part, ".img")
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				return 0, err
			}
		}
		return len(files), nil
	}
	all, err := parseMutations(what)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range criuFiles {
		mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(c.message))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", c.message, err)
		}
		for _, f := range imageFiles(img, c.prefix, "") {
			k, err := mutateCRIUFile(f, mt, all)
			if err != nil {
				return n, fmt.Errorf("%s: %w", filepath.Base(f), err)
			}
			n += k
		}
	}
	return n, nil
}

func mutateCRIUFile(path string, mt protoreflect.MessageType, all []mutation) (int, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	if len(raw) < 8 {
		return 0, nil
	}
	skip := 8
	if strings.HasPrefix(filepath.Base(path), "pagemap-") && len(raw) >= 12 {
		skip += 4 + int(binary.LittleEndian.Uint32(raw[8:]))
	}
	if skip > len(raw) {
		return 0, errors.New("truncated")
	}
	out, in := raw[:skip:skip], raw[skip:]
	n := 0
	for len(in) >= 4 {
		size := int(binary.LittleEndian.Uint32(in))
		if len(in) < 4+size {
			return 0, errors.New("truncated")
		}
		msg := mt.New()
		if err := proto.Unmarshal(in[4:4+size], msg.Interface()); err != nil {
			return 0, err
		}
		in = in[4+size:]
		if slices.ContainsFunc(all, func(m mutation) bool {
			return m.field == "" && m.message == string(mt.Descriptor().FullName())
		}) {
			n++
			continue
		}
		for _, m := range all {
			k, err := m.apply(msg)
			if err != nil {
				return 0, err
			}
			n += k
		}
		b, err := proto.Marshal(msg.Interface())
		if err != nil {
			return 0, err
		}
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(b))), b...)
	}
	return n, os.WriteFile(path, out, 0o600)
}

// TestMutation checks the three forms on a message.
func TestMutation(t *testing.T) {
	u := func(v uint32) *uint32 { return &v }
	fresh := func() *criucore.CoreEntry {
		return &criucore.CoreEntry{
			Tc:         &criucore.TaskCoreEntry{Personality: u(7), Loginuid: u(5)},
			ThreadCore: &criucore.ThreadCoreEntry{PdeathSig: u(9)},
		}
	}
	for _, c := range []struct {
		what string
		n    int
		ok   func(*criucore.CoreEntry) bool
	}{
		{"task_core_entry.personality", 1, func(c *criucore.CoreEntry) bool { return c.Tc.Personality != nil && *c.Tc.Personality == 0 }},
		{"task_core_entry.personality=7", 0, func(c *criucore.CoreEntry) bool { return *c.Tc.Personality == 7 }},
		{"task_core_entry.personality=0x10", 1, func(c *criucore.CoreEntry) bool { return *c.Tc.Personality == 16 }},
		{"task_core_entry.loginuid", 1, func(c *criucore.CoreEntry) bool { return c.Tc.Loginuid == nil }},
		{"task_core_entry.stop_signo", 0, func(c *criucore.CoreEntry) bool { return true }},
		{"thread_core_entry", 1, func(c *criucore.CoreEntry) bool { return c.ThreadCore == nil && c.Tc != nil }},
	} {
		msg := fresh()
		m, err := parseMutation(c.what)
		if err != nil {
			t.Fatal(err)
		}
		n, err := m.apply(msg.ProtoReflect())
		if err != nil || n != c.n || !c.ok(msg) {
			t.Errorf("%s: %d changes, %v: %v", c.what, n, err, msg)
		}
	}
	for _, bad := range []string{"task_core_entry.persona", "tusk_core_entry.personality", "tusk", "fermata.thread_extra.xstate[3:2]"} {
		if _, err := parseMutation(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	x := &fm.ThreadExtra{Xstate: []byte("0123456789")}
	m, err := parseMutation("fermata.thread_extra.xstate[2:4]")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := m.apply(x.ProtoReflect()); n != 1 || err != nil || string(x.Xstate) != "01\x00\x00456789" {
		t.Errorf("span: %d changes, %v: %q", n, err, x.Xstate)
	}
}

// TestMutationsParse checks that every mutation in a header names messages and
// fields that exist.
func TestMutationsParse(t *testing.T) {
	all, err := Programs("programs")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for _, what := range p.Mutate {
			if strings.HasPrefix(what, "part:") {
				continue
			}
			if _, err := parseMutations(what); err != nil {
				t.Errorf("%s: mutate %s: %v", p.Name, what, err)
			}
		}
	}
}
