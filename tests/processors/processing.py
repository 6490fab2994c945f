"""What the tests of all processors need: streams of items, cut in any way, and the account of their bytes."""

from itertools import pairwise

from hypothesis import strategies as st

from logd.batch import ContainerInfo, Dropped, Group, Item, Partial
from logd.driver import parse_options
from logd.processor import Processor, ProcessorFactory, part, positions

CONTAINER = ContainerInfo(id="0123456789abcdef" * 4, name="web")
MS = 1_000_000
LINES = [
    b"", b"plain text", b"ERROR it failed", b'{"a": 1, "mail": "me@example.com"}', b"level=info n=1 msg=\"a b\"",
    b"Traceback (most recent call last):", b'  File "x.py", line 1, in f', b"ValueError: bad", b"panic: boom",
    b"goroutine 1 [running]:", b"\tat x.Y(Z.java:1)", b"java.lang.IllegalStateException: no", b"/app/x.js:3",
    b"code()", b"    ^", b"Error: x {", b"}", b"START of a record", b"card 4111 1111 1111 1111",
    b"Authorization: Bearer abc.def", b"\xff\xfe\x00", b"with\rreturn", b"joined\nbefore",
]  # fmt: skip


def group(lines: list[bytes], position: int = 0, time_ns: int = 0, stream: int = 1) -> Group:
    return Group(time_ns, stream, position, position + sum(map(len, lines)) + len(lines), lines)


def groups(*lines: bytes, step_ns: int = 0, stream: int = 1) -> list[Item]:
    """A group for each line, one after the other."""
    items, at = [], 0
    for number, line in enumerate(lines):
        items.append(group([line], at, number * step_ns, stream))
        at = items[-1].end
    return items


@st.composite
def streams(draw: st.DrawFn) -> list[Item]:
    """Two streams as the store may have them: groups, gaps, parts of over-long lines, an end without a newline."""
    items: list[Item] = []
    ends = {1: draw(st.sampled_from([0, 7_000_000_000])), 2: 0}
    time_ns = 1_700_000_000_000 * MS
    for number in range(draw(st.integers(1, 8))):
        time_ns += draw(st.sampled_from([0, 0, MS, 600 * MS, 1500 * MS, -5 * MS]))
        stream = draw(st.sampled_from([1, 1, 2]))
        position = ends[stream]
        kind = draw(st.sampled_from(["lines"] * 6 + ["gap", "parts"]))
        if kind == "lines":
            lines = draw(st.lists(st.sampled_from(LINES) | st.binary(max_size=4), min_size=1, max_size=8))
            items.append(group(lines, position, time_ns, stream))
        elif kind == "gap":
            items.append(Dropped(stream, position, position + draw(st.integers(1, 9)), "lost"))
        else:
            count = draw(st.integers(1, 3))
            for ordinal in range(1, count + 1):
                line, newline = draw(st.sampled_from(LINES[1:10])), int(ordinal == count)
                end = position + len(line) + newline
                which = Partial(f"{number:064x}", ordinal, bool(newline))
                items.append(Group(time_ns, stream, position, end, [line], which))
                position = end
        ends[stream] = items[-1].end
    if isinstance(items[-1], Group) and items[-1].partial is None and draw(st.booleans()) and items[-1].lines[-1]:
        items[-1] = items[-1]._replace(end=items[-1].end - 1)
    return items


@st.composite
def cuts(draw: st.DrawFn, items: list[Item]) -> list[list[Item]]:
    """The same items in other groups and feeds."""
    pieces: list[Item] = []
    for item in items:
        if isinstance(item, Group) and len(item.lines) > 1:
            inner = draw(st.sets(st.integers(1, len(item.lines) - 1)))
            begins = positions(item)
            pieces += [part(item, begins, *one) for one in pairwise([0, *sorted(inner), len(item.lines)])]
        else:
            pieces.append(item)
    feeds = draw(st.sets(st.integers(1, len(pieces)))) | {len(pieces)}
    return [pieces[first:last] for first, last in pairwise([0, *sorted(feeds)])]


def make(factory: ProcessorFactory, **options: str) -> Processor:
    texts = {name.replace("_", "-"): value for name, value in options.items()}
    processor = factory.make(parse_options("test", factory.options_type, texts), CONTAINER)
    assert processor is not None
    return processor


def run(processors: Processor | list[Processor], feeds: list[list[Item]]) -> list[Item]:
    """Feed, flush at the end, and hold the account while at it."""
    chain = processors if isinstance(processors, list) else [processors]
    out: list[Item] = []
    fed: list[Item] = []
    for feed in feeds:
        fed += feed
        items = feed
        for processor in chain:
            items = processor.feed(items)
        out += items
        if len(chain) == 1:
            for stream, end in ends(fed).items():
                assert ends(out).get(stream, begins(fed)[stream]) == chain[0].held.get(stream, end)
    rest: list[Item] = []
    for processor in chain:
        rest = [*processor.feed(rest), *processor.flush()]
        assert not processor.held
    out += rest
    hold_account(fed, out)
    return out


def begins(items: list[Item]) -> dict[int, int]:
    return {item.stream: item.position for item in reversed(items)}


def ends(items: list[Item]) -> dict[int, int]:
    return {item.stream: item.end for item in items}


def hold_account(fed: list[Item], out: list[Item]) -> None:
    """What came out covers what went in, byte for byte and in order; the positions of records follow from it."""
    for stream in (1, 2):
        at = begins(fed).get(stream, 0)
        for item in out:
            if item.stream != stream:
                continue
            assert item.position == at, item
            assert item.end >= at
            at = item.end
            if isinstance(item, Group):
                assert item.lines
                assert item.fields is None or len(item.fields) == len(item.lines)
                length = sum(map(len, item.lines)) + len(item.lines)
                assert len(item.lines) == 1 or item.end - item.position in {length, length - 1}
        assert at == ends(fed).get(stream, 0)
    assert set(ends(out)) == set(ends(fed))


def records(items: list[Item]) -> list[tuple[object, ...]]:
    """What came out, however it is grouped: records, and stretches that were dropped."""
    found: list[tuple[object, ...]] = []
    for item in items:
        if isinstance(item, Group):
            at = positions(item)
            for number, line in enumerate(item.lines):
                fields = item.fields[number] if item.fields else None
                which = (item.time_ns, item.stream, at[number], at[number + 1], line, item.partial, fields)
                found.append(which)
        elif (
            found
            and len(found[-1]) == 4
            and found[-1][0] == item.stream
            and found[-1][2:] == (item.position, item.reason)
        ):
            found[-1] = (item.stream, found[-1][1], item.end, item.reason)
        else:
            found.append((item.stream, item.position, item.end, item.reason))
    return found


def lines(items: list[Item]) -> list[bytes]:
    return [line for item in items if isinstance(item, Group) for line in item.lines]


def dropped(items: list[Item]) -> list[tuple[int, int, str]]:
    return [(one.position, one.end, one.reason) for one in items if isinstance(one, Dropped)]
