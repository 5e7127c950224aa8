/* What stands at the names of the image's programs until the tree of mode `lease` is made.

   `docker exec` and HEALTHCHECK may come in the first milliseconds, when the root has nothing but
   what is in the boot image's own layer.  There, the names of programs are hard links to this one.
   It waits until PID 1 has made the tree (boot/lease/skeleton.py), which puts the program itself
   in the place of this one, and executes that with the very arguments and environment.  Before
   PID 1 is done it says so by no file; then there is /.bootfs/built.

   It waits in vain, and leaves with a line,

   - where PID 1 is not bootfs: the user has replaced it (--entrypoint).  127
   - in modes `erofs` and `fuse`, which do not make the tree here but go to another root, in a
     mount namespace that nobody without rights can enter.  126

   Whose program it is: the path that was executed (AT_EXECFN), if that is this file.  Else it
   is the interpreter of a script, and its own path is that of /proc/self/exe.

   Linux x86-64, no C library, no data, no relocations.  scripts/build-launcher makes the program
   of it; placeholder_aarch64.S does and says the same.

   Registers kept throughout:

       r12       argv
       r13       envp
       r14       the path
       r15d      rounds
       ebp       rounds in which PID 1 was not bootfs, then failed tries
       rsp       OWN, NOW: two struct stat; LINK: a path; READ: what is read from files
*/
        .intel_syntax noprefix
        .code64
        .text
        .globl  _start

        .equ    SYS_READ, 0
        .equ    SYS_WRITE, 1
        .equ    SYS_OPEN, 2
        .equ    SYS_CLOSE, 3
        .equ    SYS_STAT, 4
        .equ    SYS_ACCESS, 21
        .equ    SYS_NANOSLEEP, 35
        .equ    SYS_GETPID, 39
        .equ    SYS_EXECVE, 59
        .equ    SYS_EXIT, 60
        .equ    SYS_READLINK, 89
        .equ    O_CLOEXEC, 0x80000
        .equ    AT_EXECFN, 31
        .equ    ENOENT, 2
        .equ    ETXTBSY, 26
        .equ    STDERR, 2
        .equ    EXIT_REFUSED, 126
        .equ    EXIT_MISSING, 127

        .equ    LOOKS, 7                /* of so many rounds and one, one looks for more */
        .equ    FOREIGN, 300            /* looks, some 5 s: PID 1 may not have begun */
        .equ    TRIES, 5000             /* some 10 s */

        .equ    OWN, 0                  /* st_dev at 0, st_ino at 8 */
        .equ    NOW, 144
        .equ    LINK, 288
        .equ    LINK_SIZE, 4096
        .equ    READ, LINK + LINK_SIZE + 16
        .equ    READ_SIZE, 16384        /* more than any line of mountinfo */
        .equ    FRAME, READ + READ_SIZE

        /* Point rsi at a line and rdx at its size, then say it and leave with `code`. */
        .macro  leave line, code
        mov     esi, offset \line
        mov     edx, offset \line\()_end - \line
        mov     ebx, \code
        jmp     say_and_exit
        .endm

_start:
        mov     rcx, [rsp]
        lea     r12, [rsp + 8]
        lea     r13, [rsp + rcx*8 + 16]
        mov     rsi, r13
1:      mov     rax, [rsi]              /* past the environment is the auxiliary vector */
        add     rsi, 8
        test    rax, rax
        jnz     1b
        xor     r14d, r14d
2:      mov     rax, [rsi]
        mov     rdx, [rsi + 8]
        add     rsi, 16
        test    rax, rax
        jz      3f
        cmp     rax, AT_EXECFN
        cmove   r14, rdx
        jmp     2b
3:      sub     rsp, FRAME
        and     rsp, -16
        mov     eax, SYS_GETPID
        syscall
        cmp     eax, 1
        je      not_booted

        mov     edi, offset self
        lea     rsi, [rsp + OWN]
        call    status
        mov     rdi, r14
        lea     rsi, [rsp + NOW]
        call    status
        call    is_own
        je      wait
        mov     edi, offset self
        lea     rsi, [rsp + LINK]
        mov     edx, LINK_SIZE
        mov     eax, SYS_READLINK
        syscall
        test    eax, eax
        jle     wait
        lea     r14, [rsp + LINK]
        mov     byte ptr [r14 + rax], 0
        lea     rdi, [r14 + rax - (deleted_end - deleted)]
        cmp     rdi, r14
        jbe     wait
        mov     esi, offset deleted
        mov     ecx, offset deleted_end - deleted
        mov     rdx, rdi
        repe cmpsb
        jne     wait
        mov     byte ptr [rdx], 0       /* what has been replaced already is not named so */

wait:   xor     r15d, r15d
        xor     ebp, ebp
round:  mov     edi, offset built
        xor     esi, esi                /* F_OK */
        mov     eax, SYS_ACCESS
        syscall
        test    eax, eax
        jz      built_now
        inc     r15d
        test    r15d, LOOKS
        jnz     4f
        call    look
4:      call    sleep
        jmp     round

built_now:
        xor     ebp, ebp
try:    mov     rdi, r14
        lea     rsi, [rsp + NOW]
        call    status
        test    eax, eax
        jnz     5f
        call    is_own
        je      not_made
