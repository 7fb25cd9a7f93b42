package sys

import "errors"

// ErrArch: this machine's architecture is not driven yet.
var ErrArch = errors.New("architecture not supported (x86-64 only)")

// PageSize is the size of a page of the running kernel in bytes.
const PageSize = 4096
