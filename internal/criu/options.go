package criu

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fermata-cr/fermata/internal/fault"
)

// argument says whether an option takes one.
type argument int

const (
	none     argument = iota
	needed            // --name VALUE or --name=VALUE
	optional          // --name or --name=VALUE
)

// where says which actions heed an option; the others accept it without a word,
// as callers pass one list to all of them.
type option struct {
	name  string
	short byte
	arg   argument
	// later, when set, says why the option cannot be had yet: it is then an
	// error to give it, unless with a value in idle, that asks for nothing.
	later string
	// noop, when set, says why there is nothing to do: the option is granted
	// always, or its trouble does not arise here. It is logged.
	noop string
	set  func(o *Options, value string) error
}

// Options is a command line, with its configuration files, understood.
type Options struct {
	Action string
	Args   []string // behind the action, or behind --

	Tree         int
	ImagesDir    string
	WorkDir      string
	LogFile      string
	Verbosity    int
	LogPid       bool
	PidFile      string
	Detach       bool
	Sibling      bool
	LeaveRunning bool
	LeaveStopped bool
	ExecCmd      bool
	ShellJob     bool
	TCP          bool // --tcp-established
	TCPClose     bool
	SkipInFlight bool
	FileLocks    bool
	LinkRemap    bool
	ExtUnix      bool
	GhostLimit   int64
	External     []string
	InheritFD    []string
	ActionScript []string
	StatusFD     int
	PrevDir      string
	TrackMem     bool
	AutoDedup    bool
	Timeout      int
	PreDumpMode  string
	NetworkLock  string
	Cgroups      string
	FreezeCgroup string
	Root         string
	Validation   string
	SkipRWX      bool
	PageServer   bool
	LazyPages    bool
	Address      string
	Port         int
	PSSocket     int
	Daemon       bool
	Features     []string
	CheckAll     bool
	CheckExtra   bool
	CheckNew     bool
	DisplayStats bool
	NoDefault    bool
	Config       string
	Version      bool
	Help         bool
	EvasiveDev   bool
	granted      []string // options with nothing to do, and why
}

const containers = "it belongs to the restoring of containers, which this version does not do yet"

func flagOf(p func(*Options) *bool) func(*Options, string) error {
	return func(o *Options, v string) error {
		*p(o) = v != "no"
		return nil
	}
}

func textOf(p func(*Options) *string) func(*Options, string) error {
	return func(o *Options, v string) error {
		*p(o) = v
		return nil
	}
}

func listOf(p func(*Options) *[]string) func(*Options, string) error {
	return func(o *Options, v string) error {
		*p(o) = append(*p(o), v)
		return nil
	}
}

func numberOf(p func(*Options) *int) func(*Options, string) error {
	return func(o *Options, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is no number", v)
		}
		*p(o) = n
		return nil
	}
}

