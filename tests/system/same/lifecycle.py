"""What the engine does with a container from outside, and what the workload notices of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING

from tests.support.engine import docker
from tests.system.same.cases import case, titled

if TYPE_CHECKING:
    from tests.support.engine import Container
    from tests.system.same.sides import Side

WAITS = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
LIMIT_S = 30.0


def state(container: Container) -> str:
    """Give what `docker inspect` says of how a container ended, or that it runs."""
    found = container.inspect()["State"]
    names = ("Status", "Running", "Paused", "OOMKilled", "Dead", "ExitCode", "Error")
    return "\n".join(f"{name} {found[name]}" for name in names)


def wait_for_status(container: Container, status: str) -> None:
    """Wait until `docker inspect` says that a container has a status."""
    deadline = time.monotonic() + LIMIT_S
    while container.inspect()["State"]["Status"] != status:
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.02)


@case(everywhere=True)
def stop_start_restart(side: Side) -> str:
    """What was written stays; logs go on; the exit code is the workload's."""
    script = f"cat /root/state; echo more >>/root/state; rm -f /probe/empty; ls /probe; {WAITS}"
    container = side.start("bash", "-c", script)
    container.wait_for_line("ready")
    stopped = side.docker("stop", container.name)
    first = state(container)
    docker("start", container.name)
    deadline = time.monotonic() + LIMIT_S
    while container.logs().count("ready") < 2:
        assert time.monotonic() < deadline, container.logs()
    docker("restart", container.name)
    while container.logs().count("ready") < 3:
        assert time.monotonic() < deadline + LIMIT_S, container.logs()
    docker("kill", container.name)
    return titled(
        stop=stopped, state=first, killed=state(container), logs=container.logs(),
        count=container.inspect()["RestartCount"],
    )  # fmt: skip


