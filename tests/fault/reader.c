/* Answers each line of standard input, a path, with "ERRNO SIZE\n" and the file's bytes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long read_whole(const char *path, char **data)
{
    struct stat status;
    long filled = 0, count = 1;
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &status) || !(*data = malloc(status.st_size + 1))) {
        close(fd);
        return -errno;
    }
    while ((count = read(fd, *data + filled, status.st_size + 1 - filled)) > 0)
        filled += count;
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
        path[strcspn(path, "\n")] = 0;
        long size = read_whole(path, &data);
        printf("%ld %ld\n", size < 0 ? -size : 0, size < 0 ? 0 : size);
        if (size > 0)
            fwrite(data, 1, size, stdout);
        fflush(stdout);
        free(data);
    }
    return 0;
}
