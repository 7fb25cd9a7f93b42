package collect

import (
	"sync"

	"google.golang.org/protobuf/proto"

	core_x86 "github.com/checkpoint-restore/go-criu/v8/crit/images/core-x86"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	criu_sa "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-sa"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	criu_fs "github.com/checkpoint-restore/go-criu/v8/crit/images/fs"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/rlimit"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/rseq"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/siginfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timer"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"

	"github.com/fermata-cr/fermata/internal/image/fm"
)

// Warm makes the messages of an ordinary program known to the protobuf library,
// which examines each type when it first meets it: some milliseconds for all of
// them, more than the rest of a small checkpoint takes. Run beside the
// preparations, on another processor, that costs no time. It does so once; who
// comes meanwhile waits.
var Warm = sync.OnceFunc(func() {
	opt := proto.MarshalOptions{AllowPartial: true}
	for _, m := range []proto.Message{
		&criu_core.CoreEntry{
			ThreadInfo: &core_x86.ThreadInfoX86{Gpregs: &core_x86.UserX86RegsEntry{}},
			Ids:        &criu_core.TaskKobjIdsEntry{},
			Tc: &criu_core.TaskCoreEntry{
				Timers:     &timer.TaskTimersEntry{Real: &timer.ItimerEntry{}},
				Rlimits:    &criu_core.TaskRlimitsEntry{Rlimits: []*rlimit.RlimitEntry{{}}},
				SignalsS:   &siginfo.SignalQueueEntry{Signals: []*siginfo.SiginfoEntry{{}}},
				Sigactions: []*criu_sa.SaEntry{{}},
			},
			ThreadCore: &criu_core.ThreadCoreEntry{
				Sas: &criu_core.ThreadSasEntry{}, Creds: &creds.CredsEntry{}, RseqEntry: &rseq.RseqEntry{},
			},
		},
		&mm.MmEntry{Vmas: []*vma.VmaEntry{{}}},
		&fdinfo.FileEntry{Reg: &regfile.RegFileEntry{}}, &fdinfo.FdinfoEntry{}, &criu_fs.FsEntry{}, &pstree.PstreeEntry{},
		&fm.Manifest{Stores: []*fm.StoreFile{{}}}, &fm.MmExtra{Vmas: []*fm.VmaExtra{{}}}, &fm.PageRuns{},
		&fm.TaskExtra{}, &fm.ThreadExtra{Sched: &fm.SchedAttr{}, Restart: &fm.RestartBlock{}}, &fm.FileExtra{},
	} {
		_, _ = opt.Marshal(m) // what is missing in them is no matter
	}
})
