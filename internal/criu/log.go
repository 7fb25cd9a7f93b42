package criu

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Levels of the log, as --verbosity counts them.
const (
	levelError = 1
	levelWarn  = 2
	levelInfo  = 3
	levelDebug = 4
)

// logger writes lines as callers look for them: the seconds since the start in
// parentheses, and the words "Error" and "Warn" where they apply.
type logger struct {
	w     io.Writer
	f     *os.File
	began time.Time
	level int
}

// openLog opens the log: a file below dir, or stderr; "-" is stdout.
func openLog(o *Options, dir string, stdout, stderr io.Writer) (*logger, error) {
	l := &logger{w: stderr, began: time.Now(), level: levelWarn}
	if o.Verbosity >= 0 {
		l.level = o.Verbosity
	}
	switch o.LogFile {
	case "":
	case "-":
		l.w = stdout
	default:
		name := o.LogFile
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
		if err != nil {
			return nil, usage("the log file: %v", err)
		}
		l.w, l.f = f, f
	}
	return l, nil
}

func (l *logger) close() {
	if l.f != nil {
		l.f.Close()
	}
}

func (l *logger) line(level int, word, text string) {
	if level > l.level {
		return
	}
	stamp := ""
	if l.f != nil || l.level >= levelInfo {
		t := time.Since(l.began)
		stamp = fmt.Sprintf("(%02d.%06d) ", int(t.Seconds()), t.Microseconds()%1e6)
	}
	for _, s := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		fmt.Fprintf(l.w, "%s%s%s\n", stamp, word, s)
	}
}

func (l *logger) errorf(format string, a ...any) {
	l.line(levelError, "Error (fermata): ", fmt.Sprintf(format, a...))
}

func (l *logger) warnf(format string, a ...any) {
	l.line(levelWarn, "Warn  (fermata): ", fmt.Sprintf(format, a...))
}

func (l *logger) infof(format string, a ...any) { l.line(levelInfo, "", fmt.Sprintf(format, a...)) }

func (l *logger) debugf(format string, a ...any) { l.line(levelDebug, "", fmt.Sprintf(format, a...)) }
