// Package faultpoint lets tests end, stop or fail the program between two
// effects on the kernel. Without the build tag faultpoints its functions are
// empty and nothing of it is in the program.
//
// With the tag, the environment variable FERMATA_FAULT says what happens:
//
//	trace:FILE               append the name of every point reached to FILE
//	kill:NAME:N[:MICROS]     SIGKILL to the own process when NAME is reached
//	                         for the Nth time, or so long after that
//	stop:NAME:N              SIGSTOP instead
//	fail:NAME:N              Err gives an error there
package faultpoint
