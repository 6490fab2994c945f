"""What a request mounts: read as Docker reads it, refused in its words."""

from pathlib import Path

import pytest

from logd.errors import InvalidParameter, LogdError
from logd.mounted import Bind, Tmpfs, Volume
from logd.runtime.mount_table import oci_mounts
from logd.runtime.mounts import inherit, parse_volumes_from, plan
from logd.runtime.network_files import hosts, resolv_conf, validate_network_files
from logd.spec import BindOptions, ContainerSpec, DriverConfig, HostConfig, Mount, TmpfsOptions, VolumeOptions


def entries(spec=None, **host):
    return list(plan(spec or ContainerSpec(), HostConfig(**host)).entries)


def table(spec=None, volumes=None, **host):
    host = HostConfig(**host)
    mounts = oci_mounts(
        plan(spec or ContainerSpec(), host), host, volumes=volumes or {}, network_files={"/etc/hosts": Path("/f")}
    )
    return {mount["destination"]: mount for mount in mounts}


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("/a:/b", Bind("/a", "/b", create_source=True)),
        ("/a/../c:/b/./d/:ro", Bind("/c", "/b/d", read_only=True, create_source=True, mode="ro")),
        ("/a:/b:rw,z", Bind("/a", "/b", create_source=True, mode="rw,z")),
        (
            "/a:/b:rprivate,ro,Z",
            Bind("/a", "/b", read_only=True, create_source=True, propagation="rprivate", mode="rprivate,ro,Z"),
        ),
        ("/a:/b:rshared", Bind("/a", "/b", create_source=True, propagation="rshared", mode="rshared")),
        ("/b", Volume("/b", anonymous=True)),
        ("name:/b", Volume("/b", "name", mode="z")),
        ("na.me_1-:/b:ro,nocopy,z", Volume("/b", "na.me_1-", read_only=True, copy=False, mode="ro,nocopy,z")),
    ],
)
def test_a_bind_is_source_destination_mode(text, entry):
    assert entries(binds=[text]) == [entry]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "/a:b",
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": "
            "invalid mount path: 'b' mount path must be absolute",
        ),
        ("/a:/", "type \"bind\": invalid specification: destination can't be '/'"),
        ("/", "type \"volume\": invalid specification: destination can't be '/'"),
        ("/b:ro", "invalid volume specification: '/b:ro'"),
        ("/a:/b/..", "destination can't be '/'"),
        ("/a::ro", "invalid volume specification: '/a::ro'"),
        ("/a:/b:ro:x", "invalid volume specification"),
        ("/a:/b:nonsense", "invalid mode: nonsense"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:nocopy", "field VolumeOptions must not be specified"),
        ("/a:/b:rbind", "invalid mode: rbind"),
        ("/a:/b:shared,rslave", "invalid mode: shared,rslave"),
        ("/a:/b:z,Z", "invalid mode: z,Z"),
        (
            "name:/b:rshared",
            "invalid volume specification: 'name:/b:rshared': invalid mount config for type \"volume\": "
            "field BindOptions must not be specified",
        ),
        ("a:/b", "create a: volume name is too short, names should be at least two alphanumeric characters"),
        ("../x:/b", "includes invalid characters for a local volume name"),
        ("x/../../y:/b", "includes invalid characters for a local volume name"),
        ("-x:/b", "includes invalid characters for a local volume name"),
    ],
)
def test_a_bind_that_can_not_be_is_refused(text, words):
    with pytest.raises(LogdError, match=words):
        entries(binds=[text])


