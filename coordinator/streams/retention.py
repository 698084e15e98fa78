"""Keeps the logs of all jobs together within a budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from coordinator.streams.front import FrontedStreams
from coordinator.streams.protocol import StreamsUnavailable

LOOKS_EVERY_S = 10.0
ALL_IN_MEMORY_BYTES = 4 << 30  # of all jobs, where memory keeps them and nobody says otherwise

log = structlog.get_logger("coordinator.streams")


async def keep_within(streams: FrontedStreams, most: int, is_live: Callable[[str], bool]) -> None:
    """Looks every few seconds, until cancelled.

    Args:
        streams: of all jobs.
        most: bytes of log lines, before compression.
        is_live: whether a job has not ended yet; the logs of those that have go first.
    """
    while True:
        try:
            await streams.prune(most, is_live)
        except StreamsUnavailable as error:
            log.warning("logs_not_pruned", error=str(error))
        await asyncio.sleep(LOOKS_EVERY_S)
