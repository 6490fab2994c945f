"""What a build is asked for."""

from dataclasses import dataclass, field

from logd.references import Reference
from logd.registry.settings import NOBODY, Credentials
from logd.spec import HostConfig


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The parameters of POST /build that are honoured; `host` has what containers of RUN get of the host."""

    names: tuple[Reference, ...] = ()
    dockerfile: str = "Dockerfile"
    target: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False
    remove: bool = True
    """Containers of steps, once a step is done."""
    force_remove: bool = False
    """And those of a step that failed."""
    platform: str = ""
    host: HostConfig = field(default_factory=HostConfig)
    credentials: dict[str, Credentials] = field(default_factory=dict)
    """By registry."""

    def credentials_for(self, domain: str) -> Credentials:
        """Return who asks a registry for a base image."""
        hub = ("https://index.docker.io/v1/", "index.docker.io") if domain == "docker.io" else ()
        found = (self.credentials.get(name) for name in (domain, f"https://{domain}", *hub))
        return next((one for one in found if one is not None), NOBODY)
