/* Try to get out of a container, or at what serves it: one attempt, one process, one line.

   A line says what the kernel answered, or "reached" and what.  The first argument is what
   nobody in the container is to find, in hexadecimal, since arguments can be seen.  With
   "stay" after it the program does not end when it has tried all; with "spare" it leaves out
   those attempts that would break the container where they get through: to read the memory
   of the daemon, say, which has the file mapped that it serves. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fanotify.h>
#include <linux/sock_diag.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 3000 /* numbers of processes that are tried one after the other */
#define FUSE_DEV_IOC_CLONE _IOR(229, 0, unsigned)

static char found[512];
static char needle[256];
static size_t needle_size;

/* To be returned by an attempt that got at something. */
static long reached(const char *form, ...)
{
    char what[sizeof found];
    va_list rest;
    va_start(rest, form);
    vsnprintf(what, sizeof what, form, rest);
    va_end(rest);
    if (!*found)
        memcpy(found, what, sizeof found);
    return 0;
}

/* What a call gave that had to fail. */
static long refused(long answer, const char *what)
{
    return answer == -1 ? -1 : reached("%s", what);
}

static long none(void)
{
    errno = 0;
    return -1;
}

/* Whether a directory is the boot image's own root, or lies in what is ours. */
static int is_ours(int directory)
{
    static const char *const names[] = {
        ".bootfs/image", "image/bootstrap", "runtime/modules", "image.erofs", "cache/v1",
    };
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (faccessat(directory, names[i], F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            return 1;
    return 0;
}

static int looks_ours(const char *text)
{
    return strstr(text, "bootfs") || strstr(text, "/dev/fuse") || strstr(text, "image.erofs");
}

static long look_at(int directory, const char *what)
{
    if (directory < 0)
        return -1;
    if (is_ours(directory))
        return reached("%s", what);
    int up = openat(directory, "..", O_PATH | O_DIRECTORY);
    if (up >= 0 && is_ours(up))
        return reached("%s/..", what);
    close(directory);
    return none();
}

static char *read_file(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    size_t room = 1 << 20, length = 0;
    char *text = malloc(room + 1);
    ssize_t more;
    while (length < room && (more = read(fd, text + length, room - length)) > 0)
        length += (size_t)more;
    close(fd);
    text[length] = 0;
    *size = length;
    return text;
}

/* Call `each` for every process that can be seen, this one and its children left out. */
static long of_processes(long (*each)(int pid))
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    int me = getpid(), parent = getppid();
    while (processes && (entry = readdir(processes)) != NULL) {
        int pid = atoi(entry->d_name);
        if (pid > 0 && pid != me && pid != parent)
            each(pid);
    }
    if (processes)
        closedir(processes);
    return none();
}

/* The same for every number that might be one's, seen or not. */
static long of_numbers(long (*each)(int pid))
{
    int me = getpid(), parent = getppid(), last = 0;
    for (int pid = 1; pid < PROCESSES; pid++)
        if (pid != me && pid != parent && each(pid) == -1 && errno != ESRCH && errno)
            last = errno;
    errno = last;
    return -1;
}

/* -- paths ------------------------------------------------------------------------------ */

static long two_chroots(void)
{
    mkdir("/tmp/jail", 0755);
    int outside = open("/", O_PATH | O_DIRECTORY);
    if (chroot("/tmp/jail") < 0)
        return -1;
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0)
            return -1;
    look_at(open(".", O_PATH), "walking up");
    fchdir(outside);
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0)
            return -1;
    look_at(open(".", O_PATH), "walking up from a kept descriptor");
    chroot(".");
    return look_at(open("/", O_PATH), "the root after two chroots");
}

static long above_the_root(void)
{
    look_at(open("/..", O_PATH), "/..");
    int fd = open("/", O_PATH | O_DIRECTORY);
    for (int i = 0; i < 64; i++)
        fd = openat(fd, "..", O_PATH | O_DIRECTORY);
    return look_at(fd, "above the root");
}

