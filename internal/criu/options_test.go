package criu

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/fermata-cr/fermata/internal/fault"
)

// bare keeps the machine's own configuration files out of a test.
func bare(t *testing.T) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv(configEnv, "")
}

func TestSpellings(t *testing.T) {
	bare(t)
	for _, x := range []struct {
		args []string
		want func(*Options)
	}{
		{[]string{"dump", "-t", "7", "-D", "d", "-v4", "-o", "l"}, func(o *Options) { o.Tree, o.ImagesDir, o.Verbosity, o.LogFile = 7, "d", 4, "l" }},
		{[]string{"-D", "d", "dump", "--tree=7"}, func(o *Options) { o.Tree, o.ImagesDir = 7, "d" }},
		{[]string{"dump", "-vvvv"}, func(o *Options) { o.Verbosity = 4 }},
		{[]string{"dump", "--verbosity=3"}, func(o *Options) { o.Verbosity = 3 }},
		{[]string{"dump", "-verbosity=0"}, func(o *Options) { o.Verbosity = 0 }},
		{[]string{"dump", "-jRt", "12"}, func(o *Options) { o.ShellJob, o.LeaveRunning, o.Tree = true, true, 12 }},
		{[]string{"dump", "--leave-running", "--no-leave-running"}, func(o *Options) {}},
		{[]string{"dump", "--ghost-limit", "2M"}, func(o *Options) { o.GhostLimit = 2 << 20 }},
		{[]string{"dump", "--manage-cgroups"}, func(o *Options) { o.Cgroups = "soft" }},
		{[]string{"dump", "--manage-cgroups=full", "-l"}, func(o *Options) { o.Cgroups, o.FileLocks = "full", true }},
		{[]string{"restore", "-d", "--exec-cmd", "--", "sleep", "-v"}, func(o *Options) {
			o.Action, o.Detach, o.Daemon, o.ExecCmd, o.Args = "restore", true, true, true, []string{"sleep", "-v"}
		}},
		{[]string{"dump", "--external", "a", "--external", "b"}, func(o *Options) { o.External = []string{"a", "b"} }},
		{[]string{"dump", "--tcp-est"}, func(o *Options) { o.TCP = true }},
	} {
		o, err := parse(x.args)
		if err != nil {
			t.Errorf("%q: %v", x.args, err)
			continue
		}
		o.granted = nil
		want := defaults()
		want.Action, want.Args = "dump", []string{}
		x.want(want)
		if !reflect.DeepEqual(o, want) {
			t.Errorf("%q:\n got %+v\nwant %+v", x.args, o, want)
		}
	}
}

func TestWrongSpellings(t *testing.T) {
	bare(t)
	for _, x := range []struct {
		args []string
		kind error
	}{
		{[]string{"dump", "--no-such"}, fault.ErrUsage},
		{[]string{"dump", "--tree"}, fault.ErrUsage},
		{[]string{"dump", "--tree", "x"}, fault.ErrUsage},
		{[]string{"dump", "--leave-running=1"}, fault.ErrUsage},
		{[]string{"dump", "--cgroup"}, fault.ErrUsage}, // several begin so
		{[]string{"dump", "-Q"}, fault.ErrUsage},
		{[]string{"dump", "--manage-cgroups=some"}, fault.ErrUsage},
		{[]string{"dump", "--config", "/no/such/file"}, fault.ErrUsage},
		{[]string{"restore", "--join-ns", "net:1"}, fault.ErrRefused}, // not silently ignored
		{[]string{"restore", "--tls"}, fault.ErrRefused},
	} {
		if _, err := parse(x.args); !errors.Is(err, x.kind) {
			t.Errorf("%q: %v, want %v", x.args, err, x.kind)
		}
	}
}

// Every option that does nothing here says why, and none is without a rule.
func TestNoOptionIsIgnored(t *testing.T) {
	for _, o := range table {
		if o.later == "" && o.noop == "" && meaning[o.name] == "" {
			t.Errorf("--%s: nobody says what it does", o.name)
		}
		if o.set == nil {
			t.Errorf("--%s sets nothing", o.name)
		}
		if reflect.ValueOf(o.set).Pointer() == reflect.ValueOf(ignored).Pointer() && o.later == "" && o.noop == "" {
			t.Errorf("--%s is ignored without a word", o.name)
		}
	}
}

func TestConfigFiles(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(userConfig, "# of the user\ntcp-established\nlog-file \"a \\\"log\\\" # 1\" # its name\n\nghost-limit=1K\nverbosity 3\n")
	t.Setenv(configEnv, write("env.conf", "ghost-limit 2K\nmanage-cgroups full\n"))
	get := func(args ...string) *Options {
		t.Helper()
		o, err := parse(append([]string{"dump"}, args...))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if o := get(); !o.TCP || o.LogFile != `a "log" # 1` || o.GhostLimit != 2<<10 || o.Cgroups != "full" || o.Verbosity != 3 {
		t.Errorf("the files: %+v", o)
	}
	if o := get("--ghost-limit", "3K", "--no-tcp-established"); o.TCP || o.GhostLimit != 3<<10 {
		t.Errorf("the command line comes last: %+v", o)
	}
	if o := get("--no-default-config"); o.TCP || o.GhostLimit != 2<<10 {
		t.Errorf("without the default files: %+v", o)
	}
	if o := get("--config", write("own.conf", "shell-job\n")); o.TCP || !o.ShellJob {
		t.Errorf("a file of one's own: %+v", o)
	}
	for _, bad := range []string{"no-such-option\n", "log-file \"x\n", "leave-running yes\n"} {
		t.Setenv(configEnv, write("bad.conf", bad))
		if _, err := parse([]string{"dump"}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
