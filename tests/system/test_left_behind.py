"""What hundreds of containers of every kind leave on a host: nothing, also when the daemon is killed among them."""

import asyncio
import contextlib
import io
import os
import pprint
import random
import re
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from logd.network.nft import table_name

WAIT_S = 80.0
STEADY = 10
"""So many looks in turn show the same."""
AT_ONCE = 6
"""Lives that go on at the same time."""
GROWN_KB = 8 << 10
"""Of the daemon's memory, over so many containers: it remembers removed ones for some minutes, 25 kB each."""
HELPER_GROWN_KB = 512
SLEEP = ["sleep", "600"]
MANY = 200
Container = dict[str, Any]
NETWORKS: dict[str, dict[str, Any]] = {"plain": {}, "six": {"EnableIPv6": True}, "inner": {"Internal": True}}
LIVES: list[dict[str, Any]] = [
    {"host": {"NetworkMode": "none"}},
    {"host": {"NetworkMode": "bridge", "PublishAllPorts": True}, "ports": ["80/tcp", "53/udp"]},
    {"host": {"NetworkMode": "plain", "PortBindings": {"80/tcp": [{"HostPort": ""}, {"HostIp": "127.0.0.1"}]}}},
    {"host": {"NetworkMode": "six", "PortBindings": {"80/tcp": [{"HostPort": ""}]}}, "connect": "plain"},
    {"host": {"NetworkMode": "inner", "Tmpfs": {"/scratch": ""}, "ShmSize": 1 << 20}, "connect": "bridge"},
    {"host": {"NetworkMode": "host", "Binds": ["kept:/kept"]}, "volumes": ["/anonymous", "/etc"]},
    {"host": {"NetworkMode": "bridge"}, "tty": True, "exec": ["sleep", "600"]},
    {"host": {"NetworkMode": "plain", "Init": True}, "exec": ["sh", "-c", "yes | head -c 3000000"], "attach": True},
    {"host": {"NetworkMode": "none", "AutoRemove": True}, "command": ["sh", "-c", "echo done"], "volumes": ["/a"]},
    {"host": {"NetworkMode": "bridge", "RestartPolicy": {"Name": "always"}}, "command": ["sh", "-c", "sleep 0.2"]},
    {"host": {"NetworkMode": "plain", "LogConfig": {"Type": "json-file"}}, "copy": True, "volumes": ["/data"]},
    {"host": {"NetworkMode": "none", "Memory": 64 << 20, "PidsLimit": 50, "IpcMode": "shareable"}, "paused": True},
    {"host": {"NetworkMode": "plain"}, "health": True, "commit": True},
    {"host": {"NetworkMode": "bridge"}, "command": ["/no/such/program"]},
]
"""What is particular about a container, in turn."""


class Away(Exception):
    """The daemon was killed over a request, or is not back yet."""


