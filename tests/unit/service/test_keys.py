"""Names of images: repositories, and what a name is once it is known what it stands for."""

from __future__ import annotations

import pytest

from scaimind.service.reach.keys import pinned, repository, same_repository

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torch", "torch"),
        ("torch:2.1", "torch"),
        (f"torch:2.1@{DIGEST}", "torch"),
        ("registry.example.org:5000/a/torch", "registry.example.org:5000/a/torch"),
        ("registry.example.org:5000/a/torch:2", "registry.example.org:5000/a/torch"),
    ],
)
def test_a_repository_is_a_name_without_tag_and_digest(name: str, expected: str) -> None:
    assert repository(name) == expected
    assert pinned(name, DIGEST) == f"{expected}@{DIGEST}"


def test_long_and_short_names_are_of_one_repository() -> None:
    assert same_repository("torch:2", f"docker.io/library/torch@{DIGEST}")
    assert not same_repository("torch:2", f"example.org/torch@{DIGEST}")
