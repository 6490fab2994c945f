"""The docker SDK for Python: networks, images, limits, streams and published ports of a real daemon."""

import hashlib
import io
import json
import tarfile
import urllib.request

import docker
import docker.errors
import pytest
from docker.types import Healthcheck, IPAMConfig, IPAMPool, Ulimit
from pools import POOLS
from python_sdk import LEAVES_SOCKETS

pytestmark = LEAVES_SOCKETS


@pytest.fixture
def run(client, containers):
    """Start a container in the background, which goes with the test."""

    def start(command=("sleep", "600"), **options):
        container = client.containers.run("busybox", list(command), detach=True, **options)
        containers.append(container)
        return container

    return start


def test_networks_have_addresses_aliases_and_links_and_are_pruned(client, run):
    subnet = next(POOLS)["base"]
    address = subnet.replace(".0/24", ".77")
    network = client.networks.create(
        "sdk-net", internal=True, labels={"of": "sdk"}, ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
    )
    server = run(name="sdk-server")
    network.connect(server, aliases=["served"], ipv4_address=address)
    endpoint = client.api.create_endpoint_config(links={"sdk-server": "linked"}, aliases=["asker"])
    asker = run(name="sdk-asker", network="sdk-net", networking_config={"sdk-net": endpoint})
    for name in ("served", "linked", "sdk-server", address):
        assert asker.exec_run(["ping", "-c1", "-W10", name]).exit_code == 0
    network.reload()
    assert {one.name for one in network.containers} == {"sdk-server", "sdk-asker"}
    assert (network.attrs["Internal"], network.attrs["IPAM"]["Config"][0]["Subnet"]) == (True, subnet)
    shown = asker.attrs["NetworkSettings"]["Networks"]
    assert (list(shown), shown["sdk-net"]["Links"]) == (["sdk-net"], ["sdk-server:linked"])
    network.disconnect(server)
    server.reload()
    assert list(server.attrs["NetworkSettings"]["Networks"]) == ["bridge"]
    with pytest.raises(docker.errors.APIError, match="has active endpoints"):
        network.remove()
    network.disconnect(asker, force=True)
    assert client.networks.prune(filters={"label": "of=sdk"}) == {"NetworksDeleted": ["sdk-net"]}


@pytest.mark.parametrize(
    ("link", "status", "words"),
    [("a:b:c", 400, "bad format for links: a:b:c"), (":b", 400, "bad format for links: :b")],
)
def test_a_link_that_is_none_is_refused(client, link, status, words):
    client.networks.create("sdk-links")
    body = client.api.create_container_config("busybox", "true", host_config={"NetworkMode": "sdk-links"})
    body["NetworkingConfig"] = {"EndpointsConfig": {"sdk-links": {"Links": [link]}}}
    try:
        with pytest.raises(docker.errors.APIError, match=words) as caught:
            client.api.create_container_from_config(body)
        assert caught.value.status_code == status
    finally:
        client.networks.get("sdk-links").remove()


def test_a_link_on_the_default_bridge_is_refused_by_name(client):
    for options in (
        {"host_config": client.api.create_host_config(links={"other": "alias"})},
        {
            "networking_config": client.api.create_networking_config(
                {"bridge": client.api.create_endpoint_config(links={"other": "alias"})}
            )
        },
    ):
        with pytest.raises(docker.errors.APIError, match="--link is supported on user-defined networks only") as caught:
            client.api.create_container("busybox", "true", **options)
        assert caught.value.status_code == 501


def test_limits_and_the_restart_policy_are_changed_while_it_runs(run):
    container = run(mem_limit="64m", ulimits=[Ulimit(name="nofile", soft=99, hard=99)], pids_limit=50)
    container.update(mem_limit="128m", memswap_limit="128m", cpu_shares=512, restart_policy={"Name": "always"})
    container.reload()
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["CpuShares"], host["PidsLimit"]) == (128 << 20, 512, 50)
    assert host["RestartPolicy"]["Name"] == "always"
    assert container.stats(stream=False)["memory_stats"]["limit"] == 128 << 20
    assert container.exec_run(["sh", "-c", "ulimit -n"]).output == b"99\n"


