"""One window of requests for several gateways, in Redis.

A subject is one hash of seconds and counts that expires by itself; one script reads and counts all
subjects of a request at once, by Redis' own clock. Should Redis not answer, this gateway counts by
itself for a moment: limits then hold for each gateway rather than for all together, and nobody is
turned away because a counter is out of reach.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.rates import WINDOW_S, LocalWindow, Subject, Usage, Verdict

ANSWERS_WITHIN_S = 0.5
CONNECTIONS = 8
ALONE_FOR_S = 1.0
PREFIX = "scaimind:rate:"

# KEYS are the subjects; ARGV the window in seconds and then their limits. Answers 1 or 0, and for
# each subject its total and how many milliseconds until the oldest second leaves the window.
_SCRIPT = """
local clock = redis.call('TIME')
local second, window = tonumber(clock[1]), tonumber(ARGV[1])
local now_ms = second * 1000 + math.floor(tonumber(clock[2]) / 1000)
local allowed, totals, oldest = 1, {}, {}
for index, key in ipairs(KEYS) do
  local total, first = 0, nil
  local counts = redis.call('HGETALL', key)
  for at = 1, #counts, 2 do
    local when = tonumber(counts[at])
    if when < second - window then
      redis.call('HDEL', key, counts[at])
    else
      total = total + tonumber(counts[at + 1])
      if not first or when < first then first = when end
    end
  end
  totals[index], oldest[index] = total, first
  if total >= tonumber(ARGV[index + 1]) then allowed = 0 end
end
local answer = {allowed}
for index, key in ipairs(KEYS) do
  if allowed == 1 then
    redis.call('HINCRBY', key, second, 1)
    redis.call('EXPIRE', key, window + 2)
    totals[index], oldest[index] = totals[index] + 1, oldest[index] or second
  end
  answer[#answer + 1] = totals[index]
  answer[#answer + 1] = oldest[index] and (oldest[index] + window + 1) * 1000 - now_ms or 0
end
return answer
"""

log = structlog.get_logger("gateway")


class RedisWindow:
    """The window that gateways share; see gateway.rates.Window."""

    def __init__(
        self, url: str, *, window_s: int = WINDOW_S, answers_within_s: float = ANSWERS_WITHIN_S
    ) -> None:
        """Takes a `redis://` or `rediss://` URL; connects with the first request.

        Raises:
            ValueError: it is no such URL.
        """
        self._window_s = window_s
        # Few connections that requests wait for: a burst must not become a burst of connections.
        pool = BlockingConnectionPool.from_url(
            url,
            socket_timeout=answers_within_s,
            socket_connect_timeout=answers_within_s,
            timeout=answers_within_s,
            max_connections=CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis.from_pool(pool)
        self._script = self._redis.register_script(_SCRIPT)
        self._alone = LocalWindow(window_s=window_s)
        self._alone_until = 0.0

    async def take(self, subjects: Sequence[Subject]) -> Verdict:
        """See Window."""
        if time.monotonic() < self._alone_until:
            return await self._alone.take(subjects)
        try:
            answer = await self._script(
                keys=[PREFIX + subject.name for subject in subjects],
                args=[self._window_s, *(subject.limit for subject in subjects)],
            )
        except (RedisError, OSError) as error:
            self._alone_until = time.monotonic() + ALONE_FOR_S
            log.warning("rate_store_out_of_reach", error=type(error).__name__)
            return await self._alone.take(subjects)
        allowed, *told = (int(number) for number in answer)
        usages = tuple(
            Usage(max(0, subject.limit - total), wait_ms / 1000)
            for subject, total, wait_ms in zip(subjects, told[::2], told[1::2], strict=True)
        )
        return Verdict(bool(allowed), usages)

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()
