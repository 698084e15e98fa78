"""The spool room: follows the files of ranks, ships them, and proves checkpoints."""

from node_agent.spool.spool import Spool

__all__ = ["Spool"]
