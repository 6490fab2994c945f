"""Networks by the unmodified docker command line, on a real daemon with real bridges."""

import contextlib
import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

WAIT_S = 30.0
TIMED = 'engine_daemon_network_actions_seconds_count{action="%s"} ([0-9.]+)'
DEFAULT, HOST = "bridge", "host"


def wait_for(condition, what="the condition"):
    """Return what the condition returns once that is true; fail after WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)
    return result


def metrics_of(daemon):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(WAIT_S)
        connection.connect(str(daemon.socket))
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


class World:
    """A daemon, what was made on it, and looks at it."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.docker = daemon.docker
        self._made = []
        self._base = int(re.search(r"10\.213\.(\d+)\.", daemon.config_file.read_text())[1])

    def subnet(self, number):
        """Return one of eight subnets beside the daemon's pool (10.213.X.0/24), which are this daemon's too."""
        return f"10.{220 + number}.{self._base}"

    def network(self, name, *options):
        self._made.append(("network", "rm", name))
        return self.docker("network", "create", *options, name).stdout.strip()

    def run(self, name, *arguments, image="busybox", command=("sleep", "600")):
        self._made.append(("rm", "-f", "-v", name))
        return self.docker("run", "-d", "--name", name, *arguments, image, *command).stdout.strip()

    def sh(self, *arguments, check=True):
        """Run a script in a container of its own: options, then the script."""
        done = self.docker("run", "--rm", *arguments[:-1], "busybox", "sh", "-c", arguments[-1], check=check)
        return done.stdout

    def beside(self, name, script, check=True):
        """Run a script in another container's network."""
        return self.sh("--network", f"container:{name}", script, check=check)

    def endpoint(self, name, network=DEFAULT):
        shown = json.loads(self.docker("inspect", name).stdout)[0]
        return shown["NetworkSettings"]["Networks"][network]

    def links(self):
        """Return our bridges of the host and what is in them."""
        found = {}
        for bridge in self.daemon.bridges():
            with contextlib.suppress(OSError):  # it goes just now
                found[bridge] = sorted(port.name for port in Path(f"/sys/class/net/{bridge}/brif").iterdir())
        return found

    def bridge_numbers(self):
        found = {}
        for bridge in self.daemon.bridges():
            with contextlib.suppress(OSError):  # it goes just now
                found[bridge] = socket.if_nametoindex(bridge)
        return found

    def namespaces(self):
        return sorted(one.name for one in (self.daemon.exec_root / "netns").iterdir())

    def close(self):
        for command in reversed(self._made):
            self.docker(*command, check=False)


@pytest.fixture
def world(shared_busybox):
    made = World(shared_busybox)
    yield made
    made.close()


def refused(done):
    assert done.returncode != 0
    return done.stderr


def test_two_containers_on_the_default_bridge_reach_each_other(world):
    world.run("one")
    address = world.endpoint("one")["IPAddress"]
    shown = world.sh(f"ping -c1 -W5 {address}; ip route; cat /etc/hosts; hostname")
    assert "1 packets received" in shown
    assert f"default via {world.endpoint('one')['Gateway']} dev eth0" in shown
    own = shown.splitlines()[-1]
    assert re.search(rf"^198\.1[89]\.\d+\.\d+\t{own}$", shown, re.MULTILINE)


def test_a_bridge_is_there_from_its_first_container_to_its_last(world):
    wait_for(lambda: not world.links(), "the end of the bridges of other tests")
    world.run("first")
    (bridge,) = world.links()
    world.run("second")
    assert len(world.links()[bridge]) == 2
    world.docker("rm", "-f", "first")
    wait_for(lambda: len(world.links()[bridge]) == 1)
    world.docker("rm", "-f", "second")
    wait_for(lambda: not world.links())
    wait_for(lambda: not world.namespaces())


def test_the_next_container_finds_the_bridge_of_the_last_one(world):
    """Scripts run one container after the other; on a slow machine it may take them too long, now and then."""

    def found_in_place():
        world.sh("true")
        before = world.bridge_numbers()
        world.sh("true")
        return before and world.bridge_numbers() == before

    wait_for(found_in_place)
    wait_for(lambda: not world.links())


