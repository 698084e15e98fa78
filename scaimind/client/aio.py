"""The client for asyncio: the same methods, awaited, and iterators for `async for`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Concatenate, ParamSpec, Self

import grpc.aio

from scaimind.channel import open_aio
from scaimind.client import calls, drain_calls, health_calls, key_calls, usage_calls
from scaimind.client.base import Caller, method
from scaimind.client.calls import A, Call, I_co, Pages, Stream
from scaimind.client.errors import from_call
from scaimind.client.patience import Follow, Patience, Watch
from scaimind.v1 import job_pb2

P = ParamSpec("P")


class _Connection(Caller):
    """A channel that makes calls: with credentials, a deadline, and another try where it is safe."""

    _opened: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel; calls in progress end."""
        if self._opened is not None:
            await self._opened.close()

    @property
    def _channel(self) -> grpc.aio.Channel:
        """Opened by the first call, because it belongs to the event loop that runs then."""
        if self._opened is None:
            self._opened = self._open(open_aio)
        return self._opened

    async def _unary(self, call: Call[A], *, retry_s: float | None = None) -> A:
        send = self._channel.unary_unary(
            call.path,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.answer.FromString,
        )
        patience = Patience(self._retry_s if retry_s is None else retry_s)
        deadline = time.monotonic() + self._timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            try:
                return await send(call.request, timeout=left_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as failure:
                error = from_call(failure)
            await asyncio.sleep(patience.delay_s(error))

    async def _pages(self, pages: Pages[I_co]) -> AsyncIterator[I_co]:
        call = pages.first
        while True:
            page = await self._unary(call)
            for item in getattr(page, pages.field):
                yield item
            if not page.next_page_token:
                return
            call = pages.after(page.next_page_token)

    async def _follow(self, stream: Stream[I_co]) -> AsyncIterator[I_co]:
        follow = Follow(stream, Patience(self._reconnect_s))
        while not follow.ended:
            try:
                async with aclosing(self._events(follow)) as events:
                    async for event in events:
                        yield event
                delay_s = follow.closed()
            except grpc.aio.AioRpcError as failure:
                delay_s = follow.broken(from_call(failure))
            await asyncio.sleep(delay_s or 0.0)

    async def _events(self, follow: Follow[I_co]) -> AsyncGenerator[I_co, None]:
        """The events of one connection."""
        call = follow.call()
        receive = self._channel.unary_stream(
            call.path,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.answer.FromString,
        )
        batches = receive(call.request, metadata=self._metadata)
        try:
            async for batch in batches:
                for event in batch.events:
                    follow.see(event)
                    yield event
                    if follow.ended:
                        return
        finally:
            batches.cancel()


def _unary(
    build: Callable[P, Call[A]],
) -> Callable[Concatenate[_Connection, P], Coroutine[Any, Any, A]]:
    return method(build, _Connection._unary)


def _paged(
    build: Callable[P, Pages[I_co]],
) -> Callable[Concatenate[_Connection, P], AsyncIterator[I_co]]:
    return method(build, _Connection._pages)


def _followed(
    build: Callable[P, Stream[I_co]],
) -> Callable[Concatenate[_Connection, P], AsyncIterator[I_co]]:
    return method(build, _Connection._follow)


class AsyncClient(_Connection):
    """Talks to a coordinator from one event loop; the methods are those of `Client`.

    Calls are awaited; `list_jobs`, `nodes`, `list_queues`, `list_keys`, `list_evaluations`, `logs` and
    `stream_metrics` are asynchronous iterators. `async with AsyncClient() as client:` closes it.
    """

    submit = _unary(calls.submit)
    submit_batch = _unary(calls.submit_batch)
    get_job = _unary(calls.get_job)
    jobs_page = _unary(calls.jobs_page)
    list_jobs = _paged(calls.list_jobs)
    cancel = _unary(calls.cancel)
    pause = _unary(calls.pause)
    resume = _unary(calls.resume)
    retry = _unary(calls.retry)
    update = _unary(calls.update)
    act_on_jobs = _unary(calls.act_on_jobs)
    explain = _unary(calls.explain)
    get_metrics = _unary(calls.get_metrics)
    logs = _followed(calls.logs)
    stream_metrics = _followed(calls.stream_metrics)
    cluster = _unary(calls.cluster)
    nodes_page = _unary(calls.nodes_page)
    nodes = _paged(calls.nodes)
    node = _unary(calls.node)
    drain = _unary(drain_calls.drain)
    get_drain = _unary(drain_calls.get_drain)
    start_rolling_drain = _unary(drain_calls.start_rolling_drain)
    list_rolling_drains = _unary(drain_calls.list_rolling_drains)
    rolling_drain = _unary(drain_calls.rolling_drain)
    cancel_rolling_drain = _unary(drain_calls.cancel_rolling_drain)
    simulate = _unary(drain_calls.simulate)
    enable = _unary(calls.enable)
    set_node_health = _unary(health_calls.set_node_health)
    remove_node = _unary(calls.remove_node)
    queue = _unary(calls.queue)
    set_queue = _unary(calls.set_queue)
    queues_page = _unary(calls.queues_page)
    list_queues = _paged(calls.list_queues)
    remove_queue = _unary(calls.remove_queue)
    usage_page = _unary(usage_calls.usage_page)
    list_usage = _paged(usage_calls.list_usage)
    submit_evaluation = _unary(calls.submit_evaluation)
    get_evaluation = _unary(calls.get_evaluation)
    evaluations_page = _unary(calls.evaluations_page)
    list_evaluations = _paged(calls.list_evaluations)
    validate_data = _unary(calls.validate_data)
    data_cache = _unary(calls.data_cache)
    create_key = _unary(key_calls.create_key)
    keys_page = _unary(key_calls.keys_page)
    list_keys = _paged(key_calls.list_keys)
    revoke_key = _unary(key_calls.revoke_key)

    async def wait(
        self,
        job_id: str,
        *,
        on_update: Callable[[job_pb2.Job], None] | None = None,
        timeout_s: float | None = None,
    ) -> job_pb2.Job:
        """Waits until the job is COMPLETED, FAILED, CANCELLED, or PREEMPTED for good.

        `on_update` is called with every change that is seen, the first look included.

        Raises:
            DeadlineExceeded: `timeout_s` seconds were not enough; the job goes on.
        """
        watch = Watch(on_update, timeout_s)
        while True:
            job = await self._unary(calls.get_job(job_id), retry_s=self._reconnect_s)
            delay_s = watch.see(job)
            if delay_s is None:
                return job
            await asyncio.sleep(delay_s)
