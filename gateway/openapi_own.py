"""Descriptions of what the gateway serves by itself, beside what the protos say."""

from __future__ import annotations

from typing import Any

from gateway.tickets import MAX_PATH, PATH_PATTERN

SECURITY: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, `sgk_…`, or a JWT of the identity provider.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "A ticket for this stream; see CreateStreamTicket.",
    },
}
ANY_CREDENTIAL: list[dict[str, list[str]]] = [{"bearer": []}]
OR_A_TICKET: list[dict[str, list[str]]] = [{"bearer": []}, {"ticket": []}]

SCHEMAS: dict[str, Any] = {
    "StreamTicketRequest": {
        "type": "object",
        "description": "A stream to open.",
        "required": ["path"],
        "additionalProperties": False,
        "properties": {
            "path": {
                "type": "string",
                "maxLength": MAX_PATH,
                "pattern": f"^{PATH_PATTERN}$",
                "description": "Path of the stream, with or without the place of the API.",
            }
        },
    },
    "StreamTicket": {
        "type": "object",
        "description": "Opens one stream, once.",
        "required": ["ticket", "expires_at"],
        "properties": {
            "ticket": {"type": "string", "description": "For the stream's parameter `ticket`."},
            "expires_at": {
                "type": "string",
                "format": "date-time",
                "description": "When it is of no use any more.",
            },
        },
    },
}


def envelope(data: dict[str, Any]) -> dict[str, Any]:
    """The schema of a good answer that carries `data`."""
    return {
        "type": "object",
        "required": ["status", "data", "meta"],
        "properties": {
            "status": {"const": "ok"},
            "data": data,
            "meta": {"$ref": "#/components/schemas/Meta"},
        },
    }


def event(name: str, data: dict[str, Any], *, text: str, identified: bool = True) -> dict[str, Any]:
    """The schema of a server-sent event whose data is JSON."""
    return {
        "type": "object",
        "description": text,
        "required": ["event", "data", *(["id"] if identified else [])],
        "properties": {
            "event": {"const": name},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": data,
            },
            "id": {"type": "string", "description": "For going on after it."},
        },
    }


STREAM_ERROR = event(
    "error",
    {"const": {"error": "stream ended"}},
    text="The stream broke; connect again and it goes on after the last event.",
    identified=False,
)


def ticket_operation(errors: dict[str, Any]) -> dict[str, Any]:
    """The operation that gives tickets."""
    answer = envelope({"$ref": "#/components/schemas/StreamTicket"})
    request = {"$ref": "#/components/schemas/StreamTicketRequest"}
    return {
        "operationId": "CreateStreamTicket",
        "summary": "A ticket that opens one stream without a header",
        "description": (
            "A ticket that opens one stream without a header, for browsers, whose EventSource "
            "cannot send one. It is good for one opening of that stream within 60 seconds.\n\n"
            "Needs the permission of the stream."
        ),
        "parameters": [],
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "201": {"description": "Done.", "content": {"application/json": {"schema": answer}}},
            **errors,
        },
    }