def test_a_daemon_that_ends_leaves_no_bridge_that_nobody_is_in(world):
    wait_for(lambda: not world.links(), "the end of the bridges of other tests")
    world.run("left")
    (bridge,) = world.links()
    world.run("staying", "--network", "none")
    world.docker("rm", "-f", "left")
    world.daemon.stop()
    try:
        assert not Path("/sys/class/net", bridge).exists()
    finally:
        world.daemon.start()
    world.docker("rm", "-f", "staying")


def test_none_and_host_are_what_they_are_called(world):
    assert "eth0" not in world.sh("--network", "none", "ip link")
    inside = world.sh("--network", "host", "ls /sys/class/net | sort; hostname")
    assert set(inside.split()) >= {"lo", Path("/proc/sys/kernel/hostname").read_text().strip()}
    assert "Destination" not in world.sh("--network", "none", "ip route")


def test_a_network_has_the_addresses_that_were_asked_for(world):
    base = world.subnet(1)
    world.network(
        *("asked", "--subnet", f"{base}.0/24", "--ip-range", f"{base}.128/25", "--gateway", f"{base}.9"),
        *("--aux-address", f"printer={base}.128", "--label", "of=tests", "--opt", "com.docker.network.driver.mtu=1400"),
    )
    shown = json.loads(world.docker("network", "inspect", "asked").stdout)[0]
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": f"{base}.0/24",
            "IPRange": f"{base}.128/25",
            "Gateway": f"{base}.9",
            "AuxiliaryAddresses": {"printer": f"{base}.128"},
        }
    ]
    world.run("lowest", "--network", "asked")
    world.run(
        *("fixed", "--network", "asked", "--ip", f"{base}.77", "--mac-address", "02:00:00:00:00:07"),
        *("--network-alias", "db"),
    )
    assert world.endpoint("lowest", "asked")["IPAddress"] == f"{base}.129"
    fixed = world.endpoint("fixed", "asked")
    assert (fixed["IPAddress"], fixed["MacAddress"], fixed["Aliases"]) == (f"{base}.77", "02:00:00:00:00:07", ["db"])
    assert fixed["IPAMConfig"] == {"IPv4Address": f"{base}.77"}
    assert fixed["DNSNames"][:2] == ["fixed", "db"]
    inside = world.beside("fixed", "ip address show eth0; ip route; cat /etc/resolv.conf")
    for words in (f"{base}.77/24", "02:00:00:00:00:07", "mtu 1400", f"default via {base}.9", "nameserver 127.0.0.11"):
        assert words in inside
    members = json.loads(world.docker("network", "inspect", "asked").stdout)[0]["Containers"]
    assert {one["Name"]: one["IPv4Address"] for one in members.values()} == {
        "lowest": f"{base}.129/24",
        "fixed": f"{base}.77/24",
    }
    taken = world.docker("run", "--rm", "--network", "asked", "--ip", f"{base}.77", "busybox", "true", check=False)
    assert "Address already in use" in refused(taken)
    outside = world.docker("run", "--rm", "--network", "asked", "--ip", "10.1.1.1", "busybox", "true", check=False)
    assert "no configured subnet contains IP address 10.1.1.1" in refused(outside)


def test_an_address_that_was_asked_for_is_kept_while_its_container_does_not_run(world):
    base = world.subnet(2)
    world.network("kept", "--subnet", f"{base}.0/29")
    world.run("owner", "--network", "kept", "--ip", f"{base}.2")
    world.docker("stop", "-t", "0", "owner")
    world.run("other", "--network", "kept")
    assert world.endpoint("other", "kept")["IPAddress"] == f"{base}.3"
    assert world.endpoint("owner", "kept")["IPAddress"] == ""
    world.docker("start", "owner")
    assert world.endpoint("owner", "kept")["IPAddress"] == f"{base}.2"


