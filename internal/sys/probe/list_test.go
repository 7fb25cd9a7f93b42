package probe

import "testing"

// TestListComplete: every feature can be asked, is told apart, and says what it
// is to a user.
func TestListComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range All() {
		if seen[f.ID] {
			t.Errorf("%s twice", f.ID)
		}
		seen[f.ID] = true
		if f.ID == "" || f.Title == "" || f.For == "" || f.Without == "" || f.ask == nil || f.Kind == "" {
			t.Errorf("%q lacks a field", f.ID)
		}
	}
}
