package rebuild

import criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"

// firstTouched gives addresses that a thread or the kernel for it touches at
// once: its stack, its thread area, its instructions.
func firstTouched(c *criu_core.CoreEntry) []uint64 {
	g := c.GetThreadInfo().GetGpregs()
	return []uint64{
		g.GetSp(), g.GetSp() - 256, g.GetSp() + 4096, g.GetFsBase(), g.GetIp(),
		c.GetThreadCore().GetFutexRla(), c.GetThreadCore().GetRseqEntry().GetRseqAbiPointer(), c.GetThreadInfo().GetClearTidAddr(),
	}
}
