/* Make each system call that rights decide about, in a process of its own, and print a line
   with what the kernel answered.  What is asked is harmless where it is allowed: where a right
   might be there, the arguments are wrong in a way that the kernel sees only after it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/fanotify.h>
#include <linux/fs.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static char scratch[256];
static const char *made(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return path;
}

/* In a mount namespace of its own where that may be had: what is allowed must not last. */
static long apart(const char *source, const char *target, const char *kind, unsigned long flags,
                  const char *data)
{
    unshare(CLONE_NEWNS);
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    errno = 0;
    return flags == MNT_DETACH && !kind && !source ? umount2(target, MNT_DETACH)
                                                   : mount(source, target, kind, flags, data);
}

static long open_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
    return fd < 0 ? -1 : 0;
}

/* Answers of the kernel that are a number of something count as 0. */
#define CALL(name, expression)                                                     \
    do {                                                                           \
        fflush(stdout);                                                            \
        pid_t child = fork();                                                      \
        if (child == 0) {                                                          \
            alarm(5);                                                              \
            errno = 0;                                                             \
            long answer = (long)(expression);                                      \
            const char *what = answer == -1 ? strerrorname_np(errno) : "0";        \
            printf("%s: %s\n", name, what ? what : "?");                           \
            fflush(stdout);                                                        \
            _exit(0);                                                              \
        }                                                                          \
        int status;                                                                \
        waitpid(child, &status, 0);                                                \
        if (WIFSIGNALED(status))                                                   \
            printf("%s: signal %d\n", name, WTERMSIG(status));                     \
    } while (0)
#define SYS(name, ...) CALL(name, syscall(__VA_ARGS__))

static long enter(const char *kind)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
    int fd = open(path, O_RDONLY);
    return fd < 0 ? -1 : setns(fd, 0);
}

static long cloned(unsigned long flags)
{
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, 0);
    return pid < 0 ? -1 : 0;
}

static long cloned3(unsigned long long flags)
{
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, 0);
    return pid < 0 ? -1 : 0;
}

static long measured(int kind, unsigned long long config, pid_t pid)
{
    struct perf_event_attr wanted = {
        .type = kind, .size = sizeof wanted, .config = config, .exclude_kernel = 1};
    return syscall(SYS_perf_event_open, &wanted, pid, pid == -1 ? 0 : -1, -1, 0);
}

static long mapped(int kind)
{
    union bpf_attr wanted = {
        .map_type = kind, .key_size = 4, .value_size = 4, .max_entries = 1};
    return syscall(SYS_bpf, BPF_MAP_CREATE, &wanted, sizeof wanted);
}

static long traced(pid_t pid)
{
    if (ptrace(PTRACE_ATTACH, pid, 0, 0) < 0)
        return -1;
    waitpid(pid, NULL, __WALL);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    return 0;
}

static long peeked(pid_t pid)
{
    char buffer[8];
    struct iovec here = {buffer, 8}, there = {(void *)scratch, 8};
    return process_vm_readv(pid, &here, 1, &there, 1, 0) < 0 ? -1 : 0;
}

static long device(mode_t kind, int major, int minor, int then_open)
{
    const char *path = made("device");
    if (mknod(path, kind | 0666, (dev_t)(major << 8 | minor)) < 0)
        return -1;
    long answer = then_open ? open_path(path, O_RDWR) : 0;
    int kept = errno;
    unlink(path);
    errno = kept;
    return answer;
}

static long handled(int then_open)
{
    struct { struct file_handle head; unsigned char body[128]; } handle;
    int mount_id;
    handle.head.handle_bytes = 128;
    if (name_to_handle_at(AT_FDCWD, "/etc/passwd", &handle.head, &mount_id, 0) < 0 && !then_open)
        return -1;
    if (!then_open)
        return 0;
    handle.head.handle_bytes = 8;
    handle.head.handle_type = 1;
    return open_by_handle_at(AT_FDCWD, &handle.head, O_RDONLY);
}

