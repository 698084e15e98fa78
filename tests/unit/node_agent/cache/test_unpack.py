"""Bundles are unpacked as they are, or refused: nothing of a hostile one lands anywhere else."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_agent.cache import unpack as room
from node_agent.cache.names import DEPTH_MAX
from node_agent.cache.unpack import BadBundle, unpack

PROGRAM = b"print('hello')\n"


def tarred(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.NameToInfo.clear()  # of names that come twice it warns
            archive.writestr(info, content)
    return made.getvalue()


def unpacked(folder: Path, archive: bytes) -> Path:
    path = folder / "bundle"
    path.write_bytes(archive)
    into = folder / "tree"
    unpack(path, into)
    return into


def test_files_folders_and_programs_come_out_as_they_went_in(tmp_path: Path) -> None:
    script = member("./pkg/run.sh")
    script.mode = 0o755
    plain = [(member("."), b""), (member("pkg", tarfile.DIRTYPE), b"")]
    plain[0][0].type = tarfile.DIRTYPE
    files = [(member("train.py"), PROGRAM), (script, b"#!/bin/sh\n")]
    for number, mode in enumerate(("w", "w:gz")):
        folder = tmp_path / str(number)
        folder.mkdir()
        tree = unpacked(folder, tarred(*plain, *files, mode=mode))
        assert (tree / "train.py").read_bytes() == PROGRAM
        assert (tree / "pkg/run.sh").stat().st_mode & 0o777 == 0o500
        assert (tree / "train.py").stat().st_mode & 0o777 == 0o400


def test_a_zip_comes_out_as_it_went_in(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, zipped(("a/", b""), ("a/b/c.py", PROGRAM), ("d", b"")))
    found = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*"))
    assert found == ["a", "a/b", "a/b/c.py", "d"]
    assert (tree / "a/b/c.py").read_bytes() == PROGRAM


NAMES = [
    *("../x", "/x", "a/../../x", "a/./b", "a//b", "..", "a\\b", "a\nb", "a\0b", "\u202eyp.x"),
    *("x/" * DEPTH_MAX + "x", "n" * 201, "a\x1bb"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [zipped, lambda one: tarred((member(one[0]), one[1]))])
def test_a_name_that_leads_elsewhere_refuses_all(
    tmp_path: Path, name: str, make: Callable[[tuple[str, bytes]], bytes]
) -> None:
    if make is not zipped and "\0" in name:
        return
    with pytest.raises(BadBundle):
        unpacked(tmp_path, make((name, b"x")))
    outside = [path for path in tmp_path.rglob("*") if path.name not in ("bundle", "tree")]
    assert all(path.is_relative_to(tmp_path / "tree") for path in outside)


@pytest.mark.parametrize(
    "kind",
    [
        *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
        *(tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"Z"),
    ],
)
def test_what_is_neither_file_nor_folder_refuses_all(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(BadBundle):
        unpacked(tmp_path, tarred((member("l", kind, link="/etc/passwd"), b"")))


def test_a_link_in_a_zip_refuses_all(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="neither a file nor a folder"):
        unpacked(tmp_path, zipped(("l", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777))


@pytest.mark.parametrize(
    "names",
    [
        *(
            ("a", "a"),
            ("A", "a"),
            ("a", "a/b"),
            ("a/b", "a"),
            ("A/x", "a/y"),
            ("\u00e9", "e\u0301"),
        ),
        ("d/", "d/"),
    ],
)
def test_no_name_comes_twice_in_whatever_writing(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(BadBundle, match="twice"):
        unpacked(tmp_path, zipped(*((name, b"") for name in names)))


def test_too_many_members_too_many_bytes_and_too_good_a_ratio_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = bytes(room.SMALL_BYTES + 1)
    for number, archive in enumerate(
        (zipped(("zeros", zeros)), tarred((member("zeros"), zeros)), bomb_of_zeros())
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(BadBundle):
            unpacked(folder, archive)
        written = sum(path.stat().st_size for path in (folder / "tree").rglob("*"))
        assert written <= room.SMALL_BYTES + 1
    monkeypatch.setattr(room, "MEMBERS_MAX", 3)
    folder = tmp_path / "many"
    folder.mkdir()
    with pytest.raises(BadBundle, match="more than 3 members"):
        unpacked(folder, zipped(*((str(n), b"") for n in range(4))))


def bomb_of_zeros() -> bytes:
    """A gzip of nothing but zeros: to tar an end, behind which far more would be read."""
    return gzip.compress(bytes(64 << 20))


@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\x03\x04", b"\x1f\x8b\x08", b"#!/bin/sh\n" * 99]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadBundle):
        unpacked(tmp_path, content)


def test_a_zip_that_points_before_its_beginning_is_refused(tmp_path: Path) -> None:
    archive = bytearray(zipped(("a/b", PROGRAM), ("c", b"x" * 500)))
    archive[archive.rindex(b"PK\5\6") + 13] = 1  # the directory of the archive is 256 bytes larger
    with pytest.raises(BadBundle, match="damaged"):
        unpacked(tmp_path, bytes(archive))


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_damage_to_an_archive_brings_more_than_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    archive = bytearray(
        data.draw(
            st.sampled_from(
                [
                    zipped(("a/b", PROGRAM), ("c", b"x" * 500)),
                    tarred((member("a/b"), PROGRAM), (member("c"), b"x" * 500), mode="w"),
                    tarred((member("a/b"), PROGRAM), (member("c"), b"x" * 500)),
                ]
            )
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    with suppress(BadBundle):
        unpacked(folder, bytes(archive))
    found = {path.name for path in folder.iterdir()}
    assert found <= {"bundle", "tree"}
