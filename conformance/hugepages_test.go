package conformance

import (
	"os"
	"strings"
	"testing"
)

// overcommitPath is how many huge pages may be made on demand beyond the pool.
const overcommitPath = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"

// allowHugePages lets programs map explicit huge pages for as long as the test
// runs. None are taken out of the machine's memory in advance. Without the
// privilege nothing happens: the programs then say that they cannot run.
func allowHugePages(t *testing.T) {
	was, err := os.ReadFile(overcommitPath)
	if err != nil || strings.TrimSpace(string(was)) != "0" {
		return
	}
	if os.WriteFile(overcommitPath, []byte("64"), 0) != nil {
		return
	}
	t.Cleanup(func() {
		if err := os.WriteFile(overcommitPath, was, 0); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
}
