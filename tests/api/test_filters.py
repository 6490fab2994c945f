import pytest

from logd.api.filters import parse_filters
from logd.errors import InvalidParameter


def test_both_notations_of_docker_mean_the_same():
    new = parse_filters('{"label": ["a=1", "b"]}')
    old = parse_filters('{"label": {"a=1": true, "b": true, "c": false}}')
    assert dict(new) == dict(old) == {"label": ["a=1", "b"]}
    assert dict(parse_filters("")) == {}


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"a": 1}', '{"a": [1]}', '{"a": {"b": 1}}', "null"])
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(InvalidParameter, match="invalid filter"):
        parse_filters(text)


def test_an_unknown_filter_is_refused_in_dockers_words():
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'colour'$"):
        parse_filters('{"colour": ["red"]}').only({"name"})


def test_a_name_is_matched_as_a_regular_expression_or_as_it_is():
    filters = parse_filters('{"name": ["^we.$", "a+b"]}')
    assert filters.matches("name", "web")
    assert filters.matches("name", "a+b")
    assert not filters.matches("name", "webs")
    assert not parse_filters('{"name": ["("]}').matches("name", "web")
    assert parse_filters('{"name": ["("]}').matches("name", "(")
    assert filters.matches("other", "anything")


def test_all_labels_are_needed():
    filters = parse_filters('{"label": ["a=1", "b"]}')
    assert filters.has_labels("label", {"a": "1", "b": ""})
    assert not filters.has_labels("label", {"a": "2", "b": ""})
    assert not filters.has_labels("label", {"a": "1"})


@pytest.mark.parametrize(("value", "expected"), [('["1"]', True), ('["false", "0"]', False)])
def test_a_boolean_filter_is_read(value, expected):
    assert parse_filters(f'{{"is-task": {value}}}').flag("is-task") is expected


@pytest.mark.parametrize("value", ['["1", "0"]', '["maybe"]', "[]"])
def test_a_boolean_filter_that_is_none_is_refused(value):
    with pytest.raises(InvalidParameter, match="invalid filter 'is-task"):
        parse_filters(f'{{"is-task": {value}}}').flag("is-task")
