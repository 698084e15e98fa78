"""Generates the Python stubs from `proto/`; run by the package build and by `make proto`.

The import path of a proto equals its Python path, so nothing that protoc writes is edited. The
rules of buf/validate come as a descriptor set from the installed protovalidate package, which
ships no `.proto` file; its Python module is generated beside ours.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VALIDATE = "buf/validate/validate.proto"
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
GOOGLE_TYPES = ("descriptor", "duration", "field_mask", "timestamp")


def write_descriptor_set(target: Path) -> None:
    """Writes the descriptors of buf/validate/validate.proto and of all that it imports."""
    from google.protobuf import descriptor_pb2
    from protovalidate._gen.buf.validate import validate_pb

    files = descriptor_pb2.FileDescriptorSet()
    for name in GOOGLE_TYPES:
        module = __import__(f"google.protobuf.{name}_pb2", fromlist=["DESCRIPTOR"])
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    target.write_bytes(files.SerializeToString())


def find_plugin(name: str) -> Path:
    """Finds a protoc plugin beside this Python, else on PATH (isolated builds put it there).

    Raises:
        SystemExit: it is not installed.
    """
    beside = Path(sys.executable).parent / name
    found = beside if beside.exists() else shutil.which(name)
    if not found:
        raise SystemExit(f"{name} is not installed: pip install mypy-protobuf")
    return Path(found)


def main(out: Path = ROOT) -> None:
    """Writes `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` under `out`.

    Raises:
        SystemExit: protoc refused a file; its message is on standard error.
    """
    from grpc_tools import protoc

    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in ROOT.glob("proto/**/*.proto"))
    services = [name for name in protos if "\nservice " in (ROOT / "proto" / name).read_text()]
    googleapis = str(resources.files("google.api").joinpath("annotations.proto")).removesuffix(
        "/google/api/annotations.proto"
    )
    with tempfile.TemporaryDirectory() as scratch:
        rules = Path(scratch) / "validate.binpb"
        write_descriptor_set(rules)
        common = [
            "protoc",
            f"--descriptor_set_in={rules}",
            f"--proto_path={ROOT / 'proto'}",
            f"--proto_path={googleapis}",
            *(f"--plugin={name}={find_plugin(name)}" for name in PLUGINS),
        ]
        runs = [
            [f"--python_out={out}", f"--mypy_out=quiet:{out}", *protos, VALIDATE],
            [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services],
            [
                f"--descriptor_set_out={out / 'scaimind' / 'descriptors.binpb'}",
                "--include_source_info",
                "--include_imports",
                *protos,
            ],
        ]
        for arguments in runs:
            if protoc.main([*common, *arguments]) != 0:
                raise SystemExit("protoc failed; see its message above")
    for package in ("buf", "buf/validate", "scaimind/v1", "scaimind/agent", "scaimind/agent/v1"):
        (out / package / "__init__.py").touch()


if __name__ == "__main__":
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "tools"]
    main()
