package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fermata-cr/fermata/cmd/fermata/internal/manpage"
)

//go:generate go test . -run TestManPages -update

var update = flag.Bool("update", false, "write docs/man anew")

const manDir = "../../docs/man"

// manPages renders the manual as it should be.
func manPages() map[string][]byte {
	common := manpage.Common{
		Environment: []manpage.Item{
			{Term: "FERMATA_REPO", Text: "The directory of the repository: where checkpoints with names are."},
			{Term: "XDG_STATE_HOME", Text: "Where the repository of users other than root is, if FERMATA_REPO is not set: fermata below it; ~/.local/state/fermata if neither is set. Root's is /var/lib/fermata."},
		},
	}
	for _, c := range exitCodes {
		common.ExitStatus = append(common.ExitStatus, manpage.Item{Term: strconv.Itoa(c.code), Text: upperFirst(c.text) + "."})
	}
	common.ExitStatus = append(common.ExitStatus, manpage.Item{Term: "129, 130, 131, 143", Text: upperFirst(interruptedText) + "."})
	root := newRoot()
	return manpage.All(root, common)
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// TestManPages: the pages in docs/man are those that the command describes.
func TestManPages(t *testing.T) {
	want := manPages()
	if *update {
		old, err := filepath.Glob(filepath.Join(manDir, "*.1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range old {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(manDir, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(manDir, name))
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s is not up to date (%v); run: go generate ./cmd/fermata", name, err)
		}
	}
	have, err := filepath.Glob(filepath.Join(manDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range have {
		if want[filepath.Base(f)] == nil {
			t.Errorf("%s belongs to no verb", f)
		}
	}
}

// TestManPagesRender: man finds nothing wrong with them, and shows flags so
// that they can be copied.
func TestManPagesRender(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("needs groff")
	}
	for name, text := range manPages() {
		cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-P-c")
		cmd.Stdin = bytes.NewReader(text)
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		out, err := cmd.Output()
		if err != nil || complaints.Len() > 0 {
			t.Errorf("%s: %v\n%s", name, err, complaints.String())
		}
		if name == "fermata-checkpoint.1" && !bytes.Contains(out, []byte("--save-files")) {
			t.Errorf("%s: no --save-files in\n%s", name, out)
		}
	}
}

// TestHelpComplete: every verb has an explanation and examples, and every
// example begins with a command line that the verb accepts.
func TestHelpComplete(t *testing.T) {
	root := newRoot()
	for _, c := range root.Commands() {
		if c.IsAdditionalHelpTopicCommand() {
			continue
		}
		if c.Short == "" || c.Example == "" || c.Long == "" && c.Name() != "version" && c.Name() != "help" {
			t.Errorf("%s: incomplete help", c.Name())
		}
		for line := range strings.Lines(c.Example) {
			if line != "\n" && !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example is not indented: %q", c.Name(), line)
			}
			_, args, ok := strings.Cut(strings.TrimSpace(line), "fermata ")
			if !ok || strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			args = strings.NewReplacer("&&", "|", ">", "|", ")", " ").Replace(args)
			args, _, _ = strings.Cut(args, "|")
			verb, rest, err := newRoot().Find(strings.Fields(args))
			if err != nil {
				t.Errorf("%s: %q: %v", c.Name(), line, err)
				continue
			}
			if err := verb.ParseFlags(rest); err != nil {
				t.Errorf("%s: %q: %v", c.Name(), line, err)
			}
			if err := verb.ValidateArgs(verb.Flags().Args()); err != nil {
				t.Errorf("%s: %q: %v", c.Name(), line, err)
			}
		}
	}
}
