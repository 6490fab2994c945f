"""A day with the docker command line: what people do with containers, and what they see. And the same with `logd`."""

import json
import os
import re
import socket
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from command_lines import CommandLine, Terminal, soon


class Day:
    """Somebody at work: with one command line, in scripts and at a terminal."""

    def __init__(self, do: CommandLine, terminal: Terminal, desk: Path, busybox_tar: bytes) -> None:
        self.do = do
        self.terminal = terminal
        self.desk = desk
        self.busybox_tar = busybox_tar

    def at_terminal(self, text: str, answer: str) -> None:
        """Type a command at the terminal and see a line of what it answers."""
        self.terminal.ask(f"{self.do.name} {text}", answer)

    def sh(self, options: Sequence[str], script: str) -> list[str]:
        """Return the lines that a shell prints in a container that then goes."""
        return self.do.lines("run", "--rm", *options, "busybox", "sh", "-c", script)

    def field(self, name: str, template: str) -> str:
        return self.do("inspect", "-f", template, name).strip()

    def becomes(self, name: str, template: str, value: str) -> None:
        soon(lambda: self.field(name, template) == value, lambda: self.field(name, "{{json .State}}"))


@pytest.fixture(params=["docker", "logd"])
def day(request: pytest.FixtureRequest, daemon: Any, busybox_tar: bytes, tmp_path: Path) -> Iterator[Day]:
    do = CommandLine(request.param, daemon, tmp_path)
    desk = tmp_path / "desk"
    desk.mkdir()
    with closing(do), closing(Terminal(tmp_path, do.environment)) as terminal:
        terminal.leave()
        yield Day(do, terminal, desk, busybox_tar)


@pytest.mark.timeout(400)  # many steps, each of which may take its time on a loaded machine
def test_a_day_from_the_first_look_to_the_last_image(day: Day) -> None:
    morning(day)
    settings_of_a_process(day)
    limits(day)
    rights(day)
    devices_and_namespaces(day)
    files(day)
    at_the_terminal(day)
    a_service(day)
    networks(day)
    ends_and_restarts(day)
    what_is_refused(day)
    evening(day)


def morning(day: Day) -> None:
    """Who is there, and what has it? An image comes from an archive."""
    do = day.do
    assert do("version").count("0.1.0") >= 1
    assert json.loads(do("version", "--format", "{{json .Server}}"))["ApiVersion"] == "1.47"
    assert re.search(r"^ *Containers: +0$", do("info"), re.MULTILINE)
    assert do("info", "--format", "{{.OSType}}") == "linux\n"
    assert "nothing-like-it" in do.refused("run", "nothing-like-it")
    image = do("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=day.busybox_tar).strip()
    assert image.startswith("sha256:")
    assert do.lines("images", "--no-trunc", "-q") == [image]
    assert do("images", "--format", "{{.Repository}}:{{.Tag}}") == "busybox:latest\n"
    assert do("image", "inspect", "-f", "{{json .Config.Cmd}}", "busybox") == '["sh"]\n'
    do("tag", "busybox", "box:1.0")
    assert len(do.lines("image", "ls")) == 3
    assert do.lines("history", "-q", "box:1.0")
    assert do("run", "--rm", "-i", "busybox", "tr", "a-z", "A-Z", stdin=b"by a pipe") == "BY A PIPE"
    assert do.outcome("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
    assert do.outcome("run", "--rm", "busybox", "nothing")[0] == 127
    assert do.lines("ps", "-aq") == []


def settings_of_a_process(day: Day) -> None:
    """Environment, user, folder, names, and the files of names."""
    (day.desk / "env").write_text("# a comment\nFROM_FILE=file\n")
    options = [
        "-e", "GREETING=hello world", "--env-file", str(day.desk / "env"), "-u", "33:100", "--group-add", "77",
        "-w", "/var/tmp", "-h", "box", "--domainname", "example.org", "--add-host", "db:10.9.8.7",
        "--dns", "192.0.2.53", "--dns-search", "example.org", "--dns-option", "ndots:2", "-l", "team=shop",
        "--name", "settled", "--cidfile", str(day.desk / "cid"), "--stop-signal", "INT",
    ]  # fmt: skip
    script = (
        'echo "$GREETING $FROM_FILE"; id -u; id -G; pwd; hostname; cat /proc/sys/kernel/domainname; '
        "grep db /etc/hosts | tr '\\t' ' '; grep -v '^#' /etc/resolv.conf"
    )
    assert day.sh(options, script) == [
        *("hello world file", "33", "100 77", "/var/tmp", "box", "example.org", "10.9.8.7 db"),
        *("nameserver 192.0.2.53", "search example.org", "options ndots:2"),
    ]
    assert re.fullmatch("[0-9a-f]{64}", (day.desk / "cid").read_text())
    shown = day.do("run", "--rm", "--init", "--entrypoint", "cat", "busybox", "/proc/1/cmdline")
    assert "docker-init\0--\0cat\0/proc/1/cmdline\0" in shown


def limits(day: Day) -> None:
    """What a container may use."""
    options = [
        "-m", "64m", "--memory-reservation", "32m", "--memory-swap", "64m", "--cpus", "0.5", "-c", "512",
        "--cpuset-cpus", "0", "--pids-limit", "50", "--shm-size", "8m", "--ulimit", "nofile=100:200",
        "--ulimit", "core=0", "--sysctl", "net.core.somaxconn=99", "--oom-score-adj", "300", "--oom-kill-disable",
    ]  # fmt: skip
    script = """
        cd /sys/fs/cgroup
        cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes
        cat pids.max 2>/dev/null || cat pids/pids.max
        cut -d ' ' -f 1 cpu.max 2>/dev/null || cat cpu/cpu.cfs_quota_us
        nproc; ulimit -Sn; ulimit -Hn; ulimit -c
        cat /proc/sys/net/core/somaxconn /proc/self/oom_score_adj
        grep -o ' /dev/shm .*size=[^ ,]*' /proc/mounts | grep -o 'size=.*'
    """
    shown = day.sh(options, script)
    assert shown == [str(64 << 20), "50", "50000", "1", "100", "200", "0", "99", "300", "size=8192k"]


def rights(day: Day) -> None:
    """What it may do: little by default, less or all on request."""
    script = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | cut -f 2; touch /x || touch /tmp/x"
    strict = ["--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--security-opt", "no-new-privileges", "--read-only"]
    assert day.sh([*strict, "--tmpfs", "/tmp:size=1m"], script) == [f"{1 << 12:016x}", "1", "2"]
    assert day.sh(["--privileged"], script)[1:] == ["0", "0"]
    profile = day.desk / "seccomp.json"
    no_mkdir = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [no_mkdir]}))
    options = ["--security-opt", f"seccomp={profile}"]
    assert day.sh(options, "mkdir /here 2>&1; true") == [
        "mkdir: can't create directory '/here': Operation not permitted"
    ]


