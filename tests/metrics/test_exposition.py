"""The two formats, read back by prometheus-client's parsers; which one a scraper gets."""

import gzip
import subprocess
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from logd.metrics.exposition import accepts_gzip, choose_format
from logd.metrics.families import DAEMON, LABEL_NAME, Family, Layout, Page, Subject, sanitised
from logd.metrics.pieces import Pages

GAUGE = Family("room_bytes", "gauge", 'Says "how\\much"\nthere is.', ("kind",), ("id",))
COUNTER = Family("things_total", "counter", "Things.", ("kind",), ("id",))
INFO = Family("room_info", "info", "What it is.", (), ("id",))
UNTYPED = Family("room_failcnt", "unknown", "Failures.", (), ("id",))
FAMILIES = (GAUGE, COUNTER, INFO, UNTYPED)
HARD_VALUES = ['quote"', "back\\slash", "line\nfeed", "\\n", '{a="b"}', "100%s %d", "emoji 🐳", "", "a,b", "tab\t"]


def page_of(value, labels):
    subject = Subject({"id": labels[0]})
    page = Page(FAMILIES)
    page.add(GAUGE, value, subject, labels[1])
    page.add(COUNTER, 3, subject, labels[1])
    page.add(INFO, 1, subject)
    page.add(UNTYPED, 7, subject)
    return page


def render(page, style):
    return Pages(style).page(b"", page.parts(), gzip=False).decode()


def samples(families):
    return {family.name: (family.type, [tuple(sample[:3]) for sample in family.samples]) for family in families}


@given(
    value=st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    labels=st.tuples(st.text() | st.sampled_from(HARD_VALUES), st.text() | st.sampled_from(HARD_VALUES)),
)
def test_both_formats_give_back_what_was_written_whatever_the_labels_say(value, labels):
    page = page_of(value, labels)
    expected = tuple(label.encode("utf-8", "replace").decode().replace("\0", "\ufffd") for label in labels)
    own = {"id": expected[0], "kind": expected[1]}
    text = samples(parse_text(render(page, "text")))
    assert text["room_bytes"] == ("gauge", [("room_bytes", own, value)])
    assert text["things"] == ("counter", [("things_total", own, 3)])
    assert text["room_info"] == ("gauge", [("room_info", {"id": expected[0]}, 1)])
    assert text["room_failcnt"] == ("unknown", [("room_failcnt", {"id": expected[0]}, 7)])
    openmetrics = samples(parse_openmetrics(render(page, "openmetrics")))
    assert openmetrics["room_bytes"] == text["room_bytes"]
    assert openmetrics["things"] == text["things"]
    assert openmetrics["room"] == ("info", text["room_info"][1])
    assert openmetrics["room_failcnt"] == text["room_failcnt"]


def test_half_of_a_surrogate_pair_becomes_something_that_utf8_has():
    text = render(page_of(1, ("\ud800", "x")), "text")
    assert text.encode()
    assert samples(parse_text(text))["room_info"][1][0][1] == {"id": "?"}


@given(st.text())
def test_any_label_of_a_container_becomes_a_part_of_a_labels_name(label):
    assert LABEL_NAME.fullmatch("container_label_" + sanitised(label))


@given(st.lists(st.text() | st.sampled_from(HARD_VALUES), min_size=1, max_size=4, unique=True), st.data())
def test_a_layout_writes_what_single_samples_would(kinds, data):
    values = tuple(data.draw(st.lists(st.integers(), min_size=len(kinds) + 1, max_size=len(kinds) + 1)))
    subject = Subject({"id": data.draw(st.text() | st.sampled_from(HARD_VALUES))})
    fast, slow = Page(FAMILIES), Page(FAMILIES)
    fast.put(Layout(subject, [*((GAUGE, kind) for kind in kinds), (UNTYPED,)]), values)
    for kind, value in zip(kinds, values, strict=False):
        slow.add(GAUGE, value, subject, kind)
    slow.add(UNTYPED, values[-1], subject)
    assert dict(fast) == dict(slow)


def test_a_family_stands_together_though_its_subjects_were_written_one_after_the_other():
    page = Page(FAMILIES)
    for name in ("a", "b"):
        subject = Subject({"id": name})
        page.add(UNTYPED, 1, subject)
        page.add(INFO, 1, subject)
    text = render(page, "text")
    assert text.count("# TYPE") == 2
    assert len(list(parse_text(text))) == 2


def test_a_help_text_is_one_line():
    text = render(page_of(1, ("a", "b")), "text")
    assert text.splitlines()[0] == '# HELP room_bytes Says "how\\\\much"\\nthere is.'
    assert render(page_of(1, ("a", "b")), "openmetrics").splitlines()[0] == (
        '# HELP room_bytes Says \\"how\\\\much\\"\\nthere is.'
    )


