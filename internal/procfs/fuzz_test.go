package procfs

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// seeds adds the files of testdata whose name begins with one of names, and a
// few broken ones made of them.
func seeds(f *testing.F, names ...string) {
	f.Helper()
	n := 0
	for _, name := range names {
		files, err := filepath.Glob("testdata/linux-*/" + name + "*")
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			// Long seeds make the fuzzer spend its time on shortening them.
			if most := 1500; len(b) > most {
				b = b[:bytes.LastIndexByte(b[:most], '\n')+1]
			}
			f.Add(b)
			f.Add(b[:len(b)*2/3])
			f.Add(bytes.ReplaceAll(b, []byte(" "), []byte("  ")))
			f.Add(bytes.Replace(b, []byte("0"), []byte("9999999999999999999999"), 1))
			n++
		}
	}
	if n == 0 {
		f.Fatal("no seeds for ", names)
	}
	f.Add([]byte{})
	f.Add([]byte("\n\n\x00:\n"))
}

// unchanged fails when the parser wrote into its input, and when what it gave
// changes with the input's memory, which goes back to a pool.
func unchanged[T any](t *testing.T, b []byte, parse func([]byte) (T, error)) (T, error) {
	t.Helper()
	in := bytes.Clone(b)
	v, err := parse(in)
	if !bytes.Equal(in, b) {
		t.Fatal("the parser changed its input")
	}
	v2, err2 := parse(in)
	for i := range in {
		in[i] = 'z'
	}
	if (err == nil) != (err2 == nil) || !reflect.DeepEqual(v, v2) {
		t.Fatalf("twice the same text: %v and %v", v, v2)
	}
	v3, _ := parse(bytes.Clone(b))
	if !reflect.DeepEqual(v, v3) {
		t.Fatalf("the value refers to the buffer: %v, before %v", v, v3)
	}
	return v, err
}

// survives parses, writes, parses again: the two values must be the same.
func survives[T any](t *testing.T, b []byte, parse func([]byte) (T, error), render func(T) string) {
	t.Helper()
	v, err := unchanged(t, b, parse)
	if err != nil {
		return
	}
	text := render(v)
	again, err := parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\nof %q\nwritten from %+v", err, text, v)
	}
	if !reflect.DeepEqual(v, again) {
		t.Fatalf("\n%+v\n%+v\nfrom %q", v, again, text)
	}
}

func FuzzStat(f *testing.F) {
	seeds(f, "stat", "zombie-stat", "kthread-stat")
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := unchanged(t, b, ParseStat)
		if err == nil && !bytes.Contains(b, []byte("("+st.Comm+")")) {
			t.Fatalf("name %q is not in the text", st.Comm)
		}
	})
}

func FuzzStatus(f *testing.F) {
	seeds(f, "status", "zombie-status", "kthread-status")
	f.Fuzz(func(t *testing.T, b []byte) { unchanged(t, b, ParseStatus) })
}

func FuzzMaps(f *testing.F) {
	seeds(f, "maps")
	f.Fuzz(func(t *testing.T, b []byte) {
		survives(t, b, ParseMaps, func(v []VMA) string { return lines(v, renderVMA) })
	})
}

func FuzzSmaps(f *testing.F) {
	seeds(f, "smaps")
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := unchanged(t, b, ParseSmaps)
		if err != nil {
			return
		}
		for _, m := range v {
			if again := parseVMFlags([]byte(m.Flags.String())); again != m.Flags {
				t.Fatalf("%v and %v", m.Flags, again)
			}
		}
		// The heads alone are a maps file.
		var heads []byte
		for l := range bytes.Lines(b) {
			if hexDigit[l[0]] >= 0 {
				heads = append(heads, l...)
			}
		}
		maps, err := ParseMaps(heads)
		if err != nil || len(maps) != len(v) {
			t.Fatal(len(maps), len(v), err)
		}
		for i := range maps {
			if maps[i] != v[i].VMA {
				t.Fatalf("%+v in maps, %+v in smaps", maps[i], v[i].VMA)
			}
		}
	})
}

