"""Items of a request that are judged each by itself, as the rule `each` of a method says.

What does not fit the schema in one of them stands in its place of the answer, and the others go on. The
coordinator is asked all the same, with something in the place of what cannot be read that it is sure to refuse:
so the places stay as they are, and the answer to a key is that to all of the body. It refuses what is out of
bounds too, as those are the same; which they are is only looked for in what was refused.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

from buf.validate import validate_pb2
from gateway.catalog import BadCatalog, Method
from gateway.faults import MAX_FAULTS, Faults, Place, TooManyFaults
from gateway.json_in import Fill, JsonReader, filler
from gateway.status import invalid
from gateway.validation import violations

ALL_OR_NONE = "atomic"
MARK = "request_id"
RESULTS = "results"
ERROR = "error"
ALL_FAULTS_MAX = 1000
"""Of all items together; of each the first is told all the same."""

WHOLE_BYTES = 32 * 1024
"""Of items that break bounds; beyond, the first that each breaks is all that is looked for."""

Refused = dict[int, list[tuple[str, str]]]
"""What is wrong with items, by their index: path of a field within the item, and a sentence."""


class Entries:
    """The items of one method's requests."""

    def __init__(self, method: Method, reader: JsonReader) -> None:
        """Compiles the list that the rule names.

        Raises:
            BadCatalog: it is no list of messages of which an empty one is refused, or the answer
                has no place for what is wrong with one.
        """
        self._name = method.each
        field = method.request.fields_by_name.get(method.each)
        results = method.response.fields_by_name.get(RESULTS)
        item = field.message_type if field is not None and field.is_repeated else None
        result = results.message_type if results is not None and results.is_repeated else None
        if field is None or item is None or result is None or ERROR not in result.fields_by_name:
            raise BadCatalog(f"{method.name}: {method.each} is not a list with {RESULTS}")
        rules = field.GetOptions().Extensions[validate_pb2.field].repeated
        empty = getattr(method.request_class(), self._name).add()
        if rules.items.ignore != validate_pb2.IGNORE_ALWAYS or not any(violations(empty)):
            raise BadCatalog(f"{method.name}: an item of {method.each} is not judged by itself")
        self._most = rules.max_items
        self._fill = reader.filler(item)
        self._setters = reader.fields(method.request)

    def are_apart(self, body: Any) -> bool:
        """Whether the items of a parsed body are each judged by itself."""
        if type(body) is not dict or body.get(ALL_OR_NONE):
            return False
        items = body.get(self._name)
        return type(items) is list and len(items) <= self._most

    def filler(self, refused: Refused) -> Fill:
        """Fills a request from such a body; what cannot be read of items is put into `refused`."""

        def set_items(target: Any, value: Any, _: Place) -> None:
            items, told = getattr(target, self._name), _Told()
            for index, item in enumerate(value):
                entry, faults = items.add(), Faults(told.most)
                with contextlib.suppress(TooManyFaults):
                    self._fill(entry, item, Place(faults))
                if faults.found:
                    refused[index] = told.with_bounds(entry, faults)

        return filler({**self._setters, self._name: set_items})

    def mark(self, request: Any, refused: Refused, *, body: bytes) -> None:
        """Puts what the coordinator refuses where an item does not fit, which tells bodies apart."""
        items = getattr(request, self._name)
        text = hashlib.sha256(body).hexdigest() if refused else ""
        for index in refused:
            items[index].Clear()
            setattr(items[index], MARK, text)

    def violations(self, request: Any) -> Iterator[tuple[str, str]]:
        """The bounds that items of a request break which is taken as a whole."""
        for index, item in enumerate(getattr(request, self._name)[: self._most]):
            for path, text in violations(item):
                yield f"{self._name}[{index}].{path}", text

    def any_refused(self, response: Any) -> bool:
        """Whether an answer tells of an item that it was refused."""
        return any(result.HasField(ERROR) for result in getattr(response, RESULTS))

    def tell(self, request: Any, refused: Refused, *, response: Any) -> None:
        """Says in an answer what does not fit in items; most fit, so bounds are looked at only here."""
        told = _Told(sum(map(len, refused.values())))
        items = getattr(request, self._name)
        for index, result in enumerate(getattr(response, RESULTS)):
            if not result.HasField(ERROR) or index >= len(items):
                continue
            found = refused.get(index)
            if found is None:
                found = told.with_bounds(items[index], Faults(told.most))
            if found:
                _tell(result, found)


class _Told:
    """How much was told of items so far, and looked for."""

    def __init__(self, count: int = 0) -> None:
        self._count, self._bytes = count, 0

    @property
    def most(self) -> int:
        """How many faults may be told of the next one."""
        return min(MAX_FAULTS, max(1, ALL_FAULTS_MAX - self._count))

    def with_bounds(self, item: Any, faults: Faults) -> list[tuple[str, str]]:
        """The faults of an item, and the bounds that it breaks."""
        told = {field for field, _ in faults.found}
        is_large = self._bytes + item.ByteSize() > WHOLE_BYTES
        broken = violations(item, at_most=1 if is_large else faults.most)
        found = [*faults.found, *(pair for pair in broken if pair[0] not in told)][: faults.most]
        if found:
            self._count, self._bytes = self._count + len(found), self._bytes + item.ByteSize()
        return found


def _tell(result: Any, found: list[tuple[str, str]]) -> None:
    failure = invalid(found)
    error = getattr(result, ERROR)
    error.Clear()
    error.code, error.message = failure.code, failure.message
    for field, text in failure.details:
        error.details.add(field=field, message=text)
