//go:build !amd64

package guardian

// watchCode: here a guardian is the whole program from the beginning.
func watchCode() []byte { return nil }
