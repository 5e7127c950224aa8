/* Print who runs it, and its arguments. */
#include <stdio.h>
#include <unistd.h>

int main(int count, char **arguments)
{
    printf("uid %d euid %d gid %d egid %d", getuid(), geteuid(), getgid(), getegid());
    for (int i = 0; i < count; i++)
        printf(" [%s]", arguments[i]);
    putchar('\n');
    return 0;
}
