"""The form in which records are stored: their own fields, less those that are as by default.

Most fields of most records are. msgspec leaves them out of its Structs, and fills them in again, faster than
it writes or reads a dataclass. So each dataclass gets a Struct with the same fields, and code, made once, that
copies one to the other; what of a default is not one object in all programs is compared by its value, so that
equal records have equal bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from coordinator.core.replacing import draft_of

Convert = Callable[[Any], Any]


class Form(NamedTuple):
    """How one class is stored.

    Attributes:
        struct: the Struct that is written and read.
        thin: from a record to it.
        full: back.
    """

    struct: Any
    thin: Convert
    full: Convert


@cache
def form_of(made: Any) -> Form:
    """The form of a dataclass, and of those in its fields."""
    types = get_type_hints(made)
    # as a Struct has them: what must be there comes first
    fields = sorted(dataclasses.fields(made), key=_has_default)
    space: dict[str, Any] = {"made": made, "draft": draft_of(made)}
    struct_fields: list[Any] = []
    thin, full = ["return struct("], ["new = draft()"]
    for field in fields:
        name, kind = field.name, types[field.name]
        away = _copied(kind, f"record.{name}", to=0, space=space)
        back = _copied(kind, f"stored.{name}", to=1, space=space)
        if _has_default(field):
            default = _stored(field.default)
            space[f"default_{name}"] = default
            if not _is_one_object(field.default):
                space[f"value_{name}"] = field.default
                away = f"default_{name} if record.{name} == value_{name} else {away}"
                back = f"value_{name} if stored.{name} is default_{name} else {back}"
            struct_fields.append((name, _stored_type(kind), default))
        else:
            struct_fields.append((name, _stored_type(kind)))
        thin.append(f"    {away},")
        full.append(f"new.{name} = {back}")
    space["struct"] = msgspec.defstruct(
        made.__name__, struct_fields, frozen=True, omit_defaults=True, gc=False
    )
    thin.append(")")
    full += ["new.__class__ = made", "return new"]
    for name, argument, lines in (("thin", "record", thin), ("full", "stored", full)):
        exec("\n    ".join([f"def {name}({argument}):", *lines]), space)
    return Form(space["struct"], space["thin"], space["full"])


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    assert field.default_factory is dataclasses.MISSING
    return field.default is not dataclasses.MISSING


def _is_one_object(default: object) -> bool:
    """Whether equal values are always this very object."""
    small = type(default) is int and -5 <= default <= 256
    return small or default is None or default in (False, True, "", ()) or isinstance(default, Enum)


def _stored(default: object) -> object:
    kind: Any = type(default)
    return form_of(kind).thin(default) if _is_record(kind) else default


def _stored_type(kind: Any) -> Any:
    """The type of a field in the Struct."""
    if _is_record(kind):
        return form_of(kind).struct
    of: Any = get_origin(kind)
    parts = tuple(_stored_type(one) for one in get_args(kind))
    if of in (Union, UnionType):
        return Union[parts]  # noqa: UP007 - made at run time
    return of[parts] if of is tuple else kind


def _copied(kind: Any, value: str, *, to: int, space: dict[str, Any]) -> str:
    """Code for a value of a type in the other form: 0 the thin, 1 the full one."""
    if _is_record(kind):
        name = f"to_{kind.__name__}_{to}"
        space[name] = form_of(kind)[1 + to]
        return f"{name}({value})"
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        (inner,) = (one for one in parts if one is not NoneType)
        copied = _copied(inner, value, to=to, space=space)
        return value if copied == value else f"(None if {value} is None else {copied})"
    if get_origin(kind) is not tuple:
        return value
    if parts[1:] == (...,):
        copied = _copied(parts[0], "one", to=to, space=space)
        return value if copied == "one" else f"tuple([{copied} for one in {value}])"
    each = [_copied(one, f"{value}[{at}]", to=to, space=space) for at, one in enumerate(parts)]
    same = all(copied == f"{value}[{at}]" for at, copied in enumerate(each))
    return value if same else f"({', '.join(each)},)"