@case()
def stop_of_who_ignores_it(side: Side) -> str:
    """After the grace comes SIGKILL."""
    container = side.start("bash", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    container.wait_for_line("ready")
    docker("stop", "-t", "1", container.name)
    return titled(state=state(container), logs=container.logs())


@case()
def stop_of_a_plain_program(side: Side) -> str:
    """A first process without handlers does not die of SIGTERM."""
    container = side.start("sleep", "100")
    docker("kill", "-s", "TERM", container.name)
    docker("kill", "-s", "INT", container.name)
    docker("kill", "-s", "SEGV", container.name)
    alive = state(container)
    docker("stop", "-t", "0", container.name)
    return titled(state=state(container), alive=alive)


@case()
def stop_signal_and_timeout(side: Side) -> str:
    """Options override the image's STOPSIGNAL."""
    script = "trap 'echo usr2; exit 9' USR2; echo ready; while :; do sleep 0.05; done"
    options = ("--stop-signal", "USR2", "--stop-timeout", "20")
    container = side.start("bash", "-c", script, options=options, image="STOPSIGNAL SIGUSR1")
    container.wait_for_line("ready")
    docker("stop", container.name)
    return titled(state=state(container), logs=container.logs())


@case()
def pause_and_unpause(side: Side) -> str:
    """Everything stands still, and goes on."""
    container = side.start("bash", "-c", WAITS)
    container.wait_for_line("ready")
    docker("pause", container.name)
    paused = state(container)
    refused = side.docker("exec", container.name, "true")
    docker("unpause", container.name)
    docker("stop", container.name)
    return titled(state=state(container), paused=paused, refused=refused, logs=container.logs())


@case()
def removed_at_its_end(side: Side) -> str:
    """With --rm nothing is left, no volume either."""
    image = "VOLUME /content /team /declared/new"
    container = side.start("bash", "-c", WAITS, options=("--rm",), image=image)
    container.wait_for_line("ready")
    volumes = [m["Name"] for m in container.inspect()["Mounts"] if m["Type"] == "volume"]
    docker("stop", container.name)
    deadline = time.monotonic() + LIMIT_S
    while docker("inspect", container.name, check=False).returncode == 0:
        assert time.monotonic() < deadline
    left = [docker("volume", "inspect", name, check=False).returncode for name in volumes]
    return titled(left=set(left))


@case()
def restarted_on_failure(side: Side) -> str:
    """The engine sees the workload's failures, and starts it again."""
    script = "echo again >>/root/state; wc -l </root/state; exit 6"
    container = side.engine.start(
        side.image(), "bash", "-c", script, options=side.options(("--restart", "on-failure:2"))
    )
    wait_for_status(container, "exited")
    return titled(
        state=state(container), logs=container.logs(), count=container.inspect()["RestartCount"]
    )


@case()
def out_of_memory(side: Side) -> str:
    """The kernel's choice of whom to kill is the workload, and the engine knows."""
    options = ("--memory", "96m", "--memory-swap", "96m")
    program = "my $x = 'x' x 200_000_000; print length $x"
    container = side.engine.start(
        side.image(), "perl", "-e", program, options=side.options(options)
    )
    container.wait()
    return titled(state=state(container), logs=container.logs())


@case()
def out_of_processes(side: Side) -> str:
    """A limit of processes holds."""
    script = "for i in $(seq 60); do sleep 1 & done 2>&1 | grep -c fork | grep -c [1-9]"
    return side.run("bash", "-c", script, options=("--pids-limit", "40"))


@case()
def logs_and_attach(side: Side) -> str:
    """Both streams go where they should, at once and later."""
    script = "echo out; echo err >&2; read line; echo got $line; sleep 0.2; echo end"
    container = side.engine.create(
        side.image(), "bash", "-c", script, options=side.options(("-i",))
    )
    done = docker("start", "-ai", container.name, stdin="typed\n")
    shown = side.docker("logs", container.name)
    tail = side.docker("logs", "--tail", "1", container.name)
    return side.shown(done) + shown.replace("== ", "== logs ") + tail.replace("== ", "== tail ")


@case()
def attach_and_signal(side: Side) -> str:
    """`docker attach` hands signals on, and ends as the workload does."""
    container = side.start("bash", "-c", WAITS)
    container.wait_for_line("ready")
    attached = subprocess.Popen(
        ["docker", "attach", container.name], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + LIMIT_S
    while attached.poll() is None:
        attached.send_signal(signal.SIGTERM)
        assert time.monotonic() < deadline
        time.sleep(0.2)
    attached.communicate()
    return titled(code=attached.returncode, state=state(container))


@case()
def output_of_many_bytes(side: Side) -> str:
    """Nothing of what is written or given is lost."""
    container = side.engine.create(
        side.image(), "bash", "-c", "wc -c; head -c 3000000 /dev/zero | tr '\\0' x | sha256sum",
        options=side.options(("-i",)),
    )  # fmt: skip
    return side.shown(docker("start", "-ai", container.name, stdin="y" * 2_000_000))


@case()
def log_drivers(side: Side) -> str:
    """Without a log there is none."""
    container = side.engine.start(
        side.image(), "echo", "x", options=side.options(("--log-driver", "none"))
    )
    container.wait()
    return side.docker("logs", container.name)


@case()
def renamed_and_updated(side: Side) -> str:
    """What is changed while it runs has its effect."""
    container = side.start("bash", "-c", WAITS, options=("--memory", "100m"))
    container.wait_for_line("ready")
    docker("update", "--memory", "200m", "--memory-swap", "300m", "--cpus", "0.5", container.name)
    seen = container.run(
        "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    ).stdout
    new = side.engine.name()
    docker("rename", container.name, new)
    docker("rename", new, container.name)
    host = container.run("hostname").stdout
    return titled(seen=seen, host=host)


@case(everywhere=True)
def executed_in_it(side: Side) -> str:
    """`docker exec` in its plainest form: root, directory, user, exit code."""
    container = side.start("bash", "-c", WAITS, options=("-w", "/content"))
    container.wait_for_line("ready")
    shown = [
        side.docker("exec", *options, container.name, *command)
        for options, command in (
            ((), ("bash", "-c", "pwd; id; ls -A / | sort; cat below/file; umask; exit 9")),
            (("-u", "worker", "-w", "/team"), ("bash", "-c", "pwd; id; echo $HOME; touch x")),
            (("-u", "12345:54321"), ("setuid",)),
            (("-e", "MINE=1"), ("bash", "-c", "env | grep -v -e BLOB_STORE -e BOOTFS | sort")),
            ((), ("nonesuch",)),
            ((), ("garbage",)),
            (("-w", "/nowhere"), ("pwd",)),
        )
    ]
    stdin = docker("exec", "-i", container.name, "wc", "-c", stdin="x" * 500_000)
    return "".join(
        text.replace("== ", f"== {number} ") for number, text in enumerate([*shown, stdin.stdout])
    )


@case(everywhere=True)
def executed_in_it_as_seen_by_the_kernel(side: Side) -> str:
    """Environment, processes, rights and mounts of a `docker exec`."""
    container = side.start("sleep", "100")
    script = (
        "until grep -qsx sleep /proc/[0-9]*/comm; do :; done;"
        " echo == environment; env | sort; echo == status; cat /proc/self/status;"
        " echo == mounts; cat /proc/self/mountinfo; echo == calls; /probe/calls;"
        " echo == names; for file in /proc/[0-9]*/comm; do echo $(<$file); done"
    )
    return container.run("bash", "-c", script).stdout


@case()
def executed_in_it_as_a_user(side: Side) -> str:
    """The same as somebody who has no rights."""
    container = side.start("sleep", "100")
    script = "echo == status; cat /proc/self/status; echo == calls; /probe/calls"
    return container.run("bash", "-c", script, options=("-u", "worker")).stdout


@case(everywhere=True)
def top(side: Side) -> str:
    """The engine lists processes of the whole container."""
    container = side.start("perl", "-e", "$| = 1; print qq(ready\\n); sleep 100")
    container.wait_for_line("ready")
    rows = docker("top", container.name, "-o", "pid,comm,args").stdout.splitlines()
    return titled(top="\n".join(row.strip().partition(" ")[2].strip() for row in rows))


@case()
def healthy(side: Side) -> str:
    """HEALTHCHECK is run in the workload's root."""
    image = "HEALTHCHECK --interval=300ms --timeout=20s CMD script && test -e /root/state && id -u"
    container = side.start("bash", "-c", f"echo > /root/state; {WAITS}", image=image)
    container.wait_for_line("ready")
    deadline = time.monotonic() + LIMIT_S
    while container.inspect()["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < deadline, container.inspect()["State"]["Health"]
        time.sleep(0.1)
    last = container.inspect()["State"]["Health"]["Log"][-1]
    return titled(code=last["ExitCode"], output=last["Output"])


@case()
def unhealthy(side: Side) -> str:
    """A check that fails, as a user, makes the container unhealthy."""
    options = (
        "--health-cmd", "id -un; exit 1", "--health-interval", "200ms", "--health-retries", "2",
        "--user", "worker",
    )  # fmt: skip
    container = side.start("bash", "-c", WAITS, options=options)
    deadline = time.monotonic() + LIMIT_S
    while container.inspect()["State"]["Health"]["Status"] != "unhealthy":
        assert time.monotonic() < deadline, container.inspect()["State"]["Health"]
        time.sleep(0.1)
    last = container.inspect()["State"]["Health"]["Log"][-1]
    return titled(code=last["ExitCode"], output=last["Output"])


@case()
def published_port(side: Side) -> str:
    """Who connects from outside reaches the workload."""
    program = (
        "use IO::Socket; my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 80) or die $!;"
        " $| = 1; print qq(ready\\n); my $c = $s->accept; print $c qq(hello\\n); exit 4"
    )
    container = side.start("perl", "-e", program, options=("-p", "127.0.0.1::80"))
    container.wait_for_line("ready")
    port = int(docker("port", container.name, "80").stdout.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
        said = connection.makefile().read()
    return titled(said=said, code=container.wait())


@case()
def user_defined_network(side: Side) -> str:
    """The engine's name server answers, for aliases too, also after a network is changed."""
    network, other = side.engine.name(), side.engine.name()
    docker("network", "create", network)
    docker("network", "create", other)
    try:
        options = ("--network", network, "--network-alias", "alias")
        container = side.start("bash", "-c", WAITS, options=options)
        container.wait_for_line("ready")
        same = "getent hosts alias | wc -l; cat /etc/resolv.conf; ls /sys/class/net | sort"
        before = container.run("bash", "-c", same).stdout
        docker("network", "connect", other, container.name)
        after = container.run("bash", "-c", same).stdout
        hosts = container.run("wc", "-l", "/etc/hosts").stdout
        docker("network", "disconnect", other, container.name)
        gone = container.run("bash", "-c", same).stdout
        container.remove()
    finally:
        docker("network", "rm", network, other, check=False)
    return titled(before=before, after=after, gone=gone, hosts=hosts)


SIGNALS = """
use Config; $| = 1;
my @names = split ' ', $Config{sig_name}; my @numbers = split ' ', $Config{sig_num};
for my $i (1 .. $#names) {
    my $number = $numbers[$i];
    next if $names[$i] =~ /^(KILL|STOP|NUM32|NUM33)$/;
    $SIG{$names[$i]} = sub { print "got $number\\n" };
}
print "ready\\n"; sleep 1 while 1;
"""


@case(everywhere=True)
def every_signal(side: Side) -> str:
    """Each signal that can be handled reaches the workload, in the order in which it is sent."""
    container = side.start("perl", "-e", SIGNALS)
    container.wait_for_line("ready")
    process = container.pid()
    sent = sorted({*range(1, 65)} - {signal.SIGKILL, signal.SIGSTOP, 32, 33})
    for count, number in enumerate(sent, 2):
        os.kill(process, number)
        deadline = time.monotonic() + LIMIT_S
        # Not `logs -f`, which shows some lines twice.
        while container.logs().count("\n") < count:
            assert time.monotonic() < deadline, container.logs()
    docker("kill", container.name)
    return titled(state=state(container), logs=container.logs())


@case()
def stopped_by_signal(side: Side) -> str:
    """SIGSTOP stops the workload, SIGCONT lets it go on."""
    script = "echo ready; while :; do echo x >>/root/ticks; sleep 0.01; done"
    container = side.start("bash", "-c", script)
    container.wait_for_line("ready")
    count = ("wc", "-l", "/root/ticks")
    # In mode ``lease``, nobody fills the program's files while the supervisor stands still.
    container.run(*count)
    docker("kill", "-s", "STOP", container.name)
    first = container.run(*count).stdout
    time.sleep(0.3)
    second = container.run(*count).stdout
    docker("kill", "-s", "CONT", container.name)
    return titled(stopped=first == second)


@case()
def killed_from_inside(side: Side) -> str:
    """What the workload sends to everybody, and waits for, is its own alone."""
    program = (
        "$| = 1; my $child = fork; if (!$child) { sleep 100 } kill KILL => -1; my $n = wait;"
        " print $n == $child ? qq(child\\n) : qq($n\\n); print wait(), qq(\\n); exit 8"
    )
    return side.run("perl", "-e", program)


@case()
def jobs_of_a_shell(side: Side) -> str:
    """Job control: stopped, continued, in a group and session of their own."""
    script = (
        "set -m; sleep 100 & kill -STOP %1; until jobs %1 | grep -q Stopped; do sleep 0.05; done;"
        " echo stopped; kill -CONT %1; until jobs %1 | grep -q Running; do sleep 0.05; done;"
        " echo running; kill %1; wait %1; echo $?"
    )
    return side.run("bash", "-c", script)


# What the engine looks at from outside.


def _changed(side: Side) -> Container:
    change = "echo new >/root/new; rm /probe/empty; echo x | tee -a /probe/script >>/probe/others"
    container = side.start("bash", "-c", f"{change}; {WAITS}")
    container.wait_for_line("ready")
    return container


@case(everywhere=True)
def copied_out(side: Side) -> str:
    """`docker cp` of a file that the workload made, and of one of the image."""
    container = _changed(side)
    made = docker("cp", f"{container.name}:/root/new", f"{side.directory}/new", check=False)
    image = docker("cp", f"{container.name}:/probe/garbage", f"{side.directory}/g", check=False)
    return titled(made=made.returncode, image=image.returncode)


@case()
def copied_in(side: Side) -> str:
    """`docker cp` into it."""
    container = _changed(side)
    (side.directory / "file").write_text("in\n")
    docker("cp", f"{side.directory}/file", f"{container.name}:/etc/in", check=False)
    return side.shown(container.run("cat", "/etc/in", check=False))


@case()
def copied_by_exec(side: Side) -> str:
    """What docs/differences.md says to do instead of `docker cp`, both ways."""
    container = _changed(side)
    packed = subprocess.run(
        ["docker", "exec", container.name, "tar", "-C", "/", "-c", "root/new", "probe/garbage"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    (side.directory / "packed.tar").write_bytes(packed)
    with tarfile.open(side.directory / "packed.tar") as tar:
        names = [(m.name, m.size, m.mode, m.uid) for m in tar]
    subprocess.run(
        ["docker", "exec", "-i", container.name, "tar", "-C", "/tmp", "-x"],
        input=packed, check=True,
    )  # fmt: skip
    return titled(names=names, unpacked=container.run("cat", "/tmp/root/new").stdout)


@case()
def changes(side: Side) -> str:
    """`docker diff` of what the workload wrote."""
    container = _changed(side)
    wanted = ("/root/new", "/probe/empty", "/probe/others", "/probe/script")
    lines = docker("diff", container.name).stdout.splitlines()
    return titled(changes="\n".join(sorted(line for line in lines if line[2:] in wanted)))


@case()
def exported(side: Side) -> str:
    """`docker export` of the root."""
    container = _changed(side)
    path = side.directory / "exported.tar"
    docker("export", "-o", str(path), container.name)
    with tarfile.open(path) as tar:
        names = tar.getnames()
    wanted = ("root/new", "probe/garbage", "usr/bin/bash", "etc/passwd")
    return titled(names="\n".join(name for name in wanted if name in names))


@case()
def committed(side: Side) -> str:
    """`docker commit`: the new image starts; what does it hold of what was written?"""
    container = _changed(side)
    image = side.engine.image_name()
    docker("commit", container.name, image)
    done = side.engine.run(
        image, "bash", "-c", "cat /root/new; ls /probe/empty /probe/garbage; echo end",
        options=side.options(),
    )  # fmt: skip
    return side.shown(done)


@case(everywhere=True)
def built_on(side: Side) -> str:
    """`docker build` on it: may it `RUN` something, and is there what it had copied in?"""
    base, context = side.image(), side.directory
    (context / "added").write_text("added\n")
    (context / "Dockerfile").write_text(f"FROM {base}\nCOPY added /etc/added\n")
    image = side.engine.image_name()
    docker("build", "-q", "-t", image, str(context))
    done = side.engine.run(image, "cat", "/etc/added", options=side.options())
    running = docker(
        *("build", "--force-rm", "-q", "-t", side.engine.image_name(), "-"),
        stdin=f"FROM {base}\nRUN true\n", check=False,
    )  # fmt: skip
    return side.shown(done) + titled(runs=running.returncode == 0)


@case()
def listed(side: Side) -> str:
    """What `docker ps` shows as the command."""
    container = side.start("sleep", "100")
    return side.docker(
        "ps", "--no-trunc", "--filter", f"name={container.name}", "--format", "{{.Command}}"
    )


@case()
def inspected(side: Side) -> str:
    """What the engine knows of the image beside its layers."""
    image = (
        'ENTRYPOINT ["static"]\nCMD ["x"]\nEXPOSE 80/tcp 53/udp\nLABEL one=1\nUSER worker\n'
        "WORKDIR /team\nVOLUME /content\nSTOPSIGNAL SIGQUIT\nHEALTHCHECK CMD true\nENV MORE=1"
    )
    names = (
        "Entrypoint", "Cmd", "ExposedPorts", "User", "WorkingDir", "Volumes", "StopSignal",
        "Healthcheck", "Env", "Labels",
    )  # fmt: skip
    lines = [
        f"{name} "
        + docker("image", "inspect", "-f", f"{{{{json .Config.{name}}}}}", side.image(image)).stdout
        for name in names
    ]
    return f"== config\n{''.join(lines)}"


@case(everywhere=True)
def whole_tree(side: Side) -> str:
    """Every name of the root, with kind, mode, owner, size, links and time."""
    script = (
        "find / -xdev ! -type d ! -path '/etc/host*' ! -path /etc/resolv.conf ! -path /etc/mtab"
        " ! -path /.dockerenv -printf '%y %m %U %G %s %n %Ts %p %l\\n' | sort -k8;"
        " find / -xdev -type d -printf '%y %m %U %G %p\\n' | sort -k5;"
        " find / -xdev -type f ! -path '/etc/h*' ! -path /etc/resolv.conf ! -path '/.bootfs/*'"
        " -exec sha256sum {} + | sort -k2 | sha256sum"
    )
    return side.run("bash", "-c", script)


@case(everywhere=True)
def file_operations(side: Side) -> str:
    """What is done to files of the image: renamed, linked, truncated, mapped, locked, listed."""
    script = r"""
    exec 2>&1
    cd /probe; say() { echo "$*:"; "$@" 2>&1; echo "-> $?"; }
    say mv /probe/hidden /probe/moved; say mv /team /team2; say mv /content/below /content/b2
    say ln script hard; say stat -c '%h' script hard; say cp -a script copy; say rm -r moved
    say truncate -s 5 garbage; say cat garbage; say chmod 600 garbage; say chown worker garbage
    say touch -d 2020-01-01 garbage; say stat -c '%a %U %s %Y' garbage; say mkdir -p a/b/c
    say rmdir a/b/c; say mkfifo fifo; say sh -c 'echo x >> /etc/passwd'; say tail -1 /etc/passwd
    say sh -c 'exec 3</probe/script; echo y >/probe/script; cat <&3'
    echo == direct; dd if=/probe/static of=/dev/null iflag=direct bs=4096 count=1 status=none
    echo == range; perl -e 'open F, "<", "/probe/static"; open G, ">", "/tmp/g";
        print syscall(326, fileno F, 0, fileno G, 0, 10, 0) < 0 ? "$!\n" : "done\n"'
    echo == flags; chattr +d /probe/static; lsattr /probe/nested
    echo == birth; stat -c %W /probe/static | sed 's/[1-9][0-9]*/known/'
    echo == extents; filefrag /probe/static | sed 's/:.*/: found/'
    echo == acl; perl -e 'my ($path, $name) = ("/probe/static", "system.posix_acl_access");
        my $list = pack("V(vvl)5", 2, 1, 6, -1, 2, 4, 12, 4, 4, -1, 16, 4, -1, 32, 4, -1);
        print syscall(188, $path, $name, $list, length $list, 0) < 0 ? "$!\n" : "done\n"'
    echo == output
    say flock -n /probe/script true; say flock -sn /probe/static true
    say setfattr -n user.x -v y /probe/static; say cp --reflink=always script copy2
    say perl -e 'opendir D, "/probe"; my @n = readdir D; print scalar(@n), "\n"'
    say ls -A /probe; say sync -f /probe; say df --output=fstype /
    say test -w /; say mv /opt/far/away/linked /opt/far/away/moved; say find /opt -samefile /opt/two
    say sh -c 'cd /tmp && mkdir d && cd d && rmdir ../d && pwd && ls'
    say rm /.dockerenv; say ls -A /
    """
    return side.run("bash", "-c", script)
