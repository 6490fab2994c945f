from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processing import CONTAINER, cuts, make, records, run, streams

from logd import plugins
from logd.driver import log_opts, parse_options
from logd.errors import InvalidParameter
from logd.processor import ProcessorFactory
from logd.processors.choose import ChooseFactory
from logd.processors.multiline import MultilineFactory
from logd.processors.parse import ParseFactory
from logd.processors.rate_limit import RateLimitFactory
from logd.processors.redact import RedactFactory
from logd.processors.sample import SampleFactory

CASES = [
    (MultilineFactory(), {"multiline_start": "^[A-Z]"}),
    (MultilineFactory(), {"multiline_start": "^START", "multiline_max_size": "20"}),
    (MultilineFactory(), {"multiline": "python,java,go,node"}),
    (MultilineFactory(), {"multiline": "node", "multiline_flush": "10ms"}),
    (MultilineFactory(), {"multiline": "java,node", "multiline_max_size": "30"}),
    (ParseFactory(), {"parse": "json"}),
    (ParseFactory(), {"parse": "logfmt"}),
    (ChooseFactory(), {"include": "a", "exclude": r"^\w+$"}),
    (ChooseFactory(), {"exclude": r"\AERROR"}),
    (RedactFactory(), {"redact": "a(.)|o", "redact_presets": "cards,emails,bearer"}),
    (RateLimitFactory(), {"rate_limit": "3"}),
    (RateLimitFactory(), {"rate_limit": "0.5", "rate_limit_burst": "4"}),
    (SampleFactory(), {"sample": "2"}),
    (SampleFactory(), {"sample": "30%"}),
]


@pytest.mark.parametrize(("factory", "options"), CASES, ids=lambda one: str(one) if isinstance(one, dict) else "")
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_byte_is_accounted_for_and_how_the_input_is_cut_makes_no_difference(factory, options, data):
    items = data.draw(streams())
    whole = run(make(factory, **options), [items])
    assert records(run(make(factory, **options), data.draw(cuts(items)))) == records(whole)


def factories() -> list[ProcessorFactory]:
    loaded = plugins.load()
    return [one for one in loaded.processors if type(one).__module__.startswith("logd.")]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_so_it_is_with_all_of_them_in_a_row(data):
    values = {
        "multiline": "python,java,go,node",
        "parse": "json",
        "exclude": "^plain",
        "redact": "o",
        "redact-presets": "emails",
        "rate-limit": "4",
        "sample": "75%",
    }

    def chain():
        made = []
        for factory in factories():
            known = {name: value for name, value in values.items() if name in log_opts(factory.options_type)}
            made.append(factory.make(parse_options("test", factory.options_type, known), CONTAINER))
        return made

    items = data.draw(streams())
    assert records(run(chain(), data.draw(cuts(items)))) == records(run(chain(), [items]))


def test_the_built_in_processors_are_found_in_the_order_in_which_they_act():
    assert [one.name for one in factories()] == ["multiline", "parse", "choose", "redact", "rate-limit", "sample"]


def test_without_its_options_a_processor_is_not_made():
    for factory in factories():
        assert factory.make(parse_options("test", factory.options_type, {}), CONTAINER) is None


def test_options_of_equal_text_are_equal():
    for factory, options in CASES:
        texts = {name.replace("_", "-"): value for name, value in options.items()}
        first, second = (parse_options("test", factory.options_type, texts) for _ in range(2))
        assert first == second
        assert hash(first) == hash(second)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("multiline-start", "(", "invalid regular expression '\\('"),
        ("multiline", "cobol", "multiline: 'cobol' \\(known: python, java, go, node\\)"),
        ("multiline-flush", "0s", "without any time"),
        ("multiline-flush", "soon", "invalid duration"),
        ("multiline-max-size", "0", "at least 1 byte"),
        ("multiline-max-size", "much", "invalid size"),
        ("parse", "xml", "'xml' \\(accepted: '', json, logfmt\\)"),
        ("include", "a**", "invalid regular expression"),
        ("exclude", "(?=x)", "invalid regular expression"),
        ("redact", "a\n(", "invalid regular expression '\\('"),
        ("redact-presets", "cards,names", "redact-presets: 'names' \\(known: cards, emails, bearer\\)"),
        ("rate-limit", "0", "not a number of lines"),
        ("rate-limit", "-1", "not a number of lines"),
        ("rate-limit", "many", "not a number of lines"),
        ("rate-limit-burst", "0", "whole number from 1"),
        ("rate-limit-burst", "5", "no effect without rate-limit"),
        ("sample", "0", "write N for one of N lines"),
        ("sample", "0%", "percentage above 0"),
        ("sample", "100.1%", "percentage above 0"),
        ("sample", "1.5", "write N"),
    ],
)
def test_what_an_option_does_not_take_is_refused_with_words(option, value, words):
    factory = next(one for one in factories() if option in log_opts(one.options_type))
    with pytest.raises(InvalidParameter, match=words):
        parse_options("test", factory.options_type, {option: value})


def test_two_ways_of_joining_are_refused():
    with pytest.raises(InvalidParameter, match="can't be used together"):
        make(MultilineFactory(), multiline="go", multiline_start="^x")


def test_all_options_are_documented():
    page = (Path(__file__).parent.parent.parent / "docs/processors.md").read_text()
    names = [name for factory in factories() for name in log_opts(factory.options_type)]
    assert [name for name in names if f"`{name}`" not in page] == []
