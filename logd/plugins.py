"""Built-in and installed plugins: drivers and line processors by name. pluggy is called here, at start, nowhere else.

A plugin that can't be loaded, or offers what can't be used, is named in `broken`; the others are not affected. A
driver's name that none of them has is taken for that of one of Docker's log plugins, which come and go.
"""

import functools
import importlib
import logging
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final

import pluggy

from logd import hookspecs
from logd.driver import CommonOptions, LogDriver
from logd.drivers import docker_plugin
from logd.processor import ProcessorFactory

log = logging.getLogger(__name__)

GROUP: Final = "logd"
"""The group of entry points."""
BUILT_IN: Final = "logd"
DRIVERS: Final = ("json_file", "journald", "syslog", "fluentd", "splunk", "gelf")
PROCESSORS: Final = ("multiline", "parse", "choose", "redact", "rate_limit", "sample")
MODULES: Final = (
    *(f"logd.drivers.{name}" for name in DRIVERS),
    *(f"logd.processors.{name}" for name in PROCESSORS),
)
RESERVED: Final = ("local", "none")
"""Names that stand for the store itself."""


@dataclass(frozen=True)
class Broken:
    """A plugin that is not used, and why."""

    plugin: str
    reason: str


@dataclass
class Plugins:
    """What is there."""

    drivers: dict[str, type[LogDriver[Any]]] = field(default_factory=dict)
    """By the name that `--log-driver` takes."""
    processors: list[ProcessorFactory] = field(default_factory=list)
    """In the order in which they act."""
    origins: dict[str, str] = field(default_factory=dict)
    """The plugin that each driver comes from; BUILT_IN for logd's own."""
    broken: list[Broken] = field(default_factory=list)

    def find(self, name: str) -> type[LogDriver[Any]] | None:
        """Return a driver by its name: one that is loaded, or what speaks to Docker's plugin of that name.

        None if that can't be a name. The plugin may not be there now.
        """
        return self.drivers.get(name) or docker_plugin.driver_named(name)

    def driver(self, name: str) -> type[LogDriver[Any]]:
        """Return the driver of a name that was found before."""
        found = self.find(name)
        assert found is not None
        return found

    def is_there(self, name: str) -> bool:
        """Whether a driver is loaded, or there is a plugin of Docker's kind with this name."""
        return name in self.drivers or docker_plugin.is_there(name)

    def origin(self, name: str) -> str:
        """Return the plugin that a driver comes from. Docker's are processes anyway: our side of them is built in."""
        return self.origins.get(name, BUILT_IN)


@functools.cache
def load() -> Plugins:
    """Load the built-in plugins and those that are installed; once, for the whole process."""
    found = Plugins()
    for module in MODULES:
        _add(found, BUILT_IN, module, lambda module=module: importlib.import_module(module))
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        _add(found, entry.name, entry.value, entry.load)
    found.processors.sort(key=lambda factory: factory.order)
    return found


def _add(found: Plugins, plugin: str, module: str, loading: Any) -> None:
    """Take in what one plugin offers, all of it or nothing."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(loading(), name=module)
        manager.check_pending()
        drivers = [one for offered in manager.hook.logd_log_drivers() for one in offered]
        processors = [one for offered in manager.hook.logd_line_processors() for one in offered]
        for driver in drivers:
            _check_driver(found, driver)
        for processor in processors:
            if not isinstance(processor, ProcessorFactory):
                raise TypeError(f"{processor!r} is not a ProcessorFactory")
    except (Exception, SystemExit) as error:  # whatever a stranger's module does while it is imported
        found.broken.append(Broken(f"{plugin} ({module})", f"{type(error).__name__}: {error}"))
        log.debug("plugin %s is broken and not used", plugin, exc_info=True)
        return
    for driver in drivers:
        found.drivers[driver.name] = driver
        found.origins[driver.name] = plugin
    found.processors += processors


def _check_driver(found: Plugins, driver: Any) -> None:
    if not (isinstance(driver, type) and issubclass(driver, LogDriver)):
        raise TypeError(f"{driver!r} is not a subclass of LogDriver")
    if not issubclass(driver.options_type, CommonOptions):
        raise TypeError(f"the options of driver {driver.name!r} are not a subclass of CommonOptions")
    if driver.name in RESERVED or driver.name in found.drivers:
        raise ValueError(f"there is a driver named {driver.name!r} already")
