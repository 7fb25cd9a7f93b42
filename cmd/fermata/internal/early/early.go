// Package early begins, on another processor, what a checkpoint needs and what
// does not depend on its arguments, while the command itself is still being
// initialized: the tables of a few hundred protobuf messages take as long as
// starting a process does.
//
// It is initialized early because it imports little (packages are initialized
// in the order of their paths, each after what it imports), and nothing that
// would have it wait for the protobuf messages: neither these nor a package whose
// path comes behind theirs. TestEarly of the command sees to that.
package early

import (
	"hash/crc32"
	"os"
	"strconv"

	"github.com/fermata-cr/fermata/internal/guardian"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/tracee"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "checkpoint" {
		guardian.Prepare()
		go ahead(os.Args[2:])
	}
}

// ahead finds out what will be asked for, and forgets what is wrong: that is said
// when it is asked.
func ahead(args []string) {
	for _, a := range args {
		// The value of a flag at worst, of which nothing is changed by a look.
		if pid, err := strconv.Atoi(a); err == nil && pid > 0 {
			if maps, err := procfs.ReadMaps(pid); err == nil {
				tracee.FindGadgets(pid, maps)
			}
			break
		}
	}
	_, _ = tracee.OwnVdso()
	crc32.MakeTable(crc32.Castagnoli)
}