def test_a_paused_container_says_so_and_goes_on(run):
    container = run()
    for change, status in ((container.pause, "paused"), (container.unpause, "running")):
        change()
        container.reload()
        assert container.status == status


def test_statistics_and_events_stream_until_they_are_closed(client, run):
    events = client.events(decode=True, filters={"type": "container", "label": "streams=sdk"})
    container = run(labels={"streams": "sdk"})
    assert [next(events)["Action"] for _ in range(2)] == ["create", "start"]
    statistics = container.stats(decode=True)
    first, second = next(statistics), next(statistics)
    assert first["id"] == second["id"] == container.id
    assert second["precpu_stats"]["cpu_usage"] == first["cpu_stats"]["cpu_usage"]
    container.kill()
    assert [next(events)["Action"] for _ in range(2)] == ["kill", "die"]
    events.close()


def test_attach_gives_both_streams_apart_and_a_terminals_as_one(client, run):
    container = run(["sh", "-c", "read line; echo $line; echo error >&2"], stdin_open=True)
    streams = container.attach(stream=True, demux=True, logs=True)
    stdin = container.attach_socket(params={"stdin": 1, "stream": 1})
    stdin._sock.sendall(b"typed\n")
    pieces = list(streams)
    stdin.close()
    assert b"".join(out for out, _ in pieces if out) == b"typed\n"
    assert b"".join(err for _, err in pieces if err) == b"error\n"
    terminal = run(["sh", "-c", "read line; stty size; echo error >&2"], stdin_open=True, tty=True)
    terminal.resize(40, 120)
    stream = terminal.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    stream._sock.sendall(b"\n")
    assert stream.readall().endswith(b"40 120\r\nerror\r\n")
    stream.close()


def test_a_published_port_and_a_health_check_are_as_asked(run, client):
    check = Healthcheck(test=["CMD", "wget", "-qO-", "http://localhost/"], interval=200_000_000, retries=100)
    container = run(
        ["sh", "-c", "cd /tmp && echo served >index.html && exec httpd -f -p 80"],
        ports={"80/tcp": ("127.0.0.1", None)},
        healthcheck=check,
        hostname="sdk-host",
        extra_hosts={"other.test": "10.9.8.7"},
        read_only=True,
        tmpfs={"/tmp": "size=1m"},
    )
    for event in client.events(decode=True, since=0, filters={"container": container.id, "event": "health_status"}):
        if event["Action"] == "health_status: healthy":
            break
    container.reload()
    assert container.health == "healthy"
    (binding,) = container.ports["80/tcp"]
    with urllib.request.urlopen(f"http://127.0.0.1:{binding['HostPort']}/", timeout=60) as answer:
        assert answer.read() == b"served\n"
    code, hosts = container.exec_run(["sh", "-c", "hostname; grep other.test /etc/hosts; touch /x"])
    assert code == 1
    assert hosts.split()[:3] == [b"sdk-host", b"10.9.8.7", b"other.test"]


def test_images_are_loaded_from_an_archive_listed_and_pruned(client):
    (image,) = client.images.load(_saved("sdk/loaded:1"))
    assert (image.tags, image.labels) == (["sdk/loaded:1"], {"from": "archive"})
    assert client.images.list(filters={"label": "from=archive"})[0].id == image.id
    assert [layer["CreatedBy"] for layer in image.history()] == ["by hand"]
    container = client.containers.create("sdk/loaded:1", "anything")
    try:
        with pytest.raises(docker.errors.APIError, match="image is being used by stopped container"):
            client.images.remove(image.id)
    finally:
        container.remove()
    client.images.remove("sdk/loaded:1", noprune=True)
    assert client.images.list(name="sdk/loaded") == []
    assert image.id not in {one.id for one in client.images.list()}


def _saved(name):
    """Return an archive as `docker save` makes them, of an image of one file."""
    layer = _tar({"file": b"content"})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"from": "archive"}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "by hand"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {"config.json": json.dumps(config).encode(), "layer.tar": layer}
    return _tar({**files, "manifest.json": json.dumps(manifest).encode()})


def _tar(files):
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return output.getvalue()