def devices_and_namespaces(day: Day) -> None:
    """The host's devices, namespaces and cgroups, as far as they are given."""
    options = ["--device", "/dev/null:/dev/nothing:rw", "--device-cgroup-rule", "c 42:* rwm"]
    script = "echo gone > /dev/nothing; stat -c %t:%T /dev/nothing; mknod /x c 42 1; cat /x 2>&1; true"
    assert day.sh(options, script) == ["1:3", "cat: can't open '/x': No such device or address"]
    kinds = ("ipc", "net", "pid", "uts")
    script = f"for kind in {' '.join(kinds)}; do readlink /proc/self/ns/$kind; done"
    own = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    shared = ["--ipc", "host", "--network", "host", "--pid", "host", "--uts", "host", "--userns", "host"]
    assert day.sh(shared, script) == own
    *private, link = day.sh(["--network", "none"], f"{script}; ls /sys/class/net")
    assert not set(private) & set(own)
    assert link == "lo"
    parent = f"logd-day-{os.getpid()}"
    placed = day.sh(["--cgroup-parent", f"/{parent}", "--cgroupns", "host"], "cat /proc/1/cgroup")
    assert any(f":/{parent}/" in line for line in placed), placed
    for folder in (*Path("/sys/fs/cgroup").glob(parent), *Path("/sys/fs/cgroup").glob(f"*/{parent}")):
        soon(lambda place=folder: not any(one.is_dir() for one in place.iterdir()), lambda: "a cgroup stays")
        folder.rmdir()


