"""Logins where docker keeps them: its file, and its helpers by their protocol."""

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from logd.cli.main import cli
from logd.cli.registry.logins import HUB, Login, Logins, headers_for, headers_for_build
from logd.errors import LogdError

HELPER = """\
#!/bin/sh
# Keeps what it is given in files, as a helper does in a key ring; notes how it was called.
echo "$0 $*" >> {folder}/calls
text=$(cat)
case $1 in
store) server=$(echo "$text" | sed 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/'); echo "$text" > "{folder}/kept-$server" ;;
get) cat "{folder}/kept-$text" 2> /dev/null || {{ echo "credentials not found in native keychain"; exit 1; }} ;;
erase) rm "{folder}/kept-$text" 2> /dev/null || {{ echo "credentials not found in native keychain"; exit 1; }} ;;
list) echo '{{"one:5000": "ann"}}' ;;
esac
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker" / "config.json"


@pytest.fixture
def helper(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A helper `test` on the PATH; returns the folder in which it keeps things."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "docker-credential-test"
    program.write_text(HELPER.format(folder=tmp_path))
    program.chmod(0o755)
    return tmp_path


def write(config: Path, **content: Any) -> None:
    config.write_text(json.dumps(content))


def test_a_login_is_kept_in_dockers_form_for_its_owner_alone_and_the_rest_stays(config: Path) -> None:
    write(config, detachKeys="ctrl-x", auths={"other": {"auth": "eDp5"}})
    config.chmod(0o644)
    Logins().keep("host:5000", Login("ann", "a:b c"))
    assert json.loads(config.read_text()) == {
        "detachKeys": "ctrl-x",
        "auths": {"other": {"auth": "eDp5"}, "host:5000": {"auth": "YW5uOmE6YiBj"}},
    }
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert os.listdir(config.parent) == ["config.json"]
    assert Logins().get("host:5000") == Login("ann", "a:b c")


def test_a_login_is_kept_where_a_link_leads_which_stays(config: Path, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    config.symlink_to(tmp_path / "real.json")
    Logins().keep("host", Login("ann", "x", token="t"))
    assert config.is_symlink()
    assert Logins().get("host") == Login("ann", "x", "t")


def test_a_write_that_fails_leaves_the_file_as_it_was(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(config, auths={"other": {"auth": "eDp5"}})
    before = config.read_text()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(LogdError, match="No space left"):
        Logins().keep("host", Login("ann", "x"))
    assert (config.read_text(), os.listdir(config.parent)) == (before, ["config.json"])


def test_a_login_that_an_old_client_kept_under_a_url_is_found_and_forgotten(config: Path) -> None:
    write(config, auths={"https://host:5000/v1/": {"auth": "eDp5"}, HUB: {"auth": "eDp5"}})
    assert Logins().get("host:5000") == Login("x", "y")
    Logins().forget("host:5000")
    assert json.loads(config.read_text())["auths"] == {HUB: {"auth": "eDp5"}}
    assert Logins().get("host:5000") is None


def test_each_registry_is_told_of_its_own_login_and_no_other(config: Path) -> None:
    write(config, auths={"host:5000": {"auth": "eDp5"}, HUB: {"auth": "aHViOnB3"}})
    assert headers_for("other/app") == headers_for("docker.io/library/busybox") != headers_for("host:5000/app") != {}
    assert headers_for("other:5000/app") == {}
    assert len(headers_for_build()["X-Registry-Config"]) > len(headers_for("host:5000/app")["X-Registry-Auth"])


@pytest.mark.parametrize(
    ("text", "words"), [("[]", "no JSON object"), ("{", "is no JSON"), ('{"auths": {"host": {"auth": "?"}}}', "base64")]
)
def test_a_damaged_file_is_refused_by_name(config: Path, text: str, words: str) -> None:
    config.write_text(text)
    with pytest.raises(LogdError, match=words) as caught:
        Logins().get("host")
    assert str(config) in str(caught.value)


def test_a_helper_keeps_tells_and_forgets_a_login(config: Path, helper: Path) -> None:
    write(config, credsStore="test")
    Logins().keep("host:5000", Login("ann", 'se"cret'))
    assert json.loads(config.read_text()) == {"credsStore": "test", "auths": {"host:5000": {}}}
    assert json.loads((helper / "kept-host:5000").read_text()) == {
        "ServerURL": "host:5000", "Username": "ann", "Secret": 'se"cret',
    }  # fmt: skip
    assert Logins().get("host:5000") == Login("ann", 'se"cret')
    assert Logins().get("elsewhere") is None
    Logins().forget("host:5000")
    assert Logins().get("host:5000") is None
    Logins().forget("host:5000")
    calls = (helper / "calls").read_text()
    assert {line.split()[1] for line in calls.splitlines()} == {"store", "get", "erase"}
    assert "cret" not in calls


def test_a_helper_of_one_registry_is_asked_for_that_one_alone(config: Path, helper: Path) -> None:
    write(config, credHelpers={"one:5000": "test"}, auths={"two:5000": {"auth": "eDp5"}})
    Logins().keep("one:5000", Login(token="t0ken"))
    assert json.loads((helper / "kept-one:5000").read_text())["Username"] == "<token>"
    assert Logins().every() == {"one:5000": Login(token="t0ken"), "two:5000": Login("x", "y")}


@pytest.mark.parametrize(
    ("name", "script", "words"),
    [
        ("absent", None, "docker-credential-absent, which is not installed"),
        ("../x", None, "no name of one"),
        ("bad", "#!/bin/sh\ncat; echo p4ss; exit 3", "docker-credential-bad store: exit status 3"),
        ("deaf", "#!/bin/sh\nexec < /dev/null; exit 4", "docker-credential-deaf store: exit status 4"),
    ],
)
def test_a_helper_that_fails_is_named_and_no_password_told(
    config: Path, helper: Path, name: str, script: str | None, words: str
) -> None:
    write(config, credsStore=name)
    if script:
        (helper / f"docker-credential-{name}").write_text(script)
        (helper / f"docker-credential-{name}").chmod(0o755)
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as the command has it
    try:
        with pytest.raises(LogdError, match=words) as caught:
            Logins().keep("host", Login("ann", "p4ss" * 30_000))
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert "p4ss" not in str(caught.value)


def test_what_a_helper_tells_that_is_no_answer_is_not_shown(config: Path, helper: Path) -> None:
    write(config, credsStore="test")
    (helper / "kept-host").write_text("p4ss")
    with pytest.raises(LogdError, match="has not answered with a JSON object") as caught:
        Logins().get("host")
    assert caught.value.__cause__ is None
    assert "p4ss" not in str(caught.value)


def test_a_shell_completes_the_registries_of_logins(config: Path) -> None:
    write(config, auths={"host:5000": {}, "other": {}})
    completing = {"_LOGD_COMPLETE": "bash_complete", "COMP_WORDS": "logd logout ho", "COMP_CWORD": "2"}
    done = CliRunner(env={**os.environ, **completing}).invoke(cli, [], prog_name="logd")
    assert done.output == "plain,host:5000\n"
