// Command coverage writes docs/coverage.md and docs/comparison.md from the headers
// of the conformance programs and what was recorded of the peers. It is run by go generate in the conformance directory.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fermata-cr/fermata/conformance"
)

func main() {
	out := flag.String("o", "docs", "directory to write to")
	dir := flag.String("programs", "programs", "directory of the programs")
	flag.Parse()
	all, err := conformance.Programs(*dir)
	var peers *conformance.Peers
	if err == nil {
		peers, err = conformance.RecordedPeers()
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(*out, "coverage.md"), []byte(conformance.Coverage(all, peers)), 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(*out, "comparison.md"), []byte(conformance.Comparison(all, peers)), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}
