"""What stands between the wire and a method: permissions, bounds, and no text of any fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from coordinator.core.decision import Changed
from coordinator.core.reasons import Reason
from coordinator.core.records import Key, node_key_id
from coordinator.rpc.border import Call, handlers
from coordinator.rpc.identity import Authenticator
from coordinator.runtime.bootstrap import digest_of
from coordinator.runtime.clock import Clock
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View
from coordinator.store.protocol import StoreUnavailable
from coordinator.streams.protocol import StreamsUnavailable
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, stream_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.unit.rpc.requests import a_key, a_submit

PUBLIC = api.DESCRIPTOR.services_by_name["MindCoordinator"]
AGENTS = agent_api.DESCRIPTOR.services_by_name["AgentService"]
KEY, JOIN, AGENT = "sgk_a", "join", "nk_n.secret"
SECRET_TEXT = "/var/lib/secret: SELECT * FROM jobs"


class Aborted(Exception):
    """What grpc.aio's `abort` does, with what it was given."""

    def __init__(self, code: grpc.StatusCode, text: str, trailing: Any) -> None:
        super().__init__(text)
        self.code, self.text = code, text
        self.status = status_pb2.Status.FromString(trailing[0][1])

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        info = error_details_pb2.ErrorInfo()
        assert self.status.details[0].Unpack(info)
        return info

    @property
    def fields(self) -> list[str]:
        bad = error_details_pb2.BadRequest()
        for detail in self.status.details:
            if detail.Unpack(bad):
                return [violation.field for violation in bad.field_violations]
        return []


class Context:
    """A call's context, as much as the border uses of it."""

    def __init__(self, token: str = KEY, **fields: str) -> None:
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        self.metadata += [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.initial: Any = None
        self.trailing: Any = ()

    def invocation_metadata(self) -> Any:
        return self.metadata

    async def abort(self, code: grpc.StatusCode, text: str, trailing: Any) -> NoReturn:
        raise Aborted(code, text, trailing)

    async def send_initial_metadata(self, metadata: Any) -> None:
        assert self.initial is None
        self.initial = metadata

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = metadata


class Details:
    """Of a call, for a generic handler."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def handler(method: str, *servicers: object, service: Any = PUBLIC) -> Any:
    """The handler of a method behind the border, with a key of tenant acme that may view."""
    view = View()
    key = a_key(digest_of(KEY))
    agent = Key(
        key_id=node_key_id("n"),
        sha256=digest_of(AGENT),
        tenant_id="",
        user_id="",
        permissions=(),
        created_at_ms=1,
        node_id="n",
    )
    for record in (key, agent):
        view.apply([Changed(record=record, cause=Reason.KEY_CHANGED, actor="", at_ms=1)])
    authenticator = Authenticator(view, Clock(), api_secret="gateway", join_token=JOIN)
    generic = handlers(service, servicers, authenticator=authenticator, gate=lambda: None)
    found = generic.service(Details(f"/{service.full_name}/{method}"))  # type: ignore[arg-type]
    assert found is not None
    return Wired(found)


class Wired:
    """A handler that is given messages, and takes them as they come over the wire."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self.request_deserializer = made.request_deserializer

    def unary_unary(self, request: Any, context: Any) -> Any:
        return self._made.unary_unary(self._came(request), context)

    def unary_stream(self, request: Any, context: Any) -> Any:
        return self._made.unary_stream(self._came(request), context)

    def stream_stream(self, requests: AsyncIterator[Any], context: Any) -> Any:
        return self._made.stream_stream((self._came(one) async for one in requests), context)

    def _came(self, request: Any) -> Any:
        is_message = isinstance(request, Message)
        return self.request_deserializer(request.SerializeToString()) if is_message else request


class Jobs:
    """A servicer whose GetJob does as it is told."""

    def __init__(self, act: Callable[[], Any] = lambda: None) -> None:
        self._act = act
        self.calls: list[Call] = []

    async def GetJob(self, request: api.GetJobRequest, call: Call) -> job_pb2.Job:
        self.calls.append(call)
        self._act()
        call.trailing.append(("x-idempotency-replayed", "true"))
        return job_pb2.Job(job_id=request.job_id)

    async def ListJobs(self, request: api.ListJobsRequest, call: Call) -> api.ListJobsResponse:
        return api.ListJobsResponse()

    async def SubmitJob(self, request: api.SubmitJobRequest, call: Call) -> api.SubmitJobResponse:
        return api.SubmitJobResponse()


def throw(error: BaseException) -> Callable[[], NoReturn]:
    def act() -> NoReturn:
        raise error

    return act


async def get_job(servicer: object, context: Context | None = None, job_id: str = "job_a") -> Any:
    unary = handler("GetJob", servicer).unary_unary
    return await unary(api.GetJobRequest(job_id=job_id), context or Context())


async def refused(method: str, request: Any, *, token: str = "gateway", **fields: str) -> Aborted:
    """How a call of a gateway for a caller with every permission is refused."""
    names = "scaimind:view,scaimind:manage,scaimind:cluster_admin"
    context = Context("", x_api_secret=token, x_tenant_id="acme", x_permissions=names, **fields)
    with pytest.raises(Aborted) as caught:
        await handler(method, Jobs()).unary_unary(request, context)
    return caught.value


async def test_a_good_call_is_answered_with_its_trailing_metadata() -> None:
    servicer, context = Jobs(), Context(x_request_id="mine")
    answer = await get_job(servicer, context)
    assert answer.job_id == "job_a"
    assert context.trailing == (("x-idempotency-replayed", "true"),)
    assert servicer.calls[0].request_id == "mine"
    assert servicer.calls[0].identity.tenant_id == "acme"


@pytest.mark.parametrize("given", ["", "x" * 129])
async def test_a_request_id_of_no_use_is_replaced(given: str) -> None:
    servicer = Jobs()
    await get_job(servicer, Context(x_request_id=given))
    assert servicer.calls[0].request_id.startswith("req_")


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET_TEXT),
        KeyError(SECRET_TEXT),
        AssertionError(),
        ExceptionGroup("x", [OSError()]),
    ],
    ids=repr,
)
async def test_any_fault_is_internal_with_the_request_id_and_none_of_its_text(
    error: Exception,
) -> None:
    with pytest.raises(Aborted) as caught:
        await get_job(Jobs(throw(error)), Context(x_request_id="req_7"))
    assert caught.value.code is grpc.StatusCode.INTERNAL
    assert caught.value.text == "internal error (request req_7)"
    assert caught.value.info.reason == "INTERNAL"
    assert b"secret" not in caught.value.status.SerializeToString()


