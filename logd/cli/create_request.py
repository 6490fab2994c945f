"""The body of POST /containers/create, of the options of `logd run` and `create`."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from logd.cli.create_settings import networks, settings
from logd.cli.mounts import binds
from logd.cli.ports import exposed_ports, port_bindings
from logd.cli.raw_terminal import size
from logd.cli.words import environment, labels, pairs, split
from logd.errors import InvalidParameter
from logd.units import parse_duration


def create_request(image: str, command: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """Return the body of POST /containers/create (Docker Engine API 1.47, ContainerCreate)."""
    attached = set(() if options["detach"] else options["attach"] or ("stdout", "stderr"))
    stdin = bool(options["interactive"])
    if stdin and not options["detach"]:
        attached.add("stdin")
    named, anonymous = binds(options["volume"])
    endpoints = networks(options)
    host: dict[str, Any] = {
        "AutoRemove": options["remove"],
        "ReadonlyRootfs": options["read_only"],
        "Binds": named,
        "Tmpfs": dict(split(word, ":") for word in options["tmpfs"]),
        "LogConfig": {"Type": options["log_driver"] or "", "Config": pairs("--log-opt", options["log_opt"])},
    }
    if options["tty"]:
        host["ConsoleSize"] = list(size())
    if options["init"]:
        host["Init"] = True
    if endpoints:
        host["NetworkMode"] = next(iter(endpoints))
    if published := port_bindings(options["publish"]):
        host["PortBindings"] = published
    host |= settings(options)
    request: dict[str, Any] = {
        "Image": image,
        "Env": environment(options["env"], options["env_file"]),
        "Labels": labels(options["label"], options["label_file"]),
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "OpenStdin": stdin,
        "StdinOnce": stdin and "stdin" in attached,
        "HostConfig": host,
    }
    if options["tty"]:
        request["Tty"] = True
    if health := _health_check(options):
        request["Healthcheck"] = health
    if command:
        request["Cmd"] = list(command)
    if options["entrypoint"] is not None:
        request["Entrypoint"] = [options["entrypoint"]]
    for name, key in (
        ("user", "User"),
        ("workdir", "WorkingDir"),
        ("hostname", "Hostname"),
        ("domainname", "Domainname"),
        ("stop_signal", "StopSignal"),
    ):
        if options[name]:
            request[key] = options[name]
    if options["stop_timeout"] is not None:
        request["StopTimeout"] = options["stop_timeout"]
    if anonymous:
        request["Volumes"] = anonymous
    if exposed := exposed_ports(options["expose"], published):
        request["ExposedPorts"] = exposed
    if any(endpoints.values()):
        request["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return request


def _health_check(options: dict[str, Any]) -> dict[str, Any]:
    """Return what is asked for instead of the image's own check, or of a part of it; empty for nothing."""
    found: dict[str, Any] = {}
    if options["health_cmd"]:
        found["Test"] = ["CMD-SHELL", options["health_cmd"]]
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if text := options[f"health_{name}"]:
            found["".join(word.capitalize() for word in name.split("_"))] = _duration(f"--health-{name}", text)
    if options["health_retries"] is not None:
        found["Retries"] = options["health_retries"]
    if options["no_healthcheck"]:
        if found:
            raise InvalidParameter("--no-healthcheck conflicts with the --health-… options")
        found["Test"] = ["NONE"]
    return found


def _duration(option: str, text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidParameter(f"{option.replace('_', '-')}: {error}") from error


@contextlib.contextmanager
def id_file(path: str | None) -> Iterator[Callable[[str], object]]:
    """Give the function that writes the container's id to a new file, which goes again if that is not called.

    Raises InvalidParameter for a file that is there already or can't be made.
    """
    if path is None:
        yield lambda _: None
        return
    try:
        file = open(path, "x", encoding="ascii")  # noqa: SIM115  # it is closed below
    except FileExistsError as error:
        message = f"--cidfile: {path} is there already: another container may be using it (delete it, or name another)"
        raise InvalidParameter(message) from error
    except OSError as error:
        raise InvalidParameter(f"--cidfile: {path}: {error.strerror}") from error
    try:
        with file:
            yield file.write
    except BaseException:
        os.unlink(path)
        raise
