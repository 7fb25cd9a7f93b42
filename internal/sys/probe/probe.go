// Package probe asks the running kernel, and what this user may do with it, by
// trying: every probe makes the call that fermata itself would make, in a form
// that changes nothing, and reads the kernel's answer. Version numbers are only
// told to people; no answer is derived from them, because distributions
// back-port features and containers forbid them.
package probe

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// State is a probe's answer.
type State int

const (
	// Unknown: the probe could not tell, for example because a helper process
	// could not be started. It is the zero value.
	Unknown State = iota
	// Yes: the feature is there and this process may use it.
	Yes
	// No: it is missing, disabled, or not permitted to this process.
	No
)

// String gives "yes", "no" or "unknown".
func (s State) String() string {
	switch s {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "unknown"
}

// MarshalText makes a State a string in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(b []byte) error {
	switch string(b) {
	case "yes":
		*s = Yes
	case "no":
		*s = No
	case "unknown":
		*s = Unknown
	default:
		return fmt.Errorf("probe: no such state %q", b)
	}
	return nil
}

// Result is a State with what was seen.
type Result struct {
	State  State
	Detail string // the kernel's error, or a value such as "scope 1"; may be empty
}

// Kind says what a feature depends on.
type Kind string

const (
	// Kernel: code that is in the kernel or not (version, configuration).
	Kernel Kind = "kernel"
	// Privilege: something this user may do or not.
	Privilege Kind = "privilege"
	// Setting: something the administrator switched or provided.
	Setting Kind = "setting"
)

// Feature is one question to the machine. The variables of this package are
// all there are; All lists them.
type Feature struct {
	ID      string // stable, for programs: "pagemap_scan"
	Title   string // for people: "PAGEMAP_SCAN ioctl"
	Kind    Kind
	Since   Version // the first mainline kernel that has it; zero when it does not depend on the version
	Config  string  // the kernel option it needs, "" for none
	For     string  // what fermata does with it
	Without string  // what its absence means for a user
	Unused  bool    // nothing in this version depends on it

	ask  func() Result
	once sync.Once
	res  Result
}

// Probe asks the kernel once and remembers the answer. It may be called from
// several goroutines. A probe costs between a system call and the start of a
// process (the ptrace and namespace ones).
func (f *Feature) Probe() Result {
	f.once.Do(func() { f.res = f.ask() })
	return f.res
}

// Have reports whether the feature is surely there.
func (f *Feature) Have() bool { return f.Probe().State == Yes }

// Version is a kernel's major and minor number.
type Version struct{ Major, Minor int }

// IsZero reports whether v is no version at all.
func (v Version) IsZero() bool { return v == Version{} }

// Less compares two versions.
func (v Version) Less(w Version) bool {
	return v.Major < w.Major || v.Major == w.Major && v.Minor < w.Minor
}

// String gives "6.7", or "" for the zero version.
func (v Version) String() string {
	if v.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%d", v.Major, v.Minor)
}

// MarshalText makes a Version a string in JSON.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (v *Version) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*v = Version{}
		return nil
	}
	w, ok := ParseVersion(string(b))
	if !ok {
		return fmt.Errorf("probe: no kernel version: %q", b)
	}
	*v = w
	return nil
}

// ParseVersion takes the two leading numbers of a release such as
// "6.18.44-fc" or "5.15.0-91-generic".
func ParseVersion(release string) (Version, bool) {
	var v Version
	rest, ok := number(release, &v.Major)
	if !ok || len(rest) == 0 || rest[0] != '.' {
		return Version{}, false
	}
	if _, ok = number(rest[1:], &v.Minor); !ok {
		return Version{}, false
	}
	return v, true
}

// number reads a decimal number of at most six digits from the start of s.
func number(s string, n *int) (rest string, ok bool) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		*n = *n*10 + int(s[i]-'0')
		if i++; i > 6 {
			return s, false
		}
	}
	return s[i:], i > 0
}

// Release gives uname(2)'s release and machine, for example "6.18.44" and
// "x86_64".
func Release() (release, machine string, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]), nil
}

// yes and no are the two plain answers.
func yes(detail string) Result { return Result{Yes, detail} }
func no(detail string) Result  { return Result{No, detail} }

// unsure is the answer of a probe that could not be made.
func unsure(step string, err error) Result {
	return Result{Unknown, fmt.Sprintf("%s: %v", step, err)}
}

// byErrno judges the usual outcome of a call: nil is yes; the errors by which
// the kernel says that it lacks or forbids a call are no; all others say
// nothing about the feature.
func byErrno(step string, err error) Result {
	if err == nil {
		return yes("")
	}
	for _, e := range [...]unix.Errno{unix.ENOSYS, unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOTTY, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.ENOPROTOOPT, unix.E2BIG} {
		if errors.Is(err, e) {
			return no(err.Error())
		}
	}
	return unsure(step, err)
}