static long known_places(void)
{
    static const char *const places[] = {
        "/.bootfs", "/.bootfs/cache", "/.bootfs/rw", "/.bootfs/image", "/.bootfs/mnt/fuse",
        "/.bootfs/mnt/image", "/.bootfs/mnt/root", "/dev/.bootfs", "/proc/.bootfs",
    };
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
        if (access(places[i], F_OK) == 0)
            reached("%s", places[i]);
    return -1;
}

/* Every path that the table of mounts names: upper, lower and work directory of the root. */
static long paths_of_mounts(void)
{
    size_t size;
    char *table = read_file("/proc/self/mountinfo", &size);
    for (char *at = table; at && (at = strpbrk(at, "=:")) != NULL; at++) {
        if (at[1] != '/')
            continue;
        char path[1024];
        size_t length = strcspn(at + 1, ":, \n");
        snprintf(path, sizeof path, "%.*s", (int)length, at + 1);
        struct stat status;
        if (stat(path, &status) == 0 && strcmp(path, "/"))
            reached("%s", path);
    }
    return none();
}

static long mounts_not_shown(void)
{
    struct { unsigned size, spare; unsigned long long id, parameter, space; } ask = {24, 0, ~0ULL, 0, 0};
    unsigned long long ids[1024];
    long count = syscall(458 /* listmount */, &ask, ids, 1024, 0);
    if (count < 0)
        return -1;
    size_t size, lines = 0;
    char *table = read_file("/proc/self/mountinfo", &size);
    for (size_t i = 0; table && i < size; i++)
        lines += table[i] == '\n';
    return count > (long)lines ? reached("%ld mounts, %zu shown", count, lines) : none();
}

static long by_handle(void)
{
    /* The root of the file system that the engine's own files lie on: its inode is 2, or 64,
       96, 128 (xfs), 256 (btrfs). */
    static const unsigned inodes[] = {2, 64, 96, 128, 256};
    static const char *const places[] = {"/etc/hosts", "/etc/resolv.conf", "/", "/proc", "/dev"};
    long answer = none();
    for (unsigned p = 0; p < sizeof places / sizeof *places; p++) {
        int at = open(places[p], O_RDONLY);
        for (unsigned i = 0; i < sizeof inodes / sizeof *inodes; i++) {
            struct { struct file_handle head; unsigned inode, generation; } handle = {
                {8, 1}, inodes[i], 0};
            int fd = open_by_handle_at(at, &handle.head, O_RDONLY);
            if (fd >= 0)
                return reached("inode %u of the file system of %s", inodes[i], places[p]);
            answer = -1;
        }
    }
    return answer;
}

static long to_handle(void)
{
    struct { struct file_handle head; char bytes[128]; } handle = {{128, 0}, ""};
    int mount;
    return refused(name_to_handle_at(AT_FDCWD, "/", &handle.head, &mount, 0), "a handle");
}

static long inherited(void)
{
    DIR *open_files = opendir("/proc/self/fd");
    struct dirent *entry;
    while ((entry = readdir(open_files)) != NULL) {
        int fd = atoi(entry->d_name);
        if (!isdigit(*entry->d_name) || fd == dirfd(open_files))
            continue;
        char target[512] = "";
        if (readlinkat(dirfd(open_files), entry->d_name, target, sizeof target - 1) < 0)
            continue;
        if (fd > 2 || looks_ours(target))
            reached("descriptor %d, %s", fd, target);
        int up = openat(fd, "..", O_PATH);
        if (up >= 0)
            look_at(up, "an inherited directory");
    }
    return none();
}

/* -- other processes -------------------------------------------------------------------- */

static long root_of(int pid)
{
    static const char *const links[] = {"root", "cwd"};
    for (int i = 0; i < 2; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/%s", pid, links[i]);
        look_at(open(path, O_PATH | O_DIRECTORY), path);
    }
    return 0;
}

static long files_of(int pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *open_files = opendir(path);
    struct dirent *entry;
    while (open_files && (entry = readdir(open_files)) != NULL) {
        char target[512] = "";
        if (readlinkat(dirfd(open_files), entry->d_name, target, sizeof target - 1) > 0
            && looks_ours(target))
            reached("/proc/PID/fd -> %s", target);
    }
    return 0;
}

