"""What a store is told about its size, age and durability; each field is a log-opt or a key of daemon.json."""

from typing import NamedTuple


class StoreOptions(NamedTuple):
    """Limits of one store, and of all stores of the host together. The defaults are bounded on purpose."""

    max_size: int = 20 << 20
    """Bytes of a segment (both streams together), log-opt `max-size`."""
    max_file: int = 5
    """How many segments are kept, the one being written included, log-opt `max-file`."""
    max_age_s: int = 0
    """Closed segments whose last entry is older are removed; 0 keeps them. Log-opt `max-age`."""
    max_total: int = 0
    """Bytes of all stores of the host together, 0 for no such limit; daemon.json `max-total`."""
    min_free: int = -1
    """Bytes that stay free on the file system; -1: a hundredth of it, at most 1 GiB. daemon.json `min-free`."""
    sync: str = ""
    """When written data is forced to the disk: "" left to the kernel, "1s" every second, "always" each batch."""
    mode: str = ""
    """"blocking" makes the container wait on a full disk; else what does not fit is dropped and counted."""


def reserve_bytes(options: StoreOptions, file_system_bytes: int) -> int:
    """Return how many bytes have to stay free on a file system of that size."""
    if options.min_free >= 0:
        return options.min_free
    return min(file_system_bytes // 100, 1 << 30)
