// Package early begins, on another processor, what a checkpoint needs and what
// does not depend on its arguments, while the command itself is still being
// initialized: the tables of a few hundred protobuf messages take as long as
// starting a process does.
//
// It is initialized early because it imports little (packages are initialized
// in the order of their paths, each after what it imports).
package early

import (
	"os"

	"github.com/fermata-cr/fermata/internal/guardian"
	"github.com/fermata-cr/fermata/internal/tracee"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "checkpoint" {
		guardian.Prepare()
		go func() { _, _ = tracee.OwnVdso() }()
	}
}
