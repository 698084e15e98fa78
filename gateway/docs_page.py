"""A page for people, made from the OpenAPI document: plain HTML, no script, nothing to fetch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1,h2,h3{line-height:1.2}h3{margin-top:2.2rem;border-top:1px solid #8884;padding-top:1rem}
code,.verb{font-family:ui-monospace,monospace;font-size:.92em}
.verb{display:inline-block;min-width:3.6em;font-weight:700}
table{border-collapse:collapse;width:100%;font-size:.92em}
td,th{border-bottom:1px solid #8883;padding:.3rem .6rem;text-align:left;vertical-align:top}
nav li{list-style:none}nav ul{padding:0}
"""
_SEEN = ("description", "type", "$ref", "anyOf", "items", "additionalProperties", "properties")


def render(document: dict[str, Any]) -> bytes:
    """The page, as UTF-8."""
    return "".join(_page(document)).encode()


def _page(document: dict[str, Any]) -> Iterator[str]:
    title = escape(document["info"]["title"])
    operations = [
        (verb, path, operation)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    ]
    yield "<!doctype html><html lang=en><meta charset=utf-8>"
    yield '<meta name=viewport content="width=device-width">'
    yield f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
    yield f"<p>Version {escape(document['info']['version'])}. All paths stand below "
    yield f"<code>{escape(document['servers'][0]['url'])}</code>; the same as data: "
    yield "<a href=openapi.json>openapi.json</a>.</p><nav><ul>"
    for verb, path, operation in operations:
        name = escape(operation["operationId"])
        yield f"<li><span class=verb>{verb.upper()}</span> <a href=#{name}>{escape(path)}</a></li>"
    yield "</ul></nav><h2>Requests</h2>"
    for verb, path, operation in operations:
        yield from _operation(verb, path, operation=operation)
    yield "<h2>Schemas</h2>"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f'<h3 id="schema-{escape(name)}"><code>{escape(name)}</code></h3>'
        yield from _schema(schema)


def _operation(verb: str, path: str, *, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h3 id={escape(operation['operationId'])}><span class=verb>{verb.upper()}</span> "
    yield f"<code>{escape(path)}</code></h3>"
    for paragraph in operation["description"].split("\n\n"):
        yield f"<p>{_text(paragraph)}</p>"
    rows = [
        (f"{item['name']} <small>({item['in']})</small>", item["schema"], item["description"])
        for item in operation["parameters"]
    ]
    yield from _table(rows)
    body = operation.get("requestBody")
    if body:
        yield f"<p>Body: {_type(body['content']['application/json']['schema'])}</p>"
    for status, response in operation["responses"].items():
        for media in response.get("content", {}).values():
            data = media["schema"].get("properties", {}).get("data")
            if data:
                yield f"<p>{status}: <code>data</code> is {_type(data)}</p>"
            for name, event in media.get("x-events", {}).items():
                yield f"<p>Event <code>{escape(name)}</code>: {_type(event)}</p>"


def _schema(schema: dict[str, Any]) -> Iterator[str]:
    yield f"<p>{_text(schema.get('description', ''))}</p>"
    values = schema.get("x-enum-descriptions", {})
    if values:
        rows = "".join(
            f"<tr><td><code>{escape(name)}</code><td>{_text(text)}" for name, text in values.items()
        )
        yield f"<table>{rows}</table>"
    needed = schema.get("required", ())
    yield from _table(
        (
            f"{escape(name)}{' <small>(required)</small>' if name in needed else ''}",
            field,
            field.get("description", ""),
        )
        for name, field in schema.get("properties", {}).items()
    )


def _table(rows: Any) -> Iterator[str]:
    made = [
        f"<tr><td><code>{name}</code><td>{_type(schema)}<td>{_text(text)}"
        for name, schema, text in rows
    ]
    if made:
        yield f"<table><tr><th>Name<th>Type<th>What it is{''.join(made)}</table>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}"><code>{name}</code></a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array":
        text = f"list of {_type(schema['items'])}"
    elif isinstance(schema.get("additionalProperties"), dict):
        text = f"map to {_type(schema['additionalProperties'])}"
    else:
        kinds = schema.get("type", "")
        text = escape(" or ".join(kinds) if isinstance(kinds, list) else str(kinds))
    bounds = [f"{name} {value}" for name, value in schema.items() if name not in _SEEN]
    return f"{text} <small>{escape(', '.join(bounds))}</small>" if bounds else text


def _text(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text, quote=False))