static long name_of(int pid)
{
    static const char *const names[] = {"comm", "cmdline", "stat", "maps", "cgroup"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        size_t size;
        snprintf(path, sizeof path, "/proc/%d/%s", pid, names[i]);
        char *text = read_file(path, &size);
        if (text && memmem(text, size, "bootfs-", 7))
            reached("/proc/PID/%s of one of ours", names[i]);
        free(text);
    }
    return 0;
}

static long seize(int pid)
{
    return ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 ? reached("process %d", pid) : -1;
}

static long peek(int pid)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    return process_vm_readv(pid, &here, 1, &there, 1, 0) >= 0 ? reached("process %d", pid) : -1;
}

static long poke(int pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR);
    return fd >= 0 ? reached("memory of process %d", pid) : -1;
}

/* Processes that the container's first one, a shell, and this program are not. */
static long by_number(int pid)
{
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/task/%d", pid, pid);
    if (pid > 1 && kill(pid, 0) == 0 && stat(path, &status) < 0)
        return reached("process %d, which cannot be seen", pid);
    return none();
}

static long descriptors_of(int pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return -1;
    for (int number = 0; number < 64; number++) {
        int got = (int)syscall(SYS_pidfd_getfd, fd, number, 0);
        char link[64], target[512] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", got);
        if (got >= 0 && readlink(link, target, sizeof target - 1) > 0 && looks_ours(target))
            reached("descriptor %d of process %d, %s", number, pid, target);
    }
    return none();
}

static long join(int pid)
{
    static const char *const kinds[] = {"mnt", "pid", "user", "net", "ipc", "uts", "cgroup"};
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kinds[i]);
        int fd = open(path, O_RDONLY);
        if (fd >= 0 && setns(fd, 0) == 0)
            reached("namespace %s of process %d", kinds[i], pid);
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

static long join_by_number(int pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -1 : setns(fd, CLONE_NEWNS | CLONE_NEWPID) < 0 ? -1 : reached("process %d", pid);
}

static long parent(void)
{
    if (getpid() != 1 && getppid() == 0)
        return none(); /* executed in the container by the engine */
    return of_numbers(by_number);
}

/* What is done to all processes of this user, ours among them; the test looks at those. */
static void hinder(int pid)
{
    struct sched_param idle = {0};
    struct rlimit nothing = {0, 0};
    unsigned long nodes = 1;
    char path[64];
    sched_setscheduler(pid, SCHED_IDLE, &idle);
    setpriority(PRIO_PROCESS, (id_t)pid, 19);
    syscall(SYS_ioprio_set, 1, pid, 3 << 13);
    prlimit(pid, RLIMIT_NOFILE, &nothing, NULL);
    syscall(SYS_migrate_pages, pid, 64, &nodes, &nodes);
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    int fd = open(path, O_WRONLY);
    if (fd >= 0 && write(fd, "1000", 4) == 4)
        close(fd);
    kill(pid, SIGSTOP);
}

static long hinder_everybody(void)
{
    int program = getppid();
    setpriority(PRIO_USER, 0, 19);
    syscall(SYS_ioprio_set, 3, 0, 3 << 13);
    for (int pid = 2; pid < PROCESSES; pid++)
        if (pid != getpid() && pid != program)
            hinder(pid);
    return none();
}

/* -- what is not to be found ------------------------------------------------------------ */

static void search_text(const char *path)
{
    size_t size;
    char *text = read_file(path, &size);
    if (text && memmem(text, size, needle, needle_size))
        reached("it in %s", path);
    free(text);
}

static void search_memory(int pid)
{
    char path[64], *line, *rest;
    size_t size;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    char *maps = read_file(path, &size);
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDONLY);
    char *piece = malloc(1 << 20);
    for (line = maps; fd >= 0 && line && *line; line = rest + 1) {
        unsigned long begin, end;
        rest = strchr(line, '\n');
        if (!rest || sscanf(line, "%lx-%lx", &begin, &end) != 2)
            break;
        for (; begin < end; begin += 1 << 19) {
            ssize_t got = pread(fd, piece, 1 << 20, (off_t)begin);
            if (got > 0 && memmem(piece, (size_t)got, needle, needle_size))
                reached("it in the memory of process %d", pid);
        }
    }
    if (fd >= 0)
        close(fd);
    free(piece);
    free(maps);
}

