"""What a rank executes, and which scripts are refused with which words."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.command import Refused, command, local_path
from node_agent.core.leases import Category
from scaimind.v1 import job_pb2

ELF = b"\x7fELF\x02\x01\x01\0\0"


def framework(path: object, args: str = "") -> job_pb2.Framework:
    config = {"args": args} if args else {}
    return job_pb2.Framework(
        type=job_pb2.Framework.CUSTOM, custom_script_path=str(path), config=config
    )


@pytest.mark.parametrize(
    ("name", "content", "mode", "python"),
    [
        ("train.py", b"print(1)", 0o644, True),
        ("train.py", b"print(1)", 0o755, True),
        ("train", b"print(1)", 0o644, True),
        ("train", b"#!/usr/bin/env python3\n", 0o644, True),
        ("train", b"#!/usr/bin/env python3\n", 0o755, False),
        ("train.sh", b"#!/bin/sh\n", 0o755, False),
        ("train", ELF, 0o755, False),
    ],
)
def test_python_scripts_run_with_the_agents_python_and_programs_by_themselves(
    tmp_path: Path, *, name: str, content: bytes, mode: int, python: bool
) -> None:
    script = tmp_path / name
    script.write_bytes(content)
    script.chmod(mode)
    own = (str(script), "-x", "a b")
    wanted = (sys.executable, "-u", *own) if python else own
    assert command(framework(script, "-x 'a b'")) == wanted
    assert command(framework(f"file://{script}", "-x 'a b'")) == wanted


@pytest.mark.parametrize(("content", "name"), [(b"#!/bin/sh\n", "train.sh"), (ELF, "train")])
def test_a_program_without_the_execute_bit_is_refused(
    tmp_path: Path, content: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match="chmod") as refused:
        command(framework(tmp_path / name))
    assert refused.value.fault.category is Category.CONFIG


@pytest.mark.parametrize(
    "value",
    [
        "http://x/a.py",
        "s3://b/a",
        "file://other/a",
        "a\0b",
        "C://x",
        "://x",
        "file://[bad/x",
        "file:///a%00b",
    ],
)
def test_what_is_not_of_this_machine_is_refused_and_the_field_is_named(value: str) -> None:
    with pytest.raises(Refused, match=r"^some\.field: "):
        local_path("some.field", value)


def test_a_uri_is_unquoted_and_a_path_is_not() -> None:
    assert local_path("f", "file:///a%20b") == Path("/a b")
    assert local_path("f", "file://localhost/a") == Path("/a")
    assert local_path("f", "/a%20b") == Path("/a%20b")
    assert local_path("f", "/a/../b") == Path("/b")
    assert local_path("f", "relative").is_absolute()


def test_a_framework_without_a_script_is_named() -> None:
    with pytest.raises(Refused, match="DEEPSPEED"):
        command(job_pb2.Framework(type=job_pb2.Framework.DEEPSPEED))


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_either_a_command_or_refused(path: str, args: str) -> None:
    with suppress(Refused):
        assert all("\0" not in word for word in command(framework(path, args)))


def test_a_module_runs_with_the_agents_python_and_only_by_a_plain_name() -> None:
    wanted = (sys.executable, "-u", "-m", "scaimind.evaluation", "-v")
    assert command(framework("module://scaimind.evaluation", "-v")) == wanted
    for name in ("", "a b", "-c", "a..b", "a/b", ".a", "os\n"):
        with pytest.raises(Refused, match="name of a Python module"):
            command(framework(f"module://{name}"))
