"""Containers that start while a choice that they belong to is followed: `logs -f --all`, `-l`, or a glob."""

import json
from typing import Any

from logd.cli.client import Broken, Client
from logd.cli.pattern import Choice, running
from logd.cli.streams import Container, Listening, patiently


class Arrivals(Listening):
    """Hears from the daemon which containers start. `open` before the choice is made, so that none is missed."""

    def __init__(self, client: Client, choice: Choice) -> None:
        super().__init__(client)
        self._choice = choice
        self._rest = b""

    def open(self) -> None:
        """Begin to listen. Raises what Client.request raises."""
        filters: dict[str, list[str]] = {"type": ["container"], "event": ["start"]}
        if self._choice.labels:
            filters["label"] = list(self._choice.labels)
        self._rest = b""
        self._response = self._client.request("GET", "/events", {"filters": json.dumps(filters)})

    def receive(self) -> list[Container]:
        """Wait for bytes and return the containers that have started.

        After the daemon was away, those are all that run: what started meanwhile is not known.
        """
        assert self._response is not None
        try:
            data = self._response.receive()
            if self._response.ended:
                raise Broken("the daemon ended its list of events")
        except Broken:
            self._response.close()
            patiently(self.open)
            return running(self._client, self._choice)
        *lines, self._rest = (self._rest + data).split(b"\n")
        started = [_container(json.loads(line)) for line in lines if line.strip()]
        return [one for one in started if self._choice.fits(one)]


def _container(event: dict[str, Any]) -> Container:
    actor = event["Actor"]
    return Container(actor["ID"], actor["ID"], actor["Attributes"].get("name", actor["ID"][:12]))