// table has every option of CRIU 4.2.
var table = []option{
	{name: "tree", short: 't', arg: needed, set: numberOf(func(o *Options) *int { return &o.Tree })},
	{name: "images-dir", short: 'D', arg: needed, set: textOf(func(o *Options) *string { return &o.ImagesDir })},
	{name: "work-dir", short: 'W', arg: needed, set: textOf(func(o *Options) *string { return &o.WorkDir })},
	{name: "log-file", short: 'o', arg: needed, set: textOf(func(o *Options) *string { return &o.LogFile })},
	{name: "verbosity", short: 'v', arg: optional, set: verbosity},
	{name: "log-pid", set: flagOf(func(o *Options) *bool { return &o.LogPid }), noop: "one process does the work and writes one log"},
	{name: "pidfile", arg: needed, set: textOf(func(o *Options) *string { return &o.PidFile })},
	{name: "restore-detached", short: 'd', set: func(o *Options, v string) error { o.Detach, o.Daemon = v != "no", v != "no"; return nil }},
	{name: "daemon", set: func(o *Options, v string) error { o.Detach, o.Daemon = v != "no", v != "no"; return nil }},
	{name: "restore-sibling", short: 'S', set: flagOf(func(o *Options) *bool { return &o.Sibling }), later: containers},
	{name: "leave-running", short: 'R', set: flagOf(func(o *Options) *bool { return &o.LeaveRunning })},
	{name: "leave-stopped", short: 's', set: flagOf(func(o *Options) *bool { return &o.LeaveStopped })},
	{name: "exec-cmd", set: flagOf(func(o *Options) *bool { return &o.ExecCmd })},
	{name: "shell-job", short: 'j', set: flagOf(func(o *Options) *bool { return &o.ShellJob })},
	{name: "tcp-established", set: flagOf(func(o *Options) *bool { return &o.TCP })},
	{name: "tcp-close", set: flagOf(func(o *Options) *bool { return &o.TCPClose })},
	{name: "skip-in-flight", set: flagOf(func(o *Options) *bool { return &o.SkipInFlight }), noop: "connections that nobody has accepted are saved with their listener"},
	{name: "file-locks", short: 'l', set: flagOf(func(o *Options) *bool { return &o.FileLocks })},
	{name: "link-remap", set: flagOf(func(o *Options) *bool { return &o.LinkRemap }), noop: "always granted"},
	{name: "ext-unix-sk", short: 'x', arg: optional, set: func(o *Options, v string) error { o.ExtUnix = v != "no"; return nil }, noop: "a socket that is connected to a named one outside is connected to it again; what cannot be is refused by name"},
	{name: "ghost-limit", arg: needed, set: ghostLimit},
	{name: "ghost-fiemap", set: flagOf(func(*Options) *bool { return new(bool) }), noop: "holes of deleted files are always found and kept"},
	{name: "external", arg: needed, set: listOf(func(o *Options) *[]string { return &o.External })},
	{name: "inherit-fd", arg: needed, set: listOf(func(o *Options) *[]string { return &o.InheritFD })},
	{name: "action-script", arg: needed, set: listOf(func(o *Options) *[]string { return &o.ActionScript })},
	{name: "status-fd", arg: needed, set: numberOf(func(o *Options) *int { return &o.StatusFD })},
	{name: "prev-images-dir", arg: needed, set: textOf(func(o *Options) *string { return &o.PrevDir })},
	{name: "track-mem", set: flagOf(func(o *Options) *bool { return &o.TrackMem }), noop: "what has changed since the previous images is found by comparing"},
	{name: "auto-dedup", set: flagOf(func(o *Options) *bool { return &o.AutoDedup })},
	{name: "timeout", arg: needed, set: numberOf(func(o *Options) *int { return &o.Timeout })},
	{name: "pre-dump-mode", arg: needed, set: textOf(func(o *Options) *string { return &o.PreDumpMode }), noop: "pages are always read from outside of the tasks"},
	{name: "network-lock", arg: needed, set: oneOf("network-lock", func(o *Options) *string { return &o.NetworkLock }, "iptables", "nftables", "skip")},
	{name: "manage-cgroups", arg: optional, set: func(o *Options, v string) error {
		if v == "" || v == "no" {
			v = "soft"
		}
		return oneOf("manage-cgroups", func(o *Options) *string { return &o.Cgroups }, "none", "ignore", "props", "soft", "full", "strict")(o, v)
	}},
	{name: "freeze-cgroup", arg: needed, set: textOf(func(o *Options) *string { return &o.FreezeCgroup }), noop: "tasks are stopped one by one, in two passes, frozen or not"},
	{name: "root", short: 'r', arg: needed, set: textOf(func(o *Options) *string { return &o.Root }), later: containers},
	{name: "file-validation", arg: needed, set: oneOf("file-validation", func(o *Options) *string { return &o.Validation }, "filesize", "buildid"), noop: "files are compared by their size"},
	{name: "skip-file-rwx-check", set: flagOf(func(o *Options) *bool { return &o.SkipRWX }), noop: "permissions of files are not compared"},
	{name: "page-server", set: flagOf(func(o *Options) *bool { return &o.PageServer })},
	{name: "lazy-pages", set: flagOf(func(o *Options) *bool { return &o.LazyPages })},
	{name: "address", arg: needed, set: textOf(func(o *Options) *string { return &o.Address })},
	{name: "port", arg: needed, set: numberOf(func(o *Options) *int { return &o.Port })},
	{name: "ps-socket", arg: needed, set: numberOf(func(o *Options) *int { return &o.PSSocket })},
	{name: "feature", arg: needed, set: listOf(func(o *Options) *[]string { return &o.Features })},
	{name: "all", set: flagOf(func(o *Options) *bool { return &o.CheckAll }), noop: "check tells of everything"},
	{name: "extra", set: flagOf(func(o *Options) *bool { return &o.CheckExtra }), noop: "check tells of everything"},
	{name: "experimental", set: flagOf(func(o *Options) *bool { return &o.CheckNew }), noop: "check tells of everything"},
	{name: "ms", set: flagOf(func(*Options) *bool { return new(bool) }), noop: "features that are missing are no error of check anyway"},
	{name: "display-stats", set: flagOf(func(o *Options) *bool { return &o.DisplayStats })},
	{name: "no-default-config", set: flagOf(func(o *Options) *bool { return &o.NoDefault })},
	{name: "config", arg: needed, set: textOf(func(o *Options) *string { return &o.Config })},
	{name: "version", short: 'V', set: flagOf(func(o *Options) *bool { return &o.Version })},
	{name: "help", short: 'h', set: flagOf(func(o *Options) *bool { return &o.Help })},
	{name: "evasive-devices", set: flagOf(func(o *Options) *bool { return &o.EvasiveDev }), noop: "a device whose path leads elsewhere is refused"},
	{name: "force-irmap", set: flagOf(func(*Options) *bool { return new(bool) }), noop: "watched files are always looked for by name"},
	{name: "irmap-scan-path", arg: needed, set: ignored, noop: "watched files are looked for where the kernel says they are"},
	{name: "libdir", short: 'L', arg: needed, set: ignored, noop: "there are no plugins; state that would need one is refused by name"},
	{name: "cpu-cap", arg: optional, set: ignored, noop: "registers that the processor does not have are always refused, others never"},
	{name: "weak-sysctls", set: flagOf(func(*Options) *bool { return new(bool) }), noop: "no sysctl is saved: the tasks share this machine's"},
	{name: "unprivileged", set: flagOf(func(*Options) *bool { return new(bool) }), noop: "what an ordinary user may do is always found out"},
	{name: "allow-uprobes", set: flagOf(func(*Options) *bool { return new(bool) }), noop: "areas of uprobes are left to the kernel"},
	{name: "mntns-compat-mode", set: flagOf(func(*Options) *bool { return new(bool) }), noop: "no mount namespace is restored"},
	{name: "stream", set: ignored, later: "streaming images is not done yet: give a directory"},
	{name: "ext-mount-map", short: 'M', arg: needed, set: ignored, later: containers},
	{name: "enable-external-sharing", set: ignored, later: containers},
	{name: "enable-external-masters", set: ignored, later: containers},
	{name: "veth-pair", arg: needed, set: ignored, later: containers},
	{name: "skip-mnt", arg: needed, set: ignored, later: containers},
	{name: "enable-fs", arg: needed, set: ignored, later: containers},
	{name: "join-ns", short: 'J', arg: needed, set: ignored, later: containers},
	{name: "empty-ns", arg: needed, set: ignored, later: containers},
	{name: "lsm-profile", arg: needed, set: ignored, later: containers},
	{name: "lsm-mount-context", arg: needed, set: ignored, later: containers},
	{name: "cgroup-root", arg: needed, set: ignored, later: containers},
	{name: "cgroup-props", arg: needed, set: ignored, later: containers},
	{name: "cgroup-props-file", arg: needed, set: ignored, later: containers},
	{name: "cgroup-dump-controller", arg: needed, set: ignored, later: containers},
	{name: "cgroup-yard", arg: needed, set: ignored, later: containers},
	{name: "close", arg: needed, set: ignored, later: "closing descriptors of criu itself is not done: start it without them"},
	{name: "tls", set: ignored, later: "pages over the network are not encrypted yet"},
	{name: "tls-cacert", arg: needed, set: ignored, later: "pages over the network are not encrypted yet"},
	{name: "tls-cacrl", arg: needed, set: ignored, later: "pages over the network are not encrypted yet"},
	{name: "tls-cert", arg: needed, set: ignored, later: "pages over the network are not encrypted yet"},
	{name: "tls-key", arg: needed, set: ignored, later: "pages over the network are not encrypted yet"},
	{name: "tls-no-cn-verify", set: ignored, later: "pages over the network are not encrypted yet"},
}

