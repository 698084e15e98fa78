"""The node's credential: made once, written down first, joined again only where it must."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest

from node_agent.credential import Credential
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2


class Coordinator:
    """Keeps what joins."""

    def __init__(self) -> None:
        self.joined: list[agent_pb2.JoinRequest] = []
        self.tokens: list[str] = []
        self.answers = True

    async def Join(
        self, request: agent_pb2.JoinRequest, *, timeout: float, metadata: Any
    ) -> agent_pb2.JoinResponse:
        self.joined.append(request)
        self.tokens.append(dict(metadata)["authorization"])
        if not self.answers:
            raise ConnectionError("the answer is lost")
        return agent_pb2.JoinResponse()


def credential(folder: Path, *, node_id: str = "n1", token: str = "hush") -> Credential:
    return Credential(folder, node_id=node_id, join_token=token)


def presented(made: Credential) -> str:
    return dict(made.metadata)["authorization"].removeprefix("Bearer ")


async def test_it_joins_once_and_is_the_same_at_each_start(tmp_path: Path) -> None:
    coordinator, first = Coordinator(), credential(tmp_path)
    assert first.metadata == ()
    for _ in range(2):
        await first.ready(coordinator)
    again = credential(tmp_path, token="")
    await again.ready(coordinator)
    assert presented(again) == presented(first)
    assert coordinator.tokens == ["Bearer hush"]
    digest = hashlib.sha256(presented(first).encode()).hexdigest()
    assert [one.credential_sha256 for one in coordinator.joined] == [digest]
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_lost_answer_is_asked_for_again_with_the_same_digest(tmp_path: Path) -> None:
    coordinator = Coordinator()
    coordinator.answers = False
    with pytest.raises(ConnectionError):
        await credential(tmp_path).ready(coordinator)
    coordinator.answers = True
    await credential(tmp_path).ready(coordinator)
    assert coordinator.joined[0] == coordinator.joined[1]


async def test_a_refused_one_is_replaced_and_kept_until_then(tmp_path: Path) -> None:
    coordinator, made = Coordinator(), credential(tmp_path)
    await made.ready(coordinator)
    before = presented(made)
    coordinator.answers = False
    made.refused()
    with pytest.raises(ConnectionError):
        await made.ready(coordinator)
    await made.ready(coordinator)  # nothing is asked: the old one is tried first
    assert len(coordinator.joined) == 2
    assert presented(made) == before == presented(credential(tmp_path))
    coordinator.answers = True
    made.refused()
    await made.ready(coordinator)
    assert presented(made) != before
    assert presented(credential(tmp_path)) == presented(made)


async def test_without_a_join_token_nothing_is_joined(tmp_path: Path) -> None:
    coordinator, made = Coordinator(), credential(tmp_path, token="")
    await made.ready(coordinator)
    assert made.metadata == ()
    assert not coordinator.joined


@pytest.mark.parametrize(
    "text", ["", "nk_", "nk_n1.short", "x" * 5000, "\xff", f"nk_n2.{'s' * 43}"]
)
async def test_what_is_no_credential_of_this_node_is_not_presented(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "node.key").write_text(text)
    coordinator, made = Coordinator(), credential(tmp_path)
    assert made.metadata == ()
    await made.ready(coordinator)
    assert presented(made).startswith("nk_n1.")
