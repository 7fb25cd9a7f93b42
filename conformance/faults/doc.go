// Package faults tests what becomes of a program when fermata dies, hangs or
// fails while it checkpoints it: nothing. The tests run the real command,
// built with the tag faultpoints, against a program that checks itself.
package faults
