package collect

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// NUMA policies (numa(7)): a thread has one for what it allocates, and so may
// each area. Nothing shows an area's but get_mempolicy(2), or numa_maps, for which
// the kernel walks all page tables.

// manyAreas is up to how many areas are asked about on a machine of one node, on
// which no policy changes where a page is.
const manyAreas = 512

const policyData = 8 + sys.NumaBits/8

// askPolicy asks for the policy of the thread, or of an address.
func askPolicy(b *batch, addr uint64, take func(*fm.NumaPolicy)) {
	at, d := b.e.Data(policyData)
	flags := uint64(0)
	if addr != 0 {
		flags = sys.MpolFAddr
	}
	b.ask("get_mempolicy", true, func(int64) {
		mode := le.Uint32(d)
		if mode == 0 { // MPOL_DEFAULT
			return
		}
		take(&fm.NumaPolicy{Mode: proto.Uint32(mode), Nodes: append([]byte{}, bytes.TrimRight(d[8:policyData], "\x00")...)})
	}, unix.SYS_GET_MEMPOLICY, at, at+8, sys.NumaBits, addr, flags)
}

// askPolicies asks about every area that can have one to effect.
func (c *Collector) askPolicies(t *Task) error {
	if len(t.Areas) > manyAreas && !severalNodes() {
		return nil
	}
	e, err := t.guest.Executor(t.Threads[0])
	if err != nil {
		return err
	}
	e.Reset()
	b := &batch{e: e}
	for i := range t.Areas {
		a := &t.Areas[i]
		if a.Entry.GetStatus()&(VMAAnonPrivate|VMAAnonShared|VMASysV|VMAMemfd) == 0 {
			continue
		}
		if !e.Room(1, policyData+8) {
			e.Start()
			if err := b.answers(); err != nil {
				return err
			}
			e.Reset()
			b.qs = b.qs[:0]
		}
		askPolicy(b, a.Start, func(p *fm.NumaPolicy) { a.Extra.Policy = p })
	}
	if len(b.qs) == 0 {
		return nil
	}
	e.Start()
	return b.answers()
}

// severalNodes tells whether the machine has more than one node.
func severalNodes() bool {
	return unix.Access("/sys/devices/system/node/node1", unix.F_OK) == nil
}

// Keyrings of a thread's and of a process's own (keyrings(7)).
const (
	keyThread  = -1
	keyProcess = -2
	keyGetID   = 0
)

// askKeyrings refuses a thread with keys of its own: what a key holds may be for
// the kernel only, and the numbers of keys are the system's. The session's keyring
// is left to who restores.
func (c *Collector) askKeyrings(t *Task, th *tracee.Thread, b *batch) {
	for _, k := range []struct {
		id   int32
		name string
	}{{keyThread, "thread"}, {keyProcess, "process"}} {
		if k.id == keyProcess && th != t.Threads[0] {
			continue
		}
		b.ask("keyctl", true, func(int64) {
			c.Refuse.Add(fault.Reason{
				PID: t.PID, Comm: t.Comm, Object: fmt.Sprintf("%s keyring of thread %d", k.name, th.TID),
				Why: "it has keys of its own, which the kernel does not give out", Remedy: "keep them in the session keyring (keyctl(1), @s), which is not saved, or clear it",
			})
		}, unix.SYS_KEYCTL, keyGetID, uint64(uint32(k.id)), 0)
	}
}
