// Package tracee stops tasks, runs system calls in their own shoes and lets
// them go as if nothing had happened.
//
// Preconditions: everything here runs on one OS thread (runtime.LockOSThread):
// ptrace knows a tracee's tracer by thread, and the robust futex that tells the
// executor of the controller's death belongs to that thread too.
//
// # Harmless death
//
// When a tracer dies, the kernel lets its tracees run on with the registers
// they have at that moment, whatever those are. So at every instant of a
// session the registers of a target lead, without the controller, back to what
// it was doing:
//
//	not entered      its own registers
//	bootstrap        the vdso's syscall instruction, shmat of a segment that was
//	                 complete before, a return address (8 bytes below the
//	                 thread's red zone) that is the executor's entry
//	in the executor  parked on the owner's robust futex: the kernel wakes it, it
//	                 runs the undo list, and code in its slot gives it its mask
//	                 and registers; the restart block is untouched
//	leaving          the last one is in the vdso's munmap, returning to an
//	                 rt_sigreturn of the program's own text with a signal frame
//	                 on its own stack; or it is a thread of our own that unmaps
//	                 the region and ends, without a stack (aide.go)
//
// What can stay behind is the mapped segment, never a changed register, mask or
// interrupted call. Every debt is in the journal before it is made; a guardian
// (package guardian) pays it with Adopt.
//
// One thing is the kernel's: system calls that answer any stop with EINTR
// (eintr_amd64.go) are issued again by Freeze once all threads have stopped. If
// this process dies before that, they fail as they would after SIGSTOP and
// SIGCONT.
package tracee