5:      mov     rdi, r14
        mov     rsi, r12
        mov     rdx, r13
        mov     eax, SYS_EXECVE
        syscall
        neg     eax
        mov     ebx, eax
        cmp     eax, ETXTBSY            /* it is being filled in this moment */
        jne     failed_now
        inc     ebp
        cmp     ebp, TRIES
        jae     failed_now
        call    sleep
        jmp     try

failed_now:
        mov     r15d, ebx
        mov     esi, offset failed
        mov     edx, offset failed_end - failed
        call    say
        mov     rsi, r14
        xor     edx, edx
6:      cmp     byte ptr [rsi + rdx], 0
        je      7f
        inc     edx
        jmp     6b
7:      call    say
        lea     rdi, [rsp + READ + 32]  /* digits are written backwards from here */
        mov     r12, rdi
        dec     rdi
        mov     byte ptr [rdi], '\n'
        mov     eax, r15d
        mov     ecx, 10
8:      xor     edx, edx
        div     ecx
        add     edx, '0'
        dec     rdi
        mov     [rdi], dl
        test    eax, eax
        jnz     8b
        mov     r13, rdi
        mov     esi, offset number
        mov     edx, offset number_end - number
        call    say
        mov     rsi, r13
        mov     rdx, r12
        sub     rdx, r13
        mov     ebx, EXIT_REFUSED
        mov     eax, EXIT_MISSING
        cmp     r15d, ENOENT
        cmove   ebx, eax

say_and_exit:
        call    say
        mov     edi, ebx
        mov     eax, SYS_EXIT
        syscall

not_booted:
        leave   replaced, EXIT_MISSING
not_here:
        leave   early, EXIT_REFUSED
not_made:
        leave   missing, EXIT_MISSING

say:    /* Write rdx bytes at rsi to standard error; that it may fail changes nothing. */
        mov     edi, STDERR
        mov     eax, SYS_WRITE
        syscall
        ret

sleep:  mov     edi, offset pause
        xor     esi, esi
        mov     eax, SYS_NANOSLEEP
        syscall
        ret

status: /* Put the status of what the path at rdi leads to at rsi, zeros if there is none. */
        mov     qword ptr [rsi], 0
        mov     qword ptr [rsi + 8], 0
        mov     eax, SYS_STAT
        syscall
        ret

is_own: /* "Equal" if the path leads to this very file. */
        mov     rax, [rsp + 8 + OWN]    /* the return address lies below */
        cmp     rax, [rsp + 8 + NOW]
        jne     9f
        mov     rax, [rsp + 8 + OWN + 8]
        cmp     rax, [rsp + 8 + NOW + 8]
9:      ret

look:   /* Leave if there is nothing to wait for.  Uses rbx. */
        mov     edi, offset mounts
        call    open
        js      12f
        mov     ebx, eax
10:     mov     edi, ebx
        lea     rsi, [rsp + 8 + READ]
        mov     edx, READ_SIZE
        mov     eax, SYS_READ           /* whole lines */
        syscall
        test    eax, eax
        jle     11f
        lea     r8, [rsp + 8 + READ]
        lea     r9, [r8 + rax - (image_end - image)]
        jmp     14f
13:     mov     rdi, r8
        mov     esi, offset image
        mov     ecx, offset image_end - image
        repe cmpsb
        je      not_here
        inc     r8
14:     cmp     r8, r9
        jbe     13b
        jmp     10b
11:     mov     edi, ebx
        mov     eax, SYS_CLOSE
        syscall
12:     mov     edi, offset first
        call    open
        js      15f
        mov     ebx, eax
        mov     edi, eax
        lea     rsi, [rsp + 8 + READ]
        mov     edx, READ_SIZE
        mov     eax, SYS_READ
        syscall
        mov     r8d, eax
        mov     edi, ebx
        mov     eax, SYS_CLOSE
        syscall
        cmp     r8d, 0
        jle     15f
        lea     rdi, [rsp + 8 + READ]
        mov     esi, offset ours
        mov     ecx, offset ours_end - ours
        repe cmpsb
        je      16f
        inc     ebp
        cmp     ebp, FOREIGN
        jae     not_booted
        ret
16:     xor     ebp, ebp
15:     ret

open:   /* Open the path at rdi to be read; "sign" if that fails. */
        mov     esi, O_CLOEXEC
        xor     edx, edx
        mov     eax, SYS_OPEN
        syscall
        test    eax, eax
        ret

pause:          .quad   0, 2000000      /* 2 ms */
built:          .asciz  "/.bootfs/built"
self:           .asciz  "/proc/self/exe"
mounts:         .asciz  "/proc/self/mountinfo"
first:          .asciz  "/proc/1/comm"
deleted:        .ascii  " (deleted)"
deleted_end:
image:          .ascii  " /.bootfs/mnt/image "
image_end:
ours:           .ascii  "ld.so\n"       /* what PID 1 executes, see launcher.S */
ours_end:
replaced:       .ascii  "bootfs: the image's programs are not there, since bootfs was not started: "
                .ascii  "give --entrypoint /.bootfs/init -e BOOTFS_ENTRYPOINT=PROGRAM\n"
replaced_end:
early:          .ascii  "bootfs: the image's programs were not there yet: do it again\n"
early_end:
missing:        .ascii  "bootfs: the image's program was not made here: "
                .ascii  "something is mounted over its place\n"
missing_end:
failed:         .ascii  "bootfs: cannot execute "
failed_end:
number:         .ascii  ": error "
number_end:
