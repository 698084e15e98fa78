"""Names made of ids, files that are whole, folders that go."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from node_agent.files import empty, file_name, remove_folder, replace_file


@given(st.text(max_size=300))
def test_every_id_makes_one_plain_name(identifier: str) -> None:
    name = file_name(identifier)
    assert "/" not in name
    assert "\0" not in name
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert len(name.encode()) <= 250


@given(st.text(max_size=300), st.text(max_size=300))
def test_two_ids_never_share_a_name(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)


def test_an_ordinary_id_is_its_own_name() -> None:
    assert file_name("job_01H-x.2") == "job_01H-x.2"


def test_a_file_is_replaced_whole_and_leaves_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "f"
    replace_file(file, b"one")
    replace_file(file, b"two")
    assert file.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [file]


def test_a_removed_folder_is_gone_and_removing_it_again_does_no_harm(tmp_path: Path) -> None:
    folder, trash = tmp_path / "folder", tmp_path / "trash"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("x")
    for _ in range(2):
        remove_folder(folder, trash)
        assert not folder.exists()
    empty(trash)
    assert not trash.exists()
