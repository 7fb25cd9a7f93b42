package imgdir

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/stats"
)

// Names of the files with numbers about a run.
const (
	DumpStatsName    = "stats-dump"
	RestoreStatsName = "stats-restore"
)

func micros(d time.Duration) *uint32 { return proto.Uint32(uint32(d.Microseconds())) }

// WriteDumpStats writes stats-dump: how long the tasks were frozen, and how many
// pages were written, exactly as many as lie in the pages files.
func WriteDumpStats(dir string, p *Pages, freezing, frozen, memory time.Duration) error {
	return writeOne(dir, DumpStatsName, "STATS", &stats.StatsEntry{Dump: &stats.DumpStatsEntry{
		FreezingTime: micros(freezing), FrozenTime: micros(frozen), MemdumpTime: micros(memory), MemwriteTime: micros(memory),
		PagesScanned: proto.Uint64(p.Written + p.Skipped), PagesSkippedParent: proto.Uint64(p.Skipped), PagesWritten: proto.Uint64(p.Written),
		PagesLazy: proto.Uint64(0), ShpagesScanned: proto.Uint64(p.Shared), ShpagesSkippedParent: proto.Uint64(0), ShpagesWritten: proto.Uint64(p.Shared),
	}})
}

// WriteRestoreStats writes stats-restore.
func WriteRestoreStats(dir string, total time.Duration, pages uint64) error {
	return writeOne(dir, RestoreStatsName, "STATS", &stats.StatsEntry{Restore: &stats.RestoreStatsEntry{
		PagesCompared: proto.Uint64(0), PagesSkippedCow: proto.Uint64(0), ForkingTime: micros(0), RestoreTime: micros(total), PagesRestored: proto.Uint64(pages),
	}})
}
