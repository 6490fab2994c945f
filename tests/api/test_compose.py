"""Docker Compose, version 1 (Debian's package) and 2 (the plugin of docker), brings a project up and takes it down.

Each test leaves the project as it finds it, up, but the last one.
"""

import contextlib
import datetime
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PLUGIN = ROOT / ".make" / "bin" / "cli-plugins" / "docker-compose"
PROJECT = Path(__file__).parent.parent / "data" / "compose" / "docker-compose.yml"
PATIENCE_S = 120
FORK = """
import json, os, sys
from compose.cli.main import main
for line in sys.stdin:
    sys.argv, out, err = json.loads(line)
    child = os.fork()
    if not child:
        for descriptor, name in enumerate(("/dev/null", out, err)):
            os.dup2(os.open(name, os.O_RDWR), descriptor)
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs version 1 once for each line: importing what it is made of takes longer than most of its commands."""


class Project:
    """A project of one version of Compose, on a daemon."""

    def __init__(self, daemon, folder, version):
        self.daemon = daemon
        self.docker = daemon.docker
        self.name = f"shop{version}"
        self._folder = folder
        self._forker = None
        command = shutil.which("docker-compose") if version == "1" else str(PLUGIN)
        assert command, "the tests need docker-compose 1 (Debian's package)"
        assert Path(command).exists(), "scripts/docker_cli.sh .make/bin fetches Docker Compose 2"
        self._command = [command, "--ansi", "never", "-f", str(PROJECT), "-p", self.name]
        if version == "1":
            first_line = Path(command).read_bytes().splitlines()[0].decode(errors="replace")
            assert first_line.startswith("#!"), f"{command} is not version 1, which is a script"
            python = first_line.removeprefix("#!").split()
            self._forker = subprocess.Popen(
                [*python, "-c", FORK],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=daemon.environment,
            )

    @contextlib.contextmanager
    def lines(self, *arguments):
        """Give the lines of a command that goes on, which is ended afterwards."""
        command = [*self._command, *arguments]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=self.daemon.environment, **options) as process:
            try:
                yield process.stdout
            finally:
                process.kill()

    def do(self, *arguments, expected=0):
        """Run a command to its end, and return what it printed on stdout."""
        command = [*self._command, *arguments]
        out, err = self._folder / "out", self._folder / "err"
        with out.open("w") as printed, err.open("w") as errors:
            if self._forker is None:
                options = {"stdin": subprocess.DEVNULL, "stdout": printed, "stderr": errors, "timeout": PATIENCE_S}
                code = subprocess.run(command, check=False, env=self.daemon.environment, **options).returncode
            else:
                self._forker.stdin.write(json.dumps([command, str(out), str(err)]) + "\n")
                self._forker.stdin.flush()
                code = int(self._forker.stdout.readline())
        assert code == expected, f"{command}: {code}\n{out.read_text()}{err.read_text()}\n{self.daemon.log()}"
        return out.read_text()

    def close(self):
        if self._forker is not None:
            self._forker.communicate()

    def containers(self, service, field):
        """Return a field, for docker's --format, of each of a service's containers."""
        labels = {"project": self.name, "service": service}
        filters = [part for key in labels for part in ("--filter", f"label=com.docker.compose.{key}={labels[key]}")]
        return self.docker("ps", "-a", *filters, "--format", f"{{{{.{field}}}}}").stdout.split()

    def states(self, service):
        return self.containers(service, "State")

    def inspect(self, service):
        """Return what the first of a service's containers is."""
        (identifier, *_) = self.containers(service, "ID")
        return json.loads(self.docker("inspect", identifier).stdout)[0]


def until(stream, wanted):
    """Read lines until all that are wanted have come in one of them, and return what was read."""
    seen = []
    while not all(any(word in line for line in seen) for word in wanted):
        line = stream.readline()
        assert line, f"the end came before {wanted}: {seen}"
        seen.append(line)
    return seen


@pytest.fixture(scope="module", params=["1", "2"])
def project(request, shared_busybox, tmp_path_factory):
    """The project, up."""
    project = Project(shared_busybox, tmp_path_factory.mktemp("compose"), request.param)
    try:
        project.do("up", "-d", "--scale", "worker=2")
        yield project
    finally:
        project.close()


def test_the_services_come_up_one_after_the_other_is_healthy_with_all_their_settings(project):
    store, web, worker = (project.inspect(service) for service in ("store", "web", "worker"))
    assert store["State"]["Health"]["Status"] == "healthy"
    assert project.states("web") == ["running"]  # it would not without a file that the store's check makes
    began = [datetime.datetime.fromisoformat(one["State"]["StartedAt"][:26]) for one in (store, web, worker)]
    assert began == sorted(began)
    assert store["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert [(one["Type"], one["Name"], one["Destination"]) for one in store["Mounts"]] == [
        ("volume", f"{project.name}_state", "/data")
    ]
    assert web["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}}
    assert web["Config"]["Labels"]["tier"] == "front"
    assert list(web["NetworkSettings"]["Networks"]) == [f"{project.name}_inner"]
    assert worker["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert project.states("worker") == ["running", "running"]


def test_a_service_is_found_by_its_alias_and_by_the_host_at_its_published_port(project):
    assert project.do("exec", "-T", "web", "wget", "-qO-", "http://shop/") == "hello from the site\n"
    address = project.do("port", "web", "80").strip()
    with urllib.request.urlopen(f"http://{address}/", timeout=PATIENCE_S) as answer:
        assert answer.read() == b"hello from the site\n"


def test_a_command_runs_once_in_a_services_place(project):
    script = "ping -c1 -W10 store >&2 && grep registry.test /etc/hosts; echo $GREETING; exit 3"
    printed = project.do("run", "--rm", "-T", "worker", "sh", "-c", script, expected=3)
    assert printed.split() == ["10.9.8.7", "registry.test", "good", "morning"]
    assert project.states("worker") == ["running", "running"]


def test_logs_are_followed_and_processes_listed(project):
    with project.lines("logs", "-f", "--no-color") as printed:
        assert "httpd -f -vv -p 80 -h /site" in project.do("top", "web")
        until(printed, ["the store is ready", "good morning", "tick"])


def test_services_are_paused_stopped_started_and_restarted_and_events_tell(project):
    with project.lines("events", "--json") as events:
        until(events, ["exec_start"])  # of the store's health check
        project.do("pause", "worker")
        assert project.states("worker") == ["paused", "paused"]
        project.do("unpause", "worker")
        project.do("stop", "-t", "0", "worker")
        assert project.states("worker") == ["exited", "exited"]
        project.do("start", "worker")
        project.do("restart", "-t", "0", "worker")
        assert project.states("worker") == ["running", "running"]
        told = [json.loads(line) for line in until(events, ['"restart"'])]
    actions = [one["action"] for one in told if one["service"] == "worker" and one["action"] != "kill"]
    assert list(dict.fromkeys(actions)) == ["pause", "unpause", "die", "stop", "start", "restart"]


def test_a_service_is_killed_removed_and_scaled_anew(project):
    project.do("kill", "-s", "KILL", "worker")
    project.do("rm", "-f", "worker")
    assert project.states("worker") == []
    project.do("up", "-d", "--scale", "worker=2")
    assert project.states("worker") == ["running", "running"]


def test_down_leaves_nothing_of_a_project(project):
    project.do("down", "-v", "-t", "0")
    assert [one for service in ("store", "web", "worker") for one in project.containers(service, "Names")] == []
    for kind in ("volume", "network"):
        assert project.name not in project.docker(kind, "ls").stdout
    assert project.name not in project.docker("ps", "-a").stdout
