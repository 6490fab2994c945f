"""How much an archive may ask for before it is refused; the defaults leave room for every image that people use."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one layer or one archive. Sizes are bytes."""

    max_entries: int = 2_000_000
    """Entries of a tar (a full Debian desktop has 400,000)."""
    max_bytes: int = 256 << 30
    """What the decompressed tar may have, and the files in it together, holes counted."""
    max_ratio: int = 500
    """Decompressed to compressed, once `ratio_from` bytes came out; text packs 10:1, gzip's bound is 1032:1."""
    ratio_from: int = 1 << 30
    max_header: int = 128 << 10
    """One PAX or GNU header: names, links, extended attributes (Linux's own bound is 64 KiB an attribute)."""
    max_headers: int = 4 << 20
    """All headers of one entry; the longest are maps of holes, of which this holds 170,000 by GNU tar."""
    max_memory: int = 768 << 20
    """Address space of the process that reads the archive; zstd's window is the largest part, 128 MiB at most."""
