"""What is said of a Dockerfile before anything is built: lines, flags, stages, and what only BuildKit has."""

import pytest

from logd.build import dockerfile
from logd.errors import InvalidParameter

BASE = "FROM busybox\n"


def instructions(text):
    """The instructions of the first stage, as (keyword, text)."""
    return [(one.keyword, one.text) for one in dockerfile.read(text.encode()).stages[0].instructions]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN a && \\\n  # a comment\n  b && \\\n\n\n  c\n", [("RUN", "a &&   b &&   c")]),
        ("run a\nEnv B=c\n", [("RUN", "a"), ("ENV", "B=c")]),
        ("  # a comment\n\tRUN a # none\n", [("RUN", "a # none")]),
        ("RUN a\r\nENV B=c\r\n", [("RUN", "a"), ("ENV", "B=c")]),
        ("RUN a \\\n", [("RUN", "a")]),
        ("RUN a \\\n\n# the end\n", [("RUN", "a")]),
        ("RUN a \\  \n b\n", [("RUN", "a  b")]),
        ("RUN a", [("RUN", "a")]),
    ],
)
def test_lines_become_instructions(text, expected):
    assert instructions(BASE + text) == expected


def test_a_byte_order_mark_is_no_part_of_the_first_instruction():
    assert dockerfile.read(b"\xef\xbb\xbf" + BASE.encode()).stages[0].base == "busybox"


def test_what_continues_a_line_is_said_by_a_directive_above_all_else():
    text = "# escape=`\n" + BASE + "RUN dir c:\\ `\n  b\n"
    assert dockerfile.read(text.encode()).escape == "`"
    assert instructions(text) == [("RUN", "dir c:\\   b")]
    late = "# not a directive\n# escape=`\n" + BASE + "RUN a \\\n b\n"
    assert dockerfile.read(late.encode()).escape == "\\"
    assert instructions(late) == [("RUN", "a  b")]


def test_a_step_is_shown_as_it_is_written():
    stage = dockerfile.read(b"from busybox as x\ncopy --from=0 a \\\n b\n").stages[0]
    assert [stage.start.shown, stage.instructions[0].shown] == ["from busybox as x", "copy --from=0 a  b"]


def test_stages_have_names_and_numbers():
    parsed = dockerfile.read(b"ARG V=1\nFROM a:$V AS One\nFROM b\nRUN x\nFROM one as last\n")
    assert [(stage.base, stage.name) for stage in parsed.stages] == [("a:$V", "one"), ("b", ""), ("one", "last")]
    assert [one.text for one in parsed.arguments] == ["V=1"]
    assert len(parsed.up_to("ONE")) == 1
    assert len(parsed.up_to("1")) == 2
    assert len(parsed.up_to("")) == 3
    with pytest.raises(InvalidParameter, match='target stage "nope" could not be found'):
        parsed.up_to("nope")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('["a b", "c"]', ["a b", "c"]),
        ("a  b\tc", ["a", "b", "c"]),
        ("['a', 'b']", ["['a',", "'b']"]),
    ],
)
def test_arguments_are_json_or_words(text, words):
    assert dockerfile.read(f"{BASE}COPY {text}\n".encode()).stages[0].instructions[0].words == words


def test_flags_are_taken_from_the_front():
    one = dockerfile.read(f"{BASE}COPY --from=0 --chown=a:b x --y=z\n".encode()).stages[0].instructions[0]
    assert (one.flags, one.text) == ({"from": "0", "chown": "a:b"}, "x --y=z")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("RUN --mount=type=cache,target=/x a", "the --mount option of RUN requires BuildKit"),
        ("RUN --network=none a", "the --network option of RUN requires BuildKit"),
        ("RUN --security=insecure a", "the --security option of RUN requires BuildKit"),
        ("COPY --chmod=644 a b", "the --chmod option of COPY requires BuildKit"),
        ("COPY --link a b", "the --link option of COPY requires BuildKit"),
        ("COPY --parents a b", "the --parents option of COPY requires BuildKit"),
        ("ADD --checksum=sha256:x a b", "the --checksum option of ADD requires BuildKit"),
        ("RUN <<EOF\necho\nEOF", "a here-document in RUN requires BuildKit"),
        ("COPY <<-'E' /x\nE", "a here-document in COPY requires BuildKit"),
    ],
)
def test_what_only_buildkit_has_is_refused_by_its_name(line, named):
    with pytest.raises(InvalidParameter, match=f"dockerfile parse error on line 2: {named}"):
        dockerfile.read(f"{BASE}{line}\n".encode())


@pytest.mark.parametrize("line", ["RUN echo $((1 << 2))", "RUN cat <<< word", "RUN sh -c 'cat <<EOF'"])
def test_what_only_looks_like_a_here_document_is_none(line):
    assert instructions(f"{BASE}{line}\n") == [("RUN", line.removeprefix("RUN "))]


def test_a_syntax_directive_is_a_comment():
    assert dockerfile.read(f"# syntax=docker/dockerfile:1\n{BASE}".encode()).stages[0].base == "busybox"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"the Dockerfile \(Dockerfile\) cannot be empty"),
        ("# nothing\n", "failed to parse Dockerfile: file with no instructions"),
        ("# escape=x\nFROM a\n", "invalid escape token 'x' does not match ` or"),
        ("RUN a\n", "no build stage in current context"),
        ("ARG A\n", "no build stage in current context"),
        ("FROM a b c\n", "line 1: FROM requires either one or three arguments"),
        ("FROM a as 1x\n", 'line 1: invalid name for build stage: "1x"'),
        ("FROM a as x\nFROM b as X\n", 'line 2: duplicate name "X"'),
        ("FROM a\n\nFOO b\n", "line 3: unknown instruction: FOO"),
        ("FROM a\nRUN\n", "line 2: RUN requires at least one argument"),
        ("FROM a\nWORKDIR\n", "line 2: WORKDIR requires exactly one argument"),
        ("FROM a\nCOPY x\n", "line 2: COPY requires at least two arguments, but only one was provided"),
        ("FROM a\nCOPY --nope=1 x y\n", "line 2: unknown flag: nope"),
        ("FROM a\nCOPY --chown x y\n", "line 2: missing a value on flag: chown"),
        ("FROM a\nCOPY --chown=1 --chown=2 x y\n", "line 2: duplicate flag specified: chown"),
        ("FROM a\nENV A\n", "line 2: ENV must have two arguments"),
        ("FROM a\nLABEL A=1 B\n", r"line 2: Syntax error - can't find = in \"B\""),
        ("FROM a\nSHELL sh -c\n", "line 2: SHELL requires the arguments to be in JSON form"),
        ("FROM a\nHEALTHCHECK FOO\n", 'line 2: Unknown type "FOO" in HEALTHCHECK'),
        ("FROM a\nONBUILD FROM b\n", "line 2: FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD ONBUILD RUN b\n", "line 2: Chaining ONBUILD"),
    ],
)
def test_a_mistake_is_named_with_its_line(text, problem):
    with pytest.raises(InvalidParameter, match=problem):
        dockerfile.read(text.encode())


def test_a_file_that_is_no_text_is_refused():
    with pytest.raises(InvalidParameter, match="is not UTF-8"):
        dockerfile.read(b"FROM \xff\n")
