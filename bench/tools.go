package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/stats"
)

// tool is something that checkpoints and restores.
type tool interface {
	name() string
	// checkpoint gives the command line that saves a tree into the directory
	// img, and restore the one that brings it back and returns when it runs.
	checkpoint(pid int, img string, kill bool) []string
	restore(img string) []string
	// frozen gives how long the target stood still, by the tool's own account.
	frozen(img, said string) (time.Duration, error)
	// explain gives what a failed command had to say.
	explain(argv []string, said string) string
	version(*reaper) (string, error)
}

type fermataTool struct{ path string }

func (fermataTool) name() string { return "fermata" }

func (t fermataTool) checkpoint(pid int, img string, kill bool) []string {
	argv := []string{t.path, "checkpoint", "--json", "--to", img}
	if kill {
		argv = append(argv, "--kill")
	}
	return append(argv, strconv.Itoa(pid))
}

func (t fermataTool) restore(img string) []string {
	return []string{t.path, "restore", "--detach", img}
}

func (fermataTool) frozen(_, said string) (time.Duration, error) {
	var r struct {
		Frozen time.Duration `json:"frozen_ns"`
	}
	return r.Frozen, json.Unmarshal([]byte(said), &r)
}

func (fermataTool) explain(_ []string, said string) string { return said }

func (t fermataTool) version(r *reaper) (string, error) {
	_, said, err := r.run([]string{t.path, "version"}, "/")
	return strings.TrimPrefix(strings.TrimSpace(said), "fermata "), err
}

// criuTool drives CRIU by its command line, as little verbose as it can be.
type criuTool struct{ path string }

func (criuTool) name() string { return "CRIU" }

func (t criuTool) checkpoint(pid int, img string, kill bool) []string {
	// It wants the directory to be there.
	_ = os.Mkdir(img, 0o700)
	argv := []string{t.path, "dump", "-t", strconv.Itoa(pid), "-D", img, "-o", "dump.log", "-v1"}
	if !kill {
		argv = append(argv, "--leave-running")
	}
	return argv
}

func (t criuTool) restore(img string) []string {
	return []string{t.path, "restore", "-d", "-D", img, "-o", "restore.log", "-v1"}
}

// frozen reads the statistics that CRIU leaves with the images: two magic
// numbers, a length and a message.
func (criuTool) frozen(img, _ string) (time.Duration, error) {
	path := filepath.Join(img, "stats-dump")
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	if len(b) < 12 || len(b) < 12+int(binary.LittleEndian.Uint32(b[8:])) {
		return 0, fmt.Errorf("%s is truncated", path)
	}
	var s stats.StatsEntry
	if err := proto.Unmarshal(b[12:12+binary.LittleEndian.Uint32(b[8:])], &s); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return time.Duration(s.GetDump().GetFrozenTime()) * time.Microsecond, nil
}

func (criuTool) explain(argv []string, said string) string {
	for i, a := range argv {
		if a == "-D" {
			for _, log := range []string{"dump.log", "restore.log"} {
				b, _ := os.ReadFile(filepath.Join(argv[i+1], log))
				said += string(b)
			}
		}
	}
	return said
}

func (t criuTool) version(r *reaper) (string, error) {
	_, said, err := r.run([]string{t.path, "--version"}, "/")
	first, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	return strings.TrimPrefix(first, "Version: "), err
}
