"""The OpenAPI 3.1 description of all that is served, made from the protos: paths, permissions,
comments, bounds. Nothing is written down twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor

from gateway import openapi_own as own
from gateway import tickets
from gateway.bind import (
    IDEMPOTENCY_FIELD,
    IDEMPOTENCY_HEADER,
    RESUME_FIELD,
    RESUME_HEADER,
    Leaf,
)
from gateway.catalog import Catalog
from gateway.endpoint import Endpoint
from gateway.schemas import Schemas, reached

_ERRORS = {
    "400": "The request cannot be read, or the coordinator refuses it.",
    "401": "No valid credential.",
    "403": "The credential does not allow this.",
    "404": "There is no such thing, or it is another tenant's.",
    "409": "It does not fit the present state.",
    "414": "The address is too long.",
    "422": "The request does not fit the schema; one detail for each field at fault.",
    "429": "Too much at once; see Retry-After.",
    "500": "Something went wrong on our side.",
    "503": "The coordinator is out of reach; see Retry-After.",
    "504": "The coordinator did not answer in time.",
}
_BODY_ERRORS = {
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON in UTF-8, or is compressed.",
}


@dataclass(frozen=True, slots=True)
class Described:
    """The description, as data and as JSON."""

    document: dict[str, Any]
    json: bytes

    def below(self, root: str) -> Described:
        """The same where the application is mounted in a host; `root` is the path of that, or ""."""
        if not root:
            return self
        (server,) = self.document["servers"]
        document = self.document | {"servers": [{"url": (root + server["url"]).rstrip("/")}]}
        return Described(document, msgspec.json.encode(document))


@dataclass(frozen=True, slots=True)
class Sides:
    """The schemas of what is asked and of what is answered."""

    asked: Schemas
    answered: Schemas


def describe(catalog: Catalog, endpoints: Iterable[Endpoint], *, prefix: str) -> Described:
    """Describes all endpoints; `prefix` becomes the server's path."""
    endpoints = list(endpoints)
    methods = [endpoint.method for endpoint in endpoints]
    both = reached(each.request for each in methods) & reached(each.response for each in methods)
    made: dict[str, Any] = {}
    sides = Sides(
        Schemas(catalog, made, asked=True, both=both), Schemas(catalog, made, asked=False)
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        binding = endpoint.route.binding
        operations = paths.setdefault(_path(endpoint), {})
        operations[binding.verb.lower()] = _operation(endpoint, sides)
    paths[tickets.PATH] = {"post": own.ticket_operation(_errors(body=True))}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "MindCoordinator", "version": _version()},
        "servers": [{"url": prefix or "/"}],
        "security": own.ANY_CREDENTIAL,
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": own.SECURITY,
            "responses": {code: _error(text) for code, text in (_ERRORS | _BODY_ERRORS).items()},
            "schemas": {**made, **own.SCHEMAS, "Meta": _META, "Error": _ERROR},
        },
    }
    return Described(document, msgspec.json.encode(document))


_META = {
    "type": "object",
    "required": ["request_id"],
    "properties": {
        "request_id": {"type": "string"},
        "stale": {"const": True, "description": "A copy: the coordinator is out of reach."},
        "stale_age_seconds": {"type": "integer", "description": "Age of the oldest copy in it."},
    },
}
_ERROR = {
    "type": "object",
    "required": ["status", "error", "meta"],
    "properties": {
        "status": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "What it is, for programs."},
                "message": {"type": "string", "description": "What it is, for people."},
                "retry_after": {"type": "integer", "description": "Seconds to wait."},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["field", "message"],
                        "properties": {
                            "field": {"type": "string"},
                            "message": {"type": "string"},
                        },
                    },
                },
            },
        },
        "meta": {"$ref": "#/components/schemas/Meta"},
    },
}


