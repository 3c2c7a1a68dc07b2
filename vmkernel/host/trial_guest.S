/* SPDX-License-Identifier: Apache-2.0
 *
 * The boot sector of the trial guest (trial_guest.py holds it assembled), for hosts without OVMF:
 *   as --64 -o o trial_guest.S && ld -m elf_x86_64 -Ttext=0x7c00 --oformat binary -o sector o
 *
 * Says "MICA RUNS" on COM1 once the machine has done what an ordinary guest needs and a weak
 * KVM fails at: timer interrupts out of a halted processor, long mode with paging, and a second
 * processor that was started by interrupt and changed memory that the first one sees.
 */
	.code16
	.globl _start
	.set TABLES, 0x1000
	.set TRAMPOLINE, 0x8000
	.set STARTED, 0x0600
	.set TICKS, 0x046c
	.set LAPIC_ICR, 0xfee00300
_start:
	ljmp $0, $main
main:	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	cld
	sti
	movw TICKS, %bx
	addw $5, %bx
1:	hlt
	cmpw TICKS, %bx
	jne 1b
	cli
	/* Tables for 4 KiB each: level 4, level 3, level 2 of the first GiB, of the fourth. */
	movw $TABLES, %di
	movw $0x2000, %cx
	rep stosw
	movw $0x2003, 0x1000
	movw $0x3003, 0x2000
	movw $0x4003, 0x2018
	movw $0x0083, 0x3000
	movl $0xfee00093, 0x4fb8
	movw $0, STARTED
	movb $0xea, TRAMPOLINE
	movw $second, TRAMPOLINE+1
	movw $0, TRAMPOLINE+3
	movl $0x20, %eax
	movl %eax, %cr4
	movl $TABLES, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orw $0x100, %ax
	wrmsr
	lgdt table
	movl %cr0, %eax
	orl $0x80000001, %eax
	movl %eax, %cr0
	ljmp $8, $long_mode
second:	xorw %ax, %ax
	movw %ax, %ds
	lock incw STARTED
2:	hlt
	jmp 2b

	.code64
long_mode:
	movl $LAPIC_ICR, %esi
	movl $0xc4500, (%rsi)
	call pause_a_while
	movl $0xc4608, (%rsi)
	call pause_a_while
	movl $0xc4608, (%rsi)
3:	pause
	cmpw $0, STARTED
	je 3b
	movl $text, %esi
4:	movw $0x3fd, %dx
5:	inb %dx, %al
	testb $0x20, %al
	jz 5b
	movw $0x3f8, %dx
	lodsb
	outb %al, %dx
	testb %al, %al
	jnz 4b
6:	hlt
	jmp 6b
pause_a_while:
	movl $20000, %ecx
7:	inb $0x80, %al
	loop 7b
	ret

text:	.asciz "MICA RUNS\n"
	.balign 8
gdt:	.quad 0
	.quad 0x00209a0000000000
table:	.word . - gdt - 1
	.long gdt
	.org 510
	.word 0xaa55
