"""A container's log drivers and log-opts as the engine uses them: completed at create, the limits of its store.

Everything is checked when a container is created or its logging changed: see forward/routes.py.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Final

from logd import plugins
from logd.batch import ContainerInfo
from logd.config import DaemonConfig
from logd.container import Container
from logd.driver import parse_options
from logd.drivers.docker_plugin import DockerPluginDriver, try_logging
from logd.errors import InvalidParameter, NotFound
from logd.forward.routes import (
    LOCAL,
    CacheLimits,
    KeptLimits,
    Logging,
    StoreLimits,
    known_options,
    parse_logging,
    parse_names,
    takes_any,
)
from logd.logstore.options import StoreOptions
from logd.spec import LogConfig

log = logging.getLogger(__name__)

EPHEMERAL: Final = StoreOptions(max_size=1 << 20, max_file=2)
"""What the driver `none` keeps, for attach only."""


def resolve(asked: LogConfig, config: DaemonConfig) -> LogConfig:
    """Return the driver and options that hold for a new container: what was asked, else the daemon's.

    The daemon's options are added where its driver is used. Raises InvalidParameter for an unknown driver, an
    unknown option or a wrong value.
    """
    driver = asked.type or config.log_driver
    options = dict(asked.config)
    if driver == config.log_driver:
        options = {**config.log_opts, **options}
    check(driver, options)
    return LogConfig(type=driver, config=options)


def check(driver: str, options: Mapping[str, str]) -> None:
    """Raise InvalidParameter, in Docker's words where it has them, for a driver or options that can't be used."""
    parse_logging(driver, options, plugins.load(), at_create=True)


def logging_of(log_config: LogConfig) -> Logging:
    """Return the logging of a container that was checked when it was created.

    Where that no longer holds, because a plugin is gone, its output is kept and nothing is delivered.
    """
    return _parsed(log_config.type, tuple(sorted(log_config.config.items())))


@functools.lru_cache(maxsize=1024)
def _parsed(driver: str, options: tuple[tuple[str, str], ...]) -> Logging:
    try:
        return parse_logging(driver, dict(options), plugins.load())
    except InvalidParameter as error:
        log.error("log driver %s can't be used, its output is kept: %s", driver, error)  # noqa: TRY400 - reason enough
        return Logging((), StoreLimits(), (driver,))


def told(container: Container, config: DaemonConfig) -> ContainerInfo:
    """Return what the container's drivers are told of it."""
    return dataclasses.replace(
        container.info(),
        run_folder=str(config.exec_root),
        log_opts=container.host.log_config.config,
        log_path=log_path(container),
    )


def log_path(container: Container) -> str:
    """Return where json-file's file is, if that driver is on: shippers parse what they find there."""
    drivers = logging_of(container.host.log_config).drivers
    return str(container.dir / f"{container.id}-json.log") if "json-file" in drivers else ""


def check_tags(container: Container) -> None:
    """Raise InvalidParameter for a tag's template that does not suit the container, such as one that counts words."""
    for route in logging_of(container.host.log_config).routes:
        options = parse_options(route.driver, plugins.load().driver(route.driver).options_type, route.options)
        if options.tag is not None:
            info = container.info()
            try:
                options.tag.expand(info, options.attributes.of(info))
            except ValueError as error:
                raise InvalidParameter(str(error)) from error


async def try_plugins(
    container: Container, new: LogConfig, config: DaemonConfig, before: LogConfig | None = None
) -> None:
    """Ask Docker's plugins among the drivers of `new`, but those that were there before, whether they would log.

    Raises InvalidParameter in Docker's words if one is not there, or takes not the options.
    """
    old = () if before is None else logging_of(before).routes
    for route in logging_of(new).routes:
        driver = plugins.load().driver(route.driver)
        if route in old or not issubclass(driver, DockerPluginDriver):
            continue
        options = parse_options(f"{route.driver} log driver", driver.options_type, route.options)
        try:
            await try_logging(driver, options, told(container, config))
        except OSError as error:
            raise InvalidParameter(f"failed to initialize logging driver: {error}") from error


def with_driver(log_config: LogConfig, driver: str, options: Mapping[str, str]) -> LogConfig:
    """Return the logging with one driver more, `DRIVER` or `NAME=DRIVER`, and options of its own. Checked."""
    name = next(iter(parse_names(driver)))
    own = {f"{name}:{key}": value for key, value in options.items()}
    new = LogConfig(type=f"{log_config.type},{driver}", config={**log_config.config, **own})
    check(new.type, new.config)
    return new


def without_driver(log_config: LogConfig, name: str) -> LogConfig:
    """Return the logging without the driver of that name, and without options that nobody else knows. Checked.

    Raises NotFound.
    """
    named = parse_names(log_config.type)
    if name not in named:
        raise NotFound(f"no log driver named {name!r} (there are: {', '.join(named)})")
    its_own = known_options(named.pop(name), plugins.load())
    driver = ",".join(one if one == kind else f"{one}={kind}" for one, kind in named.items()) or LOCAL
    known, is_any = known_options(driver, plugins.load()), takes_any(driver, plugins.load())
    config = {
        key: value
        for key, value in log_config.config.items()
        if (key in known or (is_any and key not in its_own) if ":" not in key else not key.startswith(f"{name}:"))
    }
    check(driver, config)
    return LogConfig(type=driver, config=config)


def store_options(log_config: LogConfig, config: DaemonConfig) -> StoreOptions:
    """Return the limits of the store of a container with this driver and these options."""
    chosen = logging_of(log_config)
    limits, default = chosen.limits, EPHEMERAL if chosen.is_ephemeral else StoreOptions()
    size = files = 0
    if isinstance(limits, KeptLimits):
        size, files = limits.max_size, limits.max_file
    elif isinstance(limits, CacheLimits):
        size, files = limits.cache_max_size, limits.cache_max_file
    return StoreOptions(
        max_size=size or default.max_size,
        max_file=files or default.max_file,
        max_age_s=limits.max_age,
        max_total=config.max_total,
        min_free=-1 if config.min_free is None else config.min_free,
        sync=config.sync if limits.sync is None else limits.sync,
        mode=limits.mode,
    )


def max_line_bytes(log_config: LogConfig) -> int:
    """Return beyond how many bytes a line is given out in parts."""
    return logging_of(log_config).limits.max_line_size
