/* Make every system call of both tables, and some of the third, with arguments that do nothing,
   each in a process of its own; print a line for each with what the kernel answered.  A filter
   answers before arguments are looked at, so its answers show, all of them. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT 475

/* Calls that would end, stop or bother a process that only wants an answer: exit, fork, pause,
   sync, vhangup, those that wait for signals or return from them, and restart_syscall; and
   kill, whose answer depends on who else there is. */
static const short skipped_64[] = {15, 24, 34, 35, 57, 58, 60, 61, 62, 130, 153, 162, 219, 231, 247, 0};
static const short skipped_32[] = {0, 1, 2, 7, 29, 36, 37, 72, 111, 114, 119, 173, 179, 190, 252, 284};

static int skips(const short *list, int count, int number)
{
    for (int i = 0; i < count; i++)
        if (list[i] == number)
            return 1;
    return 0;
}

static long call_64(long number)
{
    return syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
}

static long call_32(long number)
{
    long result;
    __asm__ volatile("push %%rbp; mov $-1, %%rbp; int $0x80; pop %%rbp"
                     : "=a"(result)
                     : "a"(number), "b"(-1L), "c"(-1L), "d"(-1L), "S"(-1L), "D"(-1L)
                     : "memory", "r8", "r9", "r10", "r11");
    if ((int)result < 0 && (int)result > -4096) {
        errno = -(int)result;
        return -1;
    }
    return 0;
}

static void show(const char *table, long (*call)(long), long number)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(call(number) == -1 ? errno & 127 : 0);
    int status = 0;
    for (int i = 0; i < 10000 && waitpid(child, &status, WNOHANG) != child; i++) {
        usleep(i < 50 ? 20 : 200);
        if (i == 9999) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
        }
    }
    const char *answer = WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
                         : WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status))
                                               : "0";
    printf("%s %ld: %s\n", table, number & 0xffff, answer);
}

int main(void)
{
    static const short x32[] = {1, 39, 56, 101, 165, 272, 308, 321, 428, 435, 512, 520, 521, 547};
    puts("== every call");
    for (int number = 0; number < LIMIT; number++)
        if (!skips(skipped_64, sizeof skipped_64 / sizeof *skipped_64 - 1, number))
            show("x86-64", call_64, number);
    for (int number = 0; number < LIMIT; number++)
        if (!skips(skipped_32, sizeof skipped_32 / sizeof *skipped_32, number))
            show("i386", call_32, number);
    for (unsigned i = 0; i < sizeof x32 / sizeof *x32; i++)
        show("x32", call_64, 0x40000000L | x32[i]);
    return 0;
}
