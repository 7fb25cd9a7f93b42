package rebuild

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// Securebits (include/uapi/linux/securebits.h).
const (
	secNoSetuidFixup = 1 << 2
	secKeepCaps      = 1 << 4
)

func caps(w []uint32) uint64 {
	var v uint64
	for i, x := range w {
		if i < 2 {
			v |= uint64(x) << (32 * i)
		}
	}
	return v
}

// sameCreds tells whether a thread that inherited this process's credentials
// has what it wants already.
func sameCreds(c *creds.CredsEntry, st *procfs.Status) bool {
	return [4]uint32{c.GetUid(), c.GetEuid(), c.GetSuid(), c.GetFsuid()} == st.Uid &&
		[4]uint32{c.GetGid(), c.GetEgid(), c.GetSgid(), c.GetFsgid()} == st.Gid &&
		caps(c.GetCapInh()) == st.CapInh && caps(c.GetCapPrm()) == st.CapPrm && caps(c.GetCapEff()) == st.CapEff &&
		caps(c.GetCapBnd()) == st.CapBnd && caps(c.GetCapAmb()) == st.CapAmb &&
		c.GetSecbits() == 0 && slices.Equal(c.GetGroups(), st.Groups) && (c.GetNoNewPrivs() != 0) == st.NoNewPrivs
}

// setCreds queues what gives a thread its credentials: ids while every
// capability is kept, then the bounding set, then the capabilities themselves.
// It must come after everything that needs privilege.
func (b *builder) setCreds(q *queue, c *creds.CredsEntry) {
	if sameCreds(c, b.own) {
		return
	}
	q.room(64+len(caps0), 128+4*len(c.GetGroups()))
	e := q.e
	q.optional("prctl(PR_SET_SECUREBITS)", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, secNoSetuidFixup|secKeepCaps)
	groups := []byte{}
	for _, g := range c.GetGroups() {
		groups = le.AppendUint32(groups, g)
	}
	if !b.userNS { // which has given that up
		q.add("setgroups", unix.SYS_SETGROUPS, uint64(len(c.GetGroups())), e.Put(append(groups, 0)))
	}
	q.add("setresgid", unix.SYS_SETRESGID, uint64(c.GetGid()), uint64(c.GetEgid()), uint64(c.GetSgid()))
	q.add("setfsgid", unix.SYS_SETFSGID, uint64(c.GetFsgid()))
	q.add("setresuid", unix.SYS_SETRESUID, uint64(c.GetUid()), uint64(c.GetEuid()), uint64(c.GetSuid()))
	q.add("setfsuid", unix.SYS_SETFSUID, uint64(c.GetFsuid()))
	inh, prm, eff, bnd, amb := caps(c.GetCapInh()), caps(c.GetCapPrm()), caps(c.GetCapEff()), caps(c.GetCapBnd()), caps(c.GetCapAmb())
	all := b.own.CapPrm
	b.capset(q, all, all, inh)
	for i := uint64(0); i < 64; i++ {
		if b.own.CapBnd&^bnd>>i&1 != 0 {
			q.add("prctl(PR_CAPBSET_DROP)", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, i)
		}
	}
	// Ambient capabilities must be inheritable and permitted when raised, and
	// the final securebits may forbid raising them.
	b.capset(q, all, all, inh)
	q.optional("prctl(PR_CAP_AMBIENT)", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for i := uint64(0); i < 64; i++ {
		if amb>>i&1 != 0 {
			q.add("prctl(PR_CAP_AMBIENT_RAISE)", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, i, 0, 0)
		}
	}
	q.add("prctl(PR_SET_SECUREBITS)", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, uint64(c.GetSecbits()))
	b.capset(q, eff, prm, inh)
	if c.GetNoNewPrivs() != 0 {
		q.add("prctl(PR_SET_NO_NEW_PRIVS)", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
}

var caps0 [64]struct{}

// capset queues capset(2) of version 3: two words of 32 bits each.
func (b *builder) capset(q *queue, eff, prm, inh uint64) {
	q.room(1, 48)
	var h [8]byte
	le.PutUint32(h[:], unix.LINUX_CAPABILITY_VERSION_3)
	var d [24]byte
	for i := range 2 {
		le.PutUint32(d[12*i:], uint32(eff>>(32*i)))
		le.PutUint32(d[12*i+4:], uint32(prm>>(32*i)))
		le.PutUint32(d[12*i+8:], uint32(inh>>(32*i)))
	}
	q.add("capset", unix.SYS_CAPSET, q.e.Put(h[:]), q.e.Put(d[:]))
}
