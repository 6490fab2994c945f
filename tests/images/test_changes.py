"""`docker import --change`: what each instruction makes of a config, and what is refused."""

import pytest

from logd.errors import InvalidParameter
from logd.images.changes import apply


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        (['CMD ["sh", "-c", "x y"]'], {"Cmd": ["sh", "-c", "x y"]}),
        (["cmd echo  hi"], {"Cmd": ["/bin/sh", "-c", "echo  hi"]}),
        (["CMD [bad json]"], {"Cmd": ["/bin/sh", "-c", "[bad json]"]}),
        (["CMD []"], {"Cmd": []}),
        (['ENTRYPOINT ["a"]'], {"Entrypoint": ["a"]}),
        (["ENTRYPOINT []"], {"Entrypoint": None}),
        (["ENV A=1 B='2 3' C=\"4\"", "ENV A=9"], {"Env": ["A=9", "B=2 3", "C=4"]}),
        (["ENV A one two"], {"Env": ["A=one two"]}),
        (["ENV A=1", "ENV B=${A}x C=$A D=\\$A"], {"Env": ["A=1", "B=1x", "C=1", "D=$A"]}),
        (["ENV A=1", "ENV E=${Z:-z} F=${A:+set} G=${Z}"], {"Env": ["A=1", "E=z", "F=set", "G="]}),
        (
            ["EXPOSE 80 443/udp 7000-7001"],
            {"ExposedPorts": {key: {} for key in ("80/tcp", "443/udp", "7000/tcp", "7001/tcp")}},
        ),
        (['LABEL a.b=c "d e"="f g"'], {"Labels": {"a.b": "c", "d e": "f g"}}),
        (["USER app:staff"], {"User": "app:staff"}),
        (["VOLUME /a /b", 'VOLUME ["/c d"]'], {"Volumes": {"/a": {}, "/b": {}, "/c d": {}}}),
        (["WORKDIR /a", "WORKDIR b/../c"], {"WorkingDir": "/a/c"}),
        (["WORKDIR rel"], {"WorkingDir": "/rel"}),
        (["STOPSIGNAL SIGINT"], {"StopSignal": "SIGINT"}),
        (["ONBUILD RUN a  b", "ONBUILD COPY . /"], {"OnBuild": ["RUN a  b", "COPY . /"]}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (
            ["HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x"],
            {"Healthcheck": {"Interval": 90 * 10**9, "Retries": 3, "Test": ["CMD-SHELL", "curl -f x"]}},
        ),
        (['HEALTHCHECK CMD ["a", "b"]'], {"Healthcheck": {"Test": ["CMD", "a", "b"]}}),
        (["# a comment\nCMD a \\\n  b\n\nUSER x"], {"Cmd": ["/bin/sh", "-c", "a   b"], "User": "x"}),
    ],
)
def test_an_instruction_changes_the_config(changes: list[str], config: dict[str, object]) -> None:
    assert apply(changes) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("FROM x", "FROM is not a valid change command"),
        ("CMD", "CMD requires at least one argument"),
        ("CMD [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", 'Syntax error - can\'t find = in "B". Must be of the form: name=value'),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV A='x", "looking for matching single-quote"),
        ("LABEL =x", "LABEL names can not be blank"),
        ("EXPOSE http", "invalid containerPort: http"),
        ("EXPOSE 0", "invalid containerPort: 0"),
        ("EXPOSE 90-80", "invalid containerPort: 90-80"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("USER a b", "USER requires exactly one argument"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK x", 'Unknown type "X" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK --interval=1ns CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --interval=x CMD x", "invalid duration 'x'"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --wat=1 CMD x", "unknown flag: wat"),
    ],
)
def test_an_instruction_that_can_not_be_is_refused(change: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        apply([change])
    assert message in str(caught.value)