static long search_process(int pid)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%d", pid);
    DIR *files = opendir(path);
    struct dirent *entry;
    while (files && (entry = readdir(files)) != NULL) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, entry->d_name);
        struct stat status;
        if (stat(path, &status) == 0 && S_ISREG(status.st_mode) && strcmp(entry->d_name, "mem")
            && strcmp(entry->d_name, "pagemap"))
            search_text(path);
    }
    if (files)
        closedir(files);
    search_memory(pid);
    return 0;
}

static long search_processes(void)
{
    return of_processes(search_process);
}

static long search_files(void)
{
    static const char *const paths[] = {
        "/proc/self/mountinfo", "/proc/self/mountstats", "/proc/self/environ", "/proc/net/unix",
        "/proc/net/tcp", "/proc/keys", "/proc/key-users", "/proc/locks", "/proc/cmdline",
        "/proc/version", "/.dockerenv", "/.dockerinit", "/etc/environment", "/etc/hosts",
        "/run/secrets", "/dev/shm",
    };
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++)
        search_text(paths[i]);
    return none();
}

static long search_keys(void)
{
    char list[4096];
    long size = syscall(SYS_keyctl, 11 /* read */, -3 /* session */, list, sizeof list);
    return size < 0 ? -1 : size == 0 ? none() : reached("a keyring");
}

/* -- sockets ---------------------------------------------------------------------------- */

static long unix_sockets(void)
{
    size_t size;
    char *table = read_file("/proc/net/unix", &size);
    for (char *line = table; line && (line = strchr(line, '\n')) != NULL && line[1]; line++) {
        char name[200] = "";
        /* Without a name it is one of a pair, which nobody else can connect to. */
        if (sscanf(line + 1, "%*[^ ] %*s %*s %*s %*s %*s %*s%199[^\n]", name) == 1)
            reached("a socket,%s", name);
    }
    return none();
}

static long listeners(void)
{
    static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6", "/proc/net/raw"};
    for (int i = 0; i < 3; i++) {
        size_t size;
        char *table = read_file(tables[i], &size);
        for (char *line = table; line && (line = strchr(line, '\n')) != NULL && line[1]; line++) {
            unsigned state = 0;
            sscanf(line + 1, "%*s %*s %*s %x", &state);
            if (state == 0x0a)
                reached("somebody who listens, %s", tables[i]);
        }
    }
    return none();
}

/* Break each connection that is there, the daemon's to the store among them. */
static long break_connections(void)
{
    struct { struct nlmsghdr head; struct inet_diag_req_v2 wanted; } ask = {
        {sizeof ask, 21 /* SOCK_DESTROY */, NLM_F_REQUEST | NLM_F_ACK, 1, 0},
        {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u}};
    size_t size;
    char *table = read_file("/proc/net/tcp", &size);
    long last = none();
    for (char *line = table; line && (line = strchr(line, '\n')) != NULL && line[1]; line++) {
        unsigned from, from_port, to, to_port, state;
        if (sscanf(line + 1, "%*s %x:%x %x:%x %x", &from, &from_port, &to, &to_port, &state) != 5)
            continue;
        int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
        ask.wanted.id = (struct inet_diag_sockid){
            .idiag_sport = (unsigned short)(from_port << 8 | from_port >> 8),
            .idiag_dport = (unsigned short)(to_port << 8 | to_port >> 8),
            .idiag_src = {from}, .idiag_dst = {to}, .idiag_cookie = {~0u, ~0u}};
        char answer[512];
        if (send(fd, &ask, sizeof ask, 0) < 0 || recv(fd, answer, sizeof answer, 0) < 0)
            return -1;
        int code = *(int *)(answer + sizeof(struct nlmsghdr));
        if (code == 0)
            return reached("a connection");
        errno = -code;
        last = -1;
    }
    return last;
}