func FuzzFDInfo(f *testing.F) {
	seeds(f, "fdinfo-")
	f.Fuzz(func(t *testing.T, b []byte) {
		survives(t, b, func(b []byte) (FDInfo, error) {
			v, err := ParseFDInfo(b)
			if g := v.Fanotify; g != nil {
				for i := range g.Marks {
					m := &g.Marks[i]
					// What the writer leaves out, because no kernel writes it.
					switch m.Kind {
					case FanotifyInode:
						m.MntID, m.MntNS = 0, 0
					case FanotifyMount:
						m.Ino, m.Dev, m.MntNS, m.Handle = 0, 0, 0, FileHandle{}
					case FanotifyMountNS:
						m.Ino, m.Dev, m.MntID, m.Handle = 0, 0, 0, FileHandle{}
					case FanotifyFilesystem:
						m.Ino, m.MntID, m.MntNS, m.Handle = 0, 0, 0, FileHandle{}
					case FanotifyOther:
						*m = FanotifyMark{Kind: FanotifyOther, MFlags: m.MFlags, Mask: m.Mask, IgnoredMask: m.IgnoredMask}
					}
				}
			}
			v.Extra, v.IOUring = nil, nil // not written
			for i := range v.Locks {
				v.Locks[i] = writable(v.Locks[i])
			}
			return v, err
		}, renderFDInfo)
	})
}

// writable is what of a lock the writer can show.
func writable(l Lock) Lock {
	if l.Ino == 0 {
		l.DevMajor, l.DevMinor = 0, 0
	}
	return l
}

func FuzzLocks(f *testing.F) {
	seeds(f, "locks")
	f.Fuzz(func(t *testing.T, b []byte) {
		survives(t, b, func(b []byte) ([]Lock, error) {
			v, err := ParseLocks(b)
			for i := range v {
				v[i] = writable(v[i])
			}
			return v, err
		}, func(v []Lock) string { return lines(v, renderLock) })
	})
}

func FuzzTimers(f *testing.F) {
	seeds(f, "timers")
	f.Fuzz(func(t *testing.T, b []byte) {
		survives(t, b, ParseTimers, func(v []Timer) string { return lines(v, renderTimer) })
	})
}

func FuzzMountInfo(f *testing.F) {
	seeds(f, "mountinfo")
	f.Fuzz(func(t *testing.T, b []byte) {
		survives(t, b, ParseMountInfo, func(v []Mount) string { return lines(v, renderMount) })
	})
}

func FuzzCgroup(f *testing.F) {
	seeds(f, "cgroup")
	f.Fuzz(func(t *testing.T, b []byte) {
		survives(t, b, ParseCgroup, func(v []Cgroup) string { return lines(v, renderCgroup) })
	})
}

// FuzzDirents gives the reader of directories what no kernel would.
func FuzzDirents(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x18\x00\x0442\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x18\x00\x04..\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0442"))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := parseDirents(b, nil)
		if err == nil && len(out) > len(b)/19 {
			t.Fatal(len(out), "names in", len(b), "bytes")
		}
		for _, n := range out {
			if n < 0 {
				t.Fatal(n)
			}
		}
	})
}

// FuzzSmall has all parsers of files of one line or of plain numbers.
func FuzzSmall(f *testing.F) {
	seeds(f, "auxv", "autogroup", "children", "cmdline", "comm", "coredump_filter", "loginuid", "personality",
		"sched", "statm", "syscall", "timens_offsets", "timerslack_ns", "oom_score_adj")
	f.Add([]byte("mnt:[4026531832]"))
	f.Add([]byte(`a\040\134\777\08\`))
	f.Fuzz(func(t *testing.T, b []byte) {
		unchanged(t, b, ParseAuxv)
		unchanged(t, b, ParseAutogroup)
		unchanged(t, b, ParseComm)
		unchanged(t, b, ParseHex32)
		unchanged(t, b, ParseInt)
		unchanged(t, b, ParseNamespace)
		unchanged(t, b, ParseSchedExecStart)
		unchanged(t, b, ParseStatm)
		unchanged(t, b, ParseUint)
		unchanged(t, b, ParseUint32)
		if c, err := unchanged(t, b, ParseSyscall); err == nil && c.Running && c != (Syscall{Running: true}) {
			t.Fatalf("%+v", c)
		}
		if c, err := unchanged(t, b, ParseTimensOffsets); err == nil && len(b) == 0 && c != (TimensOffsets{}) {
			t.Fatalf("%+v", c)
		}
		survives(t, b, ParseChildren, func(v []int) string {
			return strings.ReplaceAll(lines(v, func(n int) string { return itoa(int64(n)) + " " }), "\n", "")
		})
		if args, err := unchanged(t, b, ParseCmdline); err != nil || strings.Join(args, "\x00") != strings.TrimSuffix(string(b), "\x00") {
			t.Fatalf("%q %v", args, err)
		}
		if s := unescapeOctal(b); len(s) > len(b) {
			t.Fatalf("%q", s)
		}
		if s := unescapeName(b); len(s) > len(b) {
			t.Fatalf("%q", s)
		}
	})
}
