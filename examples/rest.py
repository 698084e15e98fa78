"""A small REST client: the envelope taken off, refusals as exceptions, streams that resume."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

TIMEOUT_S = 30.0
TRIES = 60
PAUSE_S = 0.5
AWAY = frozenset((502, 503, 504))
MAX_EVENT_CHARACTERS = 1_000_000


class Refused(Exception):
    """The gateway's answer was an error."""


class Event(NamedTuple):
    """One server-sent event."""

    id: str
    name: str
    data: dict[str, Any]


class Rest:
    """Talks to the module at `url` with an API key."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The `data` of an answer; asked again while the gateway or coordinator is away."""
        return await self._call("GET", path, params=query)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The `data` of an answer; asked once."""
        return await self._call("POST", path, json=body, tries=1)

    async def _call(
        self, method: str, path: str, *, tries: int = TRIES, **how: Any
    ) -> dict[str, Any]:
        for left in reversed(range(tries)):
            try:
                answer = await self._http.request(method, path, **how)
                if answer.status_code not in AWAY or not left:
                    return _opened(answer)
            except httpx.TransportError:
                if not left:
                    raise Refused(f"no answer from {self._http.base_url}") from None
            await asyncio.sleep(PAUSE_S)
        raise AssertionError("the loop above returns or raises")

    async def events(self, path: str, **query: Any) -> AsyncIterator[Event]:
        """The events of a stream up to `end`; a broken one goes on after the last event seen."""
        last_id, tries = "", 0
        while tries < TRIES:
            headers = {"last-event-id": last_id} if last_id else {}
            try:
                async for event in self._connection(path, query, headers=headers):
                    last_id, tries = event.id or last_id, 0
                    yield event
                    if event.name == "end":
                        return
            except httpx.TransportError:
                pass
            tries += 1
            await asyncio.sleep(PAUSE_S)
        raise Refused(f"the stream {path} broke and did not come back")

    async def _connection(
        self, path: str, query: dict[str, Any], *, headers: dict[str, str]
    ) -> AsyncIterator[Event]:
        async with self._http.stream("GET", path, params=query, headers=headers) as answer:
            if answer.status_code in AWAY:
                return
            if answer.status_code != 200:
                await answer.aread()
                _opened(answer)
            async for event in _events(answer.aiter_lines()):
                if event.name == "error":
                    return
                yield event


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """Events from lines; comments and `retry:` are passed over."""
    fields: dict[str, str] = {}
    async for line in lines:
        name, _, value = line.partition(":")
        if line and len(line) <= MAX_EVENT_CHARACTERS:
            fields[name] = value.removeprefix(" ")
        elif not line:
            if "data" in fields:
                data = json.loads(fields["data"])
                yield Event(fields.get("id", ""), fields.get("event", "message"), data)
            fields = {}


def _opened(answer: httpx.Response) -> dict[str, Any]:
    """The data of an answer.

    Raises:
        Refused: it is an error, or not the module's answer.
    """
    try:
        envelope = answer.json()
    except ValueError:
        raise Refused(f"HTTP {answer.status_code} without JSON") from None
    if envelope.get("status") == "ok":
        data: dict[str, Any] = envelope["data"]
        return data
    error = envelope.get("error", {})
    faults = "".join(f"; {d.get('field')}: {d.get('message')}" for d in error.get("details") or ())
    raise Refused(f"{error.get('message', answer.status_code)} ({error.get('code')}){faults}")