@pytest.mark.parametrize("error", [StoreUnavailable(SECRET_TEXT), StreamsUnavailable(SECRET_TEXT)])
async def test_a_store_that_does_not_answer_is_unavailable(error: Exception) -> None:
    with pytest.raises(Aborted) as caught:
        await get_job(Jobs(throw(error)))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert caught.value.info.reason == "STORE_UNAVAILABLE"
    assert b"secret" not in caught.value.status.SerializeToString()


async def test_a_refusal_keeps_its_reason_and_text() -> None:
    with pytest.raises(Aborted) as caught:
        await get_job(Jobs(throw(Refusal(Reason.JOB_NOT_FOUND, "there is no job x"))))
    assert (caught.value.code, caught.value.text) == (
        grpc.StatusCode.NOT_FOUND,
        "there is no job x",
    )


async def test_a_cancellation_that_is_not_of_the_call_does_not_leave_the_client_waiting() -> None:
    with pytest.raises(Aborted) as caught:
        await get_job(Jobs(throw(asyncio.CancelledError())))
    assert caught.value.code is grpc.StatusCode.INTERNAL


async def test_a_cancelled_call_is_cancelled() -> None:
    arrived = asyncio.Event()

    class Waits:
        async def GetJob(self, request: api.GetJobRequest, call: Call) -> job_pb2.Job:
            arrived.set()
            await asyncio.Event().wait()
            raise AssertionError

    task = asyncio.create_task(get_job(Waits()))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_method_that_nobody_offers_is_unimplemented() -> None:
    refusal = await refused("PauseJob", api.PauseJobRequest(job_id="job_a"))
    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
    assert refusal.info.reason == "UNIMPLEMENTED"


async def test_no_permission_is_told_before_anything_about_the_request() -> None:
    unary = handler("SubmitJob", Jobs()).unary_unary
    with pytest.raises(Aborted) as caught:
        await unary(api.SubmitJobRequest(), Context())
    assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert "scaimind:manage" in caught.value.text


async def test_no_credential_is_told_before_anything_about_the_method() -> None:
    unary = handler("PauseJob").unary_unary
    with pytest.raises(Aborted) as caught:
        await unary(api.PauseJobRequest(), Context(""))
    assert caught.value.info.reason == "AUTH_TOKEN_MISSING"


async def test_an_agent_may_not_call_a_users_method_nor_a_user_an_agents() -> None:
    for token in (JOIN, AGENT):
        with pytest.raises(Aborted) as caught:
            await get_job(Jobs(), Context(token))
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    unary = handler("Sync", Jobs(), service=AGENTS).unary_unary
    with pytest.raises(Aborted) as caught:
        await unary(agent_api.SyncRequest(), Context(KEY))
    assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_bound_names_the_path_of_its_field() -> None:
    refusal = await refused("GetJob", api.GetJobRequest())
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["job_id"])


async def test_the_path_tells_the_index_of_a_list_and_the_key_of_a_map() -> None:
    request = a_submit()
    request.data_config.sources.add(path="")
    request.labels["a.b"] = "x" * 300
    request.training_config.hyperparameters[""] = "1"
    request.scheduling_config.retry_on_exit_codes.extend([3, 0])
    refusal = await refused("SubmitJob", request)
    assert sorted(refusal.fields) == [
        "data_config.sources[1].path",
        'labels["a.b"]',
        "scheduling_config.retry_on_exit_codes[1]",
        'training_config.hyperparameters[""]',
    ]


