"""A Dockerfile as stages of instructions: what can be said of it without building it.

Lines, comments and continuations are dockerfile-parse's; flags, stages and what is refused are ours. What only BuildKit
has is refused with its name. Messages are those of Docker's builder.
"""

import io
import re
from dataclasses import dataclass, field
from typing import IO, Final, NamedTuple, cast

import orjson
from dockerfile_parse import DockerfileParser

from logd.errors import InvalidParameter
from logd.images.changes import Scope, change, written_pairs
from logd.images.shellwords import split

BUILDKIT: Final = "requires BuildKit, which this daemon does not have"
KNOWN: Final = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
FLAGS: Final = {"FROM": {"platform"}, "COPY": {"from", "chown"}, "ADD": {"chown"}, "RUN": set[str]()}
"""What each instruction takes; HEALTHCHECK reads its own."""
SINGLE: Final = frozenset({"MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR"})
"""What takes one argument."""
BUILDKIT_FLAGS: Final = {
    "COPY": {"chmod", "link", "parents", "exclude"},
    "ADD": {"chmod", "link", "keep-git-dir", "checksum", "exclude", "unpack"},
    "RUN": {"mount", "network", "security", "device"},
}
_FLAG: Final = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?(?:\s+|$)")
_HEREDOC: Final = re.compile(r"\d*<<-?(['\"]?)[A-Za-z_]\w*\1")
_DIRECTIVE: Final = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_STAGE: Final = re.compile(r"[a-z][a-z0-9_.-]*")


class Instruction(NamedTuple):
    """One instruction: the keyword in capitals, its flags, and the rest as it is written; `line` counts from 1.

    `shown` is the whole as it is written, in one line.
    """

    keyword: str
    flags: dict[str, str]
    text: str
    line: int
    shown: str

    @property
    def words(self) -> list[str]:
        """The arguments: the strings of a JSON array, or what stands between blanks, be they quoted or not."""
        listed = json_words(self.text)
        return self.text.split() if listed is None else listed


@dataclass
class Stage:
    """What stands between one FROM and the next; `base` may have variables in it."""

    start: Instruction
    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)


@dataclass
class Dockerfile:
    """The whole: arguments that stand before the first stage, the stages, and the letter that quotes another."""

    arguments: list[Instruction]
    stages: list[Stage]
    escape: str

    def up_to(self, target: str) -> list[Stage]:
        """Return the stages up to the one of that name or number, all for "". Raises InvalidParameter."""
        if not target:
            return self.stages
        for number, stage in enumerate(self.stages):
            if target.lower() in {stage.name, str(number)}:
                return self.stages[: number + 1]
        raise InvalidParameter(
            f'failed to reach build target {target} in Dockerfile: target stage "{target}" could not be found'
        )


def read(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Return what the file `name` says. Raises InvalidParameter with the line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"the Dockerfile ({name}) is not UTF-8") from error
    escape = _escape(text)
    content = cast(
        "IO[str]", io.BytesIO(_without_gaps(text, escape).encode())
    )  # it wants bytes, whatever its stubs say
    parser = DockerfileParser(fileobj=content, env_replace=False)
    found = [one for one in parser.structure if one["instruction"] != "COMMENT"]
    if not found and text.strip():
        raise InvalidParameter("failed to parse Dockerfile: file with no instructions")
    if not found:
        raise InvalidParameter(f"the Dockerfile ({name}) cannot be empty")
    dockerfile = Dockerfile([], [], escape)
    for one in found:
        written = one["content"].split(maxsplit=1)[0]
        _add(dockerfile, instruction(written, one["value"], one["startline"] + 1, escape))
    if not dockerfile.stages:
        raise InvalidParameter("no build stage in current context")
    return dockerfile


