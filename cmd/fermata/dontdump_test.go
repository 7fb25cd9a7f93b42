package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const dontDump = `
#include <sys/mman.h>
#include <fcntl.h>
#include <unistd.h>
int main(void)
{
	char *p = mmap(0, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
	p[0] = p[5000] = 7;
	madvise(p, 8192, MADV_DONTDUMP);
	close(open("ready", O_CREAT|O_WRONLY, 0644));
	while (access("end", F_OK))
		usleep(5000);
	return p[0] + p[5000];
}`

// TestSkipDontDump: what is excluded from core dumps comes back as it was, and
// as zeros where that is asked for.
func TestSkipDontDump(t *testing.T) {
	c := newCommand(t)
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no C compiler")
	}
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "x.c"), filepath.Join(dir, "x")
	if err := os.WriteFile(src, []byte(dontDump), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, x := range []struct {
		option string
		code   int
	}{{"--skip-dontdump", 0}, {"--skip-dontdump=false", 14}} {
		run := t.TempDir()
		cmd := exec.Command(bin)
		cmd.Dir, cmd.SysProcAttr = run, &unix.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go cmd.Wait()
		await(t, func() bool { return exists(filepath.Join(run, "ready")) })
		ref := filepath.Join(t.TempDir(), "saved")
		c.run(0, "checkpoint", "--kill", x.option, "--to", ref, strconv.Itoa(cmd.Process.Pid))
		touch(t, filepath.Join(run, "end"))
		got, _, errs := c.start("restore", ref)
		timer := time.AfterFunc(20*time.Second, func() { got.Process.Kill() })
		got.Wait()
		timer.Stop()
		if code := got.ProcessState.ExitCode(); code != x.code {
			t.Errorf("%s: the program ended with %d, not %d: %s", x.option, code, x.code, errs)
		}
	}
}
