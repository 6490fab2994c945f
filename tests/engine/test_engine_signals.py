"""Signals as users write them."""

import signal

import pytest

from logd.engine.signals import parse_signal, stop_signal_of
from logd.errors import InvalidParameter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("TERM", 15),
        ("term", 15),
        ("sigkill", 9),
        ("15", 15),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmin+15", 49),
        ("RTMAX", 64),
        ("RTMAX-14", 50),
        ("CLD", 17),
        ("64", 64),
    ],
)
def test_a_signal_has_a_name_with_or_without_sig_in_any_case_or_a_number(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["0", "NOPE", "", "SIGRTMIN+16", "1.5", "SIG"])
def test_what_is_no_signal_is_refused_in_dockers_words(text):
    with pytest.raises(InvalidParameter) as refusal:
        parse_signal(text)
    assert str(refusal.value) == f"invalid signal: {text}"


@pytest.mark.parametrize("text", ["65", "-1", "32", "1000"])
def test_a_number_that_linux_does_not_have_is_refused(text):
    with pytest.raises(InvalidParameter) as refusal:
        parse_signal(text)
    assert str(refusal.value) == f"the linux daemon does not support signal {text}"


def test_a_container_without_a_usable_stop_signal_is_stopped_with_sigterm():
    assert stop_signal_of("") == signal.SIGTERM
    assert stop_signal_of("SIGFROMANIMAGE") == signal.SIGTERM
    assert stop_signal_of("SIGQUIT") == signal.SIGQUIT
