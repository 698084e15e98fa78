"""Who may answer and decide: one process at a time, and none that is not sure of it.

Theory of operation. The store gives leadership for a time (`ttl_s`), under an epoch that its commits are
checked against; so a leader that is late can break nothing. It shall not say anything wrong either: it
counts from the moment that it *asked*, on a clock that goes on while the machine sleeps, and is silent
before its time is over. Renewals do not wait for the loop that decides. A store that does not answer ends
nothing: whoever led before leads on when it is back, unless another took over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable

import structlog

from coordinator.core.reasons import Reason
from coordinator.runtime.refusal import Refusal
from coordinator.store.protocol import Led, Store, StoreLost, StoreUnavailable

ASKED_PER_TTL = 5  # how often a standby tries, and a leader renews
SURE_RATIO = 0.7  # of the time that the store gave, a leader is sure of
RETRY_AFTER_S = 1.0
RESIGN_S = 1.0

log = structlog.get_logger("coordinator.leadership")


def elapsed_s() -> float:
    """Seconds, also those that the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Leadership:
    """One process's standing; an object is good for one term.

    Args:
        store: gives leadership.
        address: HOST:PORT where others reach this process.
        ttl_s: for how long; infinite where only one process can open the store.
        now_s: the time by which it counts.

    Attributes:
        epoch: under which it leads; 0 before.
    """

    def __init__(
        self,
        store: Store,
        *,
        address: str,
        ttl_s: float,
        now_s: Callable[[], float] = elapsed_s,
    ) -> None:
        self.epoch = 0
        self._store = store
        self._address = address
        self._ttl_s = ttl_s
        self._now_s = now_s
        # A name for this term alone: what a former one of this process still has is another's.
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._sure_until_s = 0.0
        self._leader = ""

    @property
    def is_sure(self) -> bool:
        """Whether nobody else can lead at this moment."""
        return self._now_s() < self._sure_until_s

    def check(self) -> None:
        """Raises Refusal NOT_LEADER, which names the leader where known, unless this one is sure."""
        if not self.is_sure:
            raise Refusal(
                Reason.NOT_LEADER,
                "this coordinator does not lead",
                facts=(("leader", self._leader),) if self._leader else (),
                retry_after_s=RETRY_AFTER_S,
            )

    async def win(self) -> int:
        """Stands by until this process leads; answers the epoch.

        Raises:
            StoreUnavailable: the store does not answer the first question; later it is waited for.
            StoreLost: at any time.
        """
        trouble: str | None = None
        while True:
            wait_s = self._ttl_s / ASKED_PER_TTL
            try:
                await self._ask()
            except Led as led:
                wait_s = min(wait_s, max(0.0, led.for_s))
                self._follow(led.leader.address, epoch=led.leader.epoch)
                trouble = ""
            except StoreUnavailable as error:
                if trouble is None or isinstance(error, StoreLost):
                    raise
                if str(error) != trouble:
                    log.error("store_does_not_answer", error=str(error))
                trouble = str(error)
            else:
                log.info("leads", epoch=self.epoch, address=self._address)
                return self.epoch
            await asyncio.sleep(wait_s)

    async def _ask(self) -> None:
        asked_s = self._now_s()
        self.epoch = await self._store.acquire(
            self._holder, address=self._address, ttl_s=self._ttl_s
        )
        self._sure_until_s = asked_s + self._ttl_s * SURE_RATIO
        self._leader = self._address

    def _follow(self, leader: str, *, epoch: int) -> None:
        if leader != self._leader:
            log.info("stands_by", leader=leader, epoch=epoch)
        self._leader = leader

    async def keep(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Renews for ever; tells whenever this process becomes unsure of leading, or sure again.

        Raises:
            Fenced: another one leads.
        """
        if self._ttl_s == float("inf"):
            await asyncio.Event().wait()
        told = True
        while True:
            await asyncio.sleep(self._ttl_s / ASKED_PER_TTL)
            await self._renew()
            if self.is_sure is not told:
                told = not told
                log.warning("sure_of_leading" if told else "unsure_of_leading", epoch=self.epoch)
                await tell(told)

    async def _renew(self) -> None:
        asked_s = self._now_s()
        try:
            async with asyncio.timeout(self._ttl_s / ASKED_PER_TTL):
                await self._store.renew(self.epoch, ttl_s=self._ttl_s)
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("not_renewed", error=str(error) or "the store is slow")
        else:
            self._sure_until_s = asked_s + self._ttl_s * SURE_RATIO

    async def resign(self) -> None:
        """Lets another one lead at once, if that can be done quickly."""
        if not self.epoch or self._ttl_s == float("inf"):
            return
        self._sure_until_s = 0.0
        try:
            async with asyncio.timeout(RESIGN_S):
                await self._store.renew(self.epoch, ttl_s=0)
        except Exception as error:  # whatever it is, it ends by itself soon
            log.info("not_resigned", error=str(error))
