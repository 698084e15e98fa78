"""The silence of a training, as the spool sees it: rank 0 speaks, and a restart forgets no cadence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from node_agent.core.cadence import REPORTS_LEAST, SILENCE_LEAST_MS
from node_agent.ranks import EVENTS, STDOUT
from node_agent.spool.rank_spool import RankSpool
from tests.unit.node_agent.spool.test_checkpoints import rank_files


class Rank:
    """A rank that reports steps, and the spool that looks at it every second."""

    def __init__(self, root: Path, *, rank: int = 0, hang_after_ms: int = 0) -> None:
        self.files = replace(rank_files(root), rank=rank, hang_after_ms=hang_after_ms)
        self.now_ms = 1_000_000
        self.start()

    def start(self) -> None:
        """An agent begins, or begins again."""
        self.spool = RankSpool(
            self.files, boot="b", on_saved=lambda event, end: None, on_done=lambda: None
        )

    def passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_ms += 1_000
            self.spool.look(self.now_ms)

    def report(self, step: int) -> None:
        with (self.files.path / EVENTS).open("a") as file:
            file.write(json.dumps({"event": "metrics", "step": step, "values": {"a": 1}}) + "\n")
        self.read()

    def read(self) -> None:
        channel = self.spool.events
        while (batch := channel.next_batch(now_ms=self.now_ms)) is not None:
            channel.acknowledge(batch.end, counted=0)


def test_a_training_that_has_shown_its_cadence_is_silent_after_a_while(tmp_path: Path) -> None:
    rank = Rank(tmp_path)
    (rank.files.path / STDOUT).touch()
    for step in range(REPORTS_LEAST):
        rank.passes(1)
        rank.report(step)
    last_ms = rank.now_ms
    rank.spool.save()
    rank.start()  # what was reported before is read again, and is no news
    rank.read()
    rank.passes(SILENCE_LEAST_MS // 1_000)
    assert rank.spool.silent_since_ms == 0  # the new agent had not looked at its first second
    rank.passes(1)
    assert rank.spool.silent_since_ms == last_ms
    rank.report(99)
    assert rank.spool.silent_since_ms == 0


def test_a_limit_counts_once_the_rank_has_begun_and_other_ranks_speak_for_nobody(
    tmp_path: Path,
) -> None:
    main = Rank(tmp_path, hang_after_ms=10_000)
    other = Rank(tmp_path / "other", rank=1, hang_after_ms=10_000)
    (other.files.path / STDOUT).touch()
    main.passes(60)
    assert main.spool.silent_since_ms == 0
    (main.files.path / STDOUT).touch()
    main.passes(11)
    other.passes(60)
    assert main.spool.silent_since_ms > 0
    assert other.spool.silent_since_ms == 0
    main.spool.end()
    assert main.spool.silent_since_ms == 0
