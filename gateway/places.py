"""Places for open streams: so many in all, so many for each user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.auth import Identity
from gateway.codes import Code
from gateway.sse import Stream
from gateway.status import Failure

ASK_AGAIN_S = 5


class Places:
    """The places of one gateway, and the streams that have begun."""

    def __init__(self, *, total: int, per_user: int) -> None:
        """Bounds both numbers; a user is one of a tenant."""
        self.open: set[Stream] = set()
        self._total, self._per_user = total, per_user
        self._taken: Counter[tuple[str, str]] = Counter()
        self._all = 0

    @contextmanager
    def place(self, identity: Identity) -> Iterator[None]:
        """Holds a place for a stream, from before it begins until it has ended.

        Raises:
            Failure: 429, where there is none.
        """
        user = (identity.tenant_id, identity.user_id)
        if self._taken.get(user, 0) >= self._per_user:
            raise _full(f"More than {self._per_user} open streams of one user.")
        if self._all >= self._total:
            raise _full("Too many open streams.")
        self._taken[user] += 1
        self._all += 1
        try:
            yield
        finally:
            self._all -= 1
            self._taken[user] -= 1
            if not self._taken[user]:
                del self._taken[user]


def _full(message: str) -> Failure:
    return Failure(Code.RATE_LIMITED, message=message, retry_after_s=ASK_AGAIN_S)