class World:
    """A daemon, its API, and what is there of it on the host."""

    def __init__(self, daemon: Any) -> None:
        self.daemon = daemon
        self.ids: set[str] = set()
        self.daemon_counts = True
        """Whether the daemon's own descriptors are looked at."""
        self.prepared = False
        self.lost = 0
        """Requests that the daemon was killed over."""
        self._session: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator["World"]:
        connector = aiohttp.UnixConnector(str(self.daemon.socket), force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
            self._session = session
            yield self

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of an answer, or its text. Raises Away, and AssertionError for an answer with status 500."""
        assert self._session is not None
        try:
            async with self._session.request(method, f"http://logd{path}", **options) as answer:
                text = await answer.read()
                assert answer.status < 500 or b"/no/such/program" in text, f"{method} {path}: {text.decode()}"
                if answer.content_type == "application/json" and text:
                    return await answer.json(content_type=None)
                return text
        except (aiohttp.ClientError, ConnectionError) as error:
            self.lost += 1
            raise Away from error

    async def insist(self, method: str, path: str, **options: Any) -> Any:
        """Ask until there is a daemon that answers."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                return await self.ask(method, path, **options)
            except Away:
                assert time.monotonic() < deadline, self.daemon.log()
                await asyncio.sleep(0.05)

    # -- a life ----------------------------------------------------------------------------------------------------

    async def live(self, number: int, kind: dict[str, Any]) -> None:
        """Make a container, start it, do what there is to do with it, remove it. A killed daemon ends the middle."""
        name = f"life-{number}"
        body = {
            "Image": "busybox",
            "Cmd": kind.get("command", SLEEP),
            "Tty": kind.get("tty", False),
            "OpenStdin": bool(kind.get("attach")),
            "ExposedPorts": {port: {} for port in kind.get("ports", ["80/tcp"])},
            "Volumes": {volume: {} for volume in kind.get("volumes", [])},
            "HostConfig": kind["host"],
        }
        if kind.get("health"):
            body["Healthcheck"] = {"Test": ["CMD", "true"], "Interval": 50_000_000}
        try:
            await self._middle(name, kind, body)
        except* Away:
            pass
        await self.insist("DELETE", f"/containers/{name}?force=1&v=1")

    async def _middle(self, name: str, kind: dict[str, Any], body: dict[str, Any]) -> None:
        made = await self.ask("POST", f"/containers/create?name={name}", json=body)
        self.ids.add(made["Id"])
        async with asyncio.TaskGroup() as group:
            if kind.get("attach"):
                group.create_task(self._attach(name))
            await self.ask("POST", f"/containers/{name}/start")
            if network := kind.get("connect"):
                await self.ask("POST", f"/networks/{network}/connect", json={"Container": name})
                await self.ask("POST", f"/networks/{network}/disconnect", json={"Container": name})
            if command := kind.get("exec"):
                fields = {"Cmd": command, "AttachStdout": True, "Tty": kind.get("tty", False)}
                found = await self.ask("POST", f"/containers/{name}/exec", json=fields)
                await self.ask("POST", f"/exec/{found['Id']}/start", json={"Detach": True, "Tty": fields["Tty"]})
            if kind.get("copy"):
                path = f"/containers/{name}/archive?path=/data"
                group.create_task(self.ask("PUT", path, data=archive(20, 50_000)))
                await self.ask("GET", f"/containers/{name}/archive?path=/bin")
            if kind.get("commit"):
                await self.ask("POST", f"/commit?container={name}&repo=made-{name}")
            if kind.get("paused"):
                await self.ask("POST", f"/containers/{name}/pause")
            await self.ask("GET", f"/containers/{name}/stats?stream=0&one-shot=1")
        if random.random() < 0.3:
            await self.ask("POST", f"/containers/{name}/stop?t=0")

    async def _attach(self, name: str) -> None:
        with contextlib.suppress(OSError):  # cut when the container is removed, or with the daemon
            reader, writer = await asyncio.open_unix_connection(str(self.daemon.socket))
            path = f"/containers/{name}/attach?stream=1&stdin=1&stdout=1"
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
            writer.write(head.encode())
            await reader.read(65536)
            writer.close()

    async def lives(self, count: int) -> None:
        """Have so many containers, of each kind in turn."""
        numbers = iter(range(count))

        async def one_after_another() -> None:
            for number in numbers:
                await self.live(number, LIVES[number % len(LIVES)])

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_another())

    async def clear(self) -> None:
        """Remove the images that were committed, and prune what nobody has."""
        for image in await self.insist("GET", "/images/json"):
            for tag in image["RepoTags"] or []:
                if tag.startswith("made-"):
                    await self.insist("DELETE", f"/images/{tag}")
        for what in ("containers", "volumes", "images"):
            await self.insist("POST", f"/{what}/prune")

    # -- what there is ---------------------------------------------------------------------------------------------

    def helpers(self) -> dict[str, list[int]]:
        """Return the pids of what is ours by the names of the processes, the daemon's own too."""
        found: dict[str, list[int]] = {"daemon": [self.daemon.process.pid]}
        for pid in self.daemon.processes():
            if pid != self.daemon.process.pid:
                with contextlib.suppress(OSError):
                    found.setdefault(Path(f"/proc/{pid}/comm").read_text().strip(), []).append(pid)
        return found

    def left(self) -> dict[str, Any]:
        """Return all there is of the daemon on this host, by kind; what differs before and after is left behind."""
        helpers = self.helpers()
        mounted = {kind: sorted(mount for pid in pids for mount in self._mounts(pid)) for kind, pids in helpers.items()}
        return {
            "processes": Counter({kind: len(pids) for kind, pids in helpers.items()}),
            "mounts": mounted,
            "descriptors": {
                kind: sum((descriptors(pid) for pid in pids), Counter())
                for kind, pids in helpers.items()
                if self.daemon_counts or kind != "daemon"
            },
            "links": [*self.daemon.bridges(), *orphans()],
            "rules": [table for table in tables() if table == table_name(self.daemon.exec_root)],
            "cgroups": [str(folder) for folder in cgroups() if folder.name in self.ids],
            "files": sorted(self._files()),
        }

    def _mounts(self, pid: int) -> list[str]:
        try:
            lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        except OSError:  # it has ended
            return []
        return [line.split()[4] for line in lines if str(self.daemon.folder) in line]

    def _files(self) -> Iterator[str]:
        for root in (self.daemon.data_root, self.daemon.exec_root):
            for folder, folders, names in os.walk(root):
                yield from (os.path.join(folder, name) for name in (*folders, *names))

    def memory_kb(self) -> dict[str, int]:
        """Return how much of each process is its own, in kB."""
        found = {}
        for kind, pids in self.helpers().items():
            rolled = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
            found[kind] = sum(int(one) for text in rolled for one in re.findall(r"^Private_\w+: +(\d+)", text, re.M))
        return found


