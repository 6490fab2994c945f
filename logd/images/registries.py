"""Images to and from registries, by the daemon's settings."""

import os

from logd.config import DaemonConfig
from logd.images.downloads import Downloads
from logd.images.image import Image
from logd.images.pull import Pulls
from logd.images.push import Pushes
from logd.images.report import Report
from logd.images.store import ImageStore
from logd.references import Reference
from logd.registry.settings import Credentials, Settings


class Registries:
    """What registries can be asked for. Settings are looked up at each use, so that a reload reaches them."""

    def __init__(self, store: ImageStore, config: DaemonConfig) -> None:
        self._config = config
        downloads = Downloads(config.data_root / "images/downloads", lambda: config.max_concurrent_downloads)
        self._pulls = Pulls(store, downloads, self.settings)
        self._pushes = Pushes(store, self.settings, lambda: config.max_concurrent_uploads)

    async def pull(self, wanted: Reference, credentials: Credentials, platform: str, report: Report) -> Image:
        """Take an image: see Pulls."""
        return await self._pulls.pull(wanted, credentials, platform, report)

    async def push(self, wanted: Reference, credentials: Credentials, report: Report) -> None:
        """Give an image: see Pushes."""
        await self._pushes.push(wanted, credentials, report)

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
        )


def _environment(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.lower(), "")
