// Package apps holds the tests that carry real, unmodified programs through
// checkpoint, death and restore in the middle of real work, and compare what
// they produce with a run that was never disturbed. The programs come from the
// distribution's packages (install.sh); what they work on is in testdata, one
// directory for each.
package apps