def test_mounts_of_each_type_are_read(tmp_path):
    source = str(tmp_path)
    assert entries(
        mounts=[
            Mount(
                type="bind", source=source, target="/b", read_only=True, bind_options=BindOptions(non_recursive=True)
            ),
            Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=1 << 20, mode=0o1770)),
            Mount(type="volume", target="/v", volume_options=VolumeOptions(no_copy=True)),
            Mount(
                type="volume",
                source="named",
                target="/n",
                volume_options=VolumeOptions(
                    labels={"a": "b"},
                    subpath="part/of",
                    driver_config=DriverConfig(name="local", options={"type": "tmpfs", "device": "tmpfs"}),
                ),
            ),
            Mount(type="bind", source=source, target="/s", bind_options=BindOptions(propagation="rslave")),
        ]
    ) == [
        Bind(source, "/b", read_only=True, recursive=False),
        Tmpfs("/t", ("noexec", "nosuid", "nodev", "mode=1770", "size=1048576")),
        Volume("/v", copy=False, anonymous=True, mode="z"),
        Volume(
            "/n",
            "named",
            subpath="part/of",
            options={"type": "tmpfs", "device": "tmpfs"},
            labels={"a": "b"},
            mode="z",
        ),
        Bind(source, "/s", propagation="rslave"),
    ]


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (Mount(type="bind", source="/nowhere", target="/b"), "bind source path does not exist: /nowhere"),
        (Mount(type="bind", target="/b"), "field Source must not be empty"),
        (Mount(type="bind", source="/tmp"), "field Target must not be empty"),
        (Mount(type="bind", source="tmp", target="/b"), "mount path must be absolute"),
        (Mount(type="tmpfs", source="/x", target="/b"), "field Source must not be specified"),
        (Mount(type="volume", target="/b", read_only=True), "must not set ReadOnly mode when using anonymous volumes"),
        (Mount(type="tmpfs", target="/b", bind_options=BindOptions()), "field BindOptions must not be specified"),
        (Mount(type="volume", source="../x", target="/b"), "includes invalid characters for a local volume name"),
        (
            Mount(type="volume", target="/b", volume_options=VolumeOptions(subpath="x")),
            "must not set Subpath when using anonymous volumes",
        ),
        (
            Mount(type="volume", source="name", target="/b", volume_options=VolumeOptions(subpath="x/../../y")),
            "subpath must be a relative path within the volume",
        ),
        (
            Mount(type="volume", source="name", target="/b", volume_options=VolumeOptions(subpath="/etc")),
            "subpath must be a relative path within the volume",
        ),
        (
            Mount(
                type="volume",
                source="name",
                target="/b",
                volume_options=VolumeOptions(driver_config=DriverConfig(options={"o": "bind"})),
            ),
            'create name: missing required option: "device"',
        ),
        (Mount(type="image", source="x", target="/b"), "type image is not supported yet"),
        (
            Mount(type="bind", source="/tmp", target="/b", bind_options=BindOptions(propagation="bad")),
            'invalid mount config for type "bind": invalid propagation mode: bad',
        ),
        (Mount(type="nope", target="/b"), 'invalid mount config for type "nope": mount type unknown'),
        (Mount(type="npipe", source="x", target="/b"), 'invalid mount config for type "npipe": mount type unknown'),
    ],
)
def test_a_mount_that_can_not_be_is_refused(mount, words):
    with pytest.raises(LogdError, match=words):
        entries(mounts=[mount])


def test_tmpfs_options_are_dockers_and_others_are_refused():
    assert entries(tmpfs={"/t": "exec,size=64m"}) == [Tmpfs("/t", ("noexec", "nosuid", "nodev", "exec", "size=64m"))]
    for options in ("nonsense", "size", "size=", "exec=1", "context=x"):
        with pytest.raises(InvalidParameter, match="invalid tmpfs option"):
            entries(tmpfs={"/t": options})
    with pytest.raises(InvalidParameter, match=r'invalid tmpfs option \["context" "x=y"\]'):
        entries(tmpfs={"/t": "exec,context=x=y"})


def test_a_place_is_mounted_once_and_a_volume_of_the_image_gives_way():
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /b"):
        entries(binds=["/a:/b", "/c:/b/"])
    spec = ContainerSpec(volumes={"/b": {}, "/v/": {}})
    assert entries(spec, binds=["/a:/b"]) == [Bind("/a", "/b", create_source=True), Volume("/v", anonymous=True)]


def test_what_is_taken_over_gives_way_to_what_is_asked_for_and_stands_before_the_images_volumes():
    theirs = [Volume("/v", "theirs", mode="ro"), Bind("/h", "/b", mode="rw"), Volume("/x", "anon", anonymous=True)]
    taken = [inherit(entry, read_only=True) for entry in theirs]
    assert taken == [
        Volume("/v", "theirs", read_only=True, copy=False),
        Bind("/h", "/b", read_only=True),
        Volume("/x", "anon", read_only=True, copy=False, anonymous=True),
    ]
    spec = ContainerSpec(volumes={"/x": {}, "/y": {}})
    assert list(plan(spec, HostConfig(binds=["mine:/v"]), taken).entries) == [
        Volume("/v", "mine", mode="z"),
        *taken[1:],
        Volume("/y", anonymous=True),
    ]


