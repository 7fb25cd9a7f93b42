//go:build !amd64

package guardian

// watchELF: here a guardian is the whole program from the beginning.
func watchELF() []byte { return nil }
