"""Redis, reached with care: what the shared store and the shared streams have in common.

Theory of operation. Whatever changes something is one Lua script, so it happens whole or not at all; it
is loaded once and called by its SHA. All keys carry one hash tag, so that they live together in a cluster.
A call that fails may have had its effect: every script can be asked again with the same arguments.

Where the server keeps a log (appendonly) and can be asked (WAITAOF, Redis 7.2), a change is answered once
it is on the server's disk, whatever `appendfsync` says. An older server decides by its `appendfsync` alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

T = TypeVar("T")
Argument = bytes | str | int

SCHEMES = ("redis", "rediss", "unix")
TIMEOUT_S = 5.0
DISK_TIMEOUT_MS = 4000
RETRIES = 2
CHUNK = 500  # entries of a large answer that are asked for at once

log = structlog.get_logger("coordinator.redis")


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the SHA that the server knows it by."""

    text: str
    sha: str

    @classmethod
    def of(cls, package: str, name: str) -> Script:
        """From `lua/NAME.lua` of a package."""
        text = resources.files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


class Server:
    """One Redis, as one of its users sees it.

    Args:
        url: redis://, rediss:// or unix://, with the database in the path or as `?db=`.
        prefix: tells installations in one database apart.
        trouble: what is raised when a call failed or its outcome is not known.
    """

    def __init__(self, url: str, *, prefix: str, trouble: Callable[[str], Exception]) -> None:
        self.name = safe(url)
        self._url = url
        self._prefix = f"{{{prefix}}}:"
        self._trouble = trouble
        self._redis: Redis | None = None
        self._waits_for_disk = False

    def key(self, name: str) -> str:
        """A key of this installation."""
        return self._prefix + name

    async def open(self) -> None:
        """Connects, and looks whether the server is fit to keep anything."""
        if self._redis is not None:
            return
        try:
            self._redis = Redis.from_url(
                self._url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.2), RETRIES),
                protocol=2,
            )
        except ValueError as error:
            raise self._trouble(f"{self.name} is no address of a Redis: {error}") from error
        try:
            await self._examine()
        except BaseException:
            await self.close()
            raise

    async def _examine(self) -> None:
        memory = await self.call(lambda redis: redis.info("memory"))
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory", 0) and str(policy).startswith("allkeys"):
            raise self._trouble(
                f"{self.name} throws away what it holds when it is full ({policy}); "
                "set its maxmemory-policy to noeviction"
            )
        keeps_log = (await self.call(lambda redis: redis.info("persistence"))).get("aof_enabled")
        if not keeps_log:
            log.warning("redis_keeps_no_log", redis=self.name, advice="set appendonly to yes")
        self._waits_for_disk = await self.call(_can_wait)

    async def close(self) -> None:
        """Drops the connections; safe to call twice."""
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose()

    async def call(self, ask: Callable[[Redis], Awaitable[T]]) -> T:
        """One question, its failures told as trouble."""
        if self._redis is None:
            raise self._trouble(f"{self.name} is not open")
        try:
            return await ask(self._redis)
        except (RedisError, OSError) as error:
            raise self._trouble(f"{self.name}: {type(error).__name__}: {error}") from error

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Iterable[Argument],
        *,
        durably: bool = True,
    ) -> Any:
        """Runs a script that changes something.

        Answers, where asked to be durable, once that is as safe as the server can make it.
        """
        words = (len(keys), *keys, *arguments)
        ask = self._durably if durably and self._waits_for_disk else _plainly

        async def run(redis: Redis) -> Any:
            try:
                return await ask(redis, "EVALSHA", script.sha, *words)
            except NoScriptError:
                return await ask(redis, "EVAL", script.text, *words)

        return await self.call(run)

    async def _durably(self, redis: Redis, *words: Argument) -> Any:
        # WAITAOF counts what this very connection wrote: both go down one connection, in one message.
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.execute_command(*words)
            pipeline.execute_command("WAITAOF", 1, 0, DISK_TIMEOUT_MS)
            answer, (on_disk, *_) = await pipeline.execute()
        if not on_disk:
            raise self._trouble(f"{self.name} did not get it to its disk in {DISK_TIMEOUT_MS} ms")
        return answer

    async def at_once(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """The answers to several questions, all of one moment."""
        return await self._many(commands, transaction=True)

    async def each(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """The answers to several questions, asked together."""
        answers: list[Any] = []
        for start in range(0, len(commands), CHUNK):
            answers += await self._many(commands[start : start + CHUNK], transaction=False)
        return answers

    async def _many(
        self, commands: Sequence[tuple[Argument, ...]], *, transaction: bool
    ) -> list[Any]:
        async def ask(redis: Redis) -> list[Any]:
            async with redis.pipeline(transaction=transaction) as pipeline:
                for words in commands:
                    pipeline.execute_command(*words)
                return list(await pipeline.execute())

        return await self.call(ask)

    async def fields(self, name: str, fields: Sequence[str | bytes]) -> list[bytes | None]:
        """Fields of a hash, few at a time; None for each that is missing."""
        chunks = [fields[start : start + CHUNK] for start in range(0, len(fields), CHUNK)]
        found: list[bytes | None] = []
        for chunk in chunks:
            (values,) = await self.each([("HMGET", self.key(name), *chunk)])
            found += values
        return found


async def _plainly(redis: Redis, *words: Argument) -> Any:
    execute: Any = redis.execute_command
    return await execute(*words)


async def _can_wait(redis: Redis) -> bool:
    """Whether the server says when a change is on its disk."""
    try:
        await _plainly(redis, "WAITAOF", 1, 0, 1)
    except ResponseError:  # it does not know how, or keeps no log
        return False
    return True


def safe(url: str) -> str:
    """The address without its password, for messages."""
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2] or parts.path
    return f"{parts.scheme}://{where}"
