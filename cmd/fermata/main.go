// Command fermata saves running programs to disk and brings them back.
//
// This package is the command line only: flags, names, signals, output and exit
// codes. The work is done by the library at the module's root, which is called
// from engine.go and nowhere else.
package main

import (
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	_ "github.com/fermata-cr/fermata/cmd/fermata/internal/early"
	"github.com/fermata-cr/fermata/internal/criu"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/guardian"
)

func main() {
	if os.Getenv("GOGC") == "" {
		// A command of some milliseconds is over before garbage matters.
		debug.SetGCPercent(400)
	}
	if args, ok := compatible(os.Args); ok {
		os.Exit(criu.Main(args, os.Stdout, os.Stderr))
	}
	code := run(os.Args[1:], os.Stdout, os.Stderr)
	guardian.Dismiss()
	os.Exit(code)
}

// compatible tells whether CRIU's command line is meant: the binary is called so,
// or its verb is criu. It gives what follows.
func compatible(args []string) (rest []string, ok bool) {
	switch {
	case len(args) > 0 && filepath.Base(args[0]) == "criu":
		return args[1:], true
	case len(args) > 1 && args[1] == "criu":
		return args[2:], true
	}
	return nil, false
}

// run executes one command line and gives the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot(args...)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	began := false
	root.PersistentPreRun = func(*cobra.Command, []string) { began = true }
	err := root.Execute()
	if err != nil && !began {
		// Cobra's own complaints: unknown verbs and flags, wrong numbers of
		// arguments.
		err = fault.Wrap(fault.ErrUsage, err)
	}
	return report(err, wantsJSON(args), stdout, stderr)
}

// wantsJSON finds --json by itself, because a command line may be wrong before
// its flags are understood.
func wantsJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.ContainsFunc(args, func(a string) bool { return a == "--json" || a == "--json=true" })
}

// verbs builds each verb.
var verbs = []struct {
	name  string
	build func() *cobra.Command
}{
	{"checkpoint", newCheckpoint}, {"restore", newRestore}, {"rollback", newRollback}, {"inspect", newInspect}, {"list", newList},
	{"remove", newRemove}, {"squash", newSquash}, {"track", newTrack}, {"verify", newVerify}, {"doctor", newDoctor}, {"version", newVersion},
	{"completion", newCompletion}, {"exit-status", newExitStatus},
	{"criu", newCriu},
}

// newRoot builds the command. With a command line that begins with a verb it
// builds no other one, which is most of the time that a start takes here.
func newRoot(args ...string) *cobra.Command {
	root := &cobra.Command{
		Use:   "fermata VERB [flags] [arguments]",
		Short: "Save running programs to disk and bring them back",
		Long: paragraphs(`
fermata saves a running program, with all its processes, threads, memory and
open files, into a directory, and brings it back to go on exactly where it was:
later, after a crash, as often as you like. Programs need no preparation and do
not notice.

A checkpoint is named by a REF: a name in your repository; when it holds a slash,
the path of a directory; or mem:NAME, which is kept in memory and touches no disk
(in /dev/shm/fermata-UID, or $FERMATA_MEMORY) until it is removed or the machine
stops.`),
		Example: `  # save the program with pid 4711 and end it
  fermata checkpoint --kill 4711

  # bring it back into this terminal
  fermata restore python3-4711-kqzv

  # see whether all this works here
  fermata doctor`,
		SilenceErrors: true, DisableFlagsInUseLine: true,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			return fault.Errorf(fault.ErrUsage, "which verb? See fermata --help")
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	if len(args) > 0 {
		for _, v := range verbs {
			if v.name == args[0] && v.name != "completion" { // which is about all of them
				root.AddCommand(v.build())
				return root
			}
		}
	}
	root.SetHelpCommand(newHelp())
	for _, v := range verbs {
		root.AddCommand(v.build())
	}
	return root
}

// newHelp is cobra's help verb with an error where it has none.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [VERB]",
		Short: "Explain a verb",
		Example: `  fermata help checkpoint
  fermata help exit-status`,
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range c.Root().Commands() {
				names = append(names, sub.Name()+"\t"+sub.Short)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			verb, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return fault.Errorf(fault.ErrUsage, "no verb %q; see fermata --help", strings.Join(args, " "))
			}
			verb.InitDefaultHelpFlag()
			return verb.Help()
		},
	}
}

// paragraphs takes the newline from the start of a raw string.
func paragraphs(s string) string { return strings.TrimPrefix(s, "\n") }

// jsonFlag adds --json to a verb and gives where its value will be.
func jsonFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("json", false, "write one JSON document to stdout, errors too")
}
