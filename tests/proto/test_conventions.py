"""The protos are the product: a walk over their descriptors, comments and options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib import resources
from itertools import combinations
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from buf.validate import validate_pb2
from scaimind.v1 import options_pb2

BYTES = resources.files("scaimind").joinpath("descriptors.binpb").read_bytes()
FILES = [
    file
    for file in descriptor_pb2.FileDescriptorSet.FromString(BYTES).file
    if file.package.startswith("scaimind.")
]
PUBLIC = [file for file in FILES if file.package == "scaimind.v1"]
METHODS = [
    (f"{file.package}.{service.name}.{method.name}", method)
    for file in FILES
    for service in file.service
    for method in service.method
]
PARTS: dict[type, tuple[tuple[int, str], ...]] = {
    descriptor_pb2.FileDescriptorProto: ((4, "message_type"), (5, "enum_type"), (6, "service")),
    descriptor_pb2.DescriptorProto: ((2, "field"), (3, "nested_type"), (4, "enum_type")),
    descriptor_pb2.EnumDescriptorProto: ((2, "value"),),
    descriptor_pb2.ServiceDescriptorProto: ((2, "method"),),
}


def elements(element: Any, path: tuple[int, ...], name: str) -> Iterator[tuple[Any, ...]]:
    for number, part in PARTS.get(type(element), ()):
        for index, child in enumerate(getattr(element, part)):
            if part == "nested_type" and child.options.map_entry:
                continue
            here = (*path, number, index)
            yield here, f"{name}.{child.name}", child
            yield from elements(child, here, f"{name}.{child.name}")


def messages() -> dict[str, Any]:
    return {
        f".{name}": element
        for file in FILES
        for _, name, element in elements(file, (), file.package)
        if isinstance(element, descriptor_pb2.DescriptorProto)
    }


def rule_of(method: Any) -> Any:
    return method.options.Extensions[options_pb2.rule]


def bindings() -> list[tuple[str, str, Any]]:
    """Name, verb and path of every HTTP binding."""
    found = []
    for name, method in METHODS:
        if method.options.HasExtension(annotations_pb2.http):
            rule = method.options.Extensions[annotations_pb2.http]
            for one in (rule, *rule.additional_bindings):
                kind = one.WhichOneof("pattern")
                found.append((name, kind, getattr(one, kind)))
    return found


def fits_both(one: str, other: str) -> bool:
    """Whether some path fits two templates of literals and `{variables}`."""
    parts, others = one.strip("/").split("/"), other.strip("/").split("/")
    return len(parts) == len(others) and all(
        a == b or a.startswith("{") or b.startswith("{") for a, b in zip(parts, others, strict=True)
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_element_has_a_comment(file: Any) -> None:
    commented = {
        tuple(location.path)
        for location in file.source_code_info.location
        if location.leading_comments.strip()
    }
    silent = [name for path, name, _ in elements(file, (), file.package) if path not in commented]
    assert silent == []


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        file.name
        for file in FILES
        if not any(
            location.leading_detached_comments or location.leading_comments
            for location in file.source_code_info.location
            if list(location.path) in ([12], [2])
        )
    ]
    assert silent == []


def test_comments_are_sentences() -> None:
    broken = [
        (file.name, location.leading_comments)
        for file in FILES
        for location in file.source_code_info.location
        if location.leading_comments and location.leading_comments.strip()[-1] not in ".:`)"
    ]
    assert broken == []


def test_every_method_has_a_rule() -> None:
    assert [
        name for name, method in METHODS if not method.options.HasExtension(options_pb2.rule)
    ] == []


def test_every_method_asks_for_a_permission_or_is_internal() -> None:
    open_ones = [
        name
        for name, method in METHODS
        if not rule_of(method).any_of and not rule_of(method).program
    ]
    assert open_ones == []


def test_internal_methods_are_not_bound_to_http() -> None:
    internal = {name for name, method in METHODS if rule_of(method).program}
    assert internal.isdisjoint(name for name, _, _ in bindings())


def test_every_request_of_an_agent_names_its_node() -> None:
    agents = [method for _, method in METHODS if rule_of(method).program == options_pb2.AGENT]
    assert agents
    known = messages()
    for method in agents:
        assert "node_id" in {field.name for field in known[method.input_type].field}, method.name


def test_exactly_one_method_resolves_credentials() -> None:
    assert sum(rule_of(method).authenticates for _, method in METHODS) == 1


def test_every_bound_method_has_exactly_one_route() -> None:
    assert [
        name for name, count in Counter(name for name, _, _ in bindings()).items() if count > 1
    ] == []
    assert bindings()


def test_no_two_routes_can_match_one_path() -> None:
    rivals = [
        (one, other)
        for one, other in combinations(bindings(), 2)
        if one[1] == other[1] and fits_both(one[2], other[2])
    ]
    assert rivals == []


def test_no_path_is_also_a_variable_of_another_verb() -> None:
    """A request with the wrong verb must be 405, not a thing with an odd name."""
    rivals = [
        (one, other)
        for one, other in combinations(bindings(), 2)
        if one[2] != other[2] and fits_both(one[2], other[2])
    ]
    # `batch` and `bulk` are no identifiers: those of jobs begin with `job_`.
    assert {frozenset((one[2], other[2])) for one, other in rivals} <= {
        frozenset((f"/jobs/{many}", "/jobs/{job_id}")) for many in ("batch", "bulk")
    }


def request_messages() -> set[str]:
    """All messages that a caller of the public API can send."""
    known, found = messages(), set()
    pending = [method.input_type for file in PUBLIC for s in file.service for method in s.method]
    while pending:
        name = pending.pop()
        if name in found or name not in known:
            continue
        found.add(name)
        pending += [field.type_name for field in known[name].field if field.type_name]
        pending += [
            inner.type_name
            for entry in known[name].nested_type
            if entry.options.map_entry
            for inner in entry.field
        ]
    return found


def text_is_bounded(rules: Any) -> bool:
    text = rules.string
    return bool(text.max_len or text.pattern or getattr(text, "in") or text.HasField("len"))


def faults_of(field: Any, entry: Any) -> Iterator[str]:
    rules = field.options.Extensions[validate_pb2.field]
    if entry is not None:
        if not rules.map.max_pairs:
            yield "max_pairs"
        for side, part in zip((rules.map.keys, rules.map.values), entry.field, strict=True):
            if part.type == FieldDescriptorProto.TYPE_STRING and not text_is_bounded(side):
                yield f"the text of its {part.name}"
    elif field.label == FieldDescriptorProto.LABEL_REPEATED:
        if not rules.repeated.max_items:
            yield "max_items"
        if field.type == FieldDescriptorProto.TYPE_STRING and not text_is_bounded(
            rules.repeated.items
        ):
            yield "the text of its items"
    elif field.type == FieldDescriptorProto.TYPE_STRING and not text_is_bounded(rules):
        yield "its text"


def test_everything_that_can_be_long_in_a_request_is_bounded() -> None:
    known, unbounded = messages(), []
    for name in sorted(request_messages()):
        entries = {f"{name}.{entry.name}": entry for entry in known[name].nested_type}
        for field in known[name].field:
            for fault in faults_of(field, entries.get(field.type_name)):
                unbounded.append(f"{name[1:]}.{field.name}: {fault}")
    assert unbounded == []


def test_enums_begin_with_a_value_that_means_nothing() -> None:
    enums = [
        (name, element)
        for file in FILES
        for _, name, element in elements(file, (), file.package)
        if isinstance(element, descriptor_pb2.EnumDescriptorProto)
    ]
    assert [n for n, enum in enums if not enum.value[0].name.endswith("UNSPECIFIED")] == []


def test_changing_methods_can_be_repeated_safely() -> None:
    known = messages()
    asks = ("/data/", "/cluster/simulate")  # they change nothing
    posts = {
        name
        for name, verb, path in bindings()
        if verb != "get" and not any(one in path for one in asks)
    }
    bare = [
        name
        for name, method in METHODS
        if name in posts and "request_id" not in {f.name for f in known[method.input_type].field}
    ]
    assert bare == []
