# A program without libc, signals or rt_sigreturn: one thread that counts in
# shared memory, checks its registers and sleeps now and then. argv: page file,
# how it spends its time: "spin" or "sleep".
	.globl _start
	.text
_start:
	mov 16(%rsp), %rdi		# open(argv[1], O_RDWR)
	mov 24(%rsp), %r15
	movzbl 1(%r15), %r15d		# 'p' of spin or 'l' of sleep
	mov $2, %eax
	mov $2, %esi
	syscall
	mov %rax, %r8			# mmap(0, 4096, RW, SHARED, fd, 0)
	xor %edi, %edi
	mov $4096, %esi
	mov $3, %edx
	mov $1, %r10d
	xor %r9d, %r9d
	mov $9, %eax
	syscall
	mov %rax, %rbx
	mov %r8, %rdi			# close(fd)
	mov $3, %eax
	syscall
	mov $0x1234567890abcdef, %r12
	mov $0xfedcba0987654321, %r13
	mov %rsp, %r14
again:
	incq 0(%rbx)
	cmp $'p', %r15d
	jne nap
	mov $200000, %ecx
	mov %r12, %r8
	mov %r13, %r9
	mov %r12, -120(%rsp)
spin:
	dec %ecx
	jnz spin
	cmp %r12, %r8
	jne wrong
	cmp %r13, %r9
	jne wrong
	cmp %r12, -120(%rsp)
	jne wrong
	jmp check
nap:
	lea ts(%rip), %rdi
	xor %esi, %esi
	mov $35, %eax
	syscall
	test %rax, %rax
	jnz wrong
	lea ts(%rip), %rax		# the argument register is what it was
	cmp %rax, %rdi
	jne wrong
check:
	cmp %rsp, %r14
	jne wrong
	mov $0x1234567890abcdef, %rax
	cmp %rax, %r12
	jne wrong
	jmp again
wrong:
	incq 8(%rbx)
	jmp again
# What a compiled function ends in: a saved register's value, pops, ret.
	mov %ebx, %eax
	pop %rbx
	pop %r12
	ret
	.data
ts:	.quad 0, 3000000