func ignored(*Options, string) error { return nil }

func oneOf(name string, p func(*Options) *string, values ...string) func(*Options, string) error {
	return func(o *Options, v string) error {
		for _, x := range values {
			if x == v {
				*p(o) = v
				return nil
			}
		}
		return fmt.Errorf("%q is none of %s", v, strings.Join(values, ", "))
	}
}

func verbosity(o *Options, v string) error {
	if v == "" {
		o.Verbosity++
		return nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is no level", v)
	}
	o.Verbosity = n
	return nil
}

// ghostLimit reads a size with a suffix K, M or G.
func ghostLimit(o *Options, v string) error {
	n, shift := v, 0
	if v != "" {
		switch v[len(v)-1] {
		case 'K', 'k':
			shift = 10
		case 'M', 'm':
			shift = 20
		case 'G', 'g':
			shift = 30
		}
	}
	if shift > 0 {
		n = v[:len(v)-1]
	}
	x, err := strconv.ParseInt(n, 10, 64)
	if err != nil || x < 0 || x > 1<<62>>shift {
		return fmt.Errorf("%q is no size", v)
	}
	o.GhostLimit = x << shift
	return nil
}

// defaults are CRIU's.
func defaults() *Options {
	return &Options{Verbosity: -1, GhostLimit: 1 << 20, Timeout: 10, StatusFD: -1, PSSocket: -1, NetworkLock: "iptables"}
}

