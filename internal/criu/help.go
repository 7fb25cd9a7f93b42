package criu

import (
	"fmt"
	"strings"
)

// Help is the text of --help.
func Help() string {
	var b strings.Builder
	b.WriteString(`
Usage:
  criu dump|pre-dump -t PID [options]
  criu restore [options] [-- COMMAND]
  criu check [--feature NAME]
  criu dedup | page-server | lazy-pages | service | cpuinfo

fermata, with the command line of CRIU ` + Compatible + `. Options may come before or behind
the action; those without an argument can be switched off with --no-NAME.

Options:
`)
	for _, o := range table {
		name := "     --" + o.name
		if o.short != 0 {
			name = fmt.Sprintf("  -%c|--%s", o.short, o.name)
		}
		switch o.arg {
		case needed:
			name += " ARG"
		case optional:
			name += "[=ARG]"
		}
		switch {
		case o.later != "":
			name = fmt.Sprintf("%-34s refused: %s", name, o.later)
		case o.noop != "":
			name = fmt.Sprintf("%-34s nothing to do: %s", name, o.noop)
		}
		b.WriteString(name + "\n")
	}
	return b.String()
}
