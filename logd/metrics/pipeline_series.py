"""The series of what containers print and where it goes, and how they are filled in from what is known of a store."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from logd.forward.account import Terms
from logd.forward.supervision import NO_ANSWER
from logd.logstore.gauge import Measure
from logd.logstore.segment import GAP_REASONS, REASON_CODES
from logd.metrics.families import LOG, Family, Series
from logd.metrics.levels import LEVELS, NONE, UNEXAMINED
from logd.record import STREAM_NAMES
from logd.units import NS

CAPTURED: Final = Family(
    "logd_captured_bytes_total", "counter", "Taken from the container, kept or dropped.", ("stream",), LOG
)
LINES: Final = Family(
    "logd_lines_total",
    "counter",
    "Lines printed since the daemon was started, by their level: "
    + ", ".join((*LEVELS, f"{NONE} (not recognised)", f"{UNEXAMINED} (not looked at under load)."))
    + " Counted a moment after a scrape has asked.",
    ("level",),
    LOG,
)
SKIPPED: Final = Family(
    "logd_lines_skipped_bytes_total",
    "counter",
    "Output whose lines were not even counted: too much at once, or gone before it was looked at.",
    (),
    LOG,
)
STORED: Final = Family("logd_stored_bytes", "gauge", "Output that the store has, both streams.", (), LOG)
SEGMENTS: Final = Family("logd_store_segments", "gauge", "Segments that the store has.", (), LOG)
DISK: Final = Family("logd_store_disk_bytes", "gauge", "What the store's files take on the disk.", (), LOG)
STORE_DROPPED: Final = Family(
    "logd_store_dropped_bytes_total",
    "counter",
    "Output that was not kept, because the disk was full (no-space) or the host's reserve touched (min-free).",
    ("stream", "reason"),
    LOG,
)
EXPIRED: Final = Family("logd_store_expired_bytes_total", "counter", "Output that retention has removed.", (), LOG)
CLEARED: Final = Family("logd_store_cleared_bytes_total", "counter", "Output that a person has removed.", (), LOG)
LAST_OUTPUT: Final = Family(
    "logd_last_output_timestamp_seconds", "gauge", "When it last printed something; 0 for never.", (), LOG
)
FOLLOWERS: Final = Family(
    "logd_followers",
    "gauge",
    "Readers of the log at present: logs, attach, and for a moment the sealing of a closed segment.",
    (),
    LOG,
)

_DRIVER: Final = ("driver",)
DRIVER_CAPTURED: Final = Family(
    "logd_driver_captured_bytes_total", "counter", "Taken from the container since the driver began.", _DRIVER, LOG
)
DELIVERED: Final = Family(
    "logd_driver_delivered_bytes_total", "counter", "Output that the destination has taken.", _DRIVER, LOG
)
RECORDS: Final = Family(
    "logd_driver_records_total", "counter", "Lines, and parts of over-long ones, delivered or sent.", _DRIVER, LOG
)
UNCONFIRMED: Final = Family(
    "logd_driver_unconfirmed_bytes_total",
    "counter",
    "Output sent by a protocol that does not tell whether it arrived.",
    _DRIVER,
    LOG,
)
BUFFERED: Final = Family(
    "logd_driver_buffered_bytes", "gauge", "Output in the store that waits for the driver.", _DRIVER, LOG
)
UNREAD: Final = Family(
    "logd_driver_unread_gap_bytes",
    "gauge",
    "Output that is gone from the store, and that the driver will count as dropped when it comes to it.",
    _DRIVER,
    LOG,
)
DROPPED: Final = Family(
    "logd_driver_dropped_bytes_total",
    "counter",
    "Output that the driver will not deliver.",
    ("driver", "reason"),
    LOG,
)
RETRIES: Final = Family("logd_driver_retries_total", "counter", "Batches that had to be sent again.", _DRIVER, LOG)
LAG: Final = Family(
    "logd_driver_lag_seconds", "gauge", "How long ago the oldest line that waits was printed; 0: none.", _DRIVER, LOG
)
UP: Final = Family("logd_driver_up", "gauge", "Whether nothing is wrong with the deliveries.", _DRIVER, LOG)
STATE: Final = Family(
    "logd_driver_state",
    "gauge",
    "1 for the state it is in, 0 for those that it was seen in before: idle, delivering, retrying, failed (a mistake "
    f"in the driver), waiting (for another forwarder), {NO_ANSWER} (held up); or, if that is not running, its "
    "forwarder's: starting, restarting, quarantined.",
    ("driver", "state"),
    LOG,
)
UNACCOUNTED: Final = Family(
    "logd_driver_unaccounted_bytes",
    "gauge",
    "captured - delivered - unconfirmed - buffered - unread gap - dropped: other than 0 is a mistake in logd.",
    _DRIVER,
    LOG,
)

_PLUGIN: Final = ("plugin",)
FORWARDER_UP: Final = Family("logd_forwarder_up", "gauge", "Whether the process that runs drivers runs.", _PLUGIN)
FORWARDER_RESTARTS: Final = Family("logd_forwarder_restarts_total", "counter", "How often it had to be.", _PLUGIN)
FORWARDER_LAG: Final = Family(
    "logd_forwarder_loop_lag_seconds", "gauge", "How late its event loop was when it last said so.", _PLUGIN
)
FORWARDER_DELIVERIES: Final = Family(
    "logd_forwarder_deliveries", "gauge", "Containers' drivers that it has to deliver to.", _PLUGIN
)

FORWARDER: Final = (FORWARDER_UP, FORWARDER_RESTARTS, FORWARDER_LAG, FORWARDER_DELIVERIES)
FAMILIES: Final = (
    *(CAPTURED, LINES, SKIPPED, STORED, SEGMENTS, DISK, STORE_DROPPED, EXPIRED, CLEARED, LAST_OUTPUT, FOLLOWERS),
    *(
        DRIVER_CAPTURED,
        DELIVERED,
        RECORDS,
        UNCONFIRMED,
        BUFFERED,
        UNREAD,
        DROPPED,
        RETRIES,
        LAG,
        UP,
        STATE,
        UNACCOUNTED,
    ),
    *FORWARDER,
)

FIRST_LEVELS: Final = ("critical", "error", "warning", NONE)
"""Levels that are shown from the begin, with 0: others from their first line on."""
FIRST_STORE_REASONS: Final = (REASON_CODES["no-space"], REASON_CODES["min-free"])
FIRST_DRIVER_REASONS: Final = ("rejected", "retention")
WELL: Final = ("idle", "delivering", "starting")


class Driver(NamedTuple):
    """What is shown of one driver of a container."""

    name: str
    terms: Terms
    is_counted: bool
    """Whether `buffered`, `unread` and so the difference are known."""
    records: int
    retries: int
    dropped: Mapping[str, int]
    lag_s: float
    state: str
    states: tuple[str, ...]
    """Those that it was in, the present one among them."""


class Shape(NamedTuple):
    """What the series of a container hang on, besides its labels."""

    levels: tuple[str, ...]
    store_reasons: tuple[int, ...]
    drivers: tuple[tuple[str, bool, tuple[str, ...], tuple[str, ...]], ...]
    """Name, whether it is counted, reasons of what it dropped, states."""


def shape_of(measure: Measure, lines: Mapping[str, int], drivers: Iterable[Driver]) -> Shape:
    """Return the shape of a container's series."""
    reasons = set(FIRST_STORE_REASONS)
    for totals in measure.totals.streams.values():
        reasons |= {code for code, count in enumerate(totals.dropped) if count}
    return Shape(
        tuple(dict.fromkeys((*FIRST_LEVELS, *sorted(lines)))),
        tuple(sorted(reasons)),
        tuple(
            (one.name, one.is_counted, tuple(dict.fromkeys((*FIRST_DRIVER_REASONS, *sorted(one.dropped)))), one.states)
            for one in drivers
        ),
    )