def test_ipv6_addresses_are_real_ones(world):
    world.network("six", "--ipv6", "--subnet", "fd77:213:6::/64")
    world.run("sixth", "--network", "six")
    endpoint = world.endpoint("sixth", "six")
    assert (endpoint["GlobalIPv6Address"], endpoint["GlobalIPv6PrefixLen"]) == ("fd77:213:6::2", 64)
    assert endpoint["IPv6Gateway"] == "fd77:213:6::1"
    shown = world.sh("--network", "six", "ping -6 -c1 -W5 fd77:213:6::2; ping -6 -c1 -W5 fd77:213:6::1; ip -6 route")
    assert shown.count("1 packets received") == 2
    assert "default via fd77:213:6::1" in shown


def test_an_internal_network_has_no_way_out(world):
    world.network("inner", "--internal")
    world.run("hermit", "--network", "inner")
    address = world.endpoint("hermit", "inner")["IPAddress"]
    shown = world.sh("--network", "inner", f"ping -c1 -W5 {address}; ip route; ping -c1 -W1 192.0.2.1; true")
    assert "1 packets received" in shown
    assert "default" not in shown
    assert world.endpoint("hermit", "inner")["Gateway"] == ""


def test_a_running_container_is_connected_and_disconnected(world):
    world.network("later", "--subnet", f"{world.subnet(3)}.0/24")
    world.run("lively")
    world.docker("network", "connect", "--ip", f"{world.subnet(3)}.44", "--alias", "also", "later", "lively")
    inside = world.beside("lively", "ip address; ip route; cat /etc/hosts")
    assert f"{world.subnet(3)}.44/24" in inside
    assert re.search(r"eth1.*", inside)
    assert f"default via {world.endpoint('lively')['Gateway']} dev eth0" in inside
    assert re.search(rf"^{world.subnet(3)}.44\t", inside, re.MULTILINE)
    assert "nameserver 127.0.0.11" in world.beside("lively", "cat /etc/resolv.conf")
    again = world.docker("network", "connect", "later", "lively", check=False)
    assert "endpoint with name lively already exists in network later" in refused(again)
    assert "has active endpoints" in refused(world.docker("network", "rm", "later", check=False))

    world.docker("network", "disconnect", DEFAULT, "lively")
    inside = world.beside("lively", "ip address; ip route; cat /etc/hosts")
    assert "eth0" not in inside
    assert f"default via {world.subnet(3)}.1 dev eth1" in inside
    assert len(re.findall(r"^10\.", inside, re.MULTILINE)) == 2  # a route and a line of hosts
    world.docker("network", "disconnect", "later", "lively")
    assert "eth1" not in world.beside("lively", "ip link")
    absent = world.docker("network", "disconnect", "later", "lively", check=False)
    assert "is not connected to network later" in refused(absent)
    world.docker("restart", "-t", "0", "lively")
    assert json.loads(world.docker("inspect", "lively").stdout)[0]["NetworkSettings"]["Networks"] == {}
    world.docker("network", "connect", "later", "lively")
    assert f"{world.subnet(3)}.2/24" in world.docker("exec", "lively", "ip", "address", "show", "eth0").stdout


def test_a_container_may_be_in_several_networks_from_the_start(world):
    world.network("zeta", "--subnet", f"{world.subnet(4)}.0/24")
    world.network("alpha", "--subnet", f"{world.subnet(5)}.0/24")
    shown = world.sh("--network", "zeta", "--network", "alpha", "ip -4 address; ip route")
    assert shown.index(f"{world.subnet(4)}.2") < shown.index(f"{world.subnet(5)}.2")
    assert f"default via {world.subnet(5)}.1 dev eth1" in shown  # by the network's name


def test_a_stopped_container_is_connected_at_its_next_start(world):
    world.network("waiting")
    world.run("sleeper")
    world.docker("stop", "-t", "0", "sleeper")
    world.docker("network", "connect", "waiting", "sleeper")
    assert world.endpoint("sleeper", "waiting")["IPAddress"] == ""
    world.docker("start", "sleeper")
    assert world.endpoint("sleeper", "waiting")["IPAddress"]
    assert "eth1" in world.beside("sleeper", "ip link")
    assert world.endpoint("sleeper", "waiting")["Aliases"] is None
    older = {**world.daemon.environment, "DOCKER_API_VERSION": "1.44"}
    command = ["docker", "inspect", "sleeper"]
    shown = subprocess.run(command, check=True, env=older, capture_output=True, text=True, timeout=60).stdout
    (inspected,) = json.loads(shown)
    assert inspected["NetworkSettings"]["Networks"]["waiting"]["Aliases"] == [inspected["Id"][:12]]


