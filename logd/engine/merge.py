"""What a container runs: the request, completed from the image's configuration and the daemon's settings.

Source: Docker's reference for `docker run` ("Overriding image defaults"); the messages are dockerd's.
"""

import os
import posixpath
from typing import Any

import msgspec

from logd.config import DaemonConfig
from logd.engine.health_state import KINDS
from logd.engine.logopts import resolve
from logd.engine.signals import parse_signal
from logd.errors import InvalidParameter
from logd.runtime.limits import settle
from logd.runtime.security import masked_paths, readonly_paths
from logd.spec import ContainerSpec, HealthConfig, HostConfig, RestartPolicy

MIN_HEALTH_NS = 1_000_000
"""Docker's least interval, 1 ms."""


def check_request(spec: ContainerSpec, host: HostConfig) -> None:
    """Refuse, with InvalidParameter in dockerd's words, what can't be right with any image."""
    if spec.working_dir and not spec.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{spec.working_dir}' is invalid, it needs to be an absolute path"
        )
    if spec.stop_signal:
        parse_signal(spec.stop_signal)
    for variable in spec.env:
        if not variable or variable.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {variable}")
    if host.auto_remove and host.restart_policy.name not in {"", "no"}:
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    if "" in host.annotations:
        raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")
    if spec.healthcheck is not None:
        _check_health(spec.healthcheck)


def _check_health(health: HealthConfig) -> None:
    if health.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if 0 != getattr(health, name) < MIN_HEALTH_NS:
            words = "".join(word.capitalize() for word in name.split("_"))
            raise InvalidParameter(f"{words} in Healthcheck cannot be less than 1ms")
    if not health.test:
        return
    if health.test[0] not in KINDS:
        raise InvalidParameter(f"Test in Healthcheck: unknown type {health.test[0]!r} (accepted: {', '.join(KINDS)})")
    if health.test[0] != "NONE" and not "".join(health.test[1:]):
        raise InvalidParameter(f"Test in Healthcheck: {health.test[0]} without a command")
    if any("\0" in word for word in health.test):
        raise InvalidParameter("Test in Healthcheck: a NUL byte in the command")


def merge_image(spec: ContainerSpec, image: ContainerSpec) -> ContainerSpec:
    """Return the request with what it leaves open taken from the image; raises InvalidParameter without a command."""
    reset = spec.entrypoint == [""]  # `--entrypoint ""`: neither the image's entrypoint nor its command
    inherits = not spec.entrypoint
    merged = msgspec.structs.replace(
        spec,
        user=spec.user or image.user,
        exposed_ports={**image.exposed_ports, **spec.exposed_ports},
        env=_merge_env(spec.env, image.env),
        labels={**image.labels, **spec.labels},
        cmd=image.cmd if inherits and not spec.cmd else spec.cmd,
        entrypoint=[] if reset else image.entrypoint if inherits else spec.entrypoint,
        healthcheck=_merge_health(spec.healthcheck, image.healthcheck),
        working_dir=_clean(spec.working_dir or image.working_dir),
        volumes={**image.volumes, **spec.volumes},
        stop_signal=spec.stop_signal or image.stop_signal,
    )
    if not merged.entrypoint and not merged.cmd:
        raise InvalidParameter("no command specified")
    return merged


def _merge_health(asked: HealthConfig | None, inherited: HealthConfig | None) -> HealthConfig | None:
    """Return a health check in which each field that was not asked for is the image's."""
    if asked is None or inherited is None:
        return asked or inherited
    return HealthConfig(**{**_set_fields(inherited), **_set_fields(asked)})


def _set_fields(health: HealthConfig) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(health).items() if value}


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/") if path else ""


def _merge_env(asked: list[str], inherited: list[str]) -> list[str]:
    """Return what was asked, then what the image has besides (a name without `=` removes it)."""
    names = {variable.partition("=")[0] for variable in asked}
    return [*asked, *(one for one in inherited if one.partition("=")[0] not in names)]


def complete_spec(spec: ContainerSpec, host: HostConfig, container_id: str) -> ContainerSpec:
    """Return the request with a host name: the host's own where its network is shared, else the short id."""
    if spec.hostname:
        return spec
    shares = host.network_mode == "host" or host.uts_mode == "host"
    return msgspec.structs.replace(spec, hostname=os.uname().nodename if shares else container_id[:12])


def complete_host(host: HostConfig, config: DaemonConfig) -> HostConfig:
    """Return the host's part with dockerd's defaults filled in, as inspect shows them; checks the log-opts."""
    runtime = host.runtime or config.default_runtime
    if runtime not in config.runtimes:
        raise InvalidParameter(
            f"unknown or invalid runtime name: {runtime} (known: {', '.join(sorted(config.runtimes))})"
        )
    return msgspec.structs.replace(
        settle(host, config.default_shm_size),
        log_config=resolve(host.log_config, config),
        network_mode="bridge" if host.network_mode in {"", "default"} else host.network_mode,
        restart_policy=host.restart_policy if host.restart_policy.name else RestartPolicy(name="no"),
        runtime=runtime,
        masked_paths=host.masked_paths if host.privileged else masked_paths(host),
        readonly_paths=host.readonly_paths if host.privileged else readonly_paths(host),
        security_opt=_security_options(host),
    )


def _security_options(host: HostConfig) -> list[str]:
    """Return the options and, as dockerd adds it, that a container with the host's own rights has no SELinux label."""
    labelled = any(option.startswith("label") for option in host.security_opt)
    as_the_host = host.privileged or host.ipc_mode == "host" or host.pid_mode == "host"
    return [*host.security_opt, "label=disable"] if as_the_host and not labelled else host.security_opt


def command_of(spec: ContainerSpec) -> tuple[str, list[str]]:
    """Return the program and its arguments: the entrypoint, then the command."""
    argv = [*spec.entrypoint, *spec.cmd]
    return argv[0], argv[1:]
