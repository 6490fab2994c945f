"""The grammar is Docker's; so are the words for what it refuses."""

import pytest

from logd import references
from logd.errors import InvalidParameter

DIGEST = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox:a", "docker.io/library/busybox:a", "busybox:a"),
        ("team/app", "docker.io/team/app", "team/app"),
        ("library/team/app", "docker.io/library/team/app", "library/team/app"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"),
        ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("UPPER/app", "UPPER/app", "UPPER/app"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox:1@{DIGEST}", f"busybox:1@{DIGEST}"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e", "a__b/c-d.e"),
        ("a---b", "docker.io/library/a---b", "a---b"),
    ],
)
def test_a_name_has_a_full_and_a_familiar_form(text: str, full: str, familiar: str) -> None:
    reference = references.parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar
    assert references.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ("team/App:x", "invalid reference format: repository name (team/App) must be lowercase"),
        ("a b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:.x", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("../../etc/passwd", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a@sha256:12", "invalid reference format"),
        ("a@md5:" + "0" * 32, "unsupported digest algorithm"),
        ("a@sha256:" + "0" * 63, "invalid checksum digest length"),
        ("a@sha256:" + "A" * 64, "invalid checksum digest format"),
        ("f" * 64, f"invalid repository name ({'f' * 64}), cannot specify 64-byte hexadecimal strings"),
        ("x" * 256, "repository name must not be more than 255 characters"),
    ],
)
def test_what_is_no_name_is_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        references.parse(text)
    assert str(caught.value) == message


def test_a_repository_without_a_tag_gets_latest() -> None:
    assert references.parse_repository("app", "").familiar == "app:latest"
    assert references.parse_repository("app:1", "").familiar == "app:1"
    assert references.parse_repository("app:1", "2").familiar == "app:2"


@pytest.mark.parametrize(
    ("repository", "tag", "message"),
    [
        (f"a@{DIGEST}", "", "refusing to create a tag with a digest reference"),
        ("a", "b c", "invalid tag format"),
        ("sha256", "x", "refusing to create an ambiguous tag using digest algorithm as name"),
    ],
)
def test_a_tag_that_can_not_be_given_is_refused(repository: str, tag: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        references.parse_repository(repository, tag)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("busybox", "busybox:1", True),
        ("busy*", "busybox:1", True),
        ("busybox:*", "busybox:1", True),
        ("*", "team/app:1", False),
        ("*/*", "team/app:1", True),
        ("t?am/[a-c]pp", "team/app:1", True),
        ("t?am/[^a-c]pp", "team/app:1", False),
        ("busybox:2", "busybox:1", False),
        ("b\\usybox", "busybox:1", True),
    ],
)
def test_a_pattern_matches_like_a_path(pattern: str, text: str, fits: bool) -> None:
    assert references.matches(pattern, references.parse(text)) is fits


@pytest.mark.parametrize("pattern", ["[a", "a\\", "[", "[b-a]"])
def test_a_broken_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameter, match="syntax error in pattern"):
        references.matches(pattern, references.parse("a"))