def test_a_container_joins_anothers_network_with_its_names(world):
    world.run("owner2", "--hostname", "shared", "--add-host", "friend:10.0.0.9", "--add-host", "up:host-gateway")
    gateway = world.endpoint("owner2")["Gateway"]
    inside = world.beside("owner2", "hostname; cat /etc/hosts; ip -4 address show eth0")
    assert inside.startswith("shared\n")
    assert "10.0.0.9\tfriend" in inside
    assert f"{gateway}\tup" in inside
    assert world.endpoint("owner2")["IPAddress"] in inside
    world.docker("stop", "-t", "0", "owner2")
    done = world.docker("run", "--rm", "--network", "container:owner2", "busybox", "true", check=False)
    assert "cannot join network of a non running container" in refused(done)
    clash = world.docker(
        "run", "--rm", "--network", "container:owner2", "--hostname", "x", "busybox", "true", check=False
    )
    assert "conflicting options: hostname and the network mode" in refused(clash)


def test_what_a_network_can_not_be_is_refused_in_dockers_words(world):
    world.network("taken", "--subnet", f"{world.subnet(6)}.0/24")
    for arguments, words in (
        (("taken",), "network with name taken already exists"),
        (("bridge",), "operation is not permitted on predefined bridge network"),
        (("--subnet", f"{world.subnet(6)}.128/25", "over"), "Pool overlaps with other one on this address space"),
        (("--subnet", "10.0.0.0", "bad"), "invalid CIDR block notation"),
        (("--driver", "macvlan", "far"), "network driver macvlan is not supported"),
        (("--driver", "host", "far"), 'only one instance of "host" network is allowed'),
        (("--opt", "com.docker.network.driver.mtu=9", "far"), "com.docker.network.driver.mtu value: 9"),
        (("--opt", "com.docker.network.bridge.name=../x", "far"), "the name of a link, at most 15 letters"),
        (("../far",), 'invalid network name "../far"'),
    ):
        assert words in refused(world.docker("network", "create", *arguments, check=False))
    assert "pre-defined network and cannot be removed" in refused(world.docker("network", "rm", "none", check=False))
    missing = world.docker("run", "--rm", "--network", "nowhere", "busybox", "true", check=False)
    assert "network nowhere not found" in refused(missing)
    on_default = world.docker("run", "--rm", "--ip", "10.0.0.5", "busybox", "true", check=False)
    assert "user specified IP address is supported on user defined networks only" in refused(on_default)
    none = world.docker("create", "--network", "none", "busybox", "true").stdout.strip()
    assert "private (none) mode" in refused(world.docker("network", "connect", "taken", none, check=False))
    world.docker("rm", none)


def test_networks_are_filtered_and_pruned(world):
    identifier = world.network("lonely", "--label", "kind=lonely")
    world.network("inhabited", "--label", "kind=other")
    world.run("inhabitant", "--network", "inhabited")

    def names(*filters):
        options = [word for one in filters for word in ("--filter", one)]
        return set(world.docker("network", "ls", "--format", "{{.Name}}", *options).stdout.split())

    assert names("label=kind=lonely") == {"lonely"}
    assert names("type=builtin") == {"bridge", "host", "none"}
    assert {"lonely", "inhabited"} <= names("type=custom", "driver=bridge", "scope=local")
    assert names(f"id={identifier[:12]}") == {"lonely"}
    assert names("name=^lone") == {"lonely"}
    assert "inhabited" not in names("dangling=true")
    assert world.docker("ps", "-q", "--filter", "network=inhabited").stdout
    pruned = world.docker("network", "prune", "-f", "--filter", "label=kind").stdout
    assert "lonely" in pruned
    assert "inhabited" not in pruned


