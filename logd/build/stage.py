"""A stage of a build while it goes on: the image so far, its config, and the arguments that are known."""

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from logd.images.blobs import digest_of
from logd.images.changes import Scope, copied
from logd.images.image import Image

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROXIES: Final = frozenset(
    name
    for text in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (text, text.lower())
)
"""Arguments that need no ARG; without one they change nothing in the result."""


@dataclass
class StageState:
    """`config` is Docker's `Config` as the next image has it."""

    image: Image
    config: dict[str, Any]
    arguments: dict[str, str] = field(default_factory=dict)
    escape: str = "\\"
    has_command: bool = False
    """Whether the stage had a CMD, which an ENTRYPOINT then leaves as it is."""
    author: str = ""

    @classmethod
    def on(cls, image: Image, escape: str) -> "StageState":
        """Return the beginning of a stage on an image; `escape` is the Dockerfile's."""
        config = copied(image.runtime_config)
        config.pop("OnBuild", None)
        if not any(entry.startswith("PATH=") for entry in config.get("Env") or []):
            config["Env"] = [*(config.get("Env") or []), f"PATH={DEFAULT_PATH}"]
        return cls(image, config, escape=escape)

    @property
    def scope(self) -> Scope:
        """What the next instruction works on."""
        return Scope(self.config, self.arguments, self.escape)

    def run_arguments(self, given: dict[str, str]) -> dict[str, str]:
        """Return the arguments that the commands of RUN see in their environment; those of proxies need no ARG."""
        known = {entry.partition("=")[0] for entry in self.config.get("Env") or []}
        proxies = {name: value for name, value in given.items() if name in PROXIES}
        return {name: value for name, value in {**proxies, **self.arguments}.items() if name not in known}

    def counted(self, arguments: dict[str, str]) -> dict[str, str]:
        """Return those of the arguments of RUN that make another image if they change."""
        return {name: value for name, value in arguments.items() if name not in PROXIES or name in self.arguments}

    def step(self, *parts: Any) -> str:
        """Return the digest of what makes the next image of this one."""
        return digest_of(orjson.dumps([self.config, self.author, *parts], option=orjson.OPT_SORT_KEYS))
