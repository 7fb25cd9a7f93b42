package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fermata-cr/fermata/internal/sys/job"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"fermata":    main,
		"foreground": foregroundMain,
	})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("FERMATA_REPO", e.WorkDir+"/repo")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("no condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status":         cmdStatus,
			"makecheckpoint": cmdMakeCheckpoint,
		},
	})
}

// foregroundMain is fermata restore in the foreground from the moment on when
// the program runs: it starts the program that its arguments name, in a process
// group of its own or, with the first argument "same", in fermata's own, and
// becomes its parent in the way of that verb.
func foregroundMain() {
	args := os.Args[1:]
	same := args[0] == "same"
	if same {
		args = args[1:]
	}
	tty := job.OpenTerminal()
	_, w := watch(context.Background(), passed...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !same}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	w.operationDone(nil)
	if d, err := time.ParseDuration(os.Getenv("FOREGROUND_LATE")); err == nil {
		time.Sleep(d)
	}
	f, err := newForeground([]int{cmd.Process.Pid}, tty)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	for _, s := range w.caught {
		f.send(s.(syscall.Signal))
	}
	code, err := f.run(w.ch)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	os.Exit(code)
}
