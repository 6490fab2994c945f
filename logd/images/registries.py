"""Images to and from registries, by the daemon's settings."""

import contextlib
import os
from typing import Any, Final

import msgspec

from logd import references
from logd.config import DaemonConfig
from logd.errors import InvalidParameter
from logd.images import config as image_config
from logd.images.downloads import Downloads
from logd.images.image import Image
from logd.images.manifests import INDEX_TYPES, Descriptor, read_index, read_manifest
from logd.images.pull import Pulls, no_prompt
from logd.images.push import Pushes
from logd.images.report import Report
from logd.images.store import ImageStore
from logd.references import Reference
from logd.registry.remote import Remote, connected
from logd.registry.settings import Credentials, Settings

HUB_HOSTS: Final = frozenset(("", "docker.io", "index.docker.io", "registry-1.docker.io"))


class Registries:
    """What registries can be asked for. Settings are looked up at each use, so that a reload reaches them."""

    def __init__(self, store: ImageStore, config: DaemonConfig) -> None:
        self._config = config
        self._downloads = Downloads(config.data_root / "images/downloads", lambda: config.max_concurrent_downloads)
        self._pulls = Pulls(store, self._downloads, self.settings)
        self._pushes = Pushes(store, self.settings, lambda: config.max_concurrent_uploads)

    async def pull(self, wanted: Reference, credentials: Credentials, platform: str, report: Report) -> Image:
        """Take an image: see Pulls."""
        return await self._pulls.pull(wanted, credentials, platform, report)

    async def pull_all(self, wanted: Reference, credentials: Credentials, platform: str, report: Report) -> list[Image]:
        """Take the images of all tags: see Pulls."""
        return await self._pulls.pull_all(wanted, credentials, platform, report)

    async def push(self, wanted: Reference, credentials: Credentials, report: Report) -> None:
        """Give an image: see Pushes."""
        await self._pushes.push(wanted, credentials, report)

    async def login(self, credentials: Credentials) -> str:
        """Ask the registry at `serveraddress` whether it takes name and password; return its token for them, or "".

        Raises Unauthorized, InvalidParameter for what is no address.
        """
        domain = _domain_of(credentials.serveraddress)
        async with connected(domain, "", self.settings(), credentials, mirrors=False) as remote:
            return str((await remote.ask("check"))["identity_token"])

    async def look(self, wanted: Reference, credentials: Credentials) -> dict[str, Any]:
        """Return Docker's DistributionInspect of what a name means in its registry. Raises NotFound."""
        with no_prompt():
            async with connected(wanted.domain, wanted.path, self.settings(), credentials) as remote:
                return await self._look(remote, wanted)

    async def _look(self, remote: Remote, wanted: Reference) -> dict[str, Any]:
        found = await remote.ask("manifest", wanted=wanted.digest or wanted.tag)
        data, media_type = found["data"].encode(), found["media_type"]
        if media_type in INDEX_TYPES:
            index = read_index(data, found["digest"])
            found_for = [msgspec.to_builtins(one.platform) for one in index.manifests if one.platform]
            platforms = [{key: value for key, value in one.items() if value} for one in found_for]
        else:
            descriptor = Descriptor(found["digest"], len(data), media_type)
            platforms = [await self._platform(remote, read_manifest(data, descriptor).config)]
        about = {"mediaType": media_type, "digest": found["digest"], "size": len(data)}
        return {"Descriptor": about, "Platforms": platforms}

    async def _platform(self, remote: Remote, wanted: Descriptor) -> dict[str, str]:
        document = image_config.parse(await self._downloads.small(remote, wanted))
        found = {"architecture": document.architecture or "", "os": document.os or "linux"}
        return found | ({"variant": document.variant} if document.variant else {})

    def settings(self) -> Settings:
        """Return how registries are spoken to now."""
        config = self._config
        return Settings(
            registry_mirrors=config.registry_mirrors,
            insecure_registries=config.insecure_registries,
            http_proxy=config.proxies.http_proxy or _environment("HTTP_PROXY"),
            https_proxy=config.proxies.https_proxy or _environment("HTTPS_PROXY"),
            no_proxy=config.proxies.no_proxy or _environment("NO_PROXY"),
            attempts=config.max_download_attempts,
            certificates=config.registry_certificates,
            timeout=config.registry_timeout,
        )


def _domain_of(address: str) -> str:
    """Return the registry that an address means, such as https://index.docker.io/v1/ or host:5000."""
    host = (address.partition("://")[2] or address).partition("/")[0]
    if host in HUB_HOSTS:
        return "docker.io"
    with contextlib.suppress(InvalidParameter):
        if references.parse(f"{host}/any").domain == host:
            return host
    raise InvalidParameter(f"serveraddress {address!r} is not the address of a registry: host[:port]")


def _environment(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.lower(), "")
