"""The settings of the daemon: what is taken, and in which words the rest is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from logd.config import OPTIONS, DaemonConfig, Runtime
from logd.daemon.config_file import Loaded, load
from logd.daemon.dockerd_keys import ACCEPTED, REFUSED
from logd.errors import InvalidParameter

DOCUMENT = Path(__file__).parent.parent / "docs" / "configuration.md"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(content: Any) -> str:
        path = tmp_path / "daemon.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    return _write


def refused(*argv: str) -> str:
    with pytest.raises(InvalidParameter) as caught:
        load(argv)
    return str(caught.value)


def from_file(write: Any, content: Any, *argv: str) -> Loaded:
    return load(["--config-file", write(content), *argv])


def test_an_empty_file_gives_the_defaults(write: Any) -> None:
    for content in (b"", b" \n", b"{}", b"\xef\xbb\xbf{}", b"\xef\xbb\xbf"):
        assert from_file(write, content).config == DaemonConfig()


def test_the_socket_and_the_pidfile_follow_the_exec_root() -> None:
    config = load(["--config-file", "/dev/null", "--exec-root", "/tmp/x/run"]).config
    assert config.hosts == ("unix:///tmp/x/run/logd.sock",)
    assert config.pidfile == Path("/tmp/x/run/logd.pid")
    assert load(["--config-file", "/dev/null", "--exec-root", "/tmp/x", "-H", "unix://"]).config.hosts == (
        "unix:///tmp/x/logd.sock",
    )


def test_a_file_sets_every_kind_of_value(write: Any) -> None:
    content = {
        "data-root": "/srv/logd/",
        "debug": True,
        "hosts": ["unix:///tmp/a.sock", "fd://"],
        "log-opts": {"max-size": "10m"},
        "default-shm-size": "128M",
        "default-stop-timeout": 3,
        "runtimes": {"mine": {"path": "/opt/runc", "runtimeArgs": ["--debug"]}},
        "default-runtime": "mine",
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 10, "Hard": 20}},
        "labels": ["a=b"],
        "logd": {"store": {"max-total": "10g", "min-free": 0, "sync": "1s"}},
    }
    config = from_file(write, content).config
    assert config.data_root == Path("/srv/logd")
    assert config.debug is True
    assert config.hosts == ("unix:///tmp/a.sock", "fd://")
    assert config.log_opts == {"max-size": "10m"}
    assert (config.default_shm_size, config.default_stop_timeout) == (128 << 20, 3)
    assert config.runtimes["mine"] == Runtime("/opt/runc", ("--debug",))
    assert config.default_ulimits == {"nofile": (10, 20)}
    assert (config.max_total, config.min_free, config.sync) == (10 << 30, 0, "1s")


def test_flags_set_the_same_as_the_file() -> None:
    argv = [
        *("--config-file", "/dev/null", "-D", "-H", "unix:///tmp/a.sock", "--host=fd://", "--log-opt", "max-size=1m"),
        *("--log-opt", "max-file=2", "--add-runtime", "mine=/opt/runc", "--default-runtime=mine", "--label", "a=b=c"),
        *("--init=false", "--default-ulimit", "nofile=10:20", "--shutdown-timeout", "-1"),
    ]
    config = load(argv).config
    assert config.debug is True
    assert config.hosts == ("unix:///tmp/a.sock", "fd://")
    assert config.log_opts == {"max-size": "1m", "max-file": "2"}
    assert config.runtimes["mine"] == Runtime("/opt/runc")
    assert (config.labels, config.init, config.shutdown_timeout) == (("a=b=c",), False, -1)
    assert config.default_ulimits == {"nofile": (10, 20)}


def test_limits_that_containers_inherit_give_way_to_default_ulimits() -> None:
    argv = ["--config-file", "/dev/null", "--default-ulimit", "core=0"]
    assert load(argv, {"nofile": (1, 2)}).config.default_ulimits == {"nofile": (1, 2), "core": (0, 0)}
    assert load([*argv, "--default-ulimit", "nofile=5"], {"nofile": (1, 2)}).config.default_ulimits["nofile"] == (5, 5)


def test_runtimes_of_file_and_flags_add_up_beside_runc(write: Any) -> None:
    content = {"runtimes": {"one": {"path": "/opt/one"}}}
    runtimes = from_file(write, content, "--add-runtime", "two=/opt/two").config.runtimes
    assert {"one", "two", "runc"} <= set(runtimes)


def test_a_key_in_file_and_flag_is_refused_with_both_values(write: Any) -> None:
    file = write({"debug": False, "labels": ["a=b"]})
    assert refused("--config-file", file, "--debug", "--label", "c=d") == (
        f"unable to configure the daemon with file {file}: the following directives are specified both as a flag and "
        'in the configuration file: debug: (from flag: true, from file: false), labels: (from flag: ["c=d"], '
        'from file: ["a=b"])'
    )


def test_an_unknown_key_is_refused_with_the_file_a_guess_and_all_that_is_accepted(write: Any) -> None:
    file = write({"log-drivr": "local", "logd": {"stor": {}, "store": {"max-totl": 1}}})
    text = refused("--config-file", file)
    assert file in text
    assert "don't match any configuration option: " in text
    for part in ("log-drivr", "logd.stor,", "logd.store.max-totl", "did you mean", "log-driver", "data-root"):
        assert part in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"debug": "yes"}, ["debug", '"yes"', "true or false"]),
        ({"debug": 1}, ["debug", "1", "true or false"]),
        ({"hosts": "unix:///x"}, ["hosts", "a list of"]),
        ({"hosts": ["gopher://x"]}, ["hosts", "invalid bind address (gopher://x)", "unix:///path"]),
        ({"data-root": "relative"}, ["data-root", '"relative"', "an absolute path"]),
        ({"log-level": "loud"}, ["log-level", '"loud"', "debug | info | warn | error | fatal"]),
        ({"log-opts": {"max-file": 3}}, ["log-opts", "an object of strings"]),
        ({"default-shm-size": "lots"}, ["default-shm-size", "lots"]),
        ({"default-shm-size": True}, ["default-shm-size", "true", "a size"]),
        ({"shutdown-timeout": -2}, ["shutdown-timeout", "-2", "a whole number"]),
        ({"default-runtime": "nope"}, ["specified default runtime 'nope' does not exist", "runc"]),
        ({"runtimes": {"runc": {"path": "/x"}}}, ["runtimes", "runtime name 'runc' is reserved"]),
        ({"runtimes": {"x": {"runtimeType": "io.containerd.kata.v2"}}}, ["runtimes", "containerd"]),
        ({"labels": ["a=b", "a=c"]}, ["labels", "conflict labels for a=b and a=c"]),
        ({"labels": ["a"]}, ["labels", "bad attribute format: a"]),
        ({"exec-opts": ["native.cgroupdriver=systemd"]}, ["exec-opts", "cgroupfs"]),
        ({"cgroup-parent": "a.slice"}, ["cgroup-parent", "systemd"]),
        ({"cgroup-parent": "/../x"}, ["cgroup-parent", "'..'"]),
        ({"default-ulimits": {"nofiles": {}}}, ["default-ulimits", "invalid ulimit type: nofiles"]),
        ({"default-ulimits": {"core": {"Soft": 2, "Hard": 1}}}, ["soft limit must be less than or equal to hard"]),
        ({"cgroup-parent": "/a\0b"}, ["cgroup-parent", r"/a\u0000b", "a NUL character"]),
        ({"cgroup-parent": "/a\nb"}, ["cgroup-parent", r"/a\nb", "only printable characters"]),
        ({"group": "a\0b"}, ["group", r"a\u0000b", "a NUL character", "a group's name"]),
        ({"group": "4294967295"}, ["group", '"4294967295"', "its number up to 4294967294"]),
        ({"hosts": ["unix:///tmp/a\0b"]}, ["hosts", "a NUL character", "unix:///path"]),
        ({"runtimes": {"x": {"path": "/a", "runtimeArgs": ["\0"]}}}, ["runtimes", "a NUL character"]),
        ({"log-opts": {"a\0": "b"}}, ["log-opts", "a NUL character"]),
        ({"pidfile": "/\ud800"}, ["pidfile", "surrogates not allowed"]),
        ({"log-driver": "sysloog"}, ["log-driver", '"sysloog" not found', "journald, json-file, local, none"]),
        (
            {"seccomp-profile": "/nonexistent.json"},
            ["seccomp-profile: /nonexistent.json: No such file", "a JSON file", "builtin, or unconfined"],
        ),
        ({"seccomp-profile": "/etc/hostname"}, ["seccomp-profile: /etc/hostname: ", "builtin, or unconfined"]),
        ({"logd": {"store": {"sync": "2s"}}}, ["logd.store.sync", '"2s"', "1s | always"]),
        ({"logd": []}, ["logd", "max-total"]),
        ({"live-restore": "true"}, ["live-restore", '"true"', "true or false"]),
        ({"storage-driver": "vfs"}, ["storage-driver", '"vfs"', "overlay2"]),
        ({"userns-remap": "a b"}, ["userns-remap", "'a b'", "default, USER, USER:GROUP"]),
        ({"userns-remap": "nobody-has-this"}, ["userns-remap", "/etc/subuid", "nobody-has-this:100000:65536"]),
        ({"authorization-plugins": ["x"]}, ["authorization-plugins", "no authorization plugins"]),
        ({"graph": "/x"}, ["graph", "data-root"]),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_file_and_what_is_accepted(
    write: Any, content: Any, words: list[str]
) -> None:
    file = write(content)
    text = refused("--config-file", file)
    for word in [*words, file]:
        assert word in text


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({}, "an object with a defaultAction is needed"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"]}]}, "a rule is malformed"),
    ],
)
def test_a_seccomp_profile_that_no_container_could_start_with_is_refused(
    write: Any, tmp_path: Path, profile: Any, words: str
) -> None:
    (tmp_path / "seccomp.json").write_text(json.dumps(profile))
    text = refused("--config-file", write({"seccomp-profile": str(tmp_path / "seccomp.json")}))
    assert words in text
    assert "builtin, or unconfined" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[]", "not a JSON object"),
        (b'{"debug": true', "line 1 column"),
        (b'{"debug": true, "debug": false}', "given more than once: debug"),
        (b'{"logd": {"store": {"sync": "", "sync": ""}}}', "given more than once: sync"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b" " * (1 << 20) + b"{}", "larger than"),
    ],
)
def test_a_file_that_can_not_be_read_is_refused_with_the_place(write: Any, content: bytes, words: str) -> None:
    assert words in refused("--config-file", write(content))


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    text = refused("--config-file", str(tmp_path / "none.json"))
    assert text == f"unable to configure the daemon with file {tmp_path}/none.json: no such file or directory"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--nonsense"], "unknown flag: --nonsense"),
        (["surplus"], "accepts no arguments, got: surplus"),
        (["--debug=maybe"], 'invalid argument "maybe" for --debug'),
        (["--log-opt", "max-size"], 'invalid argument "max-size" for log-opts (name=value)'),
        (["--shutdown-timeout", "soon"], 'invalid argument "soon" for --shutdown-timeout'),
        (["--data-root"], "--data-root"),
        (["--data", "/x"], "unknown flag: --data"),
        (["--authorization-plugin", "x"], '["x"] of --authorization-plugin is not supported'),
        (["--log-level", "loud"], 'log-level: invalid value "loud" of --log-level'),
        (["-H", "tcp://0.0.0.0:2375"], "TCP needs tlsverify"),
        (["-H", "0.0.0.0:2375"], "TCP needs tlsverify"),
        (["--tls"], "tls: clients must be verified too"),
        (["--tlsverify"], "tlscacert: not set"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(argv: list[str], words: str) -> None:
    assert words in refused("--config-file", "/dev/null", *argv)


def test_keys_without_effect_are_accepted_and_told(write: Any) -> None:
    loaded = from_file(
        write, {"live-restore": True, "storage-driver": "overlay2"}, "--userland-proxy=false", "--ip6tables"
    )
    assert [notice.partition(" ")[0] for notice in loaded.notices] == [
        *("live-restore", "storage-driver", "userland-proxy", "ip6tables")
    ]


def test_a_refused_key_may_ask_for_nothing(write: Any) -> None:
    assert from_file(write, {"selinux-enabled": False, "authorization-plugins": []}).notices == []


def test_null_is_as_good_as_nothing(write: Any) -> None:
    assert from_file(write, {"hosts": None, "mtu": None}).config == DaemonConfig()
    for own in (None, {}, {"store": None}, {"store": {"max-total": None}}):
        assert from_file(write, {"logd": own}).config == DaemonConfig()


def test_a_reload_takes_what_can_change_and_names_what_can_not(write: Any) -> None:
    config = DaemonConfig()
    content = {"debug": True, "labels": ["a=b"], "data-root": "/elsewhere", "init": True, "log-driver": "none"}
    needs_restart = config.take_over(from_file(write, content).config)
    assert (config.debug, config.labels, config.data_root) == (True, ("a=b",), Path("/var/lib/logd"))
    assert config.log_driver == "none"
    assert needs_restart == ["data-root", "init"]


def test_each_key_is_in_exactly_one_list() -> None:
    honoured = [option.key[0] for option in OPTIONS if len(option.key) == 1]
    everything = [*honoured, *ACCEPTED, *REFUSED]
    assert len(everything) == len(set(everything))
    assert "logd" not in everything


def test_the_document_lists_every_key_in_its_section_and_no_other() -> None:
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE))
    expected = {
        "Keys with effect": {".".join(option.key) for option in OPTIONS if len(option.key) == 1},
        "logd's own keys": {".".join(option.key[1:]) for option in OPTIONS if len(option.key) > 1},
        "Keys accepted without effect": set(ACCEPTED),
        "Keys refused": set(REFUSED),
    }
    for title, keys in expected.items():
        assert set(re.findall(r"^\| `([^`]+)`", sections[title], re.MULTILINE)) == keys, title