async def test_a_thousand_violations_still_reach_the_client() -> None:
    request = a_submit()
    for _ in range(999):
        request.data_config.sources.add(path="")
    refusal = await refused("SubmitJob", request)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields[0] == "data_config.sources[1].path"
    assert refusal.status.ByteSize() < 4096


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
async def test_a_number_that_is_none_is_refused(value: float) -> None:
    request = a_submit()
    request.resource_config.gpu_memory_gb = value
    refusal = await refused("SubmitJob", request)
    assert refusal.fields == ["resource_config.gpu_memory_gb"]


async def test_a_request_that_cannot_be_read_is_refused_without_a_text_of_the_parser() -> None:
    parse = handler("GetJob").request_deserializer
    refusal = await refused("GetJob", parse(b"\xff\xff\xff"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.text == "the request is not a GetJobRequest"


async def test_a_request_that_is_too_large_is_refused_before_its_fields_are_looked_at() -> None:
    request = api.GetJobRequest(job_id="x" * (5 * 1024 * 1024))
    refusal = await refused("GetJob", request)
    assert (refusal.fields, "4 MiB" in refusal.text) == ([], True)


class Streams:
    """A servicer of a stream that does as it is told after `None` and one answer."""

    def __init__(self, act: Callable[[], Any] = lambda: None) -> None:
        self._act = act
        self.closed = False

    async def StreamJobLogs(self, request: Any, call: Call) -> AsyncIterator[Any]:
        try:
            if request.rank:
                raise Refusal(Reason.JOB_NOT_FOUND, "no")
            yield None
            yield stream_pb2.StreamJobLogsResponse()
            self._act()
        finally:
            self.closed = True


def follow(servicer: object, context: Context, **fields: Any) -> AsyncIterator[Any]:
    request = api.StreamJobLogsRequest(job_id="job_a", **fields)
    answer: AsyncIterator[Any] = handler("StreamJobLogs", servicer).unary_stream(request, context)
    return answer


async def test_a_stream_is_open_once_its_call_was_judged() -> None:
    context = Context()
    answers = [answer async for answer in follow(Streams(), context)]
    assert len(answers) == 1
    assert context.initial == (("x-stream", "open"),)


async def test_a_stream_that_is_refused_was_never_open() -> None:
    context = Context()
    with pytest.raises(Aborted) as caught:
        await anext(follow(Streams(), context, rank=1))
    assert (caught.value.code, context.initial) == (grpc.StatusCode.NOT_FOUND, None)


async def test_a_stream_that_breaks_tells_nothing_of_why() -> None:
    stream = follow(Streams(throw(RuntimeError(SECRET_TEXT))), Context())
    await anext(stream)
    with pytest.raises(Aborted) as caught:
        await anext(stream)
    assert caught.value.code is grpc.StatusCode.INTERNAL
    assert b"secret" not in caught.value.status.SerializeToString()


async def test_a_stream_that_is_dropped_closes_the_method_at_once() -> None:
    servicer = Streams()
    stream: Any = follow(servicer, Context())
    await anext(stream)
    await stream.aclose()
    assert servicer.closed


async def test_an_agent_speaks_for_its_own_node_in_every_message() -> None:
    class Agents:
        async def Sync(self, request: Any, call: Call) -> Any:
            return agent_api.SyncResponse(revision=1)

        async def Push(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
            async for request in requests:
                yield agent_api.PushResponse(batch_id=request.batch_id)

    async def requests() -> AsyncIterator[Any]:
        yield agent_api.PushRequest(batch_id=1, node_id="n", job_id="j")
        yield agent_api.PushRequest(batch_id=2, node_id="other", job_id="j")

    stream = handler("Push", Agents(), service=AGENTS).stream_stream(requests(), Context(AGENT))
    assert (await anext(stream)).batch_id == 1
    with pytest.raises(Aborted) as caught:
        await anext(stream)
    assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    unary = handler("Sync", Agents(), service=AGENTS).unary_unary
    request = agent_api.SyncRequest(incarnation="i", sequence=1, offer=agent_api.NodeOffer())
    for node_id, token in (("other", AGENT), ("n", JOIN)):
        request.node_id = node_id
        with pytest.raises(Aborted) as caught:
            await unary(request, Context(token))
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert (await unary(request, Context(AGENT))).revision == 1


async def test_what_an_agent_pushes_is_checked_message_by_message() -> None:
    class Agents:
        async def Push(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
            async for request in requests:
                yield agent_api.PushResponse(batch_id=request.batch_id)

    async def requests() -> AsyncIterator[Any]:
        yield agent_api.PushRequest(batch_id=1, node_id="n", job_id="j")
        yield agent_api.PushRequest(batch_id=2, node_id="n")

    context = Context(AGENT)
    stream = handler("Push", Agents(), service=AGENTS).stream_stream(requests(), context)
    assert (await anext(stream)).batch_id == 1
    assert context.initial == (("x-stream", "open"),)
    with pytest.raises(Aborted) as caught:
        await anext(stream)
    assert caught.value.fields == ["job_id"]
