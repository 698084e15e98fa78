"""Small JSON files of the agent's own, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

_T = TypeVar("_T")
_log = structlog.get_logger()


def read_document(path: Path, kind: type[_T]) -> _T | None:
    """The document at `path`; None where there is none, or none of this kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _log.warning("spool_file_unreadable", file=path.name, reason=str(error))
        return None


def write_document(path: Path, document: object) -> bool:
    """Writes the document; returns False, and leaves the old one, where the disk refuses."""
    folder, name = os.path.split(path)
    draft = f"{folder}/.{name}"
    try:
        with open(draft, "wb") as file:
            file.write(msgspec.json.encode(document))
        os.replace(draft, path)
    except OSError as error:
        _log.warning("spool_file_unwritable", file=path.name, reason=str(error))
        return False
    return True
