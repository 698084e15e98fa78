"""Who asks again what he was told: the answer to a request stays what it was. Few worlds have any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from coordinator.core.commands import Caller, Recall
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from tests.sim.clock import SECOND
from tests.sim.people import People, Wish
from tests.sim.truth import SimFailure, Truth


class Answers:
    """Asks whether a request was answered before, as servicers do that judge by what may have changed."""

    def __init__(
        self, people: People, rng: Random, truth: Truth, *, is_over: Callable[[], bool]
    ) -> None:
        self._people = people
        self._is_over = is_over
        self._rng = rng
        self._truth = truth

    def told(self, wish: Wish, reply: Reply) -> None:
        """Somebody has heard an answer; now and then it is asked for once more."""
        caller = getattr(wish.command, "caller", None)
        if not isinstance(caller, Caller) or isinstance(wish.command, Recall):
            return
        if self._rng.random() < 0.3:
            delay_ms = self._rng.randint(0, 90) * SECOND
            other = self._rng.random() < 0.2
            asked = replace(caller, digest="another") if other else caller
            self._people.after(
                delay_ms, lambda: self._ask(wish.what, asked, first=reply, other=other)
            )

    def _ask(self, what: str, caller: Caller, *, first: Reply, other: bool) -> None:
        if self._is_over():
            return

        def heard(reply: Reply | Rejected) -> None:
            if self._truth.rewinds:
                return  # the request may be forgotten with its batch
            self._truth.looked["answers"] += 1
            if other:
                if not isinstance(reply, Rejected) or reply.reason is not Reason.REQUEST_ID_REUSED:
                    raise SimFailure(f"{what} {caller.request_id} answers another: {reply}")
            elif reply != replace(first, replayed=True):
                raise SimFailure(f"{what} {caller.request_id} was {first}, and is {reply}")

        self._people.ask("recall", Recall(caller=caller), heard=heard)
