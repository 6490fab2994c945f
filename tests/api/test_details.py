from pathlib import Path

import pytest

from logd.api.details import details
from logd.container import Container, Record, State
from logd.errors import InvalidParameter
from logd.spec import ContainerSpec, HostConfig, LogConfig


def shown(**options):
    record = Record(
        id="a" * 64, name="web", created_ns=1, image_id="", image_ref="app:1", os="linux", path="/bin/app", args=[],
        config=ContainerSpec(labels={"app": "shop", "x": "1"}, env=["A=1", "B=2"]),
        host_config=HostConfig(log_config=LogConfig(type="local", config=options)),
        mounts=[], run=0, restart_count=0, state=State(),
    )  # fmt: skip
    return details(Container(record, Path("/nowhere"), Path("/nowhere")))


def test_what_the_log_opts_choose_is_shown():
    options = {"labels": "app", "env-regex": "^A$", "tag": "{{.Name}}/{{(.ExtraAttributes nil).app}}", "max-size": "9m"}
    assert shown(**options) == {"app": "shop", "A": "1", "tag": "web/shop"}


def test_without_such_log_opts_nothing_is_shown():
    assert shown() == {}
    assert shown(**{"audit:labels": "app"}) == {}


def test_a_tag_that_does_not_suit_the_container_is_its_short_id():
    assert shown(tag='{{index (split .Name "-") 1}}') == {"tag": "a" * 12}


def test_options_of_an_older_version_that_no_longer_hold_are_named():
    with pytest.raises(InvalidParameter, match="labels-regex"):
        shown(**{"labels-regex": "(?=x)"})
