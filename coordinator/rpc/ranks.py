"""Whose ranks are whose: what a node may speak of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from coordinator.core.records import Job
from coordinator.rpc.intake import Rank
from coordinator.runtime.view import View


class Ranks:
    """Tells the ranks that a node has, or had, to run from those of others.

    `stored` reads a job that has ended.
    """

    def __init__(self, view: View, stored: Callable[[str], Awaitable[Job | None]]) -> None:
        self._view = view
        self._stored = stored

    async def are_known(self, rank: Rank) -> bool:
        """Whether a rank is its node's own.

        A lease outlives its ranks until all that they wrote has arrived; after that the record of the
        job still tells where its last attempt ran.

        Raises:
            StoreUnavailable: it cannot be told now.
        """
        leases = self._view.leases_by_node.get(rank.node_id, {}).values()
        mine = [one for one in leases if (one.job_id, one.attempt) == (rank.job_id, rank.attempt)]
        if mine:
            return any(
                one.first_rank <= rank.rank < one.first_rank + one.local_world_size for one in mine
            )
        job = self._view.job(rank.job_id) or await self._stored(rank.job_id)
        attempt = job.attempt if job is not None else None
        return (
            attempt is not None
            and attempt.number == rank.attempt
            and any(share.node_id == rank.node_id for share in attempt.shares)
        )
