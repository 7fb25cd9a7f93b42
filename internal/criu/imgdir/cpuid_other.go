//go:build !amd64

package imgdir

func stateSize() int        { return 0 }
func componentAt(c int) int { return 0 }
