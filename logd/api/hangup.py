"""Notice that a client is gone which has closed its sending half before: reading tells no more, only a hang-up does."""

import asyncio
import select
from collections.abc import Callable


def watch_hang_up(transport: asyncio.Transport) -> Callable[[], None]:
    """Abort the connection at a hang-up; returns what ends the watching, to be called when the connection is lost."""
    loop = asyncio.get_running_loop()
    watch = select.epoll()
    watch.register(transport.get_extra_info("socket").fileno(), 0)  # hang-ups are always reported
    loop.add_reader(watch.fileno(), transport.abort)

    def end() -> None:
        loop.remove_reader(watch.fileno())
        watch.close()

    return end
