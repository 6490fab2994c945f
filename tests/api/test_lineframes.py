from hypothesis import given
from hypothesis import strategies as st

from logd.api.lineframes import LineEncoder, details_prefix
from logd.record import STDERR, STDOUT, ExecRun, Gap, Run
from logd.stdcopy import SYSTEM_ERROR, Decoder

TIME = 1714979289_000000007
STAMP = b"2024-05-06T07:08:09.000000007Z "


def frames(data: bytes) -> list[tuple[int, bytes]]:
    decoder = Decoder()
    seen = list(decoder.feed(data))
    assert decoder.pending == 0
    return seen


def test_neighbouring_runs_of_one_stream_share_a_frame_for_clients_that_copy_bytes():
    items = [
        Run(1, STDOUT, 0, b"a\n"),
        Run(2, STDOUT, 2, b"b\nc\n"),
        Run(3, STDERR, 0, b"e\n"),
        Run(4, STDOUT, 6, b"d"),
    ]
    assert frames(LineEncoder().encode(items)) == [(1, b"a\nb\nc\n"), (2, b"e\n"), (1, b"d")]


def test_each_line_has_its_frame_for_other_clients():
    items = [Run(1, STDOUT, 0, b"a\nb\r\n"), Run(2, STDERR, 0, b"e")]
    assert frames(LineEncoder(per_line=True).encode(items)) == [(1, b"a\n"), (1, b"b\r\n"), (2, b"e")]


def test_every_line_gets_its_time_with_nine_digits():
    encoder = LineEncoder(timestamps=True)
    assert frames(encoder.encode([Run(TIME, STDOUT, 0, b"a\n\nb")])) == [
        (1, STAMP + b"a\n" + STAMP + b"\n" + STAMP + b"b")
    ]


def test_a_line_that_comes_in_parts_gets_one_prefix():
    encoder = LineEncoder(timestamps=True, multiplexed=False)
    data = encoder.encode([Run(TIME, STDOUT, 0, b"par")]) + encoder.encode([Run(TIME, STDERR, 0, b"e\n")])
    data += encoder.encode([Run(TIME + 1, STDOUT, 3, b"ts\nnext\n")])
    later = STAMP.replace(b"07Z", b"08Z")
    assert data == STAMP + b"par" + STAMP + b"e\n" + b"ts\n" + later + b"next\n"


def test_details_stand_between_the_time_and_the_line_sorted_and_escaped():
    prefix = details_prefix({"z": "1 2", "a": "x,y=ü"})
    assert prefix == b"a=x%2Cy%3D%C3%BC,z=1+2 "
    encoder = LineEncoder(timestamps=True, multiplexed=False, details={"z": "1 2", "a": "x,y=ü"})
    assert encoder.encode([Run(TIME, STDOUT, 0, b"line\n")]) == STAMP + prefix + b"line\n"
    of_exec = ExecRun.of("0123456789ab", Run(TIME, STDOUT, 5, b"more\n"))
    assert encoder.encode([of_exec]) == STAMP + b"a=x%2Cy%3D%C3%BC,exec=0123456789ab,z=1+2 more\n"


def test_a_recorded_gap_is_a_line_on_stderr_and_never_among_the_bytes_of_stdout():
    items = [Run(1, STDOUT, 0, b"a\n"), Gap(2, STDOUT, 2, 123, "no-space"), Run(3, STDOUT, 125, b"b\n")]
    assert frames(LineEncoder().encode(items)) == [
        (1, b"a\n"),
        (2, b"logd: 123 bytes of stdout are missing (no-space)\n"),
        (1, b"b\n"),
    ]


def test_an_error_goes_on_the_stream_at_which_the_docker_cli_stops():
    assert frames(LineEncoder().error("too slow")) == [(SYSTEM_ERROR, b"Error grabbing logs: too slow\n")]


runs = st.lists(
    st.builds(
        Run,
        st.integers(0, 2**62),
        st.sampled_from([STDOUT, STDERR]),
        st.just(0),
        st.lists(st.sampled_from([b"\n", b"\r", b"ab", b"\0"]), min_size=1).map(b"".join),
    )
)


@given(runs, st.booleans(), st.booleans())
def test_the_bytes_of_each_stream_come_out_as_they_are(items, per_line, multiplexed):
    data = LineEncoder(per_line=per_line, multiplexed=multiplexed).encode(items)
    if not multiplexed:
        assert data == b"".join(run.data for run in items)
        return
    for stream in (STDOUT, STDERR):
        sent = b"".join(payload for number, payload in frames(data) if number == stream)
        assert sent == b"".join(run.data for run in items if run.stream == stream)


@given(runs)
def test_taking_the_prefixes_away_gives_the_bytes_again(items):
    sent = LineEncoder(timestamps=True).encode(items)
    for stream in (STDOUT, STDERR):
        got = b"".join(payload for number, payload in frames(sent) if number == stream)
        expected = b"".join(run.data for run in items if run.stream == stream)
        assert b"\n".join(line.partition(b"Z ")[2] for line in got.split(b"\n")) == expected
