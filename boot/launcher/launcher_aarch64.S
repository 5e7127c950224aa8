/* /.bootfs/init for AArch64.  What it does, and why, is said at the top of launcher.S; the two
   say the same lines and leave with the same codes.

   Linux AArch64, no C library, no data, no relocations.  scripts/build-launcher makes the
   program of it.

   Registers kept throughout: x19 = the initial stack, which is (as on x86-64)

       x19       argc
       x19+8     argv[0] ... argv[argc-1], 0
       then      envp[0] ..., 0

   A system call has its number in x8, arguments from x0 on, and its result in x0.
*/
        .arch   armv8-a
        .text
        .globl  _start

        .equ    SYS_WRITE, 64
        .equ    SYS_EXIT, 93
        .equ    SYS_RT_SIGPROCMASK, 135
        .equ    SYS_GETPID, 172
        .equ    SYS_GETEUID, 175
        .equ    SYS_EXECVE, 221
        .equ    SIG_BLOCK, 0
        .equ    STDERR, 2
        .equ    EXIT_FAILED, 125        /* the engine's "could not be run" */
        .equ    EXIT_REFUSED, 126

        /* Point x1 at a line and x2 at its size, then say it and leave with `code`. */
        .macro  leave line, code
        adr     x1, \line
        mov     x2, #\line\()_end - \line
        mov     w22, #\code
        b       say_and_exit
        .endm

        /* Point the next word of our argv at a string. */
        .macro  argument string
        adr     x11, \string
        str     x11, [x10], #8
        .endm

_start:
        mov     x19, sp

        mov     x8, #SYS_GETPID
        svc     #0
        cmp     x0, #1
        b.eq    first
        leave   not_first, EXIT_REFUSED
first:
        mov     x8, #SYS_GETEUID
        svc     #0
        cbz     w0, root
        leave   not_root, EXIT_FAILED
root:
        mov     x0, #SIG_BLOCK
        adr     x1, signals
        mov     x2, #0                  /* what was blocked is of no use to anybody */
        mov     x3, #8                  /* sizeof(sigset_t), as the kernel has it */
        mov     x8, #SYS_RT_SIGPROCMASK
        svc     #0

        /* x2 = envp, as execve wants it; x20 = the first argument to hand on.  Without
           even argv[0] (old kernels allow that) it is the 0 that ends argv. */
        ldr     x9, [x19]
        add     x2, x19, x9, lsl #3
        add     x2, x2, #16
        add     x20, x19, #8
        cbz     x9, hide
        add     x20, x19, #16

hide:   /* No string may become empty, or stop being so: 0 and 0x80 stay. */
        mov     x10, x2
next:
        ldr     x11, [x10], #8
        cbz     x11, hidden
        ldrb    w12, [x11]
        tst     w12, #0x7f
        b.eq    next
        eor     w12, w12, #0x80
        strb    w12, [x11]
        b       next
hidden:
        /* The caller's arguments stay where they are.  Our eight are put below them, over
           argc and argv[0], so that the stack becomes the new argv whatever its length. */
        sub     x21, x20, #8 * 8
        and     sp, x21, #~15           /* it may not be used otherwise */
        mov     x10, x21
        argument loader
        argument library_path
        argument libraries
        argument python
        argument isolated
        argument no_site
        argument no_bytecode
        argument init
        adr     x0, loader
        mov     x1, x21
        mov     x8, #SYS_EXECVE
        svc     #0

        /* Still here: w0 = -errno, below 4096.  Name the usual ones, number them all. */
        neg     w23, w0
        adr     x1, failed
        mov     x2, #failed_end - failed
        bl      say
        adr     x1, names
1:      ldrb    w9, [x1]                /* errno, size of the name, the name; 0 ends */
        ldrb    w2, [x1, #1]
        add     x1, x1, #2
        cbz     w9, number
        cmp     w9, w23
        b.eq    named
        add     x1, x1, x2
        b       1b
named:
        bl      say
number:
        mov     x24, sp
        sub     sp, sp, #64
        mov     x1, x24                 /* digits are written backwards from here */
        mov     w9, #'\n'
        strb    w9, [x1, #-1]!
        mov     w10, #10
2:      udiv    w11, w23, w10
        msub    w9, w11, w10, w23
        add     w9, w9, #'0'
        strb    w9, [x1, #-1]!
        mov     w23, w11
        cbnz    w23, 2b
        sub     x2, x24, x1
        mov     w22, #EXIT_FAILED

say_and_exit:
        bl      say
        mov     w0, w22
        mov     x8, #SYS_EXIT
        svc     #0

say:    /* Write x2 bytes at x1 to standard error; that it may fail changes nothing. */
        mov     x0, #STDERR
        mov     x8, #SYS_WRITE
        svc     #0
        ret

        /* Bit n - 1 is signal n.  32 and 33 are glibc's own, for threads; the kernel leaves
           out SIGKILL and SIGSTOP itself. */
        .balign 8
signals:        .quad   0xfffffffe7fffffff
loader:         .asciz  "/.bootfs/runtime/ld.so"
library_path:   .asciz  "--library-path"
libraries:      .asciz  "/.bootfs/runtime/lib"
python:         .asciz  "/.bootfs/runtime/python"
isolated:       .asciz  "-I"
no_site:        .asciz  "-S"
no_bytecode:    .asciz  "-B"
init:           .asciz  "/.bootfs/runtime/start.pyc"

not_first:      .ascii  "bootfs: /.bootfs/init runs only as PID 1 of a container: "
                .ascii  "leave out --init (have an init in the image) and --pid\n"
not_first_end:
not_root:       .ascii  "bootfs: cannot become root to mount the image: "
                .ascii  "remove --security-opt no-new-privileges or run as root\n"
not_root_end:
failed:         .ascii  "bootfs: cannot execute /.bootfs/runtime/ld.so: "
failed_end:

        .macro  errno number, name
        .byte   \number, 2f - 1f
1:      .ascii  "\name "
2:
        .endm
names:  errno   1, "EPERM"
        errno   2, "ENOENT"
        errno   5, "EIO"
        errno   7, "E2BIG"
        errno   8, "ENOEXEC"
        errno   11, "EAGAIN"
        errno   12, "ENOMEM"
        errno   13, "EACCES"
        errno   40, "ELOOP"
        .byte   0, 0
