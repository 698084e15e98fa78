"""What is answered to a call of a method that nobody here has: a refusal like any other, with its details."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from coordinator.core.reasons import Reason
from coordinator.rpc.border import request_id_of
from coordinator.rpc.errors import status_of
from coordinator.runtime.refusal import Refusal


class Unknown(grpc.GenericRpcHandler):
    """Takes every call; it is asked last."""

    def service(self, details: Any) -> Any:
        """A handler for calls of all kinds."""
        return grpc.stream_stream_rpc_method_handler(_refuse)


async def _refuse(_: AsyncIterator[bytes], context: Any) -> None:
    refusal = Refusal(Reason.UNIMPLEMENTED, "there is no such method")
    request_id = request_id_of(context.invocation_metadata() or ())
    code, message, trailing = status_of(refusal, request_id=request_id)
    await context.abort(code, message, trailing)
