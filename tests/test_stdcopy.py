import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd import stdcopy


def test_a_frame_is_eight_bytes_of_header_and_the_payload():
    assert stdcopy.frame(stdcopy.STDERR, b"abc") == b"\x02\0\0\0\0\0\0\x03abc"


@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"\0", b"\xff", b"\x0b", b"\x85"])).map(b"".join))
def test_each_line_becomes_a_frame_and_only_a_newline_ends_one(data):
    frames = list(stdcopy.Decoder().feed(stdcopy.frame_lines(stdcopy.STDOUT, data)))
    assert b"".join(payload for _, payload in frames) == data
    assert all(payload.endswith(b"\n") for _, payload in frames[:-1])
    assert all(b"\n" not in payload[:-1] for _, payload in frames)
    assert all(payload for _, payload in frames)


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=40))), st.integers(1, 20))
def test_frames_cut_anywhere_come_out_whole(frames, cut):
    wire = b"".join(stdcopy.frame(stream, payload) for stream, payload in frames)
    decoder = stdcopy.Decoder()
    seen = [one for start in range(0, len(wire), cut) for one in decoder.feed(wire[start : start + cut])]
    assert seen == frames
    assert decoder.pending == 0


def test_bytes_that_are_no_multiplexed_stream_are_refused():
    with pytest.raises(ValueError, match="not a multiplexed stream"):
        list(stdcopy.Decoder().feed(b"hello, world"))