static long process_events(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int fd = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_CONNECTOR);
    return fd < 0 ? -1 : refused(bind(fd, (void *)&address, sizeof address), "events of processes");
}

/* -- mounts and namespaces -------------------------------------------------------------- */

static const char *kinds[] = {"tmpfs", "proc", "sysfs", "cgroup", "cgroup2", "fusectl", "debugfs",
                              "tracefs", "securityfs", "devpts", "devtmpfs", "mqueue", "overlay",
                              "bpf", "ramfs", "binfmt_misc"};

static long mount_kinds(void)
{
    long answer = none();
    mkdir("/tmp/mount", 0755);
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (mount(kinds[i], "/tmp/mount", kinds[i], 0, "") == 0)
            reached("a mount of %s", kinds[i]);
        else
            answer = -1;
    return answer;
}

static long mount_again(void)
{
    static const char *const places[] = {"/", "/proc", "/sys", "/proc/sys", "/sys/fs/cgroup"};
    for (int i = 0; i < 5; i++) {
        if (mount(NULL, places[i], NULL, MS_REMOUNT | MS_BIND, NULL) == 0)
            reached("%s made writable", places[i]);
        if (mount(places[i], "/tmp/mount", NULL, MS_BIND, NULL) == 0)
            reached("a bind of %s", places[i]);
        if (mount(places[i], "/tmp/mount", NULL, MS_MOVE, NULL) == 0)
            reached("a move of %s", places[i]);
        if (mount(NULL, places[i], NULL, MS_SHARED, NULL) == 0)
            reached("%s shared", places[i]);
    }
    return -1;
}

static long unmount_all(void)
{
    static const char *const places[] = {"/", "/..", ".", "/proc", "/proc/kcore", "/sys", "/dev",
                                         "/etc/hosts", "/proc/keys", "/proc/sys"};
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
        if (umount2(places[i], MNT_DETACH) == 0)
            reached("%s unmounted", places[i]);
    return -1;
}

static long mount_fuse(void)
{
    char options[100];
    int fd = open("/dev/fuse", O_RDWR);
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    mkdir("/tmp/mount", 0755);
    return refused(mount("x", "/tmp/mount", "fuse", 0, options), "a FUSE mount");
}

static long new_mounts(void)
{
    int context = (int)syscall(SYS_fsopen, "tmpfs", 0);
    if (context >= 0)
        return reached("fsopen");
    if (syscall(SYS_fspick, AT_FDCWD, "/", 0) >= 0)
        return reached("fspick");
    if (syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* a copy */) >= 0)
        return reached("open_tree");
    if (syscall(SYS_move_mount, AT_FDCWD, "/proc", AT_FDCWD, "/tmp/mount", 0) == 0)
        return reached("move_mount");
    unsigned long long change[4] = {0, 1, 0, 0};
    return refused(syscall(442, AT_FDCWD, "/", 0, change, sizeof change), "mount_setattr");
}

/* By the tables of i386 and x32, which a filter for x86-64 alone would let through. */
static long by_i386(long number, long first, long second, long third)
{
    long answer;
    __asm__ volatile("int $0x80"
                     : "=a"(answer)
                     : "a"(number), "b"(first), "c"(second), "d"(third), "S"(0L), "D"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    if (answer < 0 && answer > -4096) {
        errno = (int)-answer;
        return -1;
    }
    return answer;
}

static char low_place[] = "/tmp", low_kind[] = "tmpfs", low_root[] = "/", low_none[] = "/none";

static long other_tables(void)
{
    static const struct { long number; char *first, *second, *third; const char *what; } calls[] = {
        {21, low_kind, low_place, low_kind, "mount"}, {52, low_none, 0, 0, "umount2"},
        {310, (char *)CLONE_NEWNS, 0, 0, "unshare"}, {310, (char *)CLONE_NEWUSER, 0, 0, "unshare"},
        {120, (char *)(CLONE_NEWUSER | SIGCHLD), 0, 0, "clone"}, {430, low_kind, 0, 0, "fsopen"},
        {428, (char *)AT_FDCWD, low_root, (char *)1, "open_tree"},
        {217, low_root, low_root, 0, "pivot_root"}, {128, 0, 0, 0, "init_module"},
    };
    int last = 0;
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        long answer = by_i386(calls[i].number, (long)calls[i].first, (long)calls[i].second,
                              (long)calls[i].third);
        if (answer == 0 && calls[i].number == 120)
            _exit(0);
        if (answer != -1)
            return reached("%s of i386", calls[i].what);
        last = errno;
        if (last != EPERM && last != ENOSYS)
            return reached("%s of i386: %s", calls[i].what, strerrorname_np(last));
    }
    if (syscall(0x40000000 | 165, low_kind, low_place, low_kind, 0, "") == 0)
        return reached("mount of x32");
    if (syscall(0x40000000 | 272, CLONE_NEWUSER) == 0)
        return reached("unshare of x32");
    errno = last;
    return -1;
}

