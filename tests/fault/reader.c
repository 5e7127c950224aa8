/* Answers each line of standard input, a path, with "ERRNO SIZE LONGEST\n" and the file's bytes.
   LONGEST is what the slowest call took, in ms. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE (128 << 10)

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static long longest_ms;

static long timed(long begun_ms, long result)
{
    int error = errno;
    long taken_ms = now_ms() - begun_ms;
    if (taken_ms > longest_ms)
        longest_ms = taken_ms;
    errno = error;
    return result;
}

static long read_whole(const char *path, char **data)
{
    struct stat status;
    long filled = 0, count = 1;
    long begun_ms = now_ms();
    int fd = timed(begun_ms, open(path, O_RDONLY));
    if (fd < 0)
        return -errno;
    if (fstat(fd, &status) || !(*data = malloc(status.st_size + 1))) {
        close(fd);
        return -errno;
    }
    while (count > 0) {
        long left = status.st_size + 1 - filled;
        begun_ms = now_ms();
        count = timed(begun_ms, read(fd, *data + filled, left < PIECE ? left : PIECE));
        filled += count > 0 ? count : 0;
    }
    if (count < 0)
        filled = -errno;
    close(fd);
    return filled;
}

int main(void)
{
    char path[4096];
    puts("up");
    fflush(stdout);
    while (fgets(path, sizeof path, stdin)) {
        char *data = NULL;
        longest_ms = 0;
        path[strcspn(path, "\n")] = 0;
        long size = read_whole(path, &data);
        printf("%ld %ld %ld\n", size < 0 ? -size : 0, size < 0 ? 0 : size, longest_ms);
        if (size > 0)
            fwrite(data, 1, size, stdout);
        fflush(stdout);
        free(data);
    }
    return 0;
}
