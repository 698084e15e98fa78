"""docs/grpc.md does what it says: its snippets run against a cluster, its commands by reflection alone."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.certificates import Authority
from tests.support.cluster import ROOT, Cluster

PAGE = (ROOT / "docs" / "grpc.md").read_text(encoding="utf-8")
Metadata = tuple[tuple[str, str | bytes], ...]
FENCE = re.compile(r"^```(\S+)( tls)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(language: str, *, tls: bool = False) -> list[str]:
    return [
        text
        for found, secured, text in FENCE.findall(PAGE)
        if (found, bool(secured)) == (language, tls)
    ]


def follow_the_page(cluster: Cluster, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIND_GRPC", cluster.grpc)
    monkeypatch.setenv("MIND_API_KEY", cluster.key)
    names: dict[str, object] = {}
    for text in texts:
        exec(compile(text, "docs/grpc.md", "exec"), names)
    for channel in names.values():
        if isinstance(channel, grpc.Channel):
            channel.close()


def test_the_python_of_the_page_runs(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = snippets("python")
    assert len(texts) >= 7
    follow_the_page(cluster, texts, monkeypatch)


def test_the_tls_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "authority")
    pair = authority.pair("cluster", "127.0.0.1")
    for name, path in (("CA", authority.ca), ("CERT", pair.cert), ("KEY", pair.key)):
        monkeypatch.setenv(f"MIND_TLS_{name}", str(path))
    with Cluster(tmp_path / "data", devices="sim:1xH100") as cluster:
        texts = [snippets("python")[0], *snippets("python", tls=True)]
        follow_the_page(cluster, texts, monkeypatch)


class Reflected:
    """What a program learns of a server that it has no file of."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel, self._pool = channel, DescriptorPool()
        self._stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        self._known: set[str] = set()

    def services(self) -> list[str]:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = self._stub.ServerReflectionInfo(iter([request]))
        return [one.name for one in answer.list_services_response.service]

    def call(self, path: str, text: str, metadata: Metadata) -> list[Message]:
        service, _, name = path.partition("/")
        self._learn(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
        method = self._pool.FindServiceByName(service).methods_by_name[name]
        request = json_format.Parse(text, GetMessageClass(method.input_type)())
        writes = type(request).SerializeToString
        reads = GetMessageClass(method.output_type).FromString
        if not method.server_streaming:
            unary = self._channel.unary_unary(f"/{path}", writes, reads)
            return [unary(request, metadata=metadata, timeout=30)]
        stream = self._channel.unary_stream(f"/{path}", writes, reads)
        return list(stream(request, metadata=metadata, timeout=30))

    def describe(self, service: str) -> list[str]:
        self._learn(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
        return [method.name for method in self._pool.FindServiceByName(service).methods]

    def _learn(self, request: reflection_pb2.ServerReflectionRequest) -> None:
        (answer,) = self._stub.ServerReflectionInfo(iter([request]))
        assert not answer.error_response.error_message, answer.error_response
        for text in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(text)
            if file.name in self._known:
                continue
            self._known.add(file.name)
            for name in file.dependency:
                self._learn(reflection_pb2.ServerReflectionRequest(file_by_filename=name))
            self._pool.Add(file)


def grpcurl(line: str) -> str:
    """What a command of the page answers, or the code of its refusal."""
    program, plain, *options = shlex.split(line)
    assert (program, plain) == ("grpcurl", "-plaintext")
    metadata, body = [], "{}"
    while options[0].startswith("-"):
        option, value, *options = options
        assert option in ("-H", "-d")
        if option == "-d":
            body = value
        else:
            name, _, content = value.partition(": ")
            metadata.append((name, content))
    address, verb, *rest = options
    with grpc.insecure_channel(address) as channel:
        server = Reflected(channel)
        if verb == "list":
            return str(server.services())
        if verb == "describe":
            return str(server.describe(*rest))
        try:
            return str(server.call(verb, body, tuple(metadata)))
        except grpc.RpcError as error:
            return str(error.code().name)


def test_the_commands_of_the_page_work_by_reflection_alone(cluster: Cluster) -> None:
    words = {"MIND_GRPC": cluster.grpc, "MIND_API_KEY": cluster.key}
    (text,) = snippets("sh")
    lines = re.sub(r"\$(\w+)", lambda found: words[found[1]], text).splitlines()
    shown = ("KeyService", "SubmitJob", "SERVING", "total_nodes: 2", "total_count", "NOT_FOUND")
    for line, part in zip(lines, shown, strict=True):
        assert part in grpcurl(line), line
