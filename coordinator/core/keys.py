"""API keys are kept as they come; who may have which is the border's to judge."""

from __future__ import annotations

from coordinator.core.commands import PutKey
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.requests import recall, remember
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn


def put_key(turn: Turn, command: PutKey, *, settings: CoreSettings) -> Reply | Rejected:
    """Keeps a key, new or changed; one that is revoked stays as it is."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    key = turn.state.keys.get(command.key.key_id)
    if key is None or not key.revoked_at_ms:  # of two who revoke it at once the first one does
        key = command.key
        turn.put(key, Reason.KEY_CHANGED)
    reply = Reply(key=key, salt=command.salt)
    return remember(turn, command.caller, reply=reply, settings=settings)
