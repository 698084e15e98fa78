"""A node's credential: whoever joins under a name first holds it, until an admin removes the node.

The join token opens this door and no other, so that a stolen one never becomes a node that exists. The
agent chooses its secret and tells the digest; told again, as after a lost answer, it changes nothing.
"""

from __future__ import annotations

from coordinator.core.commands import JoinNode
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Key, Kind, node_key_id
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn


def join(turn: Turn, command: JoinNode, *, settings: CoreSettings) -> Reply | Rejected:
    """Keeps the credential of a node that has none."""
    known = turn.state.keys.get(node_key_id(command.node_id))
    if known is not None and known.sha256 == command.sha256:
        return Reply(key=known)
    if known is not None:
        text = f"node {command.node_id} has another credential; remove it, or take another name"
        return Rejected(reason=Reason.NODE_NAME_TAKEN, message=text, field="node_id")
    if len(turn.state.keys) >= settings.max_keys:
        return Rejected(reason=Reason.OVERLOADED, message="too many nodes have joined")
    key = Key(
        key_id=node_key_id(command.node_id),
        sha256=command.sha256,
        tenant_id="",
        user_id="",
        permissions=(),
        created_at_ms=turn.now_ms,
        node_id=command.node_id,
    )
    turn.put(key, Reason.KEY_CHANGED)
    return Reply(key=key)


def expel(turn: Turn, node_id: str) -> bool:
    """Takes the credential from a node; whether it had one. Its name is free again."""
    key_id = node_key_id(node_id)
    if key_id not in turn.state.keys:
        return False
    turn.retire(Kind.KEY, key_id)
    return True
