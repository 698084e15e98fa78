"""A real gRPC server that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from scaimind.v1 import key_service_pb2, mind_coordinator_pb2

SERVICES = {
    service.full_name: service
    for file in (mind_coordinator_pb2.DESCRIPTOR, key_service_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
}

Answer = Callable[[Any], Any]


class Refusal(Exception):
    """Raised by an answer: the call fails with this code and these details."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def send(self, context: grpc.ServicerContext) -> None:
        packed = []
        for detail in self.details:
            box = AnyMessage()
            box.Pack(detail)
            packed.append(box)
        number = getattr(code_pb2, self.code.name)
        status = status_pb2.Status(code=number, message=self.message, details=packed)
        context.abort_with_status(rpc_status.to_status(status))


def refusal(code: grpc.StatusCode, reason: str, message: str = "refused") -> Refusal:
    """A refusal with nothing but a reason."""
    return Refusal(code, message, error_details_pb2.ErrorInfo(reason=reason, domain="scaimind"))


class Scripted(grpc.GenericRpcHandler):
    """Answers by method name; a method without an answer is UNIMPLEMENTED."""

    def __init__(self, port: int = 0) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, Any]] = []
        self.metadata: dict[str, str] = {}
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self])
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self) -> None:
        """Breaks every connection at once, as a kill does."""
        self._server.stop(grace=None).wait()

    def requests(self, method: str) -> list[Any]:
        """What a method was asked, in order."""
        return [request for name, request in self.asked if name == method]

    def service(self, details: Any) -> grpc.RpcMethodHandler[Any, Any] | None:
        _, service, name = details.method.split("/")
        method = SERVICES[service].methods_by_name[name]
        self.metadata = dict(details.invocation_metadata)
        answer = self.answers.get(name)
        if answer is None:
            return None
        request = GetMessageClass(method.input_type).FromString
        if method.server_streaming:
            stream = self._stream(name, answer)
            return grpc.unary_stream_rpc_method_handler(stream, request, _bytes)
        unary = self._unary(name, answer)
        return grpc.unary_unary_rpc_method_handler(unary, request, _bytes)

    def _unary(self, name: str, answer: Answer) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            self.asked.append((name, request))
            try:
                return answer(request)
            except Refusal as refused:
                return refused.send(context)

        return call

    def _stream(self, name: str, answer: Answer) -> Callable[[Any, Any], Iterator[Any]]:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self.asked.append((name, request))
            try:
                yield from answer(request)
            except Refusal as refused:
                refused.send(context)

        return call


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()
