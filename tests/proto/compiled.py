"""Compiles the test-only protos into a descriptor set, as `make proto` does with ours."""

from __future__ import annotations

import tempfile
from functools import cache
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

from tools.genproto import ROOT, write_descriptor_set

SAMPLES = Path(__file__).parent / "samples"


@cache
def descriptor_set(name: str = "library/v1/library.proto") -> bytes:
    """The serialized FileDescriptorSet of one file and all that it imports, with comments."""
    return compile_proto(SAMPLES, name)


def compile_proto(folder: Path, name: str) -> bytes:
    """Compiles a file below `folder`."""
    googleapis = str(resources.files("google.api").joinpath("annotations.proto")).removesuffix(
        "/google/api/annotations.proto"
    )
    with tempfile.TemporaryDirectory() as scratch:
        rules, out = Path(scratch) / "validate.binpb", Path(scratch) / "out.binpb"
        write_descriptor_set(rules)
        failed = protoc.main(
            [
                "protoc",
                f"--descriptor_set_in={rules}",
                f"--proto_path={folder}",
                f"--proto_path={ROOT / 'proto'}",
                f"--proto_path={googleapis}",
                f"--descriptor_set_out={out}",
                "--include_source_info",
                "--include_imports",
                name,
            ]
        )
        assert failed == 0
        return out.read_bytes()
