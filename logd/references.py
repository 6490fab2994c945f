"""Names of images: Docker's reference grammar, its canonical and its familiar form.

    busybox                    docker.io/library/busybox      (tag latest where one is needed)
    host:5000/team/app:1.2     the same
    name@sha256:<64 hex>       by the digest of a manifest

Source: the grammar in the package documentation of github.com/distribution/reference; messages are Docker's.
"""

import re
from typing import Final, NamedTuple

from logd import globs
from logd.errors import InvalidParameter

DEFAULT_DOMAIN: Final = "docker.io"
LEGACY_DOMAIN: Final = "index.docker.io"
OFFICIAL_PREFIX: Final = "library/"
DEFAULT_TAG: Final = "latest"
MAX_NAME: Final = 255
"""Characters of the path of a repository."""

INVALID: Final = "invalid reference format"
IDENTIFIER: Final = re.compile(r"[0-9a-f]{64}")
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")

_LABEL: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_TAG: Final = r"\w[\w.-]{0,127}"
_DIGEST: Final = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE: Final = re.compile(
    rf"(?P<domain>{_HOST}(?::[0-9]+)?)/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?",
    re.ASCII,
)
_TAG_ONLY: Final = re.compile(_TAG, re.ASCII)


class Reference(NamedTuple):
    """A repository by its full name, and which of its images: by tag, by a manifest's digest, by both or neither."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository, in full: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as Docker shows it: `busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(OFFICIAL_PREFIX)
        return self.path if "/" in rest else rest

    @property
    def suffix(self) -> str:
        """What follows the name: `:tag`, `@digest`, both or nothing."""
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """The whole as Docker shows it: `busybox:latest`."""
        return self.familiar_name + self.suffix

    def __str__(self) -> str:
        return self.name + self.suffix

    def with_default_tag(self) -> "Reference":
        """Return the reference with the tag `latest` if it has neither tag nor digest."""
        return self if self.tag or self.digest else self._replace(tag=DEFAULT_TAG)

    def as_key(self) -> "Reference":
        """Return the form under which it is stored: a digest wins over a tag, since a tag may have moved."""
        return self._replace(tag="") if self.digest else self.with_default_tag()


def parse(text: str) -> Reference:
    """Return the reference that `text` writes in its familiar or full form. Raises InvalidParameter."""
    if IDENTIFIER.fullmatch(text):
        raise InvalidParameter(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    repository = rest.partition(":")[0]
    if repository != repository.lower():
        raise InvalidParameter(f"{INVALID}: repository name ({repository}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if match is None:
        raise InvalidParameter(INVALID)
    reference = Reference(match["domain"], match["path"], match["tag"] or "", match["digest"] or "")
    if len(reference.path) > MAX_NAME:
        raise InvalidParameter(f"repository name must not be more than {MAX_NAME} characters")
    if reference.digest and not DIGEST.fullmatch(reference.digest):
        raise InvalidParameter(_digest_problem(reference.digest))
    return reference


def parse_repository(repository: str, tag: str) -> Reference:
    """Return the reference of a repository and a tag given apart; no tag is `latest`. Raises InvalidParameter."""
    reference = parse(repository)
    if reference.digest:
        raise InvalidParameter("refusing to create a tag with a digest reference")
    if tag:
        if not _TAG_ONLY.fullmatch(tag):
            raise InvalidParameter("invalid tag format")
        reference = reference._replace(tag=tag)
    if reference.familiar_name == "sha256":
        raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
    return reference.with_default_tag()


def digest_of(text: str) -> str | None:
    """Return the digest that `text` is, in full or as 64 hex digits, or None."""
    if IDENTIFIER.fullmatch(text):
        return f"sha256:{text}"
    return text if DIGEST.fullmatch(text) else None


def matches(pattern: str, reference: Reference) -> bool:
    """Say whether a shell pattern fits the familiar form, with tag or without. Raises InvalidParameter."""
    regex = globs.pattern_of(pattern)
    return bool(regex.fullmatch(reference.familiar) or regex.fullmatch(reference.familiar_name))


def _split_domain(text: str) -> tuple[str, str]:
    """Split off the registry's host, by Docker's rule: a first part with a dot, a colon or capitals, or localhost."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, OFFICIAL_PREFIX + text
    if first == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    elif first == "localhost" or "." in first or ":" in first or first != first.lower():
        domain = first
    else:
        domain, rest = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL_PREFIX + rest
    return domain, rest


def _digest_problem(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    lengths = {"sha256": 64, "sha384": 96, "sha512": 128}
    if algorithm not in lengths:
        return "unsupported digest algorithm"
    return "invalid checksum digest length" if len(value) != lengths[algorithm] else "invalid checksum digest format"
