// The keeper: a program that holds descriptors until processes have ended. It needs
// no memory but its stack; R12 holds that as it was at the start: argc, argv.
//
// Descriptors: 0 a pipe on which it is told that it counts, 1 an epoll instance in
// which the pidfds of the processes are, each reported once (EPOLLONESHOT); there
// are argc-1 of them. For each it holds two more. All others it closes.

#include "textflag.h"

// func keep()
TEXT ·keep(SB),NOSPLIT|NOFRAME,$0
	MOVQ	SP, R12
	MOVL	$157, AX		// prctl(PR_SET_NAME, argv[0])
	MOVL	$15, DI
	MOVQ	8(R12), SI
	SYSCALL
	MOVQ	(R12), R13
	DECQ	R13
	MOVL	$436, AX		// close_range(2+2*(argc-1), ~0, 0): what was inherited
	LEAL	2(R13)(R13*1), DI
	MOVL	$-1, SI
	XORL	DX, DX
	SYSCALL
word:
	XORL	AX, AX			// read(0, buf, 1)
	XORL	DI, DI
	LEAQ	-32(R12), SI
	MOVL	$1, DX
	SYSCALL
	CMPQ	AX, $-4			// EINTR
	JEQ	word
	CMPQ	AX, $1
	JNE	leave			// who started it has ended before
again:
	TESTQ	R13, R13
	JLE	leave
	MOVL	$232, AX		// epoll_wait(1, buf, 1, -1)
	MOVL	$1, DI
	LEAQ	-32(R12), SI
	MOVL	$1, DX
	MOVL	$-1, R10
	SYSCALL
	CMPQ	AX, $-4
	JEQ	again
	CMPQ	AX, $1
	JNE	leave
	DECQ	R13
	JMP	again
leave:
	MOVL	$231, AX		// exit_group(0)
	XORL	DI, DI
	SYSCALL
	// End marker, found by package tiny.
	BYTE	$0x66; BYTE $0x0f; BYTE $0x0b; BYTE $0x4b; BYTE $0x45; BYTE $0x45; BYTE $0x50; BYTE $0x53

// func keepPC() uintptr
TEXT ·keepPC(SB),NOSPLIT,$0-8
	LEAQ	·keep(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