def test_events_tell_of_networks_in_dockers_order(world):
    since = str(time.time())
    identifier = world.network("told")
    world.sh("--network", "told", "true")
    world.docker("network", "rm", "told")
    until = str(time.time())
    lines = world.docker("events", "--since", since, "--until", until, "--format", "{{json .}}").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    seen = [(one["Type"], one["Action"]) for one in events if one["Action"] not in {"attach", "prune"}]
    assert seen == [
        ("network", "create"),
        ("container", "create"),
        ("network", "connect"),
        ("container", "start"),
        ("container", "die"),
        ("network", "disconnect"),
        ("container", "destroy"),
        ("network", "destroy"),
    ]
    connect = next(one for one in events if one["Action"] == "connect")
    assert connect["Actor"]["ID"] == identifier
    assert connect["Actor"]["Attributes"].keys() == {"container", "name", "type"}


def test_what_networks_take_is_timed_as_dockerds_is(world):
    def counted():
        page = metrics_of(world.daemon)
        return [int(float(re.search(TIMED % one, page)[1])) for one in ("allocate", "connect", "release")]

    before = counted()
    world.sh("--network", "host", "true")
    world.sh("--network", "none", "true")
    assert counted() == before
    world.sh("true")
    wait_for(lambda: counted() == [count + 1 for count in before], "the count of a container's way in and out")


def test_networks_tell_newer_clients_that_they_have_ipv4(world):
    assert world.daemon.get("/v1.47/networks/bridge")["EnableIPv4"] is True
    assert "EnableIPv4" not in world.daemon.get("/v1.46/networks/bridge")


def test_a_sysctl_of_the_network_is_the_containers_own(world):
    before = Path("/proc/sys/net/ipv4/tcp_keepalive_time").read_text()
    shown = world.sh("--sysctl", "net.ipv4.tcp_keepalive_time=77", "cat /proc/sys/net/ipv4/tcp_keepalive_time")
    assert shown == "77\n"
    assert Path("/proc/sys/net/ipv4/tcp_keepalive_time").read_text() == before


def test_statistics_count_what_a_real_interface_carries(world):
    world.run("counted")
    address = world.endpoint("counted")["IPAddress"]
    world.sh(f"ping -c3 -i0.1 -s1000 -W5 {address}")
    shown = world.docker("stats", "--no-stream", "--format", "{{.NetIO}}", "counted").stdout
    received = re.match(r"([0-9.]+)(k?)B / ", shown)
    assert float(received[1]) * (1000 if received[2] else 1) >= 3000


def test_a_restarted_daemon_finds_networks_and_a_container_does_not_notice(world):
    """Whether it was stopped or killed: addresses, links and routes stay, and none is given twice."""
    daemon = world.daemon
    wait_for(lambda: not world.links(), "the end of the bridges of other tests")
    world.network("lasting", "--subnet", f"{world.subnet(7)}.0/24")
    world.run("survivor", "--network", "lasting")
    world.docker("network", "connect", DEFAULT, "survivor")
    before = world.endpoint("survivor", "lasting"), world.endpoint("survivor"), world.links()
    index = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    daemon.kill()
    daemon.start()
    assert (world.endpoint("survivor", "lasting"), world.endpoint("survivor"), world.links()) == before
    after = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    for links in before[2].values():
        for one in links:  # the same ones, by their numbers
            assert (
                re.search(rf"^(\d+): {one}@", index, re.MULTILINE)[1]
                == re.search(rf"^(\d+): {one}@", after, re.MULTILINE)[1]
            )
    other = world.sh("--network", "lasting", f"ping -c1 -W5 {before[0]['IPAddress']}; ip -4 address show eth0")
    assert "1 packets received" in other
    assert before[0]["IPAddress"] + "/" not in other
    daemon.restart()
    assert world.endpoint("survivor", "lasting") == before[0]
    world.docker("rm", "-f", "survivor")
    wait_for(lambda: not world.links())
    wait_for(lambda: not world.namespaces())
