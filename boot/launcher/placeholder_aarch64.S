/* The placeholder for AArch64.  What it does, and why, is said at the top of placeholder.S; the
   two say the same lines and leave with the same codes.

   Linux AArch64, no C library, no data, no relocations.  scripts/build-launcher makes the
   program of it.

   Registers kept throughout:

       x19       argv
       x20       envp
       x21       the path
       w22       rounds
       w23       rounds in which PID 1 was not bootfs, then failed tries
       sp        OWN, NOW: two struct stat; LINK: a path; READ: what is read from files

   A system call has its number in x8, arguments from x0 on, and its result in x0.
*/
        .arch   armv8-a
        .text
        .globl  _start

        .equ    SYS_FACCESSAT, 48
        .equ    SYS_OPENAT, 56
        .equ    SYS_CLOSE, 57
        .equ    SYS_READ, 63
        .equ    SYS_WRITE, 64
        .equ    SYS_READLINKAT, 78
        .equ    SYS_NEWFSTATAT, 79
        .equ    SYS_EXIT, 93
        .equ    SYS_NANOSLEEP, 101
        .equ    SYS_GETPID, 172
        .equ    SYS_EXECVE, 221
        .equ    AT_FDCWD, -100
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
        .equ    NOW, 128
        .equ    LINK, 256
        .equ    LINK_SIZE, 4080         /* addresses of what follows are added as 12 bits, or 4096 */
        .equ    READ, 8192
        .equ    READ_SIZE, 16384        /* more than any line of mountinfo */
        .equ    FRAME, READ + READ_SIZE

        /* Point x1 at a line and x2 at its size, then say it and leave with `code`. */
        .macro  leave line, code
        adr     x1, \line
        mov     x2, #\line\()_end - \line
        mov     w24, #\code
        b       say_and_exit
        .endm

        .macro  read_to register
        add     \register, sp, #READ
        .endm

_start:
        ldr     x9, [sp]
        add     x19, sp, #8
        add     x20, x19, x9, lsl #3
        add     x20, x20, #8
        mov     x10, x20
1:      ldr     x11, [x10], #8          /* past the environment is the auxiliary vector */
        cbnz    x11, 1b
        mov     x21, #0
2:      ldp     x11, x12, [x10], #16
        cbz     x11, 3f
        cmp     x11, #AT_EXECFN
        csel    x21, x12, x21, eq
        b       2b
3:      sub     sp, sp, #FRAME
        mov     x8, #SYS_GETPID
        svc     #0
        cmp     x0, #1
        b.eq    not_booted

        adr     x1, self
        add     x2, sp, #OWN
        bl      status
        mov     x1, x21
        add     x2, sp, #NOW
        bl      status
        bl      is_own
        b.eq    wait
        mov     x0, #AT_FDCWD
        adr     x1, self
        add     x2, sp, #LINK
        mov     x3, #LINK_SIZE
        mov     x8, #SYS_READLINKAT
        svc     #0
        cmp     x0, #0
        b.le    wait
        add     x21, sp, #LINK
        strb    wzr, [x21, x0]
        subs    x0, x0, #deleted_end - deleted
        b.le    wait
        add     x9, x21, x0
        adr     x10, deleted
        mov     x11, #deleted_end - deleted
        bl      is_same
        b.ne    wait
        strb    wzr, [x9]               /* what has been replaced already is not named so */

wait:   mov     w22, #0
        mov     w23, #0
round:  mov     x0, #AT_FDCWD
        adr     x1, built
        mov     x2, #0                  /* F_OK */
        mov     x8, #SYS_FACCESSAT
        svc     #0
        cbz     x0, built_now
        add     w22, w22, #1
        tst     w22, #LOOKS
        b.ne    4f
        bl      look
4:      bl      sleep
        b       round

built_now:
        mov     w23, #0
try:    mov     x1, x21
        add     x2, sp, #NOW
        bl      status
        cbnz    x0, 5f
        bl      is_own
        b.eq    not_made
5:      mov     x0, x21
        mov     x1, x19
        mov     x2, x20
        mov     x8, #SYS_EXECVE
        svc     #0
        neg     w22, w0
        cmp     w22, #ETXTBSY           /* it is being filled in this moment */
        b.ne    failed_now
        add     w23, w23, #1
        mov     w9, #TRIES
        cmp     w23, w9
        b.hs    failed_now
        bl      sleep
        b       try

