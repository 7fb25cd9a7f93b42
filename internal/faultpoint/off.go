//go:build !faultpoints

package faultpoint

// Enabled tells whether the program was built for fault tests.
const Enabled = false

// At marks an instant between two effects.
func At(string) {}

// Err marks a place that can be made to fail.
func Err(string) error { return nil }
