"""Reads s3:// and gs:// through fsspec, with the coordinator's own identity there.

Because that identity sees more than a caller may, only what lies below an allowed root is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coordinator.data.local import says
from coordinator.data.reading import Budget, Reading
from coordinator.data.terms import Rules, Unreachable
from scaimind.service.reach.stores import open_store, path_below, roots_for

WAIT_S = 5.0


class Bucket:
    """One file or folder of a store of objects."""

    def __init__(self, url: str, rules: Rules, tenant_id: str) -> None:
        """Judges the URL. Raises Unreachable where it is not allowed or the extra is missing."""
        scheme = url.partition("://")[0]
        self._path = path_below(url, roots_for(rules.roots, tenant_id))
        try:
            self._store = open_store(scheme, rules.endpoints.get(scheme, ""), wait_s=WAIT_S)
        except ImportError:
            text = f"{scheme}:// needs the extra `{scheme}` where the coordinator runs"
            raise Unreachable(text) from None

    def is_folder(self) -> bool:
        """Whether it is a prefix of several files. Raises Unreachable where there is nothing."""
        return bool(self._asked("info", self._path)["type"] == "directory")

    def names(self, most: int) -> Iterator[str]:
        """Paths of the files directly below. Raises Unreachable, also where there are too many."""
        entries = self._asked("ls", self._path, detail=True)
        names = sorted(str(one["name"]) for one in entries if one["type"] == "file")
        if len(names) > most:
            raise Unreachable(f"the folder holds more than {most} files")
        return iter(names)

    def open(self, name: str, budget: Budget) -> Reading:
        """Opens a file; "" is the one that was named. Raises Unreachable."""
        budget.check_time()
        path = name or self._path
        size = self._asked("info", path).get("size")
        file = _File(self._asked("open", path, "rb"))
        return Reading(file, budget, size_bytes=None if size is None else int(size))

    def _asked(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _call(getattr(self._store, method), *arguments, **options)


class _File:
    """A file of a store; the libraries' many errors become one."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes."""
        return bytes(_call(self._file.read, size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)  # what readers of files that can seek ask for

    def close(self) -> None:
        """Closes it."""
        self._file.close()


def _call(function: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except (FileNotFoundError, PermissionError) as error:
        known = PermissionError(13, "") if isinstance(error, PermissionError) else OSError(2, "")
        raise Unreachable(says(known)) from None
    except Exception as error:  # each library brings errors of its own
        if isinstance(error, Unreachable):
            raise
        raise Unreachable("the store cannot be read") from None