def series_of(shape: Shape) -> list[Series]:
    """Return a container's series, in the order of `values_of`."""
    names = [STREAM_NAMES[stream] for stream in sorted(STREAM_NAMES)]
    series: list[Series] = [(CAPTURED, stream) for stream in names]
    series += [(LINES, level) for level in shape.levels]
    series += [(family,) for family in (SKIPPED, STORED, SEGMENTS, DISK, EXPIRED, CLEARED, LAST_OUTPUT, FOLLOWERS)]
    reasons = [GAP_REASONS.get(code, str(code)) for code in shape.store_reasons]
    series += [(STORE_DROPPED, stream, reason) for stream in names for reason in reasons]
    return series


def driver_series(shape: Shape) -> list[Series]:
    """Return the series of a container's drivers, in the order of `driver_values`."""
    families = (DRIVER_CAPTURED, DELIVERED, RECORDS, UNCONFIRMED, RETRIES, LAG, UP)
    series: list[Series] = [(family, name) for family in families for name, *_ in shape.drivers]
    counted = [name for name, is_counted, *_ in shape.drivers if is_counted]
    series += [(family, name) for family in (BUFFERED, UNREAD, UNACCOUNTED) for name in counted]
    series += [(DROPPED, name, reason) for name, _, reasons, _ in shape.drivers for reason in reasons]
    return series + [(STATE, name, state) for name, _, _, states in shape.drivers for state in states]


def values_of(
    shape: Shape, measure: Measure, lines: Mapping[str, int], skipped: int, followers: int
) -> tuple[float, ...]:
    """Return the values of a container's own series."""
    streams = [measure.totals.streams[stream] for stream in sorted(STREAM_NAMES)]
    return (
        *measure.captured,
        *(lines.get(level, 0) for level in shape.levels),
        skipped,
        measure.stored_bytes,
        measure.segments,
        measure.disk_bytes,
        sum(one.expired for one in streams),
        sum(one.cleared for one in streams),
        measure.last_ns / NS,
        followers,
        *(one.dropped[code] for one in streams for code in shape.store_reasons),
    )


def driver_values(shape: Shape, drivers: Iterable[Driver]) -> tuple[float, ...]:
    """Return the values of its drivers' series."""
    found = list(drivers)
    counted = [one.terms for one in found if one.is_counted]
    shapes = list(zip(found, shape.drivers, strict=True))
    return (
        *(one.terms.captured for one in found),
        *(one.terms.delivered for one in found),
        *(one.records for one in found),
        *(one.terms.unconfirmed for one in found),
        *(one.retries for one in found),
        *(one.lag_s for one in found),
        *(int(one.state in WELL) for one in found),
        *(one.buffered for one in counted),
        *(one.unread for one in counted),
        *(one.difference for one in counted),
        *(one.dropped.get(reason, 0) for one, (_, _, reasons, _) in shapes for reason in reasons),
        *(int(one.state == state) for one, (_, _, _, states) in shapes for state in states),
    )
