"""The calls about API keys, for admins."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from scaimind.client.calls import Call, Pages, _id, _number
from scaimind.v1 import key_service_pb2, options_pb2

A = TypeVar("A", bound=Message)


def _keys(method: str, request: Message, answer: type[A]) -> Call[A]:
    service = key_service_pb2.DESCRIPTOR.services_by_name["KeyService"]
    return Call(service.methods_by_name[method], request, answer)


def create_key(
    tenant_id: str,
    *,
    permissions: Iterable[str | options_pb2.Permission.ValueType],
    user_id: str = "",
    expires_at: datetime | None = None,
    request_id: str | None = None,
) -> Call[key_service_pb2.CreateKeyResponse]:
    """Makes an API key and shows it, this once. `permissions` as VIEW or `scaimind:view`."""
    request = key_service_pb2.CreateKeyRequest(
        tenant_id=tenant_id,
        user_id=user_id,
        permissions=[_permission(item) for item in permissions],
        request_id=_id(request_id),
    )
    if expires_at is not None:
        moment = Timestamp()
        moment.FromDatetime(expires_at)
        request.expires_at.CopyFrom(moment)
    answer = key_service_pb2.CreateKeyResponse
    return _keys("CreateKey", request, answer)


def keys_page(
    tenant_id: str = "", *, page_size: int | None = None, page_token: str = ""
) -> Call[key_service_pb2.ListKeysResponse]:
    """Reads one page of keys, without their secrets; of all tenants by default."""
    request = key_service_pb2.ListKeysRequest(
        tenant_id=tenant_id, page_size=page_size, page_token=page_token
    )
    return _keys("ListKeys", request, key_service_pb2.ListKeysResponse)


def list_keys(tenant_id: str = "", *, page_size: int = 100) -> Pages[key_service_pb2.ApiKey]:
    """Iterates over all keys, without their secrets, page by page; of all tenants by default."""
    return Pages(keys_page(tenant_id, page_size=page_size), "keys")


def revoke_key(
    key_id: str, *, request_id: str | None = None
) -> Call[key_service_pb2.RevokeKeyResponse]:
    """Revokes a key at once."""
    request = key_service_pb2.RevokeKeyRequest(key_id=key_id, request_id=_id(request_id))
    return _keys("RevokeKey", request, key_service_pb2.RevokeKeyResponse)


def _permission(item: str | options_pb2.Permission.ValueType) -> options_pb2.Permission.ValueType:
    name = item.rpartition(":")[2].upper() if isinstance(item, str) else item
    return _number(options_pb2.Permission, name, field="permissions")