@pytest.mark.parametrize(
    ("text", "read"), [("web", ("web", False)), ("web:ro", ("web", True)), ("web:rw,z", ("web", False))]
)
def test_volumes_from_is_a_container_and_a_mode(text, read):
    assert parse_volumes_from(text) == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "volumes-from specification cannot be an empty string"),
        (":", 'invalid name or ID supplied: ""'),
        ("web:bogus", "invalid mode: bogus"),
        ("web:nocopy", "invalid mode: nocopy"),
        ("web:rshared", "invalid mode: rshared"),
    ],
)
def test_volumes_from_that_can_not_be_is_refused(text, words):
    with pytest.raises(InvalidParameter, match=words):
        parse_volumes_from(text)


def test_a_propagation_is_that_of_the_mount():
    mounts = table(binds=["/h:/a:rslave", "/h:/b:shared,ro", "/h:/c"])
    assert mounts["/a"]["options"] == ["rbind", "rslave"]
    assert mounts["/b"]["options"] == ["rbind", "shared", "ro", "rro"]
    assert mounts["/c"]["options"] == ["rbind", "rprivate"]


def test_what_the_request_mounts_replaces_dockers_own():
    mounts = table(binds=["/h:/etc/hosts", "/d:/dev"])
    assert mounts["/etc/hosts"]["source"] == "/h"
    assert not [place for place in mounts if place.startswith("/dev/")]


def test_mounts_go_from_the_root_downwards():
    spec = ContainerSpec(volumes={"/a/b/c": {}})
    places = list(table(spec, {"/a/b/c": Path("/v/_data")}, binds=["/x:/a/b/c/d", "/y:/a"]))
    assert places.index("/a") < places.index("/a/b/c") < places.index("/a/b/c/d")
    assert places[0] == "/proc"


def test_privilege_and_the_ipc_mode_change_the_list():
    assert "ro" in table()["/sys"]["options"]
    assert "ro" not in table(privileged=True)["/sys"]["options"]
    assert table(ipc_mode="host")["/dev/shm"]["options"] == ["rbind", "rprivate"]  # with the host's own flags
    assert "/dev/shm" not in table(ipc_mode="none")
    assert "size=1048576" in table(shm_size=1 << 20)["/dev/shm"]["options"]


def test_lines_of_resolv_conf_are_replaced_by_kind():
    of_the_host = "# note\nnameserver 1.1.1.1\nsearch host.example\noptions edns0\n"
    assert resolv_conf(of_the_host, HostConfig()) == of_the_host
    assert resolv_conf(of_the_host, HostConfig(dns=["9.9.9.9"], dns_search=["."], dns_options=["ndots:2"])) == (
        "# note\nnameserver 9.9.9.9\noptions ndots:2\n"
    )


def test_hosts_has_the_containers_own_name_unless_it_is_the_hosts_file():
    host = HostConfig(extra_hosts=["db=10.0.0.1"])
    assert hosts(ContainerSpec(hostname="web"), host, None).endswith("10.0.0.1\tdb\n127.0.0.1\tweb\n")
    assert hosts(ContainerSpec(hostname="web.sub"), host, None).endswith("127.0.0.1\tweb.sub web\n")
    assert hosts(ContainerSpec(hostname="web"), host, "127.0.0.1 localhost") == "127.0.0.1 localhost\n10.0.0.1\tdb\n"


@pytest.mark.parametrize(
    ("host", "kind", "words"),
    [
        (HostConfig(extra_hosts=["nothing"]), InvalidParameter, 'bad format for add-host: "nothing"'),
        (HostConfig(extra_hosts=["a:b"]), InvalidParameter, 'invalid IP address in add-host: "b"'),
        (HostConfig(dns=["x"]), InvalidParameter, "x is not an ip address"),
    ],
)
def test_names_and_servers_that_can_not_be_are_refused(host, kind, words):
    with pytest.raises(kind, match=words):
        validate_network_files(host)
