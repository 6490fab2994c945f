"""The event `daemon reload`: the settings that now hold, as text, in the attributes that dockerd gives it."""

import json
import socket
from typing import Any

from logd.config import OPTIONS, DaemonConfig


def attributes(config: DaemonConfig) -> dict[str, str]:
    """Return each setting that a reload can change, by its key, and the host's name."""
    settings = {".".join(one.key): _shown(getattr(config, one.name)) for one in OPTIONS if one.reloadable}
    return {**settings, "name": socket.gethostname()}


def _shown(value: Any) -> str:
    """Return dockerd's form: `true`, `33554432`, `["a=b"]`, `x:/usr/bin/crun runc:runc`; "" for what is not set."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict):
        return " ".join(f"{name}:{runtime.path}" for name, runtime in value.items())
    return json.dumps(value, separators=(",", ":"))
