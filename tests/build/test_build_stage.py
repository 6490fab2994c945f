"""A stage's settings and arguments, what a step is known by, and what the history says of it."""

import json

from logd.build.stage import StageState
from logd.build.wording import comment_on, created_by, created_by_command
from logd.ignored import Ignored, read_patterns
from logd.images import config
from logd.images.changes import Scope, change, copied
from logd.images.image import Image


def state(**run_config) -> StageState:
    """The beginning of a stage on an image with these settings."""
    data = json.dumps({"rootfs": {"type": "layers", "diff_ids": []}, "config": run_config}).encode()
    image = Image("sha256:" + "0" * 64, config.parse(data), data, (), (), (), "", 0)
    return StageState.on(image, "\\")


def test_a_stage_begins_with_a_path_and_without_the_triggers_of_its_image():
    begun = state(OnBuild=["RUN x"], Env=["A=1"], Cmd=None)
    assert begun.config == {"Env": ["A=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    assert state(Env=["PATH=/x"]).config["Env"] == ["PATH=/x"]


def test_the_environment_goes_over_arguments_and_proxies_count_once_they_are_declared():
    begun = state(Env=["A=env"])
    begun.arguments = {"A": "argument", "B": "b"}
    assert (begun.scope.variables["A"], begun.scope.variables["B"]) == ("env", "b")
    seen = begun.run_arguments({"http_proxy": "p", "unknown": "x"})
    assert seen == {"http_proxy": "p", "B": "b"}
    assert begun.counted(seen) == {"B": "b"}
    begun.arguments["http_proxy"] = "p"
    assert begun.counted(seen) == seen


def test_a_step_is_known_by_settings_author_and_parts():
    one, other = state(Env=["A=1"]), state(Env=["A=2"])
    assert one.step("RUN", "x") == state(Env=["A=1"]).step("RUN", "x")
    assert len({one.step("RUN", "x"), other.step("RUN", "x"), one.step("RUN", "y")}) == 3
    other = state(Env=["A=1"])
    other.author = "Joe"
    assert one.step("RUN", "x") != other.step("RUN", "x")


def test_the_history_says_what_was_understood():
    def said(keyword: str, text: str, **before) -> str:
        scope = Scope(copied(before), {"A": "one two"})
        changed = Scope(copied(before), {"A": "one two"})
        change(keyword, text, changed)
        return comment_on(keyword, text, scope, changed.config)

    assert said("ENV", "B=\"$A\" C='$A'") == "ENV B=one two C=$A"
    assert said("CMD", 'echo "x"') == 'CMD ["/bin/sh" "-c" "echo \\"x\\""]'
    assert said("ENTRYPOINT", "[]") == "ENTRYPOINT []"
    assert said("EXPOSE", "80 443/tcp") == "EXPOSE 443/tcp 80"
    assert said("VOLUME", "/a /b", Volumes={"/a": {}}) == "VOLUME [/b]"
    assert said("WORKDIR", "../c", WorkingDir="/a/b") == "WORKDIR /a/c"
    assert said("HEALTHCHECK", "--interval=5s --retries=4 CMD x y") == (
        'HEALTHCHECK &{["CMD-SHELL" "x y"] "5s" "0s" "0s" "0s" \'\\x04\'}'
    )
    assert created_by({"Shell": ["/bin/sh", "-e", "-c"]}, "ENV A=1") == "/bin/sh -e -c #(nop)  ENV A=1"
    assert created_by_command(["sh", "-c", "x"], {"B": "2", "A": "1"}, has_arguments=True) == "|2 A=1 B=2 sh -c x"
    assert created_by_command(["x"], {}, has_arguments=True) == "|0 x"
    assert created_by_command(["x"], {}, has_arguments=False) == "x"


def test_the_last_pattern_that_fits_decides_what_is_left_out():
    ignored = Ignored(read_patterns("\ufeff# none\n*\n!d\n\nd/**/x\n!d/keep/x\n./e/../f\n"))
    names = ["a", "d", "d/y", "d/x", "d/s/t/x", "d/keep/x", "f", "f/g"]
    assert [name for name in names if name in ignored] == ["a", "d/x", "d/s/t/x", "f", "f/g"]
    assert ignored.keeps_some
    assert "anything" not in Ignored([])