static long own_namespaces(void)
{
    static const int flags[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET,
                                CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP, 0x80,
                                CLONE_NEWUSER | CLONE_NEWNS};
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (unshare(flags[i]) == 0)
            reached("unshare(%x)", flags[i]);
        long pid = syscall(SYS_clone, flags[i] | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0)
            _exit(0);
        if (pid > 0 && flags[i] != 0x80)
            reached("clone(%x)", flags[i]);
    }
    return -1;
}

static long pivot(void)
{
    mkdir("/tmp/mount", 0755);
    return refused(syscall(SYS_pivot_root, "/", "/tmp/mount"), "pivot_root");
}

/* -- devices and the kernel's own files ------------------------------------------------- */

static long device(mode_t kind, unsigned major_number, unsigned minor_number, const char *what)
{
    char path[] = "/tmp/device";
    unlink(path);
    if (mknod(path, kind | 0600, makedev(major_number, minor_number)) < 0)
        return -1;
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    int kept = errno;
    unlink(path);
    errno = kept;
    return fd < 0 ? -1 : reached("%s", what);
}

static long disks(void)
{
    size_t size;
    char *table = read_file("/proc/partitions", &size);
    long answer = none();
    for (char *line = table; line && (line = strchr(line, '\n')) != NULL && line[1]; line++) {
        unsigned major_number, minor_number;
        if (sscanf(line + 1, "%u %u", &major_number, &minor_number) == 2)
            answer = device(S_IFBLK, major_number, minor_number, "a disk of the node");
    }
    return answer;
}

static long memory_devices(void)
{
    static const unsigned numbers[][2] = {{1, 1}, {1, 2}, {1, 4}, {1, 11}, {10, 237}, {10, 203},
                                          {10, 235}, {10, 200}, {10, 232}, {10, 223}};
    long answer = -1;
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char what[40];
        snprintf(what, sizeof what, "device %u:%u", numbers[i][0], numbers[i][1]);
        answer = device(S_IFCHR, numbers[i][0], numbers[i][1], what);
    }
    return answer;
}

static long fuse_device(void)
{
    int fd = open("/dev/fuse", O_RDWR | O_NONBLOCK);
    if (fd < 0)
        return -1;
    for (unsigned other = 0; other < 1024; other++)
        if (ioctl(fd, FUSE_DEV_IOC_CLONE, &other) == 0)
            return reached("a FUSE connection");
    char request[8192];
    return read(fd, request, sizeof request) < 0 ? -1 : reached("a request");
}

static long fuse_connections(void)
{
    DIR *connections = opendir("/sys/fs/fuse/connections");
    struct dirent *entry;
    while (connections && (entry = readdir(connections)) != NULL)
        if (isdigit(*entry->d_name))
            reached("connection %s", entry->d_name);
    return connections ? none() : -1;
}

/* How far the kernel reads ahead, of our devices among others. */
static long device_settings(void)
{
    DIR *devices = opendir("/sys/class/bdi");
    struct dirent *entry;
    long answer = none();
    while (devices && (entry = readdir(devices)) != NULL) {
        char path[600];
        snprintf(path, sizeof path, "/sys/class/bdi/%s/read_ahead_kb", entry->d_name);
        if (*entry->d_name != '.')
            answer = refused(open(path, O_WRONLY), "a device's read-ahead");
    }
    return answer;
}