def files(day: Day) -> None:
    """Volumes, folders of the host, memory; and what another container has."""
    do = day.do
    assert do("volume", "create", "--label", "team=shop", "data") == "data\n"
    (day.desk / "note").write_text("of the host\n")
    options = [
        "-v", "data:/data", "-v", "/anonymous", "-v", f"{day.desk}:/host:ro", "--tmpfs", "/quick:size=1m",
        "--mount", f"type=bind,source={day.desk},target=/bound,readonly",
        "--mount", "type=volume,source=more,target=/more", "--mount", "type=tmpfs,target=/memory,tmpfs-size=2m",
    ]  # fmt: skip
    do("run", "-d", "--name", "store", *options, "busybox", "sleep", "900")
    script = "cat /host/note /bound/note; echo kept > /data/kept; touch /host/x || touch /bound/x || echo read-only"
    assert do.lines("exec", "store", "sh", "-c", script) == ["of the host", "of the host", "read-only"]
    assert do.lines("exec", "store", "sh", "-c", "grep -c -E ' /(quick|memory) tmpfs .*size=[12]' /proc/mounts") == [
        "2"
    ]
    assert day.sh(["--volumes-from", "store:ro"], "cat /data/kept; touch /data/x || ls -d /more /anonymous") == [
        *("kept", "/anonymous", "/more"),
    ]
    assert do("rm", "-f", "-v", "store") == "store\n"
    assert sorted(do.lines("volume", "ls", "-q")) == ["data", "more"]
    assert day.sh(["-v", "data:/data"], "cat /data/kept") == ["kept"]
    mountpoint = Path(do("volume", "inspect", "-f", "{{.Mountpoint}}", "data").strip())
    assert (mountpoint / "kept").read_text() == "kept\n"
    assert do("volume", "rm", "more") == "more\n"


def at_the_terminal(day: Day) -> None:
    """A shell in a container: used, left, resized, come back to, ended; others beside it."""
    do, terminal = day.do, day.terminal
    day.at_terminal("run -it --name shell busybox", "^/ # $|^/ #$")
    terminal.ask("tty; stty size; echo $((6*7))", "^42$")
    assert "/dev/pts/0\n40 120\n42\n" in terminal.screen()
    terminal.leave("C-p", "C-q")
    day.at_terminal("ps", r"shell *$")
    assert re.search(r'busybox +"sh" .* Up .*shell *$', terminal.screen(), re.MULTILINE)
    terminal.ask("stty -a", r"[^-]icanon.*[^-]echo ")  # it is this shell's again
    terminal.resize(100, 30)
    day.at_terminal("attach --detach-keys ctrl-e,e shell", "")
    terminal.press_until("Enter", "^/ #$")  # a shell does not repeat its prompt unasked
    terminal.ask("stty size", "^30 100$")
    terminal.leave("C-e", "e")
    day.at_terminal("exec -it -e WHO=exec shell sh", "^/ #$")
    terminal.ask("tty; echo $WHO $$", r"^/dev/pts/1\nexec ([2-9]|[1-9]\d+)$")
    terminal.ask("exit 5", "someone>")
    terminal.ask("echo code=$?", "^code=5$")
    day.at_terminal("attach shell", "")
    terminal.press_until("Enter", "^/ #$")  # a shell does not repeat its prompt unasked
    terminal.ask("exit 7", "someone>")
    terminal.ask("echo code=$?", "^code=7$")
    assert day.field("shell", "{{.State.Running}} {{.State.ExitCode}}") == "false 7"
    assert "\r\n42\r\n" in do("logs", "shell")
    day.at_terminal("start -ai shell", "^/ #$")
    terminal.ask("exit", "someone>")
    assert do("rm", "shell") == "shell\n"
    day.at_terminal("run --rm -it busybox sh -c 'echo ready; cat'", "^ready$")
    terminal.type("twice")
    terminal.see("^twice\ntwice$")
    terminal.leave("C-d")
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    day.at_terminal(f'run --rm busybox sh -c "{script}"', "^ready$")
    terminal.leave("C-c")
    assert "caught" in terminal.screen()
    terminal.ask("echo code=$?", "^code=9$")
    day.at_terminal(f'run --name deaf --sig-proxy=false busybox sh -c "{script}"', "^ready$")
    terminal.interrupt()
    assert day.field("deaf", "{{.State.Running}}") == "true"
    do("rm", "-f", "deaf")
    assert do.lines("ps", "-aq") == []


