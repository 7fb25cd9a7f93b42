package main

import (
	"context"

	"github.com/fermata-cr/fermata"
)

// The library's operations, as the verbs use them. No other file of this
// package calls the library; they use its types and errors.

func engineCheckpoint(ctx context.Context, pid int, o fermata.CheckpointOptions) (*fermata.CheckpointResult, error) {
	return fermata.Checkpoint(ctx, pid, o)
}

func engineRestore(ctx context.Context, dir string, o fermata.RestoreOptions) (*fermata.RestoreResult, error) {
	return fermata.Restore(ctx, dir, o)
}

func engineRollback(ctx context.Context, dir string, o fermata.RestoreOptions) (*fermata.RestoreResult, error) {
	return fermata.Rollback(ctx, dir, o)
}

func engineSquash(ctx context.Context, dir string, o fermata.SquashOptions) (*fermata.SquashResult, error) {
	return fermata.Squash(ctx, dir, o)
}

func engineVerify(ctx context.Context, dir string) (*fermata.VerifyResult, error) {
	return fermata.Verify(ctx, dir)
}

func engineInspect(dir string) (*fermata.Inspection, error) { return fermata.Inspect(dir) }

func engineDoctor() fermata.DoctorReport { return fermata.Doctor() }

func engineTrackings() ([]fermata.Tracking, error) { return fermata.Trackings() }

func engineStopTracking(pid int, dir string) error { return fermata.StopTracking(pid, dir) }