def archive(count: int, size: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for number in range(count):
            member = tarfile.TarInfo(f"file-{number}")
            member.size = size
            made.addfile(member, io.BytesIO(bytes(size)))
    return file.getvalue()


def descriptors(pid: int) -> "Counter[str]":
    """Return how many descriptors of each kind a process has."""
    found: Counter[str] = Counter()
    with contextlib.suppress(OSError):  # it has ended, or a descriptor was closed
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[re.sub(r"[0-9]+", "#", os.readlink(entry.path))] += 1
    return found


def orphans() -> list[str]:
    """Return the host's ends of pairs that are in no bridge: nobody's any more, of whichever daemon."""
    return [link.name for link in Path("/sys/class/net").glob("ve-*") if not (link / "master").exists()]


def tables() -> list[str]:
    listed = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    return [line.split()[-1] for line in listed.splitlines()]


def cgroups() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [*root.glob("logd/*"), *root.glob("*/logd/*")]


async def steady(world: World) -> dict[str, Any]:
    """Return what there is once nothing changes any more."""
    seen: list[dict[str, Any]] = []
    deadline = time.monotonic() + WAIT_S
    while len(seen) < STEADY or seen[-STEADY:].count(seen[-1]) < STEADY:
        assert time.monotonic() < deadline, difference(seen[-2], seen[-1])
        seen.append(await asyncio.to_thread(world.left))
        await asyncio.sleep(0.05)
    return seen[-1]


async def settled(world: World, before: dict[str, Any]) -> None:
    """Wait until there is no more of the daemon on this host than there was before."""
    deadline = time.monotonic() + WAIT_S
    while (now := await asyncio.to_thread(world.left)) != before:
        assert time.monotonic() < deadline, f"{difference(before, now)}\n{world.daemon.log()[-5000:]}"
        await asyncio.sleep(0.05)


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return what was there only before and what is there only now."""
    lines = [set(pprint.pformat(one, width=200).splitlines()) for one in (before, now)]
    return "\n".join([*(f"- {one}" for one in lines[0] - lines[1]), *(f"+ {one}" for one in lines[1] - lines[0])])


async def killed_and_started(daemon: Any) -> None:
    daemon.kill()
    await asyncio.to_thread(daemon.start)


async def killing(world: World, times: int, most_s: float) -> None:
    """Kill the daemon and start the next one, at moments that nobody knows."""
    for _ in range(times):
        await asyncio.sleep(random.uniform(0.05, most_s))
        await killed_and_started(world.daemon)


async def rounds(world: World, count: int, kills: int, most_s: float) -> None:
    """Have containers, and a daemon that is killed among them."""
    async with asyncio.TaskGroup() as group:
        group.create_task(world.lives(count))
        if kills:
            group.create_task(killing(world, kills, most_s))
    await world.clear()


@pytest.fixture(scope="module")
def world(shared_busybox: Any) -> World:
    return World(shared_busybox)


async def prepared(world: World) -> None:
    """Have networks and a volume that stay, and everything once, so that what is made at first use is there."""
    if world.prepared:
        return
    world.prepared = True
    for name, options in NETWORKS.items():
        await world.ask("POST", "/networks/create", json={"Name": name, **options})
    await world.ask("POST", "/volumes/create", json={"Name": "kept"})
    await world.lives(len(LIVES))
    await world.clear()


@pytest.mark.parametrize("count", [14, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
async def test_containers_of_every_kind_leave_nothing_behind(world: World, count: int) -> None:
    async with world.connected():
        await prepared(world)
        before, memory = await steady(world), world.memory_kb()
        await rounds(world, count, 0, 0)
        await settled(world, before)
        if count < MANY:
            return
        memory = world.memory_kb()
        await rounds(world, count, 0, 0)
        await settled(world, before)
        grown = {kind: kb - memory[kind] for kind, kb in world.memory_kb().items()}
        print("grown by kB", grown, "of", memory)
        assert grown.pop("daemon") < GROWN_KB, memory
        assert max(grown.values()) < HELPER_GROWN_KB, memory


@pytest.mark.parametrize(
    ("count", "kills"), [(8, 1), pytest.param(MANY, 25, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
async def test_nor_do_they_though_the_daemon_is_killed_among_them(world: World, count: int, kills: int) -> None:
    async with world.connected():
        await prepared(world)
        if count == MANY:  # else the descriptors of the daemon itself, of which there are two then, are not looked at
            await killed_and_started(world.daemon)
        before = await steady(world)
        await rounds(world, count, kills, most_s=2.0 if count == MANY else 0.5)
        assert world.lost > 0
        if count == MANY:
            await killed_and_started(world.daemon)
        else:
            world.daemon_counts = False
            before["descriptors"].pop("daemon")
        await settled(world, before)
