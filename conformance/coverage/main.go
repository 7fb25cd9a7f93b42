// Command coverage writes docs/coverage.md from the headers of the conformance
// programs. It is run by go generate in the conformance directory.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/fermata-cr/fermata/conformance"
)

func main() {
	out := flag.String("o", "docs/coverage.md", "file to write")
	dir := flag.String("programs", "programs", "directory of the programs")
	flag.Parse()
	all, err := conformance.Programs(*dir)
	if err == nil {
		err = os.WriteFile(*out, []byte(conformance.Coverage(all)), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}
