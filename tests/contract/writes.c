/* Preloaded: count the calls that change files below a directory, and fail or die at one of them.
 *
 * FAULT_BELOW  the directory, absolute
 * FAULT_AT     number of the call, from 1; 0: none
 * FAULT_ERRNO  what it fails with; 0: the process is killed before it, a write in its middle
 * FAULT_LOG    a file that the name of every counted call is appended to
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static int is_below(const char *path)
{
    const char *below = getenv("FAULT_BELOW");
    size_t size = below ? strlen(below) : 0;
    return size && !strncmp(path, below, size) && (path[size] == '/' || !path[size]);
}

static int is_file_below(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    return is_below(path);
}

static int is_path_below(int directory, const char *name)
{
    return name[0] == '/' ? is_below(name) : is_file_below(directory);
}

/* Count a call; return the error it must fail with, 0 for none, -1 to die now. */
static int count(const char *name)
{
    int before = errno;
    const char *at = getenv("FAULT_AT"), *error = getenv("FAULT_ERRNO"), *log = getenv("FAULT_LOG");
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (log) {
        int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        char line[64];
        int size = snprintf(line, sizeof line, "%s\n", name);
        if (fd < 0 || syscall(SYS_write, fd, line, size) != size)
            abort();
        syscall(SYS_close, fd);
    }
    errno = before;
    if (!at || number != atol(at))
        return 0;
    return error && atoi(error) ? atoi(error) : -1;
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* A function that changes something where `where` holds. */
#define WATCH(result, name, parameters, arguments, where)                                          \
    result name parameters                                                                         \
    {                                                                                              \
        int fault = (where) ? count(#name) : 0;                                                    \
        if (fault < 0)                                                                             \
            die();                                                                                 \
        if (fault) {                                                                               \
            errno = fault;                                                                         \
            return -1;                                                                             \
        }                                                                                          \
        return REAL(name) arguments;                                                               \
    }

#define WATCH_WRITE(name, parameters, arguments, half)                                             \
    ssize_t name parameters                                                                        \
    {                                                                                              \
        int fault = is_file_below(fd) ? count(#name) : 0;                                          \
        if (fault < 0) {                                                                           \
            if (size > 1)                                                                          \
                REAL(name) half;                                                                   \
            die();                                                                                 \
        }                                                                                          \
        if (fault) {                                                                               \
            errno = fault;                                                                         \
            return -1;                                                                             \
        }                                                                                          \
        return REAL(name) arguments;                                                               \
    }

#define WATCH_OPEN(name, parameters, prefix, where)                                                \
    int name parameters                                                                            \
    {                                                                                              \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                    \
        va_end(more);                                                                              \
        int fault = flags & (O_CREAT | O_TRUNC) && (where) ? count(#name) : 0;                     \
        if (fault < 0)                                                                             \
            die();                                                                                 \
        if (fault) {                                                                               \
            errno = fault;                                                                         \
            return -1;                                                                             \
        }                                                                                          \
        return REAL(name) prefix;                                                                  \
    }

WATCH_OPEN(open, (const char *path, int flags, ...), (path, flags, mode), is_below(path))
WATCH_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), is_below(path))
WATCH_OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode),
           is_path_below(at, path))
WATCH_OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode),
           is_path_below(at, path))

WATCH_WRITE(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, size / 2))
WATCH_WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t offset),
            (fd, data, size, offset), (fd, data, size / 2, offset))
WATCH_WRITE(writev, (int fd, const struct iovec *pieces, int size), (fd, pieces, size),
            (fd, pieces, size / 2))
WATCH_WRITE(sendfile64, (int fd, int in, off64_t *offset, size_t size), (fd, in, offset, size),
            (fd, in, offset, size / 2))
ssize_t copy_file_range(int in, off64_t *in_at, int fd, off64_t *at, size_t size, unsigned flags)
{
    int fault = is_file_below(fd) ? count("copy_file_range") : 0;
    if (fault < 0)
        die();
    if (fault) {
        errno = fault;
        return -1;
    }
    return REAL(copy_file_range)(in, in_at, fd, at, size, flags);
}

WATCH(int, fsync, (int fd), (fd), is_file_below(fd))
WATCH(int, fdatasync, (int fd), (fd), is_file_below(fd))
WATCH(int, fchmod, (int fd, mode_t mode), (fd, mode), is_file_below(fd))
WATCH(int, ftruncate64, (int fd, off64_t size), (fd, size), is_file_below(fd))
WATCH(int, futimens, (int fd, const struct timespec times[2]), (fd, times), is_file_below(fd))
WATCH(int, chmod, (const char *path, mode_t mode), (path, mode), is_below(path))
WATCH(int, mkdir, (const char *path, mode_t mode), (path, mode), is_below(path))
WATCH(int, rmdir, (const char *path), (path), is_below(path))
WATCH(int, unlink, (const char *path), (path), is_below(path))
WATCH(int, symlink, (const char *target, const char *path), (target, path), is_below(path))
WATCH(int, link, (const char *from, const char *path), (from, path), is_below(path))
WATCH(int, rename, (const char *from, const char *path), (from, path), is_below(path))
WATCH(int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode),
      is_path_below(at, path))
WATCH(int, unlinkat, (int at, const char *path, int flags), (at, path, flags),
      is_path_below(at, path))
WATCH(int, utimensat, (int at, const char *path, const struct timespec times[2], int flags),
      (at, path, times, flags), is_path_below(at, path))
WATCH(int, renameat, (int from_at, const char *from, int at, const char *path),
      (from_at, from, at, path), is_path_below(at, path))
WATCH(int, linkat, (int from_at, const char *from, int at, const char *path, int flags),
      (from_at, from, at, path, flags), is_path_below(at, path))
