"""Where the coordinator is, and who is calling."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from scaimind import leader

DEFAULT_SERVER = "127.0.0.1:50051"

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
KEY_FILE = "admin.key"
MAX_KEY_BYTES = 4096

CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
)


def find_server(server: str | None = None) -> str:
    """The coordinator's HOST:PORT, or those of several parted by commas.

    The argument, else MIND_GRPC, else 127.0.0.1:50051.
    """
    return server or os.environ.get("MIND_GRPC") or DEFAULT_SERVER


def default_data_dir() -> Path:
    """The local data directory: MIND_DATA_DIR, else `.mind` here where it exists, else `~/.mind`.

    `scaimind up` keeps its cluster there by default, and clients find its admin key there.
    """
    named = os.environ.get("MIND_DATA_DIR")
    if named:
        return Path(named).expanduser().absolute()
    here = Path(".mind")
    return here.absolute() if here.is_dir() else Path.home() / ".mind"


def find_api_key(api_key: str | None, server: str) -> str | None:
    """The caller's key: the argument, else MIND_API_KEY, else the local data directory's.

    The file is only used for a coordinator on this machine: an admin's key is not sent away.
    """
    named = api_key or os.environ.get("MIND_API_KEY")
    if named:
        return named.strip()
    return read_key_file(default_data_dir() / KEY_FILE) if is_local(server) else None


def read_key_file(path: Path) -> str | None:
    """The key in a file; None where it cannot be read or holds no key."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_KEY_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text or None


def is_local(server: str) -> bool:
    """Whether `server` names this machine, and no other."""
    if "," in server:
        return all(map(is_local, leader.split(server)))
    if server.startswith("unix:"):
        return True
    host = server.rpartition(":")[0].strip("[]") or server
    return host in ("localhost", "::1") or host.startswith("127.")


def credentials(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of every call."""
    return (("authorization", f"Bearer {api_key}"),) if api_key else ()