static long kernel_files(void)
{
    static const char *const paths[] = {
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
        "/proc/sys/vm/overcommit_memory", "/proc/sys/fs/file-max", "/proc/sys/fs/lease-break-time",
        "/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max", "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/fs/fuse/max_pages_limit", "/proc/sys/fs/binfmt_misc/register",
        "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/kcore",
        "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/power/state",
        "/sys/module/fuse/parameters/max_user_bgreq", "/sys/fs/erofs", "/sys/kernel/debug/x",
    };
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
        int fd = open(paths[i], O_WRONLY);
        struct stat status;
        /* Where /dev/null lies over it, that is what is open. */
        if (fd >= 0 && fstat(fd, &status) == 0 && !S_ISCHR(status.st_mode))
            reached("%s", paths[i]);
    }
    size_t size;
    char *core = read_file("/proc/kcore", &size);
    return core && size ? reached("the kernel's memory") : none();
}

static void try_groups(const char *directory, int depth)
{
    static const char *const names[] = {"cgroup.procs", "tasks", "release_agent", "pids.max",
                                        "notify_on_release", "devices.allow", "memory.max",
                                        "memory.limit_in_bytes", "cgroup.freeze", "cgroup.kill",
                                        "freezer.state", "cpu.max", "cpu.shares"};
    char path[2048];
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        if (open(path, O_WRONLY) >= 0)
            reached("%s", path);
    }
    snprintf(path, sizeof path, "%s/escape", directory);
    if (mkdir(path, 0755) == 0 && rmdir(path) == 0)
        reached("a group in %s", directory);
    DIR *groups = depth ? opendir(directory) : NULL;
    struct dirent *entry;
    while (groups && (entry = readdir(groups)) != NULL) {
        if (*entry->d_name == '.' || entry->d_type == DT_REG || entry->d_type == DT_LNK)
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        try_groups(path, depth - 1);
    }
    if (groups)
        closedir(groups);
}

static long control_groups(void)
{
    try_groups("/sys/fs/cgroup", 2);
    return none();
}

/* -- calls that look at others or into the kernel --------------------------------------- */

static long watch(void)
{
    int fd = (int)syscall(SYS_fanotify_init, FAN_CLASS_CONTENT, O_RDONLY);
    if (fd < 0)
        fd = (int)syscall(SYS_fanotify_init, FAN_CLASS_NOTIF | 0x200 /* by handle */, O_RDONLY);
    return fd < 0 ? -1 : reached("fanotify");
}

static long programs(void)
{
    unsigned attributes[32] = {1 /* an array */, 4, 4, 1};
    return refused(syscall(SYS_bpf, 0, attributes, sizeof attributes), "a BPF map");
}

static long samples(void)
{
    unsigned attributes[32] = {1, 128};
    return refused(syscall(SYS_perf_event_open, attributes, -1, 0, -1, 0), "events of all");
}

static long kernel_log(void)
{
    char text[64];
    return refused(syscall(SYS_syslog, 3, text, sizeof text), "the kernel's log");
}

static long faults(void)
{
    return refused(syscall(SYS_userfaultfd, 0), "faults in the kernel");
}

static long modules(void)
{
    if (syscall(SYS_init_module, "", 0, "") == 0 || errno != EPERM)
        return reached("init_module");
    return refused(syscall(SYS_kexec_load, 0, 1000000, 0, 0), "kexec_load");
}

static long right(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    syscall(SYS_capget, &head, data);
    data[0].effective |= 1u << CAP_SYS_ADMIN;
    data[0].permitted |= 1u << CAP_SYS_ADMIN;
    return refused(syscall(SYS_capset, &head, data), "SYS_ADMIN");
}

static long processes_roots(void) { return of_processes(root_of); }
static long processes_files(void) { return of_processes(files_of); }
static long processes_names(void) { return of_processes(name_of); }
static long processes_namespaces(void) { return of_processes(join); }
static long numbers_seize(void) { return of_numbers(seize); }
static long numbers_peek(void) { return of_numbers(peek); }
static long numbers_poke(void) { return of_numbers(poke); }
static long numbers_descriptors(void) { return of_numbers(descriptors_of); }
static long numbers_namespaces(void) { return of_numbers(join_by_number); }

