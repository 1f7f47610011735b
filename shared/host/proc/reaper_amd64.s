#include "textflag.h"

#define SYS_poll		7
#define SYS_clone		56
#define SYS_setpriority		141
#define SYS_prctl		157
#define SYS_exit_group		231
#define SYS_close_range		436

#define CLONE_VM		0x100
#define PR_SET_NAME		15
#define EINTR			4
#define NICENESS		5
#define PAUSE_MS		30

// func rawCloneReaper(self int, poll *unix.PollFd, name *[16]byte) int
//
// Both processes return from clone with the same memory and the same stack
// pointer. The reaper must not touch the stack: it uses registers and system calls
// only (the kernel keeps all registers but AX, CX and R11), and never returns.
TEXT ·rawCloneReaper(SB), NOSPLIT|NOFRAME, $0-32
	MOVQ	self+0(FP), R12
	MOVQ	poll+8(FP), R13
	MOVQ	name+16(FP), R14
	MOVQ	$CLONE_VM, DI	// no signal to the parent when it ends
	XORQ	SI, SI
	XORQ	DX, DX
	XORQ	R10, R10
	XORQ	R8, R8
	MOVQ	$SYS_clone, AX
	SYSCALL
	TESTQ	AX, AX
	JZ	reaper
	MOVQ	AX, ret+24(FP)
	RET

reaper:
	// Its copies of locks and sockets would outlive the process: away with them first.
	LEAQ	1(R12), DI
	MOVL	$0xffffffff, SI
	XORQ	DX, DX
	MOVQ	$SYS_close_range, AX
	SYSCALL
	TESTQ	AX, AX
	JNZ	end
	TESTQ	R12, R12
	JZ	closed
	XORQ	DI, DI
	LEAQ	-1(R12), SI
	XORQ	DX, DX
	MOVQ	$SYS_close_range, AX
	SYSCALL
	TESTQ	AX, AX
	JNZ	end

closed:
	MOVQ	$PR_SET_NAME, DI
	MOVQ	R14, SI
	MOVQ	$SYS_prctl, AX
	SYSCALL

	// What it does in the end is in no hurry, others are.
	XORQ	DI, DI
	XORQ	SI, SI
	MOVQ	$NICENESS, DX
	MOVQ	$SYS_setpriority, AX
	SYSCALL

wait:
	MOVQ	R13, DI
	MOVQ	$1, SI
	MOVQ	$-1, DX
	MOVQ	$SYS_poll, AX
	SYSCALL
	CMPQ	AX, $-EINTR	// stopped and continued
	JEQ	wait

	// Nor is it in the way of those that hear of the death at the same moment.
	XORQ	DI, DI
	XORQ	SI, SI
	MOVQ	$PAUSE_MS, DX
	MOVQ	$SYS_poll, AX
	SYSCALL

end:
	XORQ	DI, DI
	MOVQ	$SYS_exit_group, AX
	SYSCALL
	JMP	end
