"""What a name of an image stands for, by what an engine says."""

from __future__ import annotations

from node_agent.runtime.images import digest_of

ONE, TWO = (f"sha256:{letter * 64}" for letter in "12")


def test_the_digest_is_that_of_the_repository_that_was_named() -> None:
    image = {"RepoDigests": [f"other/app@{ONE}", f"docker.io/team/app@{TWO}"]}
    assert digest_of("team/app:v1", image) == TWO


def test_of_several_digests_all_nodes_take_the_same() -> None:
    digests = [f"app@{TWO}", f"app@{ONE}"]
    assert digest_of("app", {"RepoDigests": digests}) == ONE
    assert digest_of("app", {"RepoDigests": digests[::-1]}) == ONE


def test_a_name_with_a_digest_says_it_itself() -> None:
    assert digest_of(f"app:v1@{TWO}", {"RepoDigests": [f"app@{ONE}"]}) == TWO


def test_what_no_registry_has_and_what_is_no_digest_has_none() -> None:
    assert digest_of("localhost/app:1", {"RepoDigests": [f"localhost/app@{ONE}"]}) == ""
    assert digest_of("app", {"RepoDigests": None}) == ""
    assert digest_of("app", {"RepoDigests": ["app@<none>"]}) == ""
