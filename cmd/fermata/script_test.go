package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// cmdStatus is the script command
//
//	status CODE PROGRAM [ARGS...]
//
// which runs a program and expects its exit code; its output is left for the
// commands stdout and stderr.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE PROGRAM [ARGS...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdMakeCheckpoint is the script command
//
//	makecheckpoint DIR PID
//
// which writes the metadata of a checkpoint of one process, enough to be listed
// and removed.
func cmdMakeCheckpoint(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: makecheckpoint DIR PID")
	}
	pid, err := strconv.Atoi(args[1])
	ts.Check(err)
	im := image.New()
	im.Add("manifest", &fm.Manifest{
		Version: proto.Uint32(image.Version), Tool: proto.String("test"), Arch: proto.String("amd64"), Kernel: proto.String("6.1.0"),
		BootId: proto.String("none"), CreatedNs: proto.Int64(1_700_000_000_000_000_000 + int64(pid)), MonotonicNs: proto.Int64(1), BoottimeNs: proto.Int64(1),
		Roots: []uint32{uint32(pid)}, Tasks: proto.Uint32(1), Threads: proto.Uint32(1), PageBytes: proto.Uint64(0), FrozenNs: proto.Uint64(1),
	})
	b, err := im.Encode()
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(os.WriteFile(filepath.Join(dir, image.MetaName), b, 0o600))
	ts.Check(os.WriteFile(filepath.Join(dir, "pages"), make([]byte, 2048), 0o600))
}
