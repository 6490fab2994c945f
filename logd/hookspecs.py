"""The plugin API: what a plugin may offer. A package's entry point in the group `logd` names a module with hooks.

from logd.hookspecs import hookimpl

@hookimpl
def logd_log_drivers() -> list[type[LogDriver[Any]]]:
return [MyDriver]
"""

from typing import Any, Final

import pluggy

from logd.driver import LogDriver
from logd.processor import ProcessorFactory

PROJECT: Final = "logd"
hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


@hookspec
def logd_log_drivers() -> list[type[LogDriver[Any]]]:  # type: ignore[empty-body]  # a specification has no body
    """Return the log drivers of this plugin. Called once, at start."""


@hookspec
def logd_line_processors() -> list[ProcessorFactory]:  # type: ignore[empty-body]
    """Return the line processors of this plugin. Called once, at start."""
