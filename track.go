package fermata

import (
	"time"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/track"
)

// Tracking is a program whose writes are tracked (CheckpointOptions.Track).
type Tracking struct {
	PIDs   []int     `json:"pids"`   // whose memory it is
	Ref    string    `json:"ref"`    // the checkpoint that it counts from, where that was made
	Since  time.Time `json:"since"`  // when that was
	Keeper int       `json:"keeper"` // the process that keeps it
}

// Trackings gives what is tracked on this machine (in this pid namespace).
func Trackings() ([]Tracking, error) {
	all, err := track.List()
	if err != nil {
		return nil, permitted(err)
	}
	out := []Tracking{}
	for _, r := range all {
		t := Tracking{Ref: r.Ref, Since: r.Since, Keeper: r.Keeper}
		for _, k := range r.Spaces {
			t.PIDs = append(t.PIDs, k.PID)
		}
		out = append(out, t)
	}
	return out, nil
}

// StopTracking ends the tracking of the programs that a process belongs to, or, where
// pid is 0, that counts from the checkpoint in dir. The programs notice nothing; their
// next checkpoint compares. Errors: ErrNotFound.
func StopTracking(pid int, dir string) error {
	all, err := track.List()
	if err != nil {
		return permitted(err)
	}
	found := false
	for _, r := range all {
		is := pid == 0 && r.Ref == dir
		for _, k := range r.Spaces {
			is = is || k.PID == pid
		}
		if !is {
			continue
		}
		found = true
		if err := r.Stop(); err != nil {
			return permitted(err)
		}
	}
	switch {
	case found:
		return nil
	case pid != 0:
		return fault.Errorf(fault.ErrNotFound, "what pid %d writes is not tracked", pid)
	}
	return fault.Errorf(fault.ErrNotFound, "no program's writes are tracked since %s", dir)
}
