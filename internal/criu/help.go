package criu

import (
	"fmt"
	"strings"
)

// meaning says what the options do that do something.
var meaning = map[string]string{
	"tree":              "dump the process `PID` with all its descendants",
	"images-dir":        "the `DIR` of the images (default: the current one)",
	"work-dir":          "the `DIR` of log, pid file and statistics (default: that of the images)",
	"log-file":          "write the log to `FILE` (default: stderr)",
	"verbosity":         "how much is logged: 1 errors, 2 warnings (default), 3 what is done, 4 all; as -v4, -vvvv, --verbosity=4",
	"pidfile":           "write the pid of the restored root process to `FILE`, which must not exist",
	"restore-detached":  "return when the program runs",
	"daemon":            "the same as --restore-detached",
	"leave-running":     "let the program go on after the dump",
	"leave-stopped":     "leave the program stopped",
	"exec-cmd":          "after the restore become the command behind \"--\", as parent of the restored program",
	"shell-job":         "the program belongs to the terminal and session of the caller",
	"network-lock":      "what keeps packets from connections to the outside: nf_tables, whichever of iptables and nftables is named; with skip, you",
	"tcp-established":   "save TCP connections, also those to the outside",
	"tcp-close":         "let connections be closed ones after the restore",
	"file-locks":        "allow file locks",
	"ghost-limit":       "refuse deleted files with more than `SIZE` bytes of data (default 1M)",
	"external":          "a `RESOURCE` outside the tree",
	"inherit-fd":        "let a descriptor of the caller stand for a file: `fd[NUM]:RESOURCE`",
	"action-script":     "run `FILE` at each step, with CRTOOLS_SCRIPT_ACTION, CRTOOLS_IMAGE_DIR and CRTOOLS_INIT_PID set; several may be given",
	"status-fd":         "write a zero byte to the descriptor `FD` and close it when the program runs",
	"prev-images-dir":   "leave pages to the images in `DIR` (relative to those of this dump) that have them already",
	"auto-dedup":        "dump: free the pages of the previous images that this one has anew",
	"timeout":           "give up when the program cannot be stopped in `SECONDS` (default 10, 0: never)",
	"manage-cgroups":    "what happens to control groups: ignore; none or props (must exist); soft (default, made when they are gone); full (and set as they were); strict (must not exist)",
	"page-server":       "dump to a page server",
	"lazy-pages":        "restore pages when they are touched",
	"address":           "`ADDRESS` of a page server or service",
	"port":              "`PORT` of a page server",
	"ps-socket":         "descriptor `FD` of a connection to a page server",
	"feature":           "check: whether the kernel has the feature `NAME`",
	"display-stats":     "print the statistics of the run",
	"no-default-config": "do not read /etc/criu/default.conf and ~/.criu/default.conf",
	"config":            "read `FILE` in place of the default configuration files",
	"version":           "print the version",
	"help":              "print this",
}

// Option is one option for people.
type Option struct{ Spelling, Text string }

// OptionTexts gives every option with what it does, or why it is refused or has
// nothing to do.
func OptionTexts() (out []Option) {
	for _, o := range table {
		name, text := "--"+o.name, meaning[o.name]
		arg := "ARG"
		if _, rest, ok := strings.Cut(text, "`"); ok {
			arg, _, _ = strings.Cut(rest, "`")
			text = strings.ReplaceAll(text, "`", "")
		}
		switch o.arg {
		case needed:
			name += " " + arg
		case optional:
			name += "[=" + arg + "]"
		}
		if o.short != 0 {
			name = fmt.Sprintf("-%c, %s", o.short, name)
		}
		switch {
		case o.later != "":
			text = "refused: " + o.later
		case o.noop != "":
			text = "nothing to do: " + o.noop
		}
		out = append(out, Option{name, text})
	}
	return out
}

// Help is the text of --help.
func Help() string {
	var b strings.Builder
	b.WriteString(Description + "\nOptions:\n")
	for _, o := range OptionTexts() {
		fmt.Fprintf(&b, "  %s\n        %s\n", o.Spelling, o.Text)
	}
	return b.String()
}

// Description says what the command is.
const Description = `Usage:
  criu dump -t PID [options]        save a process with its descendants
  criu pre-dump -t PID [options]    save its memory while it goes on
  criu restore [options] [-- CMD]   bring it back
  criu check [--feature NAME]       what this machine allows
  criu dedup                        free pages that later images have again

The command line of CRIU ` + Compatible + `, with fermata's engine. It is meant when the binary
is called criu (a link will do), or as "fermata criu". Options may come before
or behind the action; those without an argument are switched off by --no-NAME.
Options are also read from /etc/criu/default.conf, ~/.criu/default.conf and the
file that $CRIU_CONFIG_FILE names, one on a line without its dashes; the command
line comes last. The exit code is 0, or 1 for any error; restore without
--restore-detached ends with the program's own. Images are plain CRIU image files:
crit and other tools read them, and CRIU restores them.
`
