package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Places of configuration files, least important first. The environment variable
// names one more, which comes after them; the command line comes last.
const (
	systemConfig = "/etc/criu/default.conf"
	userConfig   = ".criu/default.conf" // below $HOME
	configEnv    = "CRIU_CONFIG_FILE"
)

// parse understands a command line together with the configuration files. A
// later source wins over an earlier one.
func parse(args []string) (*Options, error) {
	cmd, rest, err := scan(args)
	if err != nil {
		return nil, err
	}
	o := defaults()
	var files []string
	own, noDefault := "", false
	for _, s := range cmd {
		switch s.opt.name {
		case "no-default-config":
			noDefault = true
		case "config":
			own = s.value
		}
	}
	switch {
	case own != "":
		files = []string{own}
	case !noDefault:
		files = []string{systemConfig}
		if h := os.Getenv("HOME"); h != "" {
			files = append(files, filepath.Join(h, userConfig))
		}
	}
	if f := os.Getenv(configEnv); f != "" {
		files = append(files, f)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) && f != own {
			continue
		}
		if err != nil {
			return nil, usage("configuration file: %v", err)
		}
		set, err := readConfig(string(b))
		if err == nil {
			err = o.apply(set)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
	}
	if err := o.apply(cmd); err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		o.Action, o.Args = rest[0], rest[1:]
	}
	return o, nil
}

// readConfig reads a configuration file: an option on each line, by its long
// name without the dashes, with its argument behind spaces or "="; the argument
// may be quoted, "#" begins a comment.
func readConfig(text string) (set []setting, err error) {
	for n, line := range strings.Split(text, "\n") {
		words, err := split(line)
		if err != nil {
			return nil, usage("line %d: %v", n+1, err)
		}
		if len(words) == 0 {
			continue
		}
		arg := "--" + words[0]
		var args []string
		switch x, _, err := long(words[0]); {
		case err == nil && x.arg == optional && len(words) > 1:
			args = append([]string{arg + "=" + words[1]}, words[2:]...)
		default:
			args = append([]string{arg}, words[1:]...)
		}
		s, rest, err := scan(args)
		if err == nil && len(rest) > 0 {
			err = usage("%q is too much", rest[0])
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		set = append(set, s...)
	}
	return set, nil
}

// split takes a line apart into words.
func split(line string) (words []string, err error) {
	var w strings.Builder
	in, quoted := false, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && quoted && i+1 < len(line):
			i++
			w.WriteByte(line[i])
		case c == '"':
			quoted, in = !quoted, true
		case quoted:
			w.WriteByte(c)
		case c == '#':
			i = len(line)
		case c == ' ' || c == '\t' || c == '\r':
			if in {
				words = append(words, w.String())
				w.Reset()
			}
			in = false
		default:
			w.WriteByte(c)
			in = true
		}
	}
	if quoted {
		return nil, errors.New("a quotation has no end")
	}
	if in {
		words = append(words, w.String())
	}
	return words, nil
}
