"""Names that others chose, judged before they become paths of this machine. Refused, never repaired."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

DEPTH_MAX = 20
PART_BYTES_MAX = 200
NAME_BYTES_MAX = 2048


class BadName(Exception):
    """A name that cannot become a path; the text is for the user."""


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a relative name, as folders and a file below a fresh folder.

    Raises:
        BadName: it is absolute, has a part that is empty, `.` or `..`, characters that do not belong
            into names, or is too long or too deep.
    """
    parts = tuple(name.split("/"))
    shown = ascii(name[:100])
    if name.startswith("/"):
        raise BadName(f"{shown} is an absolute name")
    if any(part in ("", ".", "..") for part in parts):
        raise BadName(f"{shown} has an empty part, . or ..")
    if "\\" in name or not all(_is_plain(character) for character in name):
        raise BadName(f"{shown} has characters that do not belong into names")
    if len(parts) > DEPTH_MAX:
        raise BadName(f"{shown} is deeper than {DEPTH_MAX} folders")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise BadName(f"{shown} is no text") from None
    if max(lengths) > PART_BYTES_MAX or sum(lengths) > NAME_BYTES_MAX:
        raise BadName(f"{shown} is too long")
    return parts


def file_name(name: str, *, instead: str) -> str:
    """A name as one file's; `instead` where it cannot be one."""
    try:
        return name if len(parts_of(name)) == 1 else instead
    except BadName:
        return instead


def folded(parts: Iterable[str]) -> str:
    """What two names have in common that some file system takes for one."""
    return unicodedata.normalize("NFKC", "/".join(parts)).casefold()


def _is_plain(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
