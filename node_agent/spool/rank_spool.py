"""All that is read and remembered of one rank: its three channels and how far they are."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from node_agent.core.cadence import Cadence
from node_agent.ranks import EVENTS, STDERR, STDOUT, RankFiles
from node_agent.spool import events
from node_agent.spool.channels import Channel, Reader
from node_agent.spool.files import read_document, write_document
from node_agent.spool.readers import EventsReader, OutputReader, Reports
from node_agent.spool.tail import Tail


class _Place(msgspec.Struct):
    """How far a file is acknowledged, and the offset at which its present content begins."""

    acked: int = 0
    base: int = 0
    counted: int = 0


_NOWHERE = _Place()


class _Progress(msgspec.Struct):
    """What a restart of the agent has to know; older than the truth by a second at most.

    A channel of which nothing was acknowledged has no place yet. `boot`: in which the rank began.
    """

    places: dict[str, _Place] = {}
    own_metrics: bool = False
    boot: str = ""
    cadence: Cadence = Cadence()


class RankSpool:
    """The channels of one rank, in the order in which they are read.

    Events come first: what they say of metrics decides how the output is read.
    """

    def __init__(
        self,
        files: RankFiles,
        *,
        boot: str,
        on_saved: Callable[[events.Saved, int], str | None],
        on_done: Callable[[], None],
    ) -> None:
        self.files = files
        self._file = files.path / "acked.json"
        self._saved = read_document(self._file, _Progress) or _Progress(boot=boot)
        self._is_final = self._saved.boot != boot
        self._marks: object = None  # what of it was saved last
        counted = self._saved.places.get(STDOUT, _NOWHERE).counted
        self.reports = Reports(own_metrics=self._saved.own_metrics, counted=counted)
        self.reports.cadence = self._saved.cadence.resumed()
        self._has_begun = False
        self.events = self._channel(
            EVENTS, EventsReader(self.reports, on_saved=on_saved, on_done=on_done)
        )
        # The events file is read again from its beginning, to learn again what it says.
        self.events.tail.position = self.events.tail.base
        self.outputs = [
            self._channel(STDOUT, OutputReader(self.reports, seeks_metrics=files.is_main)),
            self._channel(STDERR, OutputReader(self.reports, seeks_metrics=False)),
        ]
        self.channels = [self.events, *self.outputs]

    def _channel(self, name: str, reader: Reader) -> Channel:
        place = self._saved.places.get(name, _NOWHERE)
        tail = Tail(
            self.files.path / name,
            position=place.acked,
            base=place.base,
            is_final=self._is_final,
        )
        channel = Channel(name, self.files, tail=tail, reader=reader)
        channel.counted = place.counted
        return channel

    def end(self) -> None:
        """Nothing more is written, except by `note`."""
        for channel in self.channels:
            channel.ended = True

    @property
    def is_settled(self) -> bool:
        """Whether the rank has ended and all that it reported was read."""
        return self.events.ended and self.events.is_read()

    @property
    def is_drained(self) -> bool:
        """Whether the rank has ended and all that it wrote is acknowledged."""
        return all(channel.ended and channel.is_drained() for channel in self.channels)

    def abandon(self) -> None:
        """Nobody wants what the rank prints."""
        for channel in self.channels:
            channel.wanted = False

    def note(self, message: str) -> None:
        """Adds a warning of the agent's own to the rank's events, where it gets an offset."""
        event = {"event": "log", "level": "WARNING", "message": message}
        # The newline before it ends what a rank that died while writing has left.
        line = b"\n" + msgspec.json.encode(event) + b"\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self.files.path / EVENTS, flags)
        except OSError:
            return
        try:
            os.write(descriptor, line)
        except OSError:
            return
        finally:
            os.close(descriptor)

    @property
    def silent_since_ms(self) -> int:
        """When the silence began that is too long by now; 0 for none, and of ranks that speak for nobody."""
        if not self.files.is_main or self.events.ended:
            return 0
        return self.reports.cadence.silent_since_ms(self.files.hang_after_ms)

    def look(self, now_ms: int) -> None:
        """Time has passed in which it may have come further."""
        self._has_begun = self._has_begun or (self.files.path / STDOUT).exists()
        if self._has_begun and self.files.is_main and not self.events.ended:
            self.reports.cadence = self.reports.cadence.look(now_ms)

    def keep_house(self, budget_bytes: int) -> int:
        """Remembers how far it is, and frees disk; returns how many bytes had to be dropped."""
        # A disk that is too full to write this down is freed all the same: a restart would find
        # the hole and go on behind it.
        self.save()
        dropped = 0
        for channel in self.outputs:
            channel.tail.release(channel.acked)
            dropped += channel.tail.trim(budget_bytes)
        return dropped

    def close(self) -> None:
        """Closes the files."""
        for channel in self.channels:
            channel.close()

    def save(self) -> None:
        """Writes how far it is where that has changed."""
        marks = [(c.acked, c.tail.base, c.counted) for c in self.channels]
        if (marks, self.reports.own_metrics) == self._marks:
            return
        places = {c.name: _Place(*mark) for c, mark in zip(self.channels, marks, strict=True)}
        known = {name: place for name, place in places.items() if place != _NOWHERE}
        cadence = self.reports.cadence
        progress = _Progress(known, self.reports.own_metrics, self._saved.boot, cadence)
        if progress == self._saved or write_document(self._file, progress):
            self._saved = progress
            self._marks = marks, self.reports.own_metrics
