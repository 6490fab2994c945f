import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logd.attributes import Attributes, parse_names, parse_regex
from logd.batch import ContainerInfo
from logd.driver import CommonOptions, parse_options
from logd.errors import InvalidParameter

CONTAINER = ContainerInfo(
    id="a" * 64,
    name="x",
    labels={"rack": "101", "dc": "lhr", "location": "here"},
    env=("environ=production", "debug=false", "port=10001", "ssl=true", "dc_region=west", "NOVALUE", "eq=a=b"),
)


def chosen(container=CONTAINER, **values):
    options = parse_options("test", CommonOptions, {name.replace("_", "-"): value for name, value in values.items()})
    return options.attributes.of(container)


def test_labels_and_variables_are_chosen_by_name_and_by_pattern():
    assert chosen(labels="rack,dc", labels_regex="^loc", env="environ,debug,ssl", env_regex="^dc") == {
        "rack": "101",
        "dc": "lhr",
        "location": "here",
        "environ": "production",
        "debug": "false",
        "ssl": "true",
        "dc_region": "west",
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"labels": ""}, {}),
        ({"labels_regex": ""}, {}),
        ({"labels": "rack"}, {"rack": "101"}),
        ({"labels": "rack,,nope, dc"}, {"rack": "101"}),
        ({"labels_regex": "a"}, {"rack": "101", "location": "here"}),
        ({"labels_regex": "^(rack|dc)$"}, {"rack": "101", "dc": "lhr"}),
        ({"env": "debug,nope"}, {"debug": "false"}),
        ({"env": "NOVALUE"}, {}),
        ({"env": "eq"}, {"eq": "a=b"}),
        ({"env_regex": "(?i)^SSL$"}, {"ssl": "true"}),
        ({"env_regex": "NOVALUE"}, {}),
        ({"labels": "environ", "env": "rack"}, {}),
    ],
)
def test_what_each_option_chooses(values, expected):
    assert chosen(**values) == expected


def test_a_later_option_overwrites_an_earlier_one():
    container = ContainerInfo(id="a" * 64, name="x", labels={"same": "label"}, env=("same=first", "same=last"))
    assert chosen(container, labels="same", env_regex="same") == {"same": "last"}
    assert chosen(container, labels="same") == {"same": "label"}


@pytest.mark.parametrize("option", ["labels-regex", "env-regex"])
@pytest.mark.parametrize("pattern", ["(", "a**", r"(?=x)", r"\1", "[z-a]", "x{2000}"])
def test_a_pattern_that_re2_does_not_know_is_refused(option, pattern):
    with pytest.raises(InvalidParameter, match=option):
        parse_options("test", CommonOptions, {option: pattern})


def test_a_pattern_that_would_take_for_ever_elsewhere_is_quick():
    container = ContainerInfo(id="a" * 64, name="x", labels={"a" * 5000 + "!": "x"})
    assert chosen(container, labels_regex="^(a+)+$") == {}


def test_options_of_equal_text_are_equal():
    def options(text):
        return parse_options("test", CommonOptions, {"labels-regex": text, "env-regex": "x", "tag": "{{.ID}}"})

    assert options("a.b") == options("a.b")
    assert hash(options("a.b")) == hash(options("a.b"))
    assert options("a.b") != options("a.c")


def test_names_are_split_at_commas_and_nothing_else():
    assert parse_names("a,b c,,com.example/x") == ("a", "b c", "com.example/x")
    assert parse_names("") == ()
    assert parse_regex("") is None


@settings(deadline=None)
@given(st.text(max_size=20), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
def test_any_pattern_is_used_or_a_value_error(pattern, labels):
    container = ContainerInfo(id="a" * 64, name="x", labels=labels, env=tuple(f"{k}={v}" for k, v in labels.items()))
    try:
        attributes = Attributes((), parse_regex(pattern), ("a",), parse_regex(pattern))
    except ValueError:
        return
    assert attributes.of(container).keys() <= labels.keys() | {key.split("=")[0] for key in labels}
