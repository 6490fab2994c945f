"""The end of a child as something to wait for beside descriptors. Source: signal.set_wakeup_fd, signal-safety(7)."""

import os
import signal


def wakeup_pipe() -> int:
    """Return a descriptor, non-blocking, that can be read from whenever a child of this process has ended."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading
