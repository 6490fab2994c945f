"""LogReader against a naive model, over random interleavings, batches, segments, clock steps and selections."""

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from naive_model import Model
from store_builder import Line, StoreBuilder, lines_of, read_all

from logd.logstore.reader import LogReader, RawReader, Selection, end_positions
from logd.record import STDERR, STDOUT, Gap

STREAMS = st.sampled_from([STDOUT, STDERR])
TEXT = st.lists(st.sampled_from([b"a", b"\n", b"b\n", b"\r\n", b"\x00\xff", b"long text ", b"\n\n"]), min_size=1).map(
    b"".join
)
OPERATION = st.one_of(
    st.tuples(st.just("write"), STREAMS, TEXT, st.integers(0, 3)),
    st.tuples(st.just("write"), STREAMS, TEXT, st.integers(0, 3)),
    st.tuples(st.just("write"), STREAMS, TEXT, st.integers(0, 3)),
    st.tuples(st.just("rotate"), st.integers(-4, 4)),
    st.tuples(st.just("gap"), STREAMS, st.integers(0, 20)),
    st.tuples(st.sampled_from(["begin", "end"])),
)
OPERATIONS = st.lists(OPERATION, max_size=25)
MOMENT = st.one_of(st.none(), st.integers(95, 130))
SELECTION = st.builds(
    Selection,
    stdout=st.booleans(),
    stderr=st.booleans(),
    since_ns=MOMENT,
    until_ns=MOMENT,
    tail=st.one_of(st.none(), st.integers(0, 12)),
)
EXAMPLES = settings(max_examples=120, deadline=None)


def made(operations: list[tuple], folder: str) -> tuple[Model, StoreBuilder]:
    builder = StoreBuilder(Path(folder) / "log")
    builder.rotate(100)
    model = Model()
    model.build(builder, operations)
    return model, builder


def without_gaps(lines: list[Line]) -> list[Line]:
    return [line for line in lines if not line.data.startswith(b"<")]


@EXAMPLES
@given(OPERATIONS, SELECTION, st.sampled_from([1, 40, 1 << 18]))
def test_a_reader_gives_the_lines_of_the_model_in_its_order(operations, selection, budget):
    with tempfile.TemporaryDirectory() as folder:
        model, builder = made(operations, folder)
        with LogReader(builder.path, selection, budget=budget) as reader:
            complete = lines_of(read_all(reader))
            unfinished = lines_of(reader.finish())
        if selection.tail is None:
            assert complete == model.expected(selection, finish=False)
            assert complete + unfinished == model.expected(selection, finish=True)
        else:
            assert without_gaps(complete) == model.expected(selection, finish=False, gaps=False)
            assert without_gaps(complete + unfinished) == model.expected(selection, finish=True, gaps=False)


@EXAMPLES
@given(OPERATIONS, SELECTION)
def test_joined_batches_have_the_same_bytes_in_the_same_order(operations, selection):
    with tempfile.TemporaryDirectory() as folder:
        _, builder = made(operations, folder)
        found = []
        for times in (True, False):
            with LogReader(builder.path, selection, times=times) as reader:
                items = read_all(reader) + reader.finish()
            found.append([line._replace(time_ns=0) for line in lines_of(items)])
        assert found[0] == found[1]


@EXAMPLES
@given(OPERATIONS, OPERATIONS, SELECTION)
def test_what_is_written_after_the_reader_began_follows_without_loss_or_doubling(before, after, selection):
    with tempfile.TemporaryDirectory() as folder:
        model, builder = made(before, folder)
        with LogReader(builder.path, selection) as reader:
            tailed = model.expected(selection, finish=False, gaps=False)
            lines = lines_of(read_all(reader))
            assert without_gaps(lines) == tailed
            for operation in after:
                model.build(builder, [operation])
                lines += lines_of(read_all(reader))
        everything = model.expected(Selection(**{**selection.__dict__, "tail": None}), finish=False, gaps=False)
        if selection.tail is not None and (tailed or selection.tail == 0):
            known = Selection(**{**selection.__dict__, "tail": None})
            earlier = Model(model.events[: len(model.events) - count_events(after)])
            dropped = len(earlier.expected(known, finish=False, gaps=False)) - len(tailed)
            everything = everything[dropped:]
        assert without_gaps(lines) == everything


