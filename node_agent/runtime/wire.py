"""What a supervisor says to a container engine: single requests over its socket.

HTTP 1.0, because the answer then ends where the connection does, and there is nothing else to parse.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import json
import socket
from typing import Any

API = "/v1.41"  # Docker 20.10 and podman 3 have it, and all later ones
MAX_ANSWER_BYTES = 4 << 20


class EngineError(OSError):
    """The engine said no; `status` is that of HTTP, `text` what it said."""

    def __init__(self, status: int, text: str) -> None:
        """Keeps both."""
        super().__init__(f"the container engine says {status}: {text}")
        self.status = status
        self.text = text


def ask(
    engine: str,
    method: str,
    path: str,
    *,
    timeout_s: float,
    body: bytes = b"",
    api: str = API,
) -> bytes:
    """The body of the engine's answer; `engine` is the path of its socket, `path` below the API's.

    `body` is JSON.

    Raises:
        EngineError: it refused.
        OSError: it cannot be reached, or did not answer in time.
    """
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(timeout_s)
        link.connect(engine)
        head = f"{method} {api}{path} HTTP/1.0\r\nHost: engine\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        link.sendall(f"{head}\r\n".encode() + body)
        answer = bytearray()
        while part := link.recv(1 << 16):
            answer += part
            if len(answer) > MAX_ANSWER_BYTES:
                raise EngineError(0, "an answer that is too long")
    status_line, separator, said = bytes(answer).partition(b"\r\n\r\n")
    words = status_line.split(b" ", 2)
    if not separator or len(words) < 3 or not words[1].isdigit():
        raise EngineError(0, "nothing that is HTTP")
    status = int(words[1])
    if status >= 400:
        raise EngineError(status, _said(said))
    return said


def ask_json(engine: str, method: str, path: str, *, timeout_s: float) -> dict[str, Any]:
    """As `ask`, where the answer is a JSON object."""
    try:
        content = json.loads(ask(engine, method, path, timeout_s=timeout_s))
    except ValueError:
        raise EngineError(0, "no JSON") from None
    if not isinstance(content, dict):
        raise EngineError(0, "JSON that is no object")
    return content


def _said(body: bytes) -> str:
    try:
        content = json.loads(body)
        text = str(content["message"])
    except (ValueError, KeyError, TypeError):
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())[:500]
