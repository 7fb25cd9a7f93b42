// Package sys is fermata's door to the kernel: every interface that
// golang.org/x/sys/unix does not wrap, or that needs its raw form, stands here,
// a file per uapi header, with the header and the kernel version that brought
// it. Other packages take constants and ordinary wrappers from x/sys, but make
// no raw call of their own.
package sys