func byName(name string) *option {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

func usage(format string, a ...any) error { return fault.Errorf(fault.ErrUsage, format, a...) }

// setting is an option as it was given.
type setting struct {
	opt   *option
	value string
	from  string // how it was spelled
}

// scan takes a command line apart: options and action may come in any order;
// what follows "--" is a command for --exec-cmd.
func scan(args []string) (set []setting, rest []string, err error) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return set, append(rest, args[i+1:]...), nil
		case strings.HasPrefix(a, "--"):
			name, value, given := strings.Cut(a[2:], "=")
			x, negated, err := long(name)
			if err != nil {
				return nil, nil, err
			}
			switch {
			case x.arg == none && given:
				return nil, nil, usage("--%s takes no argument", name)
			case negated:
				value = "no"
			case x.arg == needed && !given:
				if i++; i == len(args) {
					return nil, nil, usage("--%s needs an argument", name)
				}
				value = args[i]
			}
			set = append(set, setting{x, value, "--" + x.name})
		case len(a) > 1 && a[0] == '-':
			more, used, err := cluster(a[1:], args[i+1:])
			if err != nil {
				return nil, nil, err
			}
			set = append(set, more...)
			i += used
		default:
			rest = append(rest, a)
		}
	}
	return set, rest, nil
}

// long finds an option by its name, an unambiguous beginning of it, or with no-
// before it.
func long(name string) (x *option, negated bool, err error) {
	if x = byName(name); x != nil {
		return x, false, nil
	}
	if n, ok := strings.CutPrefix(name, "no-"); ok {
		if x = byName(n); x != nil && x.arg == none {
			return x, true, nil
		}
	}
	var found []*option
	for i := range table {
		if name != "" && strings.HasPrefix(table[i].name, name) {
			found = append(found, &table[i])
		}
	}
	switch len(found) {
	case 1:
		return found[0], false, nil
	case 0:
		return nil, false, usage("unknown option --%s", name)
	}
	return nil, false, usage("--%s could be --%s or --%s", name, found[0].name, found[1].name)
}

// cluster takes short options apart: -vvvv, -v4, -jt 4711, -verbosity=4 (which
// some callers write).
func cluster(a string, next []string) (set []setting, used int, err error) {
	if name, value, ok := strings.Cut(a, "="); ok {
		if x := byName(name); x != nil && x.arg != none {
			return []setting{{x, value, "-" + name}}, 0, nil
		}
	}
	for i := 0; i < len(a); i++ {
		var x *option
		for j := range table {
			if table[j].short == a[i] && a[i] != 0 {
				x = &table[j]
			}
		}
		if x == nil {
			return nil, 0, usage("unknown option -%c", a[i])
		}
		s := setting{opt: x, from: "-" + a[i:i+1]}
		switch {
		case x.name == "verbosity":
			n := i + 1
			for n < len(a) && a[n] >= '0' && a[n] <= '9' {
				n++
			}
			s.value, i = a[i+1:n], n-1
		case x.arg == needed:
			if s.value = a[i+1:]; s.value == "" {
				if len(next) == 0 {
					return nil, 0, usage("-%c needs an argument", a[i])
				}
				s.value, used = next[0], 1
			}
			s.value = strings.TrimPrefix(s.value, "=")
			i = len(a)
		case x.arg == optional:
			s.value, i = a[i+1:], len(a)
		}
		set = append(set, s)
	}
	return set, used, nil
}

// apply sets options in their order.
func (o *Options) apply(all []setting) error {
	verbose := o.Verbosity
	for _, s := range all {
		if s.opt.name == "verbosity" && s.value == "" && verbose >= 0 {
			// Counting begins anew with each source.
			o.Verbosity, verbose = 0, -1
		}
		if s.opt.name == "verbosity" && s.value == "" && o.Verbosity < 0 {
			o.Verbosity = 0
		}
		if s.opt.later != "" && s.value != "no" {
			return fault.Errorf(fault.ErrRefused, "option %s: %s", s.from, s.opt.later)
		}
		if err := s.opt.set(o, s.value); err != nil {
			return usage("%s: %v", s.from, err)
		}
		if s.opt.noop != "" && s.value != "no" {
			o.granted = append(o.granted, fmt.Sprintf("option %s: %s", s.from, s.opt.noop))
		}
	}
	return nil
}
