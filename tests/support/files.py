"""Servers of files for tests: plain HTTP, and as much of the APIs of S3 and of Google Cloud Storage
as their clients need to list and read."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "corpora"
PIECE_BYTES = 64 * 1024
DATE = "Sat, 01 Jan 2028 00:00:00 GMT"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered for a path. With a token: only to who presents it. After `cut_bytes` of each
    answer the connection breaks, or waits for `hold` where there is one. Without a mark nothing tells
    whether the content has changed. It comes no faster than `bytes_per_s`, where that is not 0."""

    content: bytes
    status: int = 200
    token: str = ""
    cut_bytes: int = 0
    hold: threading.Event | None = None
    has_mark: bool = True
    bytes_per_s: int = 0


@dataclass(slots=True)
class Files:
    """A running server: where it is, and what was asked of it."""

    url: str
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)


@contextmanager
def serving(
    answers: Mapping[str, Answer],
    *,
    objects: Mapping[str, bytes] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Files]:
    """A server of files by path, and of a bucket's objects by key."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    files = Files(f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}")
    server.__dict__.update(answers=answers, objects=objects or {}, files=files)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def stalling() -> Iterator[str]:
    """A server that sends a byte now and then, to whoever asks, and never ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.2)
    ended = threading.Event()

    def serve() -> None:
        with ExitStack() as stack:
            asking: list[socket.socket] = []
            while not ended.is_set():
                with suppress(OSError):
                    asking.append(stack.enter_context(listening.accept()[0]))
                    asking[-1].sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for connection in asking:
                    with suppress(OSError):
                        connection.sendall(b" ")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ended.set()
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def _answer(self) -> None:
        server: Any = self.server
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        server.files.asked.append(path)
        server.files.ranges.append(self.headers.get("Range", ""))
        if path.startswith(("/storage/", "/download/")):
            self._google(path.partition("/o")[2].removeprefix("/"), query, server.objects)
        elif path == f"/{BUCKET}" or path.startswith(f"/{BUCKET}/"):
            self._amazon(path.removeprefix(f"/{BUCKET}").removeprefix("/"), query, server.objects)
        else:
            self._file(server.answers.get(path))

    def _file(self, answer: Answer | None) -> None:
        if answer is None:
            self._send(404, b"")
        elif answer.token and self.headers["Authorization"] != f"Bearer {answer.token}":
            self._send(403, b"")
        else:
            self._send(answer.status, answer.content, answer)

    def _amazon(self, key: str, query: dict[str, list[str]], objects: dict[str, bytes]) -> None:
        if "AKIATEST" not in self.headers.get("Authorization", ""):
            self._send(403, b"<Error><Code>AccessDenied</Code></Error>")
        elif "list-type" in query:
            rows = "".join(
                f"<Contents><Key>{escape(name)}</Key><Size>{len(content)}</Size>"
                "<LastModified>2028-01-01T00:00:00.000Z</LastModified></Contents>"
                for name, content in sorted(objects.items())
                if name.startswith(query.get("prefix", [""])[0])
            )
            body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
            self._send(200, body.encode())
        elif key in objects:
            self._send(200, objects[key])
        else:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _google(self, key: str, query: dict[str, list[str]], objects: dict[str, bytes]) -> None:
        if key and key not in objects:
            self._send(404, b'{"error": {"code": 404, "message": "Not Found"}}')
        elif key and (query.get("alt") == ["media"] or self.path.startswith("/download/")):
            self._send(200, objects[key])
        elif key:
            self._send(200, json.dumps(_item(key, objects[key])).encode())
        else:
            prefix = query.get("prefix", [""])[0]
            items = [_item(k, v) for k, v in sorted(objects.items()) if k.startswith(prefix)]
            self._send(200, json.dumps({"items": items}).encode())

    def _send(self, status: int, content: bytes, answer: Answer | None = None) -> None:
        span = self.headers.get("Range", "").removeprefix("bytes=")
        first, _, last = span.partition("-")
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"Last-Modified": DATE, "ETag": tag}
        if answer is not None and not answer.has_mark:
            headers = {}
        whole = len(content)
        if status == 200 and first and self.headers.get("If-Range", tag) == tag:
            content = content[int(first) : int(last) + 1 if last else None]
            status = 206
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(content) - 1}/{whole}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if answer is not None and answer.bytes_per_s:
            self._drip(content, answer.bytes_per_s)
            return
        if answer is None or not answer.cut_bytes:
            self.wfile.write(content)
            return
        self.wfile.write(content[: answer.cut_bytes])
        self.wfile.flush()
        if answer.hold is not None and answer.hold.wait(60):
            self.wfile.write(content[answer.cut_bytes :])
        else:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _drip(self, content: bytes, bytes_per_s: int) -> None:
        for start in range(0, len(content), PIECE_BYTES):
            time.sleep(PIECE_BYTES / bytes_per_s)  # also where its reader was slow before
            self.wfile.write(content[start : start + PIECE_BYTES])


def _item(key: str, content: bytes) -> dict[str, Any]:
    return {
        "kind": "storage#object",
        "name": key,
        "bucket": BUCKET,
        "size": str(len(content)),
        "updated": "2028-01-01T00:00:00.000Z",
        "timeCreated": "2028-01-01T00:00:00.000Z",
        "generation": "1",
    }