static const struct { const char *name; long (*attempt)(void); int harms; } attempts[] = {
    {"two chroots", two_chroots, 0},
    {"above the root", above_the_root, 0},
    {"known places", known_places, 0},
    {"paths of mounts", paths_of_mounts, 0},
    {"mounts not shown", mounts_not_shown, 0},
    {"open_by_handle_at", by_handle, 0},
    {"name_to_handle_at", to_handle, 0},
    {"inherited descriptors", inherited, 0},
    {"/proc/PID/root", processes_roots, 0},
    {"/proc/PID/fd", processes_files, 0},
    {"/proc/PID names", processes_names, 0},
    {"/proc/PID/ns", processes_namespaces, 0},
    {"processes not shown", parent, 0},
    {"ptrace", numbers_seize, 0},
    {"process_vm_readv", numbers_peek, 0},
    {"/proc/PID/mem", numbers_poke, 0},
    {"pidfd_getfd", numbers_descriptors, 0},
    {"setns of a pidfd", numbers_namespaces, 0},
    {"search processes", search_processes, 1},
    {"search files", search_files, 0},
    {"search keys", search_keys, 0},
    {"unix sockets", unix_sockets, 0},
    {"listeners", listeners, 0},
    {"break connections", break_connections, 1},
    {"process events", process_events, 0},
    {"mount", mount_kinds, 0},
    {"mount again", mount_again, 1},
    {"mount FUSE", mount_fuse, 0},
    {"umount", unmount_all, 1},
    {"fsopen, open_tree, move_mount", new_mounts, 0},
    {"i386 and x32", other_tables, 0},
    {"namespaces", own_namespaces, 0},
    {"pivot_root", pivot, 0},
    {"disks", disks, 0},
    {"memory devices", memory_devices, 0},
    {"/dev/fuse", fuse_device, 0},
    {"FUSE connections", fuse_connections, 0},
    {"device settings", device_settings, 0},
    {"kernel files", kernel_files, 0},
    {"control groups", control_groups, 0},
    {"fanotify", watch, 0},
    {"bpf", programs, 0},
    {"perf_event_open", samples, 0},
    {"syslog", kernel_log, 0},
    {"userfaultfd", faults, 0},
    {"modules", modules, 0},
    {"SYS_ADMIN", right, 0},
    {"hinder everybody", hinder_everybody, 1},
};

/* Have the supervisor, whose child this is, for a tracer. */
static int be_traced(void)
{
    long answer = ptrace(PTRACE_TRACEME, 0, 0, 0);
    printf("traced: %s\n", answer < 0 ? strerrorname_np(errno) : "0");
    fflush(stdout);
    raise(SIGUSR1);
    printf("went on\n");
    return 7;
}

int main(int count, char **arguments)
{
    if (count > 1 && !strcmp(arguments[1], "traced"))
        return be_traced();
    for (const char *at = count > 1 ? arguments[1] : ""; at[0] && at[1]; at += 2) {
        unsigned byte;
        if (sscanf(at, "%2x", &byte) == 1 && needle_size < sizeof needle)
            needle[needle_size++] = (char)byte;
    }
    mkdir("/tmp", 01777);
    const char *then = count > 2 ? arguments[2] : "";
    for (unsigned i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        if (attempts[i].harms && !strcmp(then, "spare"))
            continue;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            errno = 0;
            long answer = attempts[i].attempt();
            int number = answer == -1 ? errno : 0;
            if (*found)
                printf("%s: reached %s\n", attempts[i].name, found);
            else
                printf("%s: %s\n", attempts[i].name, number ? strerrorname_np(number) : "nothing");
            fflush(stdout);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status))
            printf("%s: signal %d\n", attempts[i].name, WTERMSIG(status));
    }
    printf("all: done\n");
    fflush(stdout);
    if (!strcmp(then, "stay"))
        pause();
    return 0;
}
