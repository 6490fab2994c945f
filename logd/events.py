"""What happened to containers and images, for /events: published once, kept for a while, handed to each listener.

Source: Docker Engine API 1.47, GET /events (shape, the 256 events that are kept, the meaning of the filters).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from logd.units import NS

log = logging.getLogger(__name__)

KEPT_EVENTS: Final = 256
"""Docker's number."""
LISTENER_EVENTS: Final = 4096
"""What a listener may lag behind before it misses events; Docker gives it 1024 and 100 ms."""
FUZZY_TYPES: Final = ("daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config")
"""Filters by name or id of an object, where the beginning is enough."""
FUZZY_ACTIONS: Final = frozenset(("health_status", "exec_create", "exec_start"))
"""Actions that carry text after a colon, so that a filter names their beginning."""

Event = dict[str, Any]
Filters = Mapping[str, Sequence[str]]


def make_event(kind: str, action: str, object_id: str, attributes: Mapping[str, str], time_ns: int) -> Event:
    """Return the event in Docker's shape, with the fields from before API 1.22 that clients still read."""
    event: Event = {}
    if kind in {"container", "image"}:
        event["status"], event["id"] = action, object_id
    if kind == "container" and attributes.get("image"):
        event["from"] = attributes["image"]
    event |= {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": object_id, "Attributes": dict(attributes)},
        "scope": "local",
        "time": time_ns // NS,
        "timeNano": time_ns,
    }
    return event


def matches(event: Event, filters: Filters) -> bool:
    """Tell whether an event passes all filters; within one filter any value is enough, but all labels are needed."""
    actor: dict[str, Any] = event["Actor"]
    attributes: dict[str, str] = actor["Attributes"]
    return (
        _action_matches(event["Action"], filters.get("event", ()))
        and _exact(event["Type"], filters.get("type", ()))
        and _exact(event["scope"], filters.get("scope", ()))
        and all(
            _prefix(actor["ID"], filters.get(kind, ())) or _prefix(attributes.get("name", ""), filters.get(kind, ()))
            for kind in FUZZY_TYPES
        )
        and _image_matches(event, filters.get("image", ()))
        and all(_label_matches(wanted, attributes) for wanted in filters.get("label", ()))
    )


def _exact(value: str, wanted: Sequence[str]) -> bool:
    return not wanted or value in wanted


def _prefix(value: str, wanted: Sequence[str]) -> bool:
    return not wanted or value.startswith(tuple(wanted))


def _action_matches(action: str, wanted: Sequence[str]) -> bool:
    return _prefix(action, wanted) if FUZZY_ACTIONS.intersection(wanted) else _exact(action, wanted)


def _image_matches(event: Event, wanted: Sequence[str]) -> bool:
    if not wanted:
        return True
    actor: dict[str, Any] = event["Actor"]
    name = actor["Attributes"].get("name" if event["Type"] == "image" else "image", "")
    return not {actor["ID"], name, _without_tag(actor["ID"]), _without_tag(name)}.isdisjoint(wanted)


def _without_tag(reference: str) -> str:
    """Return the repository of `registry:5000/name:tag@digest`."""
    name = reference.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def _label_matches(wanted: str, attributes: Mapping[str, str]) -> bool:
    name, equals, value = wanted.partition("=")
    return name in attributes and (not equals or attributes[name] == value)


class Listener:
    """One client of /events: an asynchronous iterator, ended by `until` or `close`."""

    def __init__(self, bus: "EventBus", filters: Filters, until_ns: int | None) -> None:
        self._bus = bus
        self._filters = filters
        self._until_ns = until_ns
        self._queue: deque[Event] = deque()
        self._grown = asyncio.Event()
        self._missed = 0

    def offer(self, event: Event) -> None:
        """Take an event, if it passes the filters."""
        if not matches(event, self._filters):
            return
        if len(self._queue) < LISTENER_EVENTS:
            self._queue.append(event)
            self._grown.set()
            return
        if not self._missed:
            log.warning("a client of /events does not read: it misses events from here on")
        self._missed += 1

    def close(self) -> None:
        """Take no more events."""
        self._bus.forget(self)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; may be cancelled at any await without losing one."""
        while not self._queue:
            self._grown.clear()
            try:
                await asyncio.wait_for(self._grown.wait(), self._remaining_s())
            except TimeoutError:
                self.close()
                raise StopAsyncIteration from None
        return self._queue.popleft()

    def _remaining_s(self) -> float | None:
        if self._until_ns is None:
            return None
        return max(0.0, (self._until_ns - time.time_ns()) / NS)


class EventBus:
    """Where events are published; a listener misses none that are published after `subscribe` has returned."""

    def __init__(self) -> None:
        self.published = 0
        """How many events there have been."""
        self._kept: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._listeners: list[Listener] = []

    @property
    def listeners(self) -> int:
        """How many clients listen (`NEventsListener` of /info)."""
        return len(self._listeners)

    def publish(self, kind: str, action: str, object_id: str, attributes: Mapping[str, str]) -> None:
        """Tell all listeners; `kind` is Docker's Type (container, image, …)."""
        event = make_event(kind, action, object_id, attributes, time.time_ns())
        self.published += 1
        self._kept.append(event)
        for listener in tuple(self._listeners):
            listener.offer(event)

    def subscribe(self, since_ns: int | None = None, until_ns: int | None = None, filters: Filters = {}) -> Listener:  # noqa: B006 - never changed
        """Return an iterator over the kept events of that time (none without a time) and those to come until then."""
        listener = Listener(self, filters, until_ns)
        if since_ns is not None or until_ns is not None:
            for event in self._kept:
                if (since_ns or 0) <= event["timeNano"] and (until_ns is None or event["timeNano"] <= until_ns):
                    listener.offer(event)
        self._listeners.append(listener)
        return listener

    def forget(self, listener: Listener) -> None:
        """Remove a listener; no error if it is gone."""
        if listener in self._listeners:
            self._listeners.remove(listener)