def test_a_family_without_series_is_not_written():
    assert render(Page(FAMILIES), "text") == ""


def test_a_series_without_labels_has_no_braces():
    family = Family("machine_cpu_cores", "gauge", "CPUs.")
    page = Page((family,))
    page.add(family, 2, DAEMON)
    assert render(page, "text").endswith("\nmachine_cpu_cores 2\n")


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "style"),
    [
        ("", "text"),
        ("*/*", "text"),
        ("text/html, application/xhtml+xml", "text"),
        (PROMETHEUS_2, "openmetrics"),
        (PROMETHEUS_3, "openmetrics"),
        ("application/openmetrics-text", "openmetrics"),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", "openmetrics"),
        ("Application/OpenMetrics-Text; Version=1.0.0", "openmetrics"),
        ("application/openmetrics-text;version=0.0.1", "text"),
        ("application/openmetrics-text;version=1.0.0;q=0,text/plain", "text"),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.8", "text"),
        ("text/plain;version=0.0.4", "text"),
        ("application/openmetrics-text;q=nan", "text"),
        (",;q=,=;;", "text"),
    ],
)
def test_the_format_is_the_one_that_the_scraper_prefers(accept, style):
    assert choose_format(accept) == style


@pytest.mark.parametrize("accept", ["", "*/*", PROMETHEUS_2, PROMETHEUS_3, "application/openmetrics-text"])
def test_what_scrapers_send_is_understood_as_by_prometheus_client(accept):
    expected = "openmetrics" if "openmetrics" in choose_encoder(accept)[1] else "text"
    assert choose_format(accept) == expected


@pytest.mark.parametrize(
    ("accept_encoding", "gzipped"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("identity", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("GZIP", True),
        ("br", False),
    ],
)
def test_a_page_is_compressed_if_the_scraper_takes_that(accept_encoding, gzipped):
    assert accepts_gzip(accept_encoding) is gzipped


@pytest.mark.parametrize("style", ["text", "openmetrics"])
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)), max_size=6), st.binary(max_size=50))
def test_a_page_of_kept_pieces_is_what_a_page_made_anew_would_be(style, scrapes, begin):
    pages = Pages(style)
    subjects = {name: Subject({"id": name}) for name in "abcd"}
    others = [(COUNTER, "x"), (COUNTER, "y")]  # of some only, so that there are layouts that are not alike
    layouts = {
        name: Layout(subject, [(UNTYPED,), (INFO,), *(others if name > "b" else ())])
        for name, subject in subjects.items()
    }
    for scrape in scrapes:
        kept, anew = Page(FAMILIES), Page(FAMILIES)
        for name, value in scrape.items():
            kept.put(layouts[name], (value, 1, *((value, 0) if name > "b" else ())))
            for page in (kept, anew):
                page.add(GAUGE, value, subjects[name], "single")
            for family, kind, number in ((COUNTER, "x", value), (COUNTER, "y", 0)) if name > "b" else ():
                anew.add(family, number, subjects[name], kind)
            anew.add(UNTYPED, value, subjects[name])
            anew.add(INFO, 1, subjects[name])
        expected = Pages(style).page(begin, anew.parts(), gzip=False)
        found = pages.page(begin, kept.parts(), gzip=False)
        assert gzip.decompress(pages.page(begin, kept.parts(), gzip=True)) == found
        assert sorted(found[len(begin) :].splitlines()) == sorted(expected[len(begin) :].splitlines())
        assert found.count(b"# TYPE") == expected.count(b"# TYPE")


def test_a_compressed_page_is_one_member_that_gzip_itself_reads():
    page = Page(FAMILIES)
    for number in range(3000):
        page.add(UNTYPED, number, Subject({"id": str(number)}))
    pages = Pages("text")
    for _ in range(2):
        packed = pages.page(b"begin 1\n", page.parts(), gzip=True)
        done = subprocess.run(["gzip", "-dc"], input=packed, capture_output=True, check=True)
        assert done.stdout == pages.page(b"begin 1\n", page.parts(), gzip=False)
        one = zlib.decompressobj(16 + zlib.MAX_WBITS)
        assert one.decompress(packed) == done.stdout
        assert (one.eof, one.unused_data) == (True, b"")
    assert len(packed) < len(done.stdout) / 4


def test_names_that_no_scraper_would_take_are_our_own_mistake():
    for name, kind, labels in (
        ("with space", "gauge", ()),
        ("counts", "counter", ()),
        ("what", "info", ()),
        ("ok", "gauge", ("with-dash",)),
        ("ok", "gauge", ("__reserved",)),
    ):
        with pytest.raises(AssertionError):
            Family(name, kind, "", labels)