def instruction(written: str, text: str, line: int, escape: str) -> Instruction:
    """Return one instruction, checked as far as it can be alone. Raises InvalidParameter."""
    keyword, text = written.upper(), text.strip()
    shown = " ".join(f"{written} {text}".splitlines())
    if keyword not in KNOWN:
        raise _problem(line, f"unknown instruction: {keyword}")
    flags: dict[str, str] = {}
    if keyword in FLAGS:
        while match := _FLAG.match(text):
            name, value = match[1], match[2]
            if name in BUILDKIT_FLAGS.get(keyword, ()):
                raise _problem(line, f"the --{name} option of {keyword} {BUILDKIT}")
            if name not in FLAGS[keyword]:
                raise _problem(line, f"unknown flag: {name}")
            if not value:
                raise _problem(line, f"missing a value on flag: {name}")
            if name in flags:
                raise _problem(line, f"duplicate flag specified: {name}")
            flags[name] = value
            text = text[match.end() :]
    if keyword in {"RUN", "COPY", "ADD"} and any(_HEREDOC.match(word) for word in split(text, escape)):
        raise _problem(line, f"a here-document in {keyword} {BUILDKIT}")
    if not text:
        raise _problem(line, f"{keyword} requires {'exactly' if keyword in SINGLE else 'at least'} one argument")
    one = Instruction(keyword, flags, text, line, shown)
    try:
        _check(one, escape)
    except InvalidParameter as error:
        raise _problem(line, str(error)) from error
    return one


def _check(one: Instruction, escape: str) -> None:
    """Raise InvalidParameter for what is wrong whatever the image."""
    if one.keyword in {"HEALTHCHECK", "ONBUILD"}:
        change(one.keyword, one.text, Scope({}, escape=escape))
    elif one.keyword in {"ENV", "LABEL"}:
        written_pairs(one.keyword, one.text, escape)
    elif one.keyword in {"COPY", "ADD"} and len(one.words) < 2:
        raise InvalidParameter(
            f"{one.keyword} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    elif one.keyword == "SHELL" and not json_words(one.text):
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")


def _escape(text: str) -> str:
    """Return what quotes a letter and continues a line: a directive above all else may say so."""
    seen: set[str] = set()
    for line in text.splitlines():
        match = _DIRECTIVE.fullmatch(line)
        if match is None:
            break
        name = match[1].lower()
        if name in seen:
            raise InvalidParameter(f"only one {name} parser directive can be used")
        seen.add(name)
        if name == "escape":
            if match[2] not in {"\\", "`"}:
                raise InvalidParameter(
                    f"failed to parse Dockerfile: invalid escape token '{match[2]}' does not match ` or \\"
                )
            return match[2]
    return "\\"


def json_words(text: str) -> list[str] | None:
    """Return the strings of a JSON array, None if the text is none."""
    if not text.startswith("["):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def _without_gaps(text: str, escape: str) -> str:
    """Return the text as the parser can read it.

    An empty line inside of an instruction, which ends none, becomes a comment; the last line is not continued.
    """
    lines: list[str] = []
    last = -1
    inside = False
    for line in text.splitlines():
        is_gap = inside and not line.strip()
        lines.append("#" if is_gap else line)
        if not is_gap and not line.lstrip().startswith("#"):
            inside = line.rstrip().endswith(escape)
            last = len(lines) - 1
    if inside:
        lines[last] = lines[last].rstrip().removesuffix(escape)
    return "\n".join(lines) + "\n"


def _add(dockerfile: Dockerfile, one: Instruction) -> None:
    if one.keyword == "FROM":
        dockerfile.stages.append(_stage(dockerfile, one))
    elif dockerfile.stages:
        dockerfile.stages[-1].instructions.append(one)
    elif one.keyword == "ARG":
        dockerfile.arguments.append(one)
    else:
        raise InvalidParameter("no build stage in current context")


def _stage(dockerfile: Dockerfile, one: Instruction) -> Stage:
    words = one.text.split()
    if len(words) == 1:
        return Stage(one, words[0], "")
    if len(words) != 3 or words[1].upper() != "AS":
        raise _problem(one.line, "FROM requires either one or three arguments")
    name = words[2].lower()
    if _STAGE.fullmatch(name) is None:
        raise _problem(
            one.line, f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols'
        )
    if any(stage.name == name for stage in dockerfile.stages):
        raise _problem(one.line, f'duplicate name "{words[2]}" of a build stage')
    return Stage(one, words[0], name)


def _problem(line: int, message: str) -> InvalidParameter:
    return InvalidParameter(f"dockerfile parse error on line {line}: {message}")
