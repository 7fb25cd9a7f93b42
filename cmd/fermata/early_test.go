package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestEarly: what is to be begun before the rest of the program is initialized is
// so. One import too many in one of its packages is enough to change that.
func TestEarly(t *testing.T) {
	c := exec.Command(os.Args[0], "-test.run=^$")
	c.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	early, messages := -1, -1
	for i, line := range strings.Split(string(out), "\n") {
		switch {
		case strings.HasPrefix(line, "init github.com/fermata-cr/fermata/cmd/fermata/internal/early "):
			early = i
		case messages < 0 && (strings.HasPrefix(line, "init google.golang.org/protobuf/internal/impl ") || strings.Contains(line, "/go-criu/")):
			messages = i
		}
	}
	if early < 0 || messages < 0 || early > messages {
		t.Errorf("package early is number %d to be initialized, the first one with messages number %d:\n%s", early, messages, out)
	}
}