def a_service(day: Day) -> None:
    """A web server in the background: published, healthy, followed, measured, paused, changed."""
    do, terminal = day.do, day.terminal
    fixed, first = free_ports(2)
    serve = "cd /tmp; echo it works > index.html; echo serving; exec httpd -f -vv -p 80"
    options = [
        "-p", f"{fixed}:80", "-p", "127.0.0.1::80", "-p", "80",
        "-p", f"{first}-{first + 1}:90-91/udp", "--expose", "443",
        "--health-cmd", "wget -qO /dev/null 127.0.0.1", "--health-interval", "5s", "--health-retries", "9",
        "--health-start-interval", "100ms", "--health-start-period", "1m",
        "--restart", "unless-stopped", "--ipc", "shareable", "--log-opt", "max-size=1m", "--log-opt", "max-file=2",
    ]  # fmt: skip
    identity = do("run", "-d", "--name", "web", *options, "busybox", "sh", "-c", serve).strip()
    assert re.fullmatch("[0-9a-f]{64}", identity)
    day.becomes("web", "{{.State.Health.Status}}", "healthy")
    ports = do.lines("port", "web")
    assert f"80/tcp -> 0.0.0.0:{fixed}" in ports
    assert [f"90/udp -> 0.0.0.0:{first}", f"91/udp -> 0.0.0.0:{first + 1}"] == [one for one in ports if "udp" in one]
    places = [line.rpartition(" ")[2] for line in ports if line.startswith("80/tcp")]
    assert len(places) == 3
    assert {fetch(place) for place in places} == {"it works\n"}
    assert sorted(do.lines("port", "web", "80/tcp")) == sorted(places)
    (row,) = do.lines("ps", "--format", "{{.Names}}|{{.Status}}|{{.Ports}}")
    assert re.fullmatch(rf"web\|Up .* \(healthy\)\|.*0\.0\.0\.0:{fixed}->80/tcp.*", row), row
    assert do("exec", "web", "wget", "-qO-", "127.0.0.1") == "it works\n"
    do("exec", "-d", "-w", "/tmp", "-u", "33", "web", "sh", "-c", "id -u > made")
    soon(lambda: do.outcome("exec", "web", "cat", "/tmp/made")[1] == "33\n", lambda: "exec -d did nothing")
    processes = do.lines("top", "web") + do.lines("top", "web", "-o", "pid,args")
    assert sum("httpd -f -vv -p 80" in line for line in processes) == 2
    joined = [option for kind in ("ipc", "network", "pid") for option in (f"--{kind}", "container:web")]
    assert day.sh(joined, "wget -qO- 127.0.0.1; cat /proc/1/comm") == ["it works", "httpd"]
    assert do("logs", "--tail", "all", "web").startswith("serving\n")
    assert re.fullmatch(r"20\S+Z serving\n", do("logs", "-t", "--since", "1h", "web"))
    day.at_terminal("logs -f --tail 0 web", "")
    soon(lambda: fetch(places[0]) and "response:200" in terminal.screen(), terminal.screen)
    terminal.interrupt()
    terminal.type(f"{do.name} stats web")
    terminal.see(r"web +\d+\.\d+% +\S*iB / ")
    terminal.interrupt()
    if do.name == "logd":
        terminal.type("logd top")
        terminal.see(r"web +\d")
        terminal.leave("q")
    assert do("pause", "web") == "web\n"
    assert do("ps", "--filter", "status=paused", "--format", "{{.Status}}").endswith("(Paused)\n")
    assert do("unpause", "web") == "web\n"
    assert do("rename", "web", "shop") == ""
    assert do("update", "-m", "48m", "--memory-swap", "48m", "shop") == "shop\n"
    assert day.field("shop", "{{.HostConfig.Memory}}") == str(48 << 20)
    assert "A /tmp/index.html" in do.lines("diff", "shop")
    do("cp", "shop:/tmp/index.html", str(day.desk / "page"))
    assert (day.desk / "page").read_text() == "it works\n"
    do("commit", "-c", 'CMD ["cat", "/tmp/index.html"]', "shop", "page:1.0")
    assert do("run", "--rm", "page:1.0") == "it works\n"
    assert do("kill", "shop") == "shop\n"
    assert do("wait", "shop") == "137\n"
    assert do("start", "shop") == "shop\n"
    soon(lambda: do("logs", "shop").count("serving\n") == 2, lambda: do("logs", "shop"))
    assert do("restart", "-t", "0", "shop") == "shop\n"
    soon(lambda: do("logs", "shop").count("serving\n") == 3, lambda: do("logs", "shop"))
    window = ["--since", "1h", "--until", str(time.time()), "--filter", f"container={identity}"]
    happened = do.lines("events", *window, "--format", "{{.Action}}")
    assert [one for one in happened if one in {"rename", "update", "commit", "restart"}] == [
        *("rename", "update", "commit", "restart"),
    ]