failed_now:
        adr     x1, failed
        mov     x2, #failed_end - failed
        bl      say
        mov     x1, x21
        mov     x2, #0
6:      ldrb    w9, [x1, x2]
        cbz     w9, 7f
        add     x2, x2, #1
        b       6b
7:      bl      say
        adr     x1, number
        mov     x2, #number_end - number
        bl      say
        read_to x12
        add     x12, x12, #32
        mov     x1, x12                 /* digits are written backwards from here */
        mov     w9, #'\n'
        strb    w9, [x1, #-1]!
        mov     w10, #10
        mov     w13, w22
8:      udiv    w11, w13, w10
        msub    w9, w11, w10, w13
        add     w9, w9, #'0'
        strb    w9, [x1, #-1]!
        mov     w13, w11
        cbnz    w13, 8b
        sub     x2, x12, x1
        mov     w24, #EXIT_REFUSED
        mov     w9, #EXIT_MISSING
        cmp     w22, #ENOENT
        csel    w24, w9, w24, eq

say_and_exit:
        bl      say
        mov     w0, w24
        mov     x8, #SYS_EXIT
        svc     #0

not_booted:
        leave   replaced, EXIT_MISSING
not_here:
        leave   early, EXIT_REFUSED
not_made:
        leave   missing, EXIT_MISSING

say:    /* Write x2 bytes at x1 to standard error; that it may fail changes nothing. */
        mov     x0, #STDERR
        mov     x8, #SYS_WRITE
        svc     #0
        ret

sleep:  adr     x0, pause
        mov     x1, #0
        mov     x8, #SYS_NANOSLEEP
        svc     #0
        ret

status: /* Put the status of what the path at x1 leads to at x2, zeros if there is none. */
        stp     xzr, xzr, [x2]
        mov     x0, #AT_FDCWD
        mov     x3, #0
        mov     x8, #SYS_NEWFSTATAT
        svc     #0
        ret

is_own: /* "Equal" if the path leads to this very file. */
        ldp     x9, x10, [sp, #OWN]
        ldp     x11, x12, [sp, #NOW]
        cmp     x9, x11
        ccmp    x10, x12, #0, eq
        ret

is_same: /* "Equal" if x11 bytes at x9 and at x10 are the same; changes x10 to x14. */
        mov     x12, x9
9:      ldrb    w13, [x12], #1
        ldrb    w14, [x10], #1
        cmp     w13, w14
        b.ne    10f
        subs    x11, x11, #1
        b.ne    9b
10:     ret

look:   /* Leave if there is nothing to wait for. */
        mov     x25, x30
        adr     x1, mounts
        bl      open
        tbnz    x0, #63, 13f
        mov     x24, x0
11:     mov     x0, x24
        read_to x1
        mov     x2, #READ_SIZE
        mov     x8, #SYS_READ           /* whole lines */
        svc     #0
        cmp     x0, #0
        b.le    12f
        read_to x9
        add     x15, x9, x0
        sub     x15, x15, #image_end - image
        b       15f
14:     adr     x10, image
        mov     x11, #image_end - image
        bl      is_same
        b.eq    not_here
        add     x9, x9, #1
15:     cmp     x9, x15
        b.ls    14b
        b       11b
12:     mov     x0, x24
        mov     x8, #SYS_CLOSE
        svc     #0
13:     adr     x1, first
        bl      open
        tbnz    x0, #63, 17f
        mov     x24, x0
        read_to x1
        mov     x2, #READ_SIZE
        mov     x8, #SYS_READ
        svc     #0
        mov     x9, x0
        mov     x0, x24
        mov     x8, #SYS_CLOSE
        svc     #0
        cmp     x9, #0
        b.le    17f
        read_to x9
        adr     x10, ours
        mov     x11, #ours_end - ours
        bl      is_same
        b.eq    16f
        add     w23, w23, #1
        cmp     w23, #FOREIGN
        b.hs    not_booted
        ret     x25
16:     mov     w23, #0
17:     ret     x25

open:   /* Open the path at x1 to be read; what is negative has failed. */
        mov     x0, #AT_FDCWD
        mov     x2, #O_CLOEXEC
        mov     x3, #0
        mov     x8, #SYS_OPENAT
        svc     #0
        ret

        .balign 8
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
