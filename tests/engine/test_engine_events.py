"""Events: their shape, their filters, who hears them."""

import asyncio
import time

import pytest

from logd.events import KEPT_EVENTS, LISTENER_EVENTS, EventBus, make_event, matches

NOW_NS = 1_700_000_000_987_654_321


def start_event(**attributes):
    attributes = {"image": "registry:5000/team/web:1.2", "name": "web", "tier": "front"} | attributes
    return make_event("container", "start", "abc123", attributes, NOW_NS)


def test_a_container_event_has_dockers_fields_the_old_ones_too():
    assert start_event() == {
        "status": "start",
        "id": "abc123",
        "from": "registry:5000/team/web:1.2",
        "Type": "container",
        "Action": "start",
        "Actor": {
            "ID": "abc123",
            "Attributes": {"image": "registry:5000/team/web:1.2", "name": "web", "tier": "front"},
        },
        "scope": "local",
        "time": 1_700_000_000,
        "timeNano": NOW_NS,
    }


def test_an_event_of_another_kind_has_only_the_new_fields():
    event = make_event("network", "create", "n1", {"name": "bridge"}, NOW_NS)
    assert "status" not in event
    assert "from" not in event


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({}, True),
        ({"event": ["start"]}, True),
        ({"event": ["stop", "start"]}, True),
        ({"event": ["sta"]}, False),
        ({"type": ["image"]}, False),
        ({"type": ["image", "container"]}, True),
        ({"container": ["abc"]}, True),
        ({"container": ["we"]}, True),
        ({"container": ["bc"]}, False),
        ({"image": ["registry:5000/team/web"]}, True),
        ({"image": ["registry:5000/team/web:1.2"]}, True),
        ({"image": ["web"]}, False),
        ({"label": ["tier"]}, True),
        ({"label": ["tier=front"]}, True),
        ({"label": ["tier=back"]}, False),
        ({"label": ["tier", "missing"]}, False),
        ({"event": ["start"], "container": ["db"]}, False),
        ({"scope": ["swarm"]}, False),
    ],
)
def test_filters_are_joined_by_and_their_values_by_or(filters, passes):
    assert matches(start_event(), filters) is passes


def test_an_action_with_text_behind_a_colon_is_found_by_its_beginning():
    event = make_event("container", "exec_start: ls", "abc", {}, NOW_NS)
    assert matches(event, {"event": ["exec_start"]})


async def test_a_listener_hears_what_is_published_after_it_subscribed():
    bus = EventBus()
    bus.publish("container", "create", "one", {"name": "one"})
    listener = bus.subscribe()
    bus.publish("container", "start", "one", {"name": "one"})
    event = await asyncio.wait_for(anext(listener), 5)
    assert event["Action"] == "start"
    listener.close()
    assert bus.listeners == 0


async def test_with_a_time_the_kept_events_of_that_time_come_first():
    bus = EventBus()
    bus.publish("container", "create", "one", {})
    between_ns = time.time_ns()
    bus.publish("container", "start", "one", {})
    until_ns = time.time_ns()
    heard = [event["Action"] async for event in bus.subscribe(since_ns=between_ns, until_ns=until_ns)]
    assert heard == ["start"]


async def test_the_stream_ends_at_until():
    bus = EventBus()
    listener = bus.subscribe(until_ns=time.time_ns() + 50_000_000)
    assert [event async for event in listener] == []
    assert bus.listeners == 0


async def test_only_the_last_events_are_kept():
    bus = EventBus()
    for number in range(KEPT_EVENTS + 10):
        bus.publish("container", "top", str(number), {})
    heard = [event["Actor"]["ID"] async for event in bus.subscribe(since_ns=0, until_ns=time.time_ns())]
    assert heard == [str(number) for number in range(10, KEPT_EVENTS + 10)]


async def test_a_listener_that_does_not_read_costs_bounded_memory():
    bus = EventBus()
    listener = bus.subscribe()
    for number in range(LISTENER_EVENTS + 100):
        bus.publish("container", "top", str(number), {})
    listener.close()
    heard = [(await anext(listener))["Actor"]["ID"] for _ in range(LISTENER_EVENTS)]
    assert heard[-1] == str(LISTENER_EVENTS - 1)
