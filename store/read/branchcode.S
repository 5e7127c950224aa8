/* The loop of store/format/branches.py, which says what it does.

   uint32_t bootfs_branches(uint8_t *data, uint32_t size, int32_t sign)

   Turns displacements into places (sign 1) or back (sign -1), in place; returns how many.
   Position-independent, without data that is written, without calls.

   System V ABI: rdi, esi, edx in; eax out; rsi, rcx, r8 to r11 are the callee's to change.
   Built by scripts/build-branches.  */

	.intel_syntax noprefix
	.section .note.GNU-stack, "", @progbits

	.set	REACH, 1 << 25

	.text
	.globl	bootfs_branches
	.type	bootfs_branches, @function
bootfs_branches:
	xor	eax, eax
	sub	esi, 6
	jb	done
	xor	ecx, ecx
	lea	r9, kinds[rip]
	.p2align 4
next:
	movzx	r10d, byte ptr [rdi + rcx]
	movzx	r10d, byte ptr [r9 + r10]
	test	r10d, r10d
	jnz	opcode
step:
	inc	ecx
	cmp	ecx, esi
	jbe	next
done:
	ret

opcode:
	lea	r8d, [rcx + 1]
	cmp	r10d, 1
	je	displacement
	inc	r8d
	movzx	r11d, byte ptr [rdi + rcx + 1]
	cmp	r10d, 2
	jne	operand
	and	r11d, 0xf0
	cmp	r11d, 0x80
	jne	step
	jmp	displacement
operand:
	and	r11d, 0xc7
	cmp	r11d, 0x05
	jne	step
displacement:
	mov	r11d, [rdi + r8]
	add	r11d, REACH
	cmp	r11d, 2 * REACH
	jae	beyond
	mov	r10d, edx
	imul	r10d, r8d
	add	r11d, r10d
	and	r11d, 2 * REACH - 1
	sub	r11d, REACH
	mov	[rdi + r8], r11d
	inc	eax
	lea	ecx, [r8 + 4]
	cmp	ecx, esi
	jbe	next
	ret
beyond:
	lea	ecx, [r8 + 3]
	cmp	ecx, esi
	jbe	next
	ret
	.size	bootfs_branches, . - bootfs_branches

	/* In .text, so that the library needs no relocation and one segment: `KINDS` of
	   store/format/branches.py.  */
	.p2align 6
	.type	kinds, @object
kinds:
	.byte	0, 3, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2
	.byte	3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
	.byte	0, 0, 0, 3, 0, 0, 0, 0, 3, 3, 0, 3, 0, 0, 3, 3
	.byte	0, 0, 0, 3, 0, 0, 0, 0, 3, 3, 0, 3, 0, 0, 0, 0
	.byte	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
	.byte	0, 0, 0, 0, 3, 0, 0, 3, 3, 3, 0, 0, 3, 0, 3, 0
	.byte	0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3
	.byte	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3
	.byte	3, 3, 0, 3, 0, 3, 0, 0, 3, 3, 3, 3, 0, 3, 0, 0
	.byte	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
	.byte	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
	.byte	0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 3, 0
	.byte	0, 3, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0
	.byte	0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0
	.byte	0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0
	.byte	0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 3
	.size	kinds, . - kinds
