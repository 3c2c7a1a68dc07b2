/* How the old PC's guest starts (main.c): the BIOS loads the first sector, which has the BIOS read
 * the rest from the same disk, and goes to 32-bit protected mode with paging (4 MiB pages).
 */
	.set COM1, 0x3f8
	.set PAGES, 0x10000
	.set STACK, 0x90000

	.section .boot, "ax"
	.code16
	.globl _start
_start:
	ljmp $0, $1f
1:	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	cld
	movb $0x42, %ah			/* read by block number; %dl is the disk that we came from */
	movw $packet, %si
	int $0x13
	movw $unread, %si
	jc say16
	lgdt gdt_register
	cli
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $8, $protected

say16:	lodsb
	movw $COM1, %dx
	outb %al, %dx
	testb %al, %al
	jnz say16
2:	hlt
	jmp 2b
unread:	.asciz "MICA: the BIOS could not read the disk\n"

	.balign 4
packet:	.byte 16, 0
	.word sectors			/* after the first; of the linker */
	.word 0x7e00, 0
	.quad 1
	.balign 8
gdt:	.quad 0
	.quad 0x00cf9a000000ffff
	.quad 0x00cf92000000ffff
gdt_register:
	.word . - gdt - 1
	.long gdt
	.org 510
	.word 0xaa55

	.text
	.code32
protected:
	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $STACK, %esp
	movl $bss_start, %edi
	movl $bss_end, %ecx
	subl %edi, %ecx
	xorl %eax, %eax
	rep stosb
	movl $PAGES, %edi		/* everything where it is */
	movl $0x83, %eax
3:	stosl
	addl $0x400000, %eax
	jnc 3b
	movl %cr4, %eax
	orl $0x10, %eax
	movl %eax, %cr4
	movl $PAGES, %eax
	movl %eax, %cr3
	movl %cr0, %eax
	orl $0x80000000, %eax
	movl %eax, %cr0
	call main
4:	hlt
	jmp 4b

	.globl on_timer
on_timer:
	pushl %eax
	incl ticks
	movb $0x20, %al
	outb %al, $0x20
	popl %eax
	iretl
