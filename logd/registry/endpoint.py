"""Where a registry is reached: its hosts in the order in which they are asked, and how each is spoken to.

Source: Docker's documentation of registry-mirrors, insecure-registries and of certificates for registries
(docs.docker.com/engine/security/certificates).
"""

import asyncio
import ipaddress
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import Final, NamedTuple

from yarl import URL

from logd.errors import LogdError
from logd.registry.settings import LOOPBACK, Settings

HUB: Final = "docker.io"
HUB_HOST: Final = "registry-1.docker.io"


class Endpoint(NamedTuple):
    """One way to a registry: `url` has scheme and host, of a mirror the path too."""

    url: URL
    host: str
    """host[:port], by which certificates are looked up."""
    verified: bool = True
    """Whether its certificate has to be good."""
    mirror: bool = False


async def endpoints(domain: str, settings: Settings, *, mirrors: bool) -> list[Endpoint]:
    """Return where the registry `domain` is looked for, the first one first; `mirrors` where it may be a copy."""
    found: list[Endpoint] = []
    if mirrors and domain == HUB:
        for text in settings.registry_mirrors:
            url = URL(text)
            insecure = url.scheme == "http" or await _is_insecure(url.authority, settings)
            found.append(Endpoint(url, url.authority, verified=not insecure, mirror=True))
    host = HUB_HOST if domain == HUB else domain
    if domain != HUB and await _is_insecure(host, settings):
        schemes = [("https", False), ("http", False)]
    else:
        schemes = [("https", True)]
    return found + [Endpoint(URL(f"{scheme}://{host}"), host, verified) for scheme, verified in schemes]


async def _is_insecure(host: str, settings: Settings) -> bool:
    """Say whether a registry is listed by name, or one of its addresses is in a subnet that is listed."""
    if host in settings.insecure_registries:
        return True
    subnets = [
        ipaddress.ip_network(text, strict=False)
        for text in (*LOOPBACK, *settings.insecure_registries)
        if _is_subnet(text)
    ]
    name = URL(f"//{host}").host or host
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    addresses = [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]
    return any(address in subnet for address in addresses for subnet in subnets)


def _is_subnet(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def tls_of(endpoint: Endpoint, settings: Settings) -> ssl.SSLContext:
    """Return how TLS is spoken with it, by the certificates that are kept for it. Raises LogdError."""
    context = ssl.create_default_context()
    if not endpoint.verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for folder in (Path(root) / endpoint.host for root in settings.certificates):
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            try:
                if path.suffix == ".crt":
                    context.load_verify_locations(path)
                elif path.suffix == ".cert":
                    context.load_cert_chain(path, path.with_suffix(".key"))
            except (OSError, ssl.SSLError) as error:
                raise LogdError(f"{path}: {getattr(error, 'reason', None) or error}") from error
    return context


def proxy_of(url: URL, settings: Settings) -> str | None:
    """Return the proxy for `url`, None for none; never for this host's own addresses, as in Go."""
    proxy = settings.https_proxy if url.scheme == "https" else settings.http_proxy
    host = url.host or ""
    if not proxy or host == "localhost" or _is_loopback(host):
        return None
    bypassed = urllib.request.proxy_bypass_environment(url.authority, {"no": settings.no_proxy})  # type: ignore[attr-defined]  # not in the stubs
    return None if bypassed else proxy


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
