/* Take all there is of something, and read a file meanwhile: hog KIND FILE.

   Prints what was taken, and the CRC-32 of the file read beside it and afterwards. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 2000
#define FILES 20
#define BUSY 8

static int told[2];

static void tell(void)
{
    if (write(told[1], "x", 1) != 1)
        _exit(1);
}

static void *sleep_on(void *nothing)
{
    for (;;)
        pause();
    return nothing;
}

/* Processes and threads until there are no more, and again whenever some have ended. */
static void take_processes(void)
{
    pthread_attr_t small;
    pthread_t thread;
    int count = 0;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 1 << 16);
    for (;;) {
        pid_t child;
        while (pthread_create(&thread, &small, sleep_on, NULL) == 0 && ++count < PROCESSES)
            ;
        while ((child = fork()) > 0 && ++count < PROCESSES)
            ;
        if (child == 0)
            sleep_on(NULL);
        tell();
        usleep(2000);
    }
}

/* Memory until this process is killed for it. */
static void take_memory(void)
{
    for (;;) {
        char *piece = malloc(1 << 20);
        if (piece)
            memset(piece, 1, 1 << 20);
    }
}

static void take_memory_again(void)
{
    for (;;) {
        pid_t child = fork();
        if (child == 0)
            take_memory();
        if (child > 0)
            waitpid(child, NULL, 0);
        tell();
    }
}

static void take_files(void)
{
    for (int i = 0; i < FILES; i++)
        if (fork() == 0) {
            while (open("/dev/null", O_RDONLY) >= 0)
                ;
            tell();
            sleep_on(NULL);
        }
    sleep_on(NULL);
}

static void take_time(void)
{
    for (int i = 0; i < BUSY; i++)
        if (fork() == 0) {
            tell();
            for (;;)
                ;
        }
    sleep_on(NULL);
}

static void take_locks(void)
{
    static const char *const names[] = {"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"};
    for (int i = 0; i < 3; i++) {
        int fd = open(names[i], O_RDONLY);
        fcntl(fd, F_SETLEASE, F_WRLCK);
    }
    tell();
    sleep_on(NULL);
}

static const struct { const char *name; void (*take)(void); } kinds[] = {
    {"processes", take_processes}, {"memory", take_memory_again}, {"files", take_files},
    {"time", take_time}, {"leases", take_locks},
};

static void read_file(const char *path, const char *when)
{
    static unsigned char piece[1 << 16];
    unsigned crc = ~0u;
    ssize_t got = -1;
    int fd = open(path, O_RDONLY);
    while (fd >= 0 && (got = read(fd, piece, sizeof piece)) > 0)
        for (ssize_t i = 0; i < got; i++) {
            crc ^= piece[i];
            for (int bit = 0; bit < 8; bit++)
                crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        }
    if (got < 0)
        printf("%s: %s\n", when, strerror(errno));
    else
        printf("%s: %08x\n", when, ~crc);
    fflush(stdout);
    close(fd);
}

int main(int count, char **arguments)
{
    char byte;
    setpgid(0, 0);
    if (count != 3 || pipe(told) < 0)
        return 2;
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
            if (!strcmp(kinds[i].name, arguments[1]))
                kinds[i].take();
        _exit(2);
    }
    setpgid(child, child);
    if (read(told[0], &byte, 1) != 1)
        return 2;
    printf("taken: %s\n", arguments[1]);
    fflush(stdout);
    read_file(arguments[2], "beside");
    kill(-child, SIGKILL);
    read_file(arguments[2], "after");
    return 0;
}
