"""A reader of server-sent events that goes on after the last event it saw, as browsers do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.waiting import LOOK_S

GONE = (httpx.TransportError, httpx.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event."""

    id: str
    name: str
    data: Any


class SseReader:
    """Follows one stream over any number of connections.

    `breaks` counts the connections that ended before the stream did.
    """

    def __init__(self, rest: httpx.Client, path: str, params: Mapping[str, Any]) -> None:
        self.last_id = ""
        self.breaks = 0
        self._rest, self._path, self._params = rest, path, dict(params)

    def events(self, *, within_s: float = 120.0) -> Iterator[SseEvent]:
        """Events until `end`, which is the last one given.

        Raises:
            AssertionError: no end within the time, or a refusal other than 502 to 504.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            try:
                for event in self._connect():
                    yield event
                    if event.name == "end":
                        return
            except GONE:
                pass
            self.breaks += 1
            time.sleep(LOOK_S)
        raise AssertionError(f"the stream had no end within {within_s:g} s, at {self.last_id!r}")

    def _connect(self) -> Iterator[SseEvent]:
        headers = {"last-event-id": self.last_id} if self.last_id else {}
        with self._rest.stream(
            "GET", self._path, params=self._params, headers=headers, timeout=30.0
        ) as answer:
            if answer.status_code in (502, 503, 504):
                return
            assert answer.status_code == 200, answer.read().decode()
            assert answer.headers["content-type"].startswith("text/event-stream")
            for event in parse(answer.iter_lines()):
                if event.name == "error":
                    return
                self.last_id = event.id or self.last_id
                yield event


def parse(lines: Iterator[str]) -> Iterator[SseEvent]:
    """Events of a stream of lines; comments and `retry:` are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield SseEvent(
                fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])
            )
            fields = {}
        else:
            fields = {}
