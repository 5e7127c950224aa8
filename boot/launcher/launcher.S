/* /.bootfs/init: start the Python init as root, whoever the container's user is.

   Installed 04755 root:root, so it must be too small to be wrong: it reads no file, takes
   no option, and becomes the interpreter of the bundle only as PID 1 of a container, whose
   root is then the boot image's own file system.  Anybody else who runs it gets a line and
   an exit code.

   The interpreter gets the caller's real user, groups, directory and files, and the
   arguments

       ld.so --library-path LIB python -I -S -B start.pyc ARGUMENT...

   with the caller's arguments from the second on.  It gets the caller's environment too,
   but hidden: the highest bit of the first byte of each variable is turned over, and
   boot/environment.py turns it back.  The variables are meant for the workload.  Our
   loader would preload libraries it cannot find (LD_PRELOAD), and with --user, when it
   takes itself for a setuid program, remove TMPDIR and a dozen others and then stop at an
   assertion of its own (glibc 2.36, elf/rtld.c, _dl_start_args_adjust).

   It blocks every signal, and nobody lets one through before the supervisor forwards it or
   the workload is about to be executed: between the two the interpreter would act on
   SIGINT by itself.

   Linux x86-64, no C library, no data, no relocations.  scripts/build-launcher makes the
   program of it.

   Registers kept throughout: rbx = the initial stack, which is (System V ABI, 3.4.1)

       rbx       argc
       rbx+8     argv[0] ... argv[argc-1], 0
       then      envp[0] ..., 0
*/
        .intel_syntax noprefix
        .code64
        .text
        .globl  _start

        .equ    SYS_WRITE, 1
        .equ    SYS_RT_SIGPROCMASK, 14
        .equ    SYS_GETPID, 39
        .equ    SYS_EXECVE, 59
        .equ    SYS_EXIT, 60
        .equ    SYS_GETEUID, 107
        .equ    SIG_BLOCK, 0
        .equ    STDERR, 2
        .equ    EXIT_FAILED, 125        /* the engine's "could not be run" */
        .equ    EXIT_REFUSED, 126

        /* Point rsi at a line and rdx at its size, then say it and leave with `code`. */
        .macro  leave line, code
        mov     esi, offset \line
        mov     edx, offset \line\()_end - \line
        mov     edi, \code
        jmp     say_and_exit
        .endm

_start:
        mov     rbx, rsp

        mov     eax, SYS_GETPID
        syscall
        cmp     eax, 1
        je      first
        leave   not_first, EXIT_REFUSED
first:
        mov     eax, SYS_GETEUID
        syscall
        test    eax, eax
        jz      root
        leave   not_root, EXIT_FAILED
root:
        mov     edi, SIG_BLOCK
        mov     esi, offset signals
        xor     edx, edx                /* what was blocked is of no use to anybody */
        mov     r10d, 8                 /* sizeof(sigset_t), as the kernel has it */
        mov     eax, SYS_RT_SIGPROCMASK
        syscall

        /* rdx = envp, as execve wants it; r12 = the first argument to hand on.  Without
           even argv[0] (old kernels allow that) it is the 0 that ends argv. */
        mov     rcx, [rbx]
        lea     rdx, [rbx + rcx*8 + 16]
        lea     r12, [rbx + 8]
        test    rcx, rcx
        jz      hide
        lea     r12, [rbx + 16]

hide:   /* No string may become empty, or stop being so: 0 and 0x80 stay. */
        mov     rsi, rdx
next:
        mov     rdi, [rsi]
        add     rsi, 8
        test    rdi, rdi
        jz      hidden
        test    byte ptr [rdi], 0x7f
        jz      next
        xor     byte ptr [rdi], 0x80
        jmp     next
hidden:
        /* The caller's arguments stay where they are.  Ours are pushed below them, over
           argc and argv[0], so that the stack becomes the new argv whatever its length. */
        mov     rsp, r12
        push    offset init
        push    offset no_bytecode
        push    offset no_site
        push    offset isolated
        push    offset python
        push    offset libraries
        push    offset library_path
        push    offset loader
        mov     edi, offset loader
        mov     rsi, rsp
        mov     eax, SYS_EXECVE
        syscall

        /* Still here: eax = -errno, below 4096.  Name the usual ones, number them all. */
        neg     eax
        mov     ebx, eax
        mov     esi, offset failed
        mov     edx, offset failed_end - failed
        call    say
        mov     esi, offset names
1:      movzx   eax, byte ptr [rsi]     /* errno, size of the name, the name; 0 ends */
        movzx   edx, byte ptr [rsi + 1]
        lea     rsi, [rsi + 2]
        test    eax, eax
        jz      number
        cmp     eax, ebx
        je      named
        add     rsi, rdx
        jmp     1b
named:
        call    say
number:
        mov     eax, ebx
        mov     rdi, rsp                /* digits are written backwards from here */
        dec     rdi
        mov     byte ptr [rdi], '\n'
        mov     ecx, 10
2:      xor     edx, edx
        div     ecx
        add     edx, '0'
        dec     rdi
        mov     [rdi], dl
        test    eax, eax
        jnz     2b
        mov     rsi, rdi
        mov     rdx, rsp
        sub     rdx, rdi
        mov     edi, EXIT_FAILED

say_and_exit:
        mov     r12d, edi
        /* The digits lie below rsp; keep say's return address off them. */
        sub     rsp, 64
        call    say
        mov     edi, r12d
        mov     eax, SYS_EXIT
        syscall

say:    /* Write rdx bytes at rsi to standard error; that it may fail changes nothing. */
        mov     edi, STDERR
        mov     eax, SYS_WRITE
        syscall
        ret

        /* Bit n - 1 is signal n.  32 and 33 are glibc's own, for threads; the kernel leaves
           out SIGKILL and SIGSTOP itself. */
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