def _error(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _path(endpoint: Endpoint) -> str:
    """The template without the patterns inside its variables."""
    path = endpoint.route.template.text
    while "=" in path:
        before, _, after = path.partition("=")
        path = before + after[after.index("}") :]
    return path


def _operation(endpoint: Endpoint, sides: Sides) -> dict[str, Any]:
    method, binder = endpoint.method, endpoint.binder
    needs = " or ".join(f"`{name}`" for name in sorted(method.any_of)) or "any credential"
    operation: dict[str, Any] = {
        "operationId": method.name,
        "summary": method.comment.split(". ")[0].rstrip("."),
        "description": f"{method.comment}\n\nNeeds {needs}.",
        "parameters": _parameters(endpoint, sides.asked),
        "responses": _responses(endpoint, sides.answered),
    }
    if method.streaming:
        operation["security"] = own.OR_A_TICKET
    if binder.takes_body:
        operation["requestBody"] = _body(endpoint, sides.asked)
    return operation


def _body(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    method, field = endpoint.method, endpoint.route.binding.body
    if field == "*":
        elsewhere = {*endpoint.binder.path, IDEMPOTENCY_FIELD}
        schema = schemas.body(method.request, f"{method.name}Body", without=elsewhere)
        required = bool({*schemas.required(method.request)} - elsewhere)
    else:
        schema = schemas.field(method.request.fields_by_name[field], nullable=False)
        required = field in schemas.required(method.request)
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _parameters(endpoint: Endpoint, schemas: Schemas) -> list[dict[str, Any]]:
    binder, fields = endpoint.binder, endpoint.method.request.fields_by_name
    made = [
        _parameter(name, leaf, schemas=schemas, place="path") for name, leaf in binder.path.items()
    ]
    made += [
        _parameter(name, leaf, schemas=schemas, place="query")
        for name, leaf in binder.query.items()
        if name != IDEMPOTENCY_FIELD
    ]
    if binder.keyed:
        made.append(
            _header(
                IDEMPOTENCY_HEADER.decode(),
                "Makes the call safe to repeat: the same key and request give the first answer.",
                schema=_text(schemas, fields[IDEMPOTENCY_FIELD]),
            )
        )
    if binder.resumable:
        text = "Id of the last event seen; the stream goes on after it. The query wins."
        schema = _text(schemas, fields[RESUME_FIELD])
        made.append(_header(RESUME_HEADER.decode(), text, schema=schema))
    return made


def _parameter(name: str, leaf: Leaf, *, schemas: Schemas, place: str) -> dict[str, Any]:
    schema = schemas.field(leaf.field, nullable=False)
    text = schema.pop("description", "")
    message = leaf.field.containing_type
    needed = not leaf.parents and message is not None and name in schemas.required(message)
    return {
        "name": name,
        "in": place,
        "required": place == "path" or needed,
        "description": text,
        "schema": schema,
    }


def _text(schemas: Schemas, field: FieldDescriptor) -> dict[str, Any]:
    """What the field that a header fills takes."""
    schema = schemas.field(field, nullable=False)
    schema.pop("description", None)
    return schema


def _header(name: str, text: str, *, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name.title(), "in": "header", "description": text, "schema": schema}


def _responses(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    method = endpoint.method
    if method.streaming:
        over = {"description": "It is over."}
        return {"200": _events(endpoint, schemas), "204": over} | _errors(body=False)
    schema = own.envelope(schemas.reference(method.response))
    content = {"application/json": {"schema": schema}}
    done = {"description": "Done.", "content": content}
    return {str(method.http_status): done} | _errors(body=endpoint.binder.takes_body)


def _errors(*, body: bool) -> dict[str, Any]:
    codes = sorted(_ERRORS | _BODY_ERRORS if body else _ERRORS)
    return {code: {"$ref": f"#/components/responses/{code}"} for code in codes}


def _events(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    """What a stream is made of. The schema is that of each event; the JSON in its data is described
    by the schema of the event's name."""
    event = endpoint.method.response.fields_by_name["events"].message_type
    assert event is not None
    named = {
        field.name: schemas.reference(field.message_type)
        for field in event.oneofs[0].fields
        if field.message_type is not None
    }
    kinds = [
        own.event(name, inner, text=schemas.comment(f"{event.full_name}.{name}"))
        for name, inner in named.items()
    ]
    schema = {"oneOf": [*kinds, own.STREAM_ERROR]}
    content = {"text/event-stream": {"schema": schema, "x-events": named}}
    return {"description": "Server-sent events.", "content": content}


def _version() -> str:
    try:
        return version("mindcoordinator")
    except PackageNotFoundError:
        return "0"