static long bound(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? -1 : bind(fd, (void *)&address, sizeof address);
}

static long option(int level, int name, int value)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    return fd < 0 ? -1 : setsockopt(fd, level, name, &value, sizeof value);
}

static long interface(unsigned long request)
{
    struct ifreq wanted = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &wanted) < 0)
        return -1;
    return ioctl(fd, request, &wanted); /* to what it is already */
}

static long attribute(const char *name)
{
    return setxattr(made("file"), name, "x", 1, 0);
}

static long chattr(int flag)
{
    int flags = 0, fd = open(made("file"), O_RDONLY);
    if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
        return -1;
    flags |= flag;
    long answer = ioctl(fd, FS_IOC_SETFLAGS, &flags);
    int kept = errno;
    flags &= ~flag;
    ioctl(fd, FS_IOC_SETFLAGS, &flags);
    errno = kept;
    return answer;
}

static long owned(const char *path, int owner)
{
    return chown(path, owner, owner);
}

static long raised(int what)
{
    struct rlimit limit;
    if (getrlimit(what, &limit) < 0)
        return -1;
    if (limit.rlim_max != RLIM_INFINITY)
        limit.rlim_max += 1;
    return setrlimit(what, &limit);
}

static long scheduled(int policy)
{
    struct sched_param wanted = {.sched_priority = policy == SCHED_FIFO};
    return sched_setscheduler(0, policy, &wanted);
}

static long filtered(void)
{
    /* One instruction: allow. */
    struct { unsigned short code; unsigned char jt, jf; unsigned k; } step = {6, 0, 0, 0x7fff0000};
    struct { unsigned short count; void *steps; } program = {1, &step};
    return syscall(SYS_seccomp, 1, 0, &program);
}

static long kept(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &head, data) < 0)
        return -1;
    data[0].inheritable |= 1u << CAP_SYS_ADMIN;
    return syscall(SYS_capset, &head, data);
}

