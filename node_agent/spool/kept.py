"""A checkpoint that is proven, as the spool keeps it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from node_agent.ranks import ProvenCheckpoint


class Kept(msgspec.Struct, frozen=True):
    """A proven checkpoint and where it is."""

    path: str
    step: int
    checkpoint: ProvenCheckpoint
    rank: int = 0
    end: int = 0  # of its newest report

    @property
    def id(self) -> str:
        """The checkpoint's id."""
        return self.checkpoint.checkpoint_id

    @property
    def place(self) -> Path:
        """Where it is on this node."""
        return Path(self.path)
