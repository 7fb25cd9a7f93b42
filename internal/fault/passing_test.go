package fault

import "testing"

// TestPassing: one reason that passes is enough to try again, since others may
// come of it.
func TestPassing(t *testing.T) {
	for _, c := range []struct {
		reasons []Reason
		want    bool
	}{
		{[]Reason{{PID: 1, Passing: true}}, true},
		{[]Reason{{PID: 1}, {PID: 2, Passing: true}}, true},
		{[]Reason{{PID: 1}, {PID: 2}}, false},
	} {
		if got := (&RefusedError{c.reasons}).Passing(); got != c.want {
			t.Errorf("%v: %v", c.reasons, got)
		}
	}
}
