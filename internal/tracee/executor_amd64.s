// The executor: the only code that ever runs inside a task. It is position
// independent and keeps no stack; its bytes are copied out of this binary into
// a shared segment (executor_unsafe_amd64.go). BX holds the task's slot for as long as
// the executor runs; the offsets are those of slot.go.
//
// It parks in futex_waitv on two words: the sequence word, which the controller
// bumps to hand over a batch, and the owner word, a robust futex that the
// kernel marks and wakes when the controller's thread dies. The owner is looked
// at before every call but those that go with the one before them; once it is
// gone the undo list runs and the slot's way home puts the thread back where it
// was.

#include "textflag.h"

// func executor()
TEXT ·executor(SB),NOSPLIT|NOFRAME,$0
entry:
	CLD
	MOVL	$1, 0x24(BX)		// phase: entered
	MOVL	$14, AX			// rt_sigprocmask(SIG_SETMASK, mask, NULL, 8)
	MOVL	$2, DI
	LEAQ	0x40(BX), SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	MOVQ	0x50(BX), CX		// give back the bytes lent for the entry
	TESTQ	CX, CX
	JZ	nolend
	MOVQ	0x58(BX), SI
	MOVQ	0x48(BX), DI
	REP; MOVSB
nolend:
	MOVQ	0x38(BX), SI		// sigaltstack(NULL, there)
	TESTQ	SI, SI
	JZ	noalt
	XORL	DI, DI
	MOVL	$131, AX
	SYSCALL
noalt:
	TESTL	$1, 0x64(BX)		// the segment goes with its last mapping
	JZ	park
	MOVL	$31, AX			// shmctl(id, IPC_RMID, NULL)
	MOVL	0x60(BX), DI
	XORL	SI, SI
	XORL	DX, DX
	SYSCALL
park:
	MOVL	$2, 0x24(BX)		// phase: parked
	MOVL	$1, 0x20(BX)		// done
	LEAQ	0x20(BX), DI		// futex(&done, FUTEX_WAKE, 1)
	MOVL	$1, SI
	MOVL	$1, DX
	MOVL	$202, AX
	SYSCALL
wait:
	MOVQ	0x10(BX), R8
	MOVL	(R8), DX
	TESTL	$0x40000000, DX		// FUTEX_OWNER_DIED
	JNZ	died
	MOVL	0x18(BX), AX		// sequence word
	CMPL	AX, 0x1c(BX)		// last sequence run
	JNE	go
	MOVQ	DX, 0x68(BX)		// waitv[0] = the owner word
	MOVQ	R8, 0x70(BX)
	MOVQ	$2, 0x78(BX)		// FUTEX2_SIZE_U32, shared
	MOVQ	AX, 0x80(BX)		// waitv[1] = the sequence word
	LEAQ	0x18(BX), CX
	MOVQ	CX, 0x88(BX)
	MOVQ	$2, 0x90(BX)
	LEAQ	0x68(BX), DI		// futex_waitv(waitv, 2, 0, NULL, 0)
	MOVL	$2, SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	MOVL	$449, AX
	SYSCALL
	JMP	wait
go:
	MOVL	$3, 0x24(BX)		// phase: runs a batch
	MOVL	AX, 0x1c(BX)		// in this order: see idle in slot.go
	MOVQ	0x00(BX), R12
	LEAQ	0x100(BX), R13
	XORL	BP, BP			// not the undo list
loop:
	TESTQ	R12, R12
	JZ	end
	TESTL	BP, BP
	JNZ	owned
	TESTL	$4, 72(R13)		// goes with the call before it
	JNZ	owned
	MOVQ	0x10(BX), R8
	TESTL	$0x40000000, (R8)
	JNZ	died
owned:
	MOVQ	8(R13), R14		// back references, a byte an argument
	XORL	R15, R15
refs:
	TESTQ	R14, R14
	JZ	call
	MOVBLZX	R14, AX
	TESTL	AX, AX
	JZ	noref
	IMUL3Q	$80, AX, AX
	MOVQ	R13, CX
	SUBQ	AX, CX
	MOVQ	64(CX), AX
	MOVQ	AX, 16(R13)(R15*8)
noref:
	SHRQ	$8, R14
	INCL	R15
	JMP	refs
call:
	MOVQ	16(R13), DI
	MOVQ	24(R13), SI
	MOVQ	32(R13), DX
	MOVQ	40(R13), R10
	MOVQ	48(R13), R8
	MOVQ	56(R13), R9
	MOVQ	(R13), AX
	SYSCALL
	TESTQ	AX, AX
	JZ	born
result:
	MOVQ	AX, 64(R13)
	TESTL	$1, 72(R13)		// stop the batch on error
	JZ	next
	CMPQ	AX, $-4096
	JHI	end
next:
	ADDQ	$80, R13
	DECQ	R12
	JMP	loop
born:
	TESTL	$2, 72(R13)		// a clone in whose child we may be
	JZ	result
	MOVQ	R9, BX			// it has a slot of its own
	JMP	entry
end:
	MOVQ	R12, 0x08(BX)
	TESTL	BP, BP
	JZ	park
	MOVL	$5, 0x24(BX)		// phase: goes home
	MOVQ	0xb8(BX), AX		// the slot's own way (home)
	JMP	AX
died:
	MOVL	$4, 0x24(BX)		// phase: the controller is gone
	MOVQ	0x10(BX), DI		// futex(owner, FUTEX_WAKE, INT_MAX): the kernel woke one
	MOVL	$1, SI
	MOVL	$0x7fffffff, DX
	MOVL	$202, AX
	SYSCALL
	MOVL	$1, BP
	MOVQ	0x28(BX), R12
	MOVQ	0x30(BX), R13
	JMP	loop
	// End marker, found by executor_unsafe_amd64.go.
	BYTE	$0x66; BYTE $0x0f; BYTE $0x0b; BYTE $0x46; BYTE $0x45; BYTE $0x52; BYTE $0x4d; BYTE $0x41

// func executorPC() uintptr
TEXT ·executorPC(SB),NOSPLIT,$0-8
	LEAQ	·executor(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