def networks(day: Day) -> None:
    """Containers that find each other by name, where they shall."""
    do = day.do
    do("network", "create", "--label", "team=shop", "front")
    do("network", "create", "--internal", "back")
    serve = ["busybox", "sh", "-c", "cd /tmp; hostname > index.html; exec httpd -f -p 80"]
    do("run", "-d", "--name", "db", "-h", "db", "--network", "back", "--network-alias", "store", *serve)
    do("run", "-d", "--name", "app", "-h", "app", "--network", "front", "-P", "--expose", "80", *serve)
    ask = "wget -qO-"
    assert "bad address" in do.refused("exec", "app", "wget", "-qO-", "db")
    do("network", "connect", "--alias", "backend", "back", "app")
    patiently = "for try in $(seq 300); do {0} 2>/dev/null && break; sleep 0.1; done"
    script = f"{patiently.format(f'{ask} db')}; {ask} store"
    assert do.lines("exec", "app", "sh", "-c", script) == ["db", "db"]
    assert do("exec", "db", "sh", "-c", patiently.format(f"{ask} backend")) == "app\n"
    assert "default" not in do("exec", "db", "ip", "route")
    address = str(ip_address(day.field("app", "{{.NetworkSettings.Networks.front.IPAddress}}")) + 7)
    script = f"{ask} app; ip -4 addr show eth0 | grep -c {address}"
    assert day.sh(["--network", "front", "--ip", address], script) == ["app", "1"]
    assert fetch(do.lines("port", "app", "80")[0]) == "app\n"
    do("network", "disconnect", "back", "app")
    assert sorted(do.lines("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")) == ["back", "front"]
    assert "active endpoints" in do.refused("network", "rm", "front")
    do("rm", "-f", "app", "db")
    assert do.lines("network", "rm", "front", "back") == ["front", "back"]


def ends_and_restarts(day: Day) -> None:
    """How containers end, begin again, and what is kept of them."""
    do = day.do
    do("create", "--name", "job", "--log-driver", "json-file", "busybox", "sh", "-c", "echo done; exit 4")
    assert do("start", "job") == "job\n"
    assert do("wait", "job") == "4\n"
    assert do("logs", "job") == "done\n"
    do("run", "-d", "--name", "stubborn", "--restart", "on-failure:2", "busybox", "false")
    day.becomes("stubborn", "{{.RestartCount}} {{.State.Status}}", "2 exited")
    assert do("run", "--name", "quiet", "--log-driver", "none", "busybox", "echo", "seen once") == "seen once\n"
    assert "does not support reading" in do.refused("logs", "quiet")
    assert do("run", "-a", "stderr", "--name", "half", "busybox", "sh", "-c", "echo out; echo err >&2") == ""
    assert do("logs", "half") == "out\n"
    do("export", "-o", str(day.desk / "root.tar"), "half")
    assert do("import", str(day.desk / "root.tar"), "flat").startswith("sha256:")
    assert sorted(do.lines("ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}")) == [
        *("half", "job", "quiet", "stubborn"),
    ]


def what_is_refused(day: Day) -> None:
    """What can't be had is refused by name."""
    for options, words in (
        (["--gpus", "all"], "gpus"),
        (["--link", "shop"], "link"),
        (["--memory", "1m"], "Minimum memory limit allowed is 6MB"),
        (["--name", "shop"], 'The container name "/shop" is already in use'),
        (["--cap-add", "FLY"], "FLY"),
        (["--network", "nowhere"], "nowhere not found"),
    ):
        assert words in day.do.refused("run", "--rm", *options, "busybox", "true")


def evening(day: Day) -> None:
    """Everything stops, and goes."""
    do = day.do
    df = do("system", "df")
    assert re.search(r"^Containers +5 +1 ", df, re.MULTILINE), df
    running = do.lines("ps", "-q")
    assert do.lines("stop", "-t", "1", *running) == running
    assert do.lines("ps", "-q") == []
    assert "Total reclaimed space" in do("container", "prune", "-f", "--filter", "label=nobody-has-it")
    everyone = do.lines("ps", "-a", "-q")
    assert len(everyone) == 5
    assert do.lines("rm", *everyone) == everyone
    assert do.lines("ps", "-a", "-q") == []
    images = do.lines("images", "-q")
    assert "Deleted: sha256:" in do("rmi", "-f", *dict.fromkeys(images))  # what was made last goes first
    assert do.lines("images", "-q") == []
    assert "data" in do("system", "prune", "-f", "-a", "--volumes") + do("volume", "prune", "-f", "-a")
    assert do.lines("volume", "ls", "-q") == []


def free_ports(count: int) -> tuple[int, ...]:
    """Return so many ports of the host that are free, each with the next one."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket(type=socket.SOCK_DGRAM) as two:
            one.bind(("0.0.0.0", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("0.0.0.0", port + 1))
            except (OSError, OverflowError):
                continue
            found.append(port)
    return tuple(found)


def fetch(place: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{place.replace('0.0.0.0', '127.0.0.1')}/", timeout=30) as answer:
        return str(answer.read().decode())
