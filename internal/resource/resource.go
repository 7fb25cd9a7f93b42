// Package resource has a room for every kind of open file: one file a kind,
// with what of the interchange schema it uses, how it is collected from a
// frozen task, what is refused, and how it is opened again.
//
// A kind registers itself in its init function; nothing else has to know it.
// docs/adding-a-kernel-object.md walks through one.
//
// Collecting runs in the controller while the tasks stand still. It reads from
// outside wherever the kernel shows the state (fdinfo, stat, sock_diag, a
// duplicate of the descriptor) and writes nothing. Restoring has three steps:
//
//	Open    the controller makes the open file description, once, whoever
//	        shares it; the tasks get it by SCM_RIGHTS
//	Link    in the controller, when every description is open: what ties
//	        descriptions together (queued messages, descriptors in flight)
//	InTask  in a task that has the descriptor, through the executor: what only
//	        a task's own context can make (epoll members, controlling
//	        terminal, locks)
//
// and two more for what needs the whole tree:
//
//	Late    a file that names a task (pidfd) is opened when all tasks exist
//	Finish  in the controller, the last thing before the tasks are let go
package resource

import (
	"fmt"
	"sort"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/tracee"
)

// Kind is one kind of open file.
type Kind interface {
	// Name is the kind's short name in messages: "pipe", "tcp socket".
	Name() string
	// Types are the interchange types the kind writes and opens.
	Types() []fdinfo.FdTypes
	// Match tells from the cheap facts (link text, stat, fdinfo) whether an
	// open file is of this kind. Kinds are asked in the order of Priority.
	Match(f *File) bool
	// Collect gives the file's entry; Dump.Extra and Dump.Image take what has
	// no field there. State that cannot be saved goes to Dump.Refuse, and the
	// entry may then be nil. It must not change anything the program can see.
	Collect(d *Dump, f *File) (*fdinfo.FileEntry, error)
	// Open makes the description in the controller and gives its descriptor,
	// close-on-exec, which Restore then owns. Offsets, status flags and state
	// are set; the owner of signals (fown) is set by the caller.
	Open(r *Restore, e *fdinfo.FileEntry) (int, error)
}

// Linker is a Kind with work to do once all files of all tasks are open.
type Linker interface {
	Link(r *Restore, e *fdinfo.FileEntry) error
}

// InTasker is a Kind with work in the context of a task that holds the file,
// when its whole descriptor table is in place and before it drops its
// credentials. It is called once a file, for the first holder.
type InTasker interface {
	InTask(r *Restore, t Task, e *fdinfo.FileEntry, fd int) error
}

// Completer is a Kind with work to do when every file of every task has been
// collected (peers that must be inside, queues that carry descriptors).
type Completer interface {
	Complete(d *Dump) error
}

// Committer is a Kind with work to do when nothing was refused, while the tasks
// still stand: what cannot be read without a moment's interference.
type Committer interface {
	Commit(d *Dump) error
}

// Checker is a Kind that can find conflicts before the first task is made:
// a missing file, a taken address. It opens nothing for good.
type Checker interface {
	Check(r *Restore, e *fdinfo.FileEntry) error
}

// Task is a task being rebuilt, stopped in the executor.
type Task interface {
	// PID gives the task's pid, in the controller's pid namespace.
	PID() int
	// Executor gives its executor, with an empty batch.
	Executor() *tracee.Executor
	// FD gives the descriptor number under which the task has a file.
	FD(id uint32) (int, bool)
}

// Sender is a Task that can be given a copy of a descriptor of the controller,
// close-on-exec, at a number that is free there. Who asks closes it.
type Sender interface {
	Send(fd int) (int, error)
}

// Later is a Kind with files that can be opened only when every task of the
// tree exists: Restore.OpenAll leaves those out, Restore.OpenLate opens them.
type Later interface {
	Late(r *Restore, e *fdinfo.FileEntry) bool
}

// Earlier is an InTasker that comes before the others of its task. It takes
// descriptor numbers for a moment, and closing one drops the record locks that
// the process has on the file there (fcntl(2)).
type Earlier interface {
	InTasker
	InTaskEarly()
}

// Finisher is a Kind with work in the controller when everything else is done:
// what the restoring itself would disturb (watches of files it opens).
type Finisher interface {
	Finish(r *Restore, e *fdinfo.FileEntry) error
}

// Prioritized lets a Kind be asked before (lower) or after (higher) the others,
// whose priority is 0.
type Prioritized interface{ Priority() int }

var (
	kinds  []Kind
	byType = map[fdinfo.FdTypes]Kind{}
)

// Register adds a kind; it is called from init functions only.
func Register(k Kind) {
	kinds = append(kinds, k)
	for _, t := range k.Types() {
		if byType[t] != nil {
			panic(fmt.Sprintf("resource: type %v registered by %s and %s", t, byType[t].Name(), k.Name()))
		}
		byType[t] = k
	}
	sort.SliceStable(kinds, func(i, j int) bool { return priority(kinds[i]) < priority(kinds[j]) })
}

func priority(k Kind) int {
	if p, ok := k.(Prioritized); ok {
		return p.Priority()
	}
	return 0
}

// KindOf gives the kind that opens an interchange type, or nil.
func KindOf(t fdinfo.FdTypes) Kind { return byType[t] }
