"""The order of several logs."""

import threading
from collections.abc import Iterator

import pytest
from cli_peer import BASE, END, SECOND, Peer, err, gap, out, start

from logd.cli.client import Client
from logd.cli.frames import Event, Failure
from logd.cli.merge import Merger
from logd.cli.streams import Container, LogStream
from logd.record import Gap, Run


def opened(peer: Peer, name: str, *, follow: bool = False, after: tuple[int, int] | None = None) -> LogStream:
    query: dict[str, str | int | bool | list[str] | None] = {"follow": True} if follow else {}
    stream = LogStream(Client(peer.host), Container(name, name, name), query, after)
    stream.open()
    return stream


def texts(batches: Iterator[list[tuple[LogStream, Event]]]) -> list[bytes]:
    return [event.data for batch in batches for _, event in batch if isinstance(event, Run)]


def test_runs_of_many_containers_come_in_the_order_of_time(peer: Peer) -> None:
    for number in range(7):
        pieces = [out(number + 7 * turn, turn, b"%03d\n" % (number + 7 * turn)) for turn in range(20)]
        peer.container(f"c{number}", lambda pieces=pieces: [start(0, 0), *pieces, END])
    merger = Merger([opened(peer, f"c{number}") for number in range(7)], follow=False)
    assert texts(merger.batches()) == [b"%03d\n" % number for number in range(140)]


def test_equal_times_keep_the_order_of_the_command_line(peer: Peer) -> None:
    for name in ("b", "a"):
        peer.container(name, lambda name=name: [out(1, 0, name.encode()), END])
    assert texts(Merger([opened(peer, "b"), opened(peer, "a")], follow=False).batches()) == [b"b", b"a"]


def test_the_order_within_one_container_is_never_changed(peer: Peer) -> None:
    peer.container("steps", lambda: [out(5, 0, b"first"), err(1, 0, b"its clock went back"), out(6, 5, b"last"), END])
    peer.container("other", lambda: [out(2, 0, b"other"), END])
    merged = texts(Merger([opened(peer, "steps"), opened(peer, "other")], follow=False).batches())
    assert [text for text in merged if text != b"other"] == [b"first", b"its clock went back", b"last"]


def test_gaps_are_in_their_place(peer: Peer) -> None:
    peer.container("a", lambda: [out(1, 0, b"1"), gap(3, 1, 1, 7, "x"), END])
    peer.container("b", lambda: [out(2, 0, b"2"), out(4, 1, b"4"), END])
    merger = Merger([opened(peer, "a"), opened(peer, "b")], follow=False)
    times = [event.time_ns for batch in merger.batches() for _, event in batch]
    assert times == [BASE + second * SECOND for second in (1, 2, 3, 4)]


def test_a_stream_that_breaks_ends_with_a_failure_and_the_rest_goes_on(peer: Peer) -> None:
    peer.container("bad", lambda: [out(1, 0, b"1")])
    peer.container("good", lambda: [out(2, 0, b"2"), END])
    merger = Merger([opened(peer, "bad"), opened(peer, "good")], follow=False)
    events = [(stream.container.name, event) for batch in merger.batches() for stream, event in batch]
    assert [event.data for _, event in events if isinstance(event, Run)] == [b"1", b"2"]
    assert [name for name, event in events if isinstance(event, Failure)] == ["bad"]


class Started:
    """Arrivals that the test makes."""

    def __init__(self, peer: Peer, name: str, happens: threading.Event, over: threading.Event) -> None:
        def events() -> Iterator[bytes]:
            assert happens.wait(20)
            yield b"now"
            over.wait(20)

        peer.routes["GET /events"] = lambda _: events()
        self._response = Client(peer.host).request("GET", "/events")
        self._container = Container(name, name, name)
        self.fileno = self._response.fileno
        self.close = self._response.close

    @property
    def pending(self) -> bool:
        return self._response.pending

    def receive(self) -> list[Container]:
        return [self._container] if self._response.receive() else []


def test_a_container_that_starts_anew_before_its_stream_ended_is_followed_on(peer: Peer) -> None:
    started, end, over = threading.Event(), threading.Event(), threading.Event()

    def first() -> Iterator[bytes]:
        yield out(1, 0, b"one")
        started.set()
        assert end.wait(20)
        yield out(2, 3, b"two")
        yield END

    answers = iter([first(), iter([start(6, 0), out(3, 6, b"three"), END])])
    peer.container("again", lambda: next(answers))
    arrivals = Started(peer, "again", started, over)
    asked: list[tuple[int, int] | None] = []
    streams: list[LogStream] = []

    def opener(container: Container, after: tuple[int, int] | None) -> LogStream:
        asked.append(after)
        streams.append(opened(peer, container.name, follow=True, after=after))
        return streams[-1]

    merger = Merger([opened(peer, "again", follow=True)], follow=True, arrivals=arrivals, opener=opener)  # type: ignore[arg-type]
    found: list[bytes] = []
    for batch in merger.batches():
        found += [event.data for _, event in batch if isinstance(event, Run)]
        if found == [b"one"]:
            threading.Timer(0.2, end.set).start()  # the start is known by then, or not: both must do
        if found[-1:] == [b"three"]:
            break
    assert found == [b"one", b"two", b"three"]
    assert asked == [(6, 0)]
    over.set()
    arrivals.close()
    streams[0].close()


@pytest.mark.parametrize("follow", [False, True])
def test_nothing_to_merge_ends_at_once(peer: Peer, follow: bool) -> None:
    assert list(Merger([], follow=follow).batches()) == []


def test_gap_events_are_what_the_wire_says(peer: Peer) -> None:
    peer.container("a", lambda: [gap(1, 2, 10, 0, "unknown"), END])
    stream = opened(peer, "a")
    events: list[Event] = []
    while not stream.ended:
        events += stream.receive()
    stream.close()
    assert events == [Gap(BASE + SECOND, 2, 10, 0, "unknown")]