def count_events(operations: list[tuple]) -> int:
    return sum(operation[0] != "rotate" for operation in operations)


@EXAMPLES
@given(OPERATIONS, st.data())
def test_a_cursor_goes_on_exactly_where_reading_stopped(operations, data):
    with tempfile.TemporaryDirectory() as folder:
        _, builder = made([o for o in operations if o[0] != "gap" or o[2]], folder)
        with LogReader(builder.path, Selection()) as reader:
            whole = lines_of(read_all(reader) + reader.finish())
        lines: list[Line] = []
        cursor = None
        while True:
            with LogReader(builder.path, Selection(after=cursor), budget=data.draw(st.sampled_from([1, 30]))) as reader:
                for _ in range(data.draw(st.integers(1, 4))):
                    lines += lines_of(reader.read())
                if reader.cursor == cursor and not read_all(reader):
                    lines += lines_of(reader.finish())
                    break
                cursor = reader.cursor
        assert lines == whole


@EXAMPLES
@given(OPERATIONS, MOMENT, MOMENT, st.booleans(), st.sampled_from([1, 30]), st.integers(1, 4))
def test_a_cursor_goes_on_within_a_span_of_time(operations, since, until, stderr, budget, reads):
    with tempfile.TemporaryDirectory() as folder:
        _, builder = made([o for o in operations if o[0] != "gap" or o[2]], folder)
        selection = Selection(stderr=stderr, since_ns=since, until_ns=until)
        with LogReader(builder.path, selection) as reader:
            whole = lines_of(read_all(reader) + reader.finish())
        lines: list[Line] = []
        for _ in range(200):
            with LogReader(builder.path, selection, budget=budget) as reader:
                found = [line for _ in range(reads) for line in lines_of(reader.read())]
                lines += found
                if not found:
                    lines += lines_of(reader.finish())
                    break
                selection = replace(selection, after=reader.cursor)
        assert lines == whole


@EXAMPLES
@given(OPERATIONS, st.integers(1, 9), st.sampled_from([1, 1 << 18]))
def test_parts_of_long_lines_do_not_depend_on_the_batches(operations, limit, budget):
    with tempfile.TemporaryDirectory() as folder:
        model, builder = made(operations, folder)
        with LogReader(builder.path, Selection(), max_line_bytes=limit, budget=budget) as reader:
            lines = lines_of(read_all(reader) + reader.finish())
        for stream in (STDOUT, STDERR):
            expected = []
            for line in model.expected(Selection(), finish=True):
                if line.stream == stream:
                    expected += parts(line, limit)
            assert [line for line in lines if line.stream == stream] == expected


def parts(line: Line, limit: int) -> list[Line]:
    """Return the parts of a line: each `limit` bytes, the rest with the newline."""
    if line.data.startswith(b"<"):
        return [line]
    content = line.data.removesuffix(b"\n")
    cuts = [content[at : at + limit] for at in range(0, len(content), limit)] or [b""]
    cuts[-1] += line.data[len(content) :]
    return [line._replace(position=line.position + at * limit, data=cut) for at, cut in enumerate(cuts)]


@EXAMPLES
@given(OPERATIONS, st.booleans(), st.booleans(), st.sampled_from([1, 7, 1 << 18]))
def test_raw_batches_are_the_bytes_of_the_streams(operations, stdout, stderr, budget):
    with tempfile.TemporaryDirectory() as folder:
        model, builder = made(operations, folder)
        with RawReader(builder.path, stdout=stdout, stderr=stderr, start=(0, 0)) as reader:
            items = []
            while more := reader.read(budget):
                items += more
            ends = reader.position
        for stream, wanted in ((STDOUT, stdout), (STDERR, stderr)):
            data = b"".join(item.data for item in items if not isinstance(item, Gap) and item.stream == stream)
            written = b"".join(event.data for event in model.events if event.stream == stream)
            assert data == (written if wanted else b"")
        present = end_positions(builder.path)
        assert ends == (present[0] if stdout else 0, present[1] if stderr else 0)
        assert present == (builder.ends[STDOUT], builder.ends[STDERR])