int main(void)
{
    struct timeval wrong_time = {0, -1};
    struct timespec wrong_spec = {0, -1};
    pid_t parent = getpid();
    snprintf(scratch, sizeof scratch, "/tmp/probe-%d", (int)parent);
    if (mkdir(scratch, 0755) < 0)
        snprintf(scratch, sizeof scratch, "/dev/shm/probe-%d", (int)parent), mkdir(scratch, 0755);
    close(open(made("file"), O_CREAT | O_WRONLY, 0644));

    CALL("mount tmpfs", apart("none", "/mnt", "tmpfs", 0, ""));
    CALL("mount bind", apart("/etc", "/mnt", NULL, MS_BIND, NULL));
    CALL("mount remount", apart(NULL, "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    CALL("mount private", apart(NULL, "/", "", MS_PRIVATE, NULL));
    CALL("mount proc", apart("proc", "/mnt", "proc", 0, ""));
    CALL("mount overlay", apart("overlay", "/mnt", "overlay", 0, "lowerdir=/etc:/usr"));
    CALL("umount", apart(NULL, "/nonexistent", NULL, MNT_DETACH, NULL));
    CALL("umount shm", apart(NULL, "/dev/shm", NULL, MNT_DETACH, NULL));
    CALL("umount mnt", apart(NULL, "/mnt", NULL, MNT_DETACH, NULL));
    CALL("pivot_root", syscall(SYS_pivot_root, "/", "/"));
    CALL("chroot", chroot("/"));
    SYS("open_tree", SYS_open_tree, AT_FDCWD, "/", 1);
    SYS("move_mount", SYS_move_mount, -1, "", -1, "", 0);
    SYS("fsopen", SYS_fsopen, "tmpfs", 0);
    SYS("fsconfig", SYS_fsconfig, -1, 0, 0, 0, 0);
    SYS("fsmount", SYS_fsmount, -1, 0, 0);
    SYS("fspick", SYS_fspick, AT_FDCWD, "/", 0);
    SYS("mount_setattr", SYS_mount_setattr, -1, "", 0, 0, 0);
    SYS("statmount", 457, 0, 0, 0, 0);
    SYS("listmount", 458, 0, 0, 0, 0);
    CALL("unshare fs", unshare(CLONE_FS));
    CALL("unshare mnt", unshare(CLONE_NEWNS));
    CALL("unshare uts", unshare(CLONE_NEWUTS));
    CALL("unshare ipc", unshare(CLONE_NEWIPC));
    CALL("unshare user", unshare(CLONE_NEWUSER));
    CALL("unshare pid", unshare(CLONE_NEWPID));
    CALL("unshare net", unshare(CLONE_NEWNET));
    CALL("unshare cgroup", unshare(CLONE_NEWCGROUP));
    CALL("unshare time", unshare(0x80));
    CALL("unshare user and mnt", unshare(CLONE_NEWUSER | CLONE_NEWNS));
    CALL("setns mnt", enter("mnt"));
    CALL("setns uts", enter("uts"));
    CALL("setns ipc", enter("ipc"));
    CALL("setns user", enter("user"));
    CALL("setns pid", enter("pid"));
    CALL("setns net", enter("net"));
    CALL("setns cgroup", enter("cgroup"));
    CALL("clone", cloned(0));
    CALL("clone mnt", cloned(CLONE_NEWNS));
    CALL("clone user", cloned(CLONE_NEWUSER));
    CALL("clone pid", cloned(CLONE_NEWPID));
    CALL("clone net", cloned(CLONE_NEWNET));
    CALL("clone3", cloned3(0));
    CALL("clone3 user", cloned3(CLONE_NEWUSER));
    CALL("mknod fifo", device(S_IFIFO, 0, 0, 0));
    CALL("mknod socket", device(S_IFSOCK, 0, 0, 0));
    CALL("mknod null", device(S_IFCHR, 1, 3, 0));
    CALL("mknod and open null", device(S_IFCHR, 1, 3, 1));
    CALL("mknod and open mem", device(S_IFCHR, 1, 1, 1));
    CALL("mknod and open kmsg", device(S_IFCHR, 1, 11, 1));
    CALL("mknod and open tun", device(S_IFCHR, 10, 200, 1));
    CALL("mknod and open fuse", device(S_IFCHR, 10, 229, 1));
    CALL("mknod and open loop", device(S_IFBLK, 7, 0, 1));
    CALL("bpf array", mapped(BPF_MAP_TYPE_ARRAY));
    CALL("bpf hash", mapped(BPF_MAP_TYPE_HASH));
    SYS("keyctl keyring", SYS_keyctl, 0, -3, 0);
    SYS("keyctl join", SYS_keyctl, 1, 0);
    SYS("keyctl session read", SYS_keyctl, 11, -3, 0, 0);
    SYS("add_key", SYS_add_key, "user", "probe", "x", 1, -2);
    SYS("request_key", SYS_request_key, "user", "probe-nothing", 0, 0);
    CALL("ptrace traceme", ptrace(PTRACE_TRACEME, 0, 0, 0));
    CALL("ptrace parent", traced(parent));
    CALL("process_vm_readv parent", peeked(parent));
    SYS("kcmp", SYS_kcmp, parent, parent, 0, 0, 0);
    SYS("pidfd_open", SYS_pidfd_open, parent, 0);
    SYS("pidfd_getfd", SYS_pidfd_getfd, syscall(SYS_pidfd_open, parent, 0), 1, 0);
    SYS("process_madvise", SYS_process_madvise, -1, 0, 0, 0, 0);
    SYS("process_mrelease", SYS_process_mrelease, -1, 0);
    CALL("perf_event_open software", measured(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK, 0));
    CALL("perf_event_open all", measured(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, -1));
    SYS("io_uring_setup", SYS_io_uring_setup, 0, 0);
    SYS("io_uring_enter", SYS_io_uring_enter, -1, 0, 0, 0, 0, 0);
    SYS("io_uring_register", SYS_io_uring_register, -1, 0, 0, 0);
    SYS("userfaultfd", SYS_userfaultfd, 0);
    SYS("userfaultfd user", SYS_userfaultfd, 1);
    CALL("name_to_handle_at", handled(0));
    CALL("open_by_handle_at", handled(1));
    SYS("kexec_load", SYS_kexec_load, 0, 1000000, 0, 0);
    SYS("kexec_file_load", SYS_kexec_file_load, -1, -1, 0, 0, 0);
    SYS("reboot", SYS_reboot, 0, 0, 0, 0);
    SYS("init_module", SYS_init_module, 0, 0, "");
    SYS("finit_module", SYS_finit_module, -1, "", 0);
    SYS("delete_module", SYS_delete_module, "no such module", 0);
    SYS("create_module", SYS_create_module, "x", 1);
    SYS("swapon", SYS_swapon, "/nonexistent", 0);
    SYS("swapoff", SYS_swapoff, "/nonexistent");
    SYS("acct", SYS_acct, "/nonexistent");
    SYS("settimeofday", SYS_settimeofday, &wrong_time, 0);
    SYS("clock_settime", SYS_clock_settime, CLOCK_REALTIME, &wrong_spec);
    SYS("adjtimex", SYS_adjtimex, 0);
    SYS("clock_adjtime", SYS_clock_adjtime, CLOCK_REALTIME, 0);
    SYS("quotactl", SYS_quotactl, 0x800001 << 8, 0, 0, 0);
    SYS("quotactl_fd", 443, -1, 0, 0, 0);
    SYS("fanotify_init", SYS_fanotify_init, FAN_CLASS_CONTENT, 0);
    SYS("fanotify_init fid", SYS_fanotify_init, FAN_CLASS_NOTIF | 0x200, 0);
    SYS("sethostname", SYS_sethostname, "x", -1);
    SYS("setdomainname", SYS_setdomainname, "x", -1);
    SYS("syslog size", SYS_syslog, 10, 0, 0);
    SYS("syslog read", SYS_syslog, 3, scratch + 128, 8);
    SYS("iopl", SYS_iopl, 3);
    SYS("ioperm", SYS_ioperm, 0x80, 1, 1);
    SYS("vhangup", SYS_vhangup);
    SYS("personality", SYS_personality, 0xffffffff);
    SYS("personality no random", SYS_personality, 0x0040000);
    SYS("lookup_dcookie", SYS_lookup_dcookie, 0, 0, 0);
    SYS("get_mempolicy", SYS_get_mempolicy, 0, 0, 0, 0, 0);
    SYS("set_mempolicy", SYS_set_mempolicy, 0, 0, 0);
    SYS("mbind", SYS_mbind, 0, 0, 0, 0, 0, 0);
    SYS("move_pages", SYS_move_pages, 0, 0, 0, 0, 0, 0);
    SYS("migrate_pages", SYS_migrate_pages, 0, 0, 0, 0);
    SYS("modify_ldt", SYS_modify_ldt, 0, scratch + 128, 8);
    SYS("uselib", SYS_uselib, "/nonexistent");
    SYS("ustat", SYS_ustat, 0, 0);
    SYS("sysfs", SYS_sysfs, 3);
    SYS("_sysctl", SYS__sysctl, 0);
    SYS("nfsservctl", SYS_nfsservctl, 0, 0, 0);
    SYS("sched_setattr", SYS_sched_setattr, 0, 0, 0);
    CALL("scheduler fifo", scheduled(SCHED_FIFO));
    CALL("scheduler batch", scheduled(SCHED_BATCH));
    CALL("nice", setpriority(PRIO_PROCESS, 0, -5));
    SYS("ioprio_set", SYS_ioprio_set, 1, 0, 1 << 13 | 4);
    CALL("mlockall", mlockall(MCL_CURRENT));
    CALL("raise nofile", raised(RLIMIT_NOFILE));
    CALL("raise stack", raised(RLIMIT_STACK));
    CALL("seccomp filter", filtered());
    SYS("seccomp action", SYS_seccomp, 2, 0, "\0\0\377\177");
    CALL("prctl bounding", prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN));
    CALL("prctl ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0));
    CALL("prctl dumpable", prctl(PR_GET_DUMPABLE) == 1 ? 0 : -1);
    CALL("prctl subreaper", prctl(PR_SET_CHILD_SUBREAPER, 1));
    CALL("capset", kept());
    CALL("setuid root", setresuid(0, 0, 0));
    CALL("setuid other", setresuid(12, 12, 12));
    CALL("setgid other", setresgid(12, 12, 12));
    CALL("setgroups", syscall(SYS_setgroups, 0, 0));
    CALL("chown", owned(made("file"), 12));
    CALL("chmod other's", chmod("/probe/others", 0644));
    CALL("kill parent", kill(parent, 0));
    CALL("kill everybody", kill(-1, 0));
    CALL("kill 1", kill(1, 0));
    CALL("socket packet", socket(AF_PACKET, SOCK_RAW, 0));
    CALL("socket raw", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    CALL("socket ping", socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
    CALL("socket netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    CALL("socket audit", socket(AF_NETLINK, SOCK_RAW, 9));
    CALL("socket vsock", socket(40, SOCK_STREAM, 0));
    CALL("socket alg", socket(AF_ALG, SOCK_SEQPACKET, 0));
    CALL("socket key", socket(AF_KEY, SOCK_RAW, 2));
    CALL("bind port 80", bound(80));
    CALL("bind port 8080", bound(8080));
    CALL("socket mark", option(SOL_SOCKET, SO_MARK, 1));
    CALL("socket transparent", option(IPPROTO_IP, IP_TRANSPARENT, 1));
    CALL("interface flags", interface(SIOCSIFFLAGS));
    CALL("xattr user", attribute("user.probe"));
    CALL("xattr trusted", attribute("trusted.probe"));
    CALL("xattr security", attribute("security.probe"));
    CALL("chattr nodump", chattr(FS_NODUMP_FL));
    CALL("chattr immutable", chattr(FS_IMMUTABLE_FL));
    CALL("flock", flock(open(made("file"), O_RDONLY), LOCK_EX | LOCK_NB));
    CALL("lease", fcntl(open(made("file"), O_RDONLY), F_SETLEASE, F_RDLCK));
    CALL("memfd_create", memfd_create("probe", MFD_CLOEXEC));
    SYS("memfd_secret", SYS_memfd_secret, 0);
    CALL("tmpfile", open_path(scratch, O_TMPFILE | O_WRONLY) < 0 && errno == EISDIR ? -1 : 0);
    SYS("openat2", SYS_openat2, -1, 0, 0, 0);
    SYS("close_range", SYS_close_range, 500, 600, 0);
    SYS("faccessat2", SYS_faccessat2, AT_FDCWD, "/", 0, 0);
    SYS("epoll_pwait2", SYS_epoll_pwait2, -1, 0, 0, 0, 0, 0);
    SYS("landlock", SYS_landlock_create_ruleset, 0, 0, 1);
    SYS("futex_waitv", 449, 0, 0, 0, 0, 0);
    SYS("cachestat", 451, -1, 0, 0, 0);
    SYS("fchmodat2", 452, AT_FDCWD, "/nonexistent", 0, 0);
    SYS("lsm_list_modules", 461, 0, 0, 0);
    SYS("rseq", SYS_rseq, 0, 0, 0, 0);
    CALL("inotify", syscall(SYS_inotify_init1, 0));
    CALL("signalfd", syscall(SYS_signalfd4, -1, scratch, 8, 0));
    SYS("shmget", SYS_shmget, 0x6273, 4096, 0600);
    SYS("msgget", SYS_msgget, 0x6273, 0600);
    SYS("mq_open", SYS_mq_open, "probe", O_RDWR, 0, 0);

    static const struct { const char *path; int flags; } opens[] = {
        {"/dev/null", O_RDWR}, {"/dev/full", O_WRONLY}, {"/dev/random", O_WRONLY},
        {"/dev/tty", O_RDWR}, {"/dev/console", O_RDWR}, {"/dev/ptmx", O_RDWR},
        {"/dev/fuse", O_RDWR}, {"/dev/kmsg", O_RDONLY}, {"/dev/mem", O_RDONLY},
        {"/dev/core", O_RDONLY}, {"/dev/shm", O_RDONLY}, {"/proc/kcore", O_RDONLY},
        {"/proc/kmsg", O_RDONLY}, {"/proc/keys", O_RDONLY}, {"/proc/timer_list", O_RDONLY},
        {"/proc/sysrq-trigger", O_WRONLY}, {"/proc/sys/kernel/hostname", O_WRONLY},
        {"/proc/sys/net/ipv4/ip_forward", O_WRONLY}, {"/proc/sys/vm/drop_caches", O_WRONLY},
        {"/proc/1/environ", O_RDONLY}, {"/proc/1/mem", O_RDONLY}, {"/proc/1/root", O_RDONLY},
        {"/proc/1/cwd", O_RDONLY}, {"/proc/1/fd", O_RDONLY}, {"/proc/1/ns/mnt", O_RDONLY},
        {"/proc/1/oom_score_adj", O_WRONLY}, {"/proc/1/comm", O_WRONLY},
        {"/proc/1/syscall", O_RDONLY}, {"/proc/1/stack", O_RDONLY}, {"/proc/1/io", O_RDONLY},
        {"/proc/self/mem", O_RDWR}, {"/proc/self/oom_score_adj", O_WRONLY},
        {"/proc/self/uid_map", O_WRONLY}, {"/proc/self/pagemap", O_RDONLY},
        {"/proc/self/clear_refs", O_WRONLY}, {"/proc/self/attr/exec", O_WRONLY},
        {"/proc/acpi", O_RDONLY}, {"/proc/asound", O_RDONLY}, {"/proc/scsi", O_RDONLY},
        {"/proc/bus", O_RDONLY}, {"/proc/fs", O_RDONLY}, {"/proc/irq", O_RDONLY},
        {"/proc/irq/default_smp_affinity", O_WRONLY}, {"/proc/mtrr", O_WRONLY},
        {"/sys/firmware", O_RDONLY}, {"/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY},
        {"/sys/power/state", O_WRONLY}, {"/sys/kernel/uevent_helper", O_WRONLY},
        {"/sys/fs/cgroup/devices/devices.allow", O_WRONLY},
        {"/etc/shadow", O_RDONLY}, {"/etc/hosts", O_WRONLY}, {"/etc/hostname", O_WRONLY},
        {"/etc/resolv.conf", O_WRONLY}, {"/etc/passwd", O_WRONLY}, {"/.dockerenv", O_WRONLY},
        {"/probe/others", O_RDONLY}, {"/probe/others", O_WRONLY}, {"/probe/calls", O_WRONLY},
        {"/probe/calls", O_RDONLY | O_NOATIME}, {"/new", O_CREAT | O_WRONLY},
        {"/usr/bin/new", O_CREAT | O_WRONLY}, {"/dev/new", O_CREAT | O_WRONLY},
        {"/dev/shm/new", O_CREAT | O_WRONLY}, {"/sys/new", O_CREAT | O_WRONLY},
        {"/proc/new", O_CREAT | O_WRONLY}, {"/tmp/new", O_CREAT | O_WRONLY},
    };
    for (unsigned i = 0; i < sizeof opens / sizeof *opens; i++) {
        char name[128];
        snprintf(name, sizeof name, "open %s %s", opens[i].path,
                 opens[i].flags & O_CREAT ? "to make" :
                 (opens[i].flags & O_ACCMODE) == O_RDONLY ? "to read" : "to write");
        CALL(name, open_path(opens[i].path, opens[i].flags));
        if (opens[i].flags & O_CREAT)
            unlink(opens[i].path);
    }
    unlink(made("file"));
    rmdir(scratch);
    return 0;
}
