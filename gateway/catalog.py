"""What the protos say: services, methods, rules and comments, read from a descriptor set.

The set is the one that `make proto` writes, with comments. It has a descriptor pool of its own, so
that any other set serves as well and nothing of the gateway knows a method by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from scaimind.service.roles import permission_name
from scaimind.v1 import options_pb2

VERBS = ("get", "put", "post", "delete", "patch")
# Field numbers of FileDescriptorProto and its parts, by which source locations name elements.
_PARTS: dict[type, tuple[tuple[int, str], ...]] = {
    descriptor_pb2.FileDescriptorProto: ((4, "message_type"), (5, "enum_type"), (6, "service")),
    descriptor_pb2.DescriptorProto: (
        (2, "field"),
        (3, "nested_type"),
        (4, "enum_type"),
        (8, "oneof_decl"),
    ),
    descriptor_pb2.EnumDescriptorProto: ((2, "value"),),
    descriptor_pb2.ServiceDescriptorProto: ((2, "method"),),
}


class BadCatalog(ValueError):
    """The protos ask for something that the gateway cannot serve."""


@dataclass(frozen=True, slots=True)
class HttpBinding:
    """One `google.api.http` binding: a verb, a path template, and where the body goes."""

    verb: str
    path: str
    body: str
    """`*`, the name of a field, or empty for no body."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service, with all that the border needs to know of it."""

    service: str
    name: str
    request: Descriptor
    response: Descriptor
    request_class: type[Any]
    response_class: type[Any]
    streaming: bool
    """Whether the answer is a stream."""
    any_of: frozenset[str]
    """Permissions such as `scaimind:view`, of which any one suffices; empty asks for none."""
    http_status: int
    internal: bool
    authenticates: bool
    token_exchange: bool
    each: str
    """The list of the request whose items are judged each by itself; empty for none."""
    cache: str
    cache_label: str
    """The field that identifies what the answer holds; empty where no copies are kept."""
    bindings: tuple[HttpBinding, ...]
    comment: str

    @property
    def rpc_path(self) -> str:
        """The path that gRPC knows it by."""
        return f"/{self.service}/{self.name}"


class Catalog:
    """All methods and comments of one descriptor set."""

    def __init__(self, descriptor_set: bytes) -> None:
        """Loads a serialized FileDescriptorSet.

        Raises:
            BadCatalog: it asks for something that the gateway cannot serve.
        """
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
        self._pool = descriptor_pool.DescriptorPool()
        self.comments: dict[str, str] = {}
        for file in files.file:
            self.comments.update(_comments(file))
            self._pool.AddSerializedFile(file.SerializeToString())
        self.methods = tuple(
            self._method(method)
            for file in files.file
            for service in file.service
            for method in self._pool.FindServiceByName(f"{file.package}.{service.name}").methods
        )

    @classmethod
    def default(cls) -> Catalog:
        """The catalog of the protos that are installed with this package."""
        return cls(resources.files("scaimind").joinpath("descriptors.binpb").read_bytes())

    def comment(self, full_name: str) -> str:
        """The comment on an element, in one piece; empty for none."""
        return self.comments.get(full_name, "")

    def authenticator(self) -> Method | None:
        """The one method that resolves credentials, if there is one.

        Raises:
            BadCatalog: several methods are marked.
        """
        marked = [method for method in self.methods if method.authenticates]
        if len(marked) > 1:
            raise BadCatalog("several methods are marked `authenticates`")
        return marked[0] if marked else None

    def _method(self, method: MethodDescriptor) -> Method:
        options = method.GetOptions()
        rule = options.Extensions[options_pb2.rule]
        bindings: tuple[HttpBinding, ...] = ()
        if options.HasExtension(annotations_pb2.http):
            bindings = tuple(_bindings(method, options.Extensions[annotations_pb2.http]))
        service = method.containing_service
        assert service is not None
        return Method(
            service=service.full_name,
            name=method.name,
            request=method.input_type,
            response=method.output_type,
            request_class=message_factory.GetMessageClass(method.input_type),
            response_class=message_factory.GetMessageClass(method.output_type),
            streaming=method.server_streaming,
            any_of=frozenset(permission_name(number) for number in rule.any_of),
            http_status=rule.http_status or 200,
            internal=bool(rule.program),
            authenticates=rule.authenticates,
            token_exchange=rule.token_exchange,
            each=rule.each,
            cache=rule.cache,
            cache_label=rule.cache_label,
            bindings=bindings,
            comment=self.comment(method.full_name),
        )


def _bindings(method: MethodDescriptor, rule: Any) -> Iterator[HttpBinding]:
    if method.client_streaming:
        raise BadCatalog(f"{method.full_name}: a client stream cannot be bound to HTTP")
    for binding in (rule, *rule.additional_bindings):
        kind = binding.WhichOneof("pattern")
        if kind not in VERBS or binding.response_body:
            raise BadCatalog(f"{method.full_name}: unsupported HTTP rule")
        yield HttpBinding(kind.upper(), getattr(binding, kind), binding.body)


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_named(file, (), prefix=file.package))
    for location in file.source_code_info.location:
        name = names.get(tuple(location.path))
        if name and location.leading_comments.strip():
            lines = (line.strip() for line in location.leading_comments.strip().splitlines())
            yield name, " ".join(lines)


def _named(element: Any, path: tuple[int, ...], *, prefix: str) -> Iterator[tuple[Any, str]]:
    for number, part in _PARTS.get(type(element), ()):
        for index, child in enumerate(getattr(element, part)):
            here = (*path, number, index)
            # The scope of an enum's values is the enum's own parent; kept under the enum here, so
            # that two enums may have values of one name.
            name = f"{prefix}.{child.name}"
            yield here, name
            yield from _named(child, here, prefix=name)
