"""A registry of images of the tests' own: as much of its protocol as engines read, on this machine alone.

An image is one layer, the root file system that it is given, and what the test puts beside it. Tags are
moved as a test likes; what was there before stays there under its digest, as in any registry.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
NAME = "mind/app"


class Registry:
    """One registry with one repository. Use it as a context manager."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def place(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self._server.server_port}"

    def name(self, tag: str) -> str:
        """The name of an image, as jobs give it."""
        return f"{self.place}/{NAME}:{tag}"

    def put(self, tag: str, layer: bytes, **config: Any) -> str:
        """Has a tag stand for an image of one layer, a tar; returns its digest."""
        packed = gzip.compress(layer, compresslevel=1, mtime=0)
        image = {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._keep(json.dumps(image).encode(), CONFIG),
            "layers": [self._keep(packed, LAYER)],
        }
        self.tags[tag] = str(self._keep(json.dumps(manifest).encode(), MANIFEST)["digest"])
        return self.tags[tag]

    def __enter__(self) -> Registry:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _keep(self, blob: bytes, media_type: str) -> dict[str, Any]:
        digest = _digest(blob)
        self.blobs[digest] = blob
        return {"mediaType": media_type, "digest": digest, "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, *words: object) -> None:
            """Says nothing."""

        def _answer(self, *, body: bool) -> None:
            kind, reference = ["", *self.path.strip("/").split("/")][-2:]
            digest = registry.tags.get(reference, reference)
            blob = b"{}" if reference == "v2" else registry.blobs.get(digest)
            self.send_response(404 if blob is None else 200)
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Docker-Content-Digest", digest)
            is_manifest = kind == "manifests"
            self.send_header(
                "Content-Type", MANIFEST if is_manifest else "application/octet-stream"
            )
            self.send_header("Content-Length", str(len(blob or b"")))
            self.end_headers()
            if body and blob:
                self.wfile.write(blob)

    return Handler
