import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from store_builder import StoreBuilder, lines_of

from logd.logstore import inotify
from logd.logstore.follow import Watcher
from logd.logstore.reader import LogReader, Selection
from logd.record import STDERR, STDOUT


@pytest_asyncio.fixture
async def watcher() -> AsyncIterator[Watcher]:
    watcher = Watcher()
    await watcher.start()
    yield watcher
    watcher.close()


@pytest.fixture
def store(tmp_path: Path) -> StoreBuilder:
    store = StoreBuilder(tmp_path / "log")
    store.write(STDOUT, b"first\n", 1)
    return store


async def settled() -> None:
    """Let events that are queued be read."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_an_entry_wakes_who_waits(watcher, store):
    subscription = watcher.subscribe(store.path)
    waiting = asyncio.create_task(subscription.wait(30))
    await settled()
    assert not waiting.done()
    store.write(STDOUT, b"second\n")
    assert await asyncio.wait_for(waiting, 10) is True


async def test_what_comes_between_the_last_read_and_the_wait_wakes_at_once(watcher, store):
    subscription = watcher.subscribe(store.path)
    store.write(STDOUT, b"second\n")
    assert await asyncio.wait_for(subscription.wait(), 10) is True
    store.rotate()
    assert await asyncio.wait_for(subscription.wait(), 10) is True


async def test_it_wakes_again_and_again(watcher, store):
    subscription = watcher.subscribe(store.path)
    for _ in range(5):
        waiting = asyncio.create_task(subscription.wait(30))
        await settled()
        store.write(STDERR, b"more\n")
        assert await asyncio.wait_for(waiting, 10) is True


async def test_without_news_it_returns_after_the_timeout(watcher, store):
    subscription = watcher.subscribe(store.path)
    assert await subscription.wait(0.01) is False


async def test_a_wake_from_outside_counts_before_the_wait_and_in_it(watcher, store):
    subscription = watcher.subscribe(store.path)
    subscription.wake()
    await asyncio.wait_for(subscription.wait(), 10)
    waiting = asyncio.create_task(subscription.wait())
    await settled()
    subscription.wake()
    await asyncio.wait_for(waiting, 10)


async def test_all_subscriptions_to_a_store_wake_and_closing_one_leaves_the_others(watcher, store):
    first, second, third = (watcher.subscribe(store.path) for _ in range(3))
    third.close()
    waiting = [asyncio.create_task(subscription.wait(30)) for subscription in (first, second)]
    await settled()
    store.write(STDOUT, b"more\n")
    assert await asyncio.gather(*waiting) == [True, True]


async def test_a_store_that_comes_to_be_later_is_seen(watcher, tmp_path):
    subscription = watcher.subscribe(str(tmp_path / "log"))
    waiting = asyncio.create_task(has_news(subscription))
    await settled()
    StoreBuilder(tmp_path / "log").write(STDOUT, b"first\n", 1)
    await asyncio.wait_for(waiting, 10)


async def has_news(subscription) -> None:
    while not await subscription.wait():
        pass


async def test_deletion_wakes_although_a_reader_has_files_open(watcher, store):
    subscription = watcher.subscribe(store.path)
    with LogReader(store.path, Selection()) as reader:
        assert reader.read()
        waiting = asyncio.create_task(subscription.wait(30))
        await settled()
        shutil.rmtree(store.path)
        assert await asyncio.wait_for(waiting, 10) is True
        assert reader.read() == []


async def test_deletion_of_the_folder_wakes_and_is_no_busy_loop(watcher, store):
    subscription = watcher.subscribe(store.path)
    waiting = asyncio.create_task(subscription.wait(30))
    await settled()
    shutil.rmtree(store.path)
    assert await asyncio.wait_for(waiting, 10) is True
    while await subscription.wait(0.01):
        pass
    begin = time.monotonic()
    assert await subscription.wait(0.03) is False
    assert time.monotonic() - begin > 0.02


async def test_a_closed_subscription_ends_its_wait(watcher, store):
    subscription = watcher.subscribe(store.path)
    waiting = asyncio.create_task(subscription.wait())
    await settled()
    subscription.close()
    await asyncio.wait_for(waiting, 10)


async def test_lost_events_wake_everyone(watcher, store, monkeypatch):
    subscription = watcher.subscribe(store.path)
    waiting = asyncio.create_task(subscription.wait())
    await settled()
    real = inotify.Inotify.read
    overflow = inotify.Event(-1, inotify.IN_Q_OVERFLOW, b"")

    def lossy(self):
        list(real(self))
        return [overflow]

    monkeypatch.setattr(inotify.Inotify, "read", lossy)
    store.rotate()
    store.write(STDOUT, b"second\n")
    assert await asyncio.wait_for(waiting, 10) is True


async def test_without_a_watch_to_be_had_it_polls_and_says_so(watcher, store, monkeypatch, caplog):
    def none_left(self, path, mask):
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(inotify.Inotify, "add", none_left)
    subscription = watcher.subscribe(store.path)
    assert "polling" in caplog.text
    waiting = asyncio.create_task(has_news(subscription))
    await settled()
    store.write(STDOUT, b"second\n")
    await asyncio.wait_for(waiting, 10)


async def test_a_follower_sees_every_line_of_a_writer_that_rotates_all_the_time(watcher, store):
    count = 400

    def write() -> None:
        for number in range(count):
            store.write(STDOUT if number % 3 else STDERR, f"line {number}\n".encode())
            if number % 7 == 0:
                store.rotate()

    subscription = watcher.subscribe(store.path)
    lines = []
    with LogReader(store.path, Selection()) as reader:
        writing = asyncio.create_task(asyncio.to_thread(write))
        while len(lines) < count + 1:
            items = reader.read()
            lines += lines_of(items)
            if not items:
                assert await asyncio.wait_for(subscription.wait(5), 10), "nothing came although lines are missing"
        await writing
    assert [line.data for line in lines] == [b"first\n", *(f"line {number}\n".encode() for number in range(count))]


async def test_what_is_served_does_not_end_the_wait(watcher, store):
    subscription = watcher.subscribe(store.path)
    lines = []
    with LogReader(store.path, Selection()) as reader:

        def serve() -> bool:
            lines.extend(line.data for line in lines_of(reader.read()))
            return lines[-1] != b"last\n"

        waiting = asyncio.create_task(subscription.wait(30, serve))
        await settled()
        for text in (b"second\n", b"third\n", b"last\n"):
            assert not waiting.done()
            store.write(STDOUT, text)
            while lines[-1:] != [text]:
                await asyncio.wait_for(asyncio.sleep(0), 10)
        await asyncio.wait_for(waiting, 10)
    assert lines == [b"first\n", b"second\n", b"third\n", b"last\n"]


async def test_what_serving_raises_the_wait_raises(watcher, store):
    subscription = watcher.subscribe(store.path)
    waiting = asyncio.create_task(subscription.wait(30, lambda: 1 // 0 > 0))
    await settled()
    store.write(STDOUT, b"second\n")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(waiting, 10)


async def test_a_wait_that_serves_still_ends_at_its_timeout(watcher, store):
    subscription = watcher.subscribe(store.path)
    waiting = asyncio.create_task(subscription.wait(0.2, lambda: True))
    await settled()
    store.write(STDOUT, b"second\n")
    assert await asyncio.wait_for(waiting, 10) is False


async def test_serving_a_writer_that_hammers_and_rotates_loses_and_doubles_nothing(watcher, store):
    count = 400

    def write() -> None:
        for number in range(count):
            store.write(STDOUT if number % 3 else STDERR, f"line {number}\n".encode())
            if number % 7 == 0:
                store.rotate()
            if number % 5 == 0:
                time.sleep(0.001)

    subscription = watcher.subscribe(store.path)
    lines = []
    with LogReader(store.path, Selection()) as reader:

        def serve() -> bool:
            lines.extend(lines_of(reader.read()))
            return len(lines) <= count

        writing = asyncio.create_task(asyncio.to_thread(write))
        while len(lines) <= count:
            if not (items := reader.read()):
                await asyncio.wait_for(subscription.wait(5, serve), 10)
            lines.extend(lines_of(items))
        await writing
    assert [line.data for line in lines] == [b"first\n", *(f"line {number}\n".encode() for number in range(count))]


async def test_watches_are_given_back(watcher, store):
    def watches() -> int:
        info = Path(f"/proc/self/fdinfo/{watcher._inotify.fileno()}").read_text()
        return info.count("inotify wd:")

    subscriptions = [watcher.subscribe(store.path) for _ in range(3)]
    for _ in range(3):
        store.rotate()
        await subscriptions[0].wait(0.01)
    assert watches() <= 2
    for subscription in subscriptions:
        subscription.close()
    assert watches() == 0
