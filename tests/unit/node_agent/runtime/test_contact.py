"""The file that tells supervisors when the coordinator answered last."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from node_agent.runtime.contact import Contact, read
from node_agent.runtime.kernel import boot_now_ms


def test_what_was_noted_is_read_by_others_and_by_the_next_agent(tmp_path: Path) -> None:
    path = str(tmp_path / "contact")
    contact = Contact(path)
    assert contact.sent_ms == 0
    now_ms = boot_now_ms()
    contact.note(now_ms - 5)
    contact.note(now_ms)
    assert read(path) == now_ms
    assert Contact(path).sent_ms == now_ms


def test_a_file_that_was_removed_is_there_again_with_the_next_contact(tmp_path: Path) -> None:
    path = tmp_path / "contact"
    contact = Contact(str(path))
    contact.note(7)
    path.unlink()
    assert read(str(path)) == 0
    contact.note(8)
    assert read(str(path)) == 8


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"1234567", id="too short"),
        pytest.param(struct.pack("=q", -1), id="before the boot"),
        pytest.param(struct.pack("=q", 2**62), id="of an earlier boot: in the future"),
    ],
)
def test_what_this_boot_cannot_have_written_is_no_contact(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "contact"
    path.write_bytes(content)
    assert read(str(path)) == 0


def test_a_folder_or_a_pipe_in_its_place_is_no_contact(tmp_path: Path) -> None:
    assert read(str(tmp_path)) == 0
