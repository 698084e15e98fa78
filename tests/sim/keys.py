"""API keys and credentials of nodes: who asks for them, and what must come of it. Few worlds have any."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from random import Random

from coordinator.core.commands import Caller, Command, JoinNode, PutKey
from coordinator.core.decision import Changed, Event, Rejected, Reply, Retired
from coordinator.core.reasons import Reason
from coordinator.core.records import Key, Kind, node_key_id
from tests.sim.clock import SECOND
from tests.sim.coordinator import SimCoordinator
from tests.sim.kept import RecordsKept
from tests.sim.people import OPERATOR, People, Wish
from tests.sim.plans import TENANTS
from tests.sim.truth import Checker, SimFailure, Truth


def digest_of(*words: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256("/".join(words).encode()).hexdigest()


class KeyRing:
    """Those who make keys, take them back, and join as nodes."""

    def __init__(
        self, people: People, rng: Random, *, coordinator: SimCoordinator, truth: Truth
    ) -> None:
        self._people = people
        self._rng = rng
        self._coordinator = coordinator
        self._truth = truth
        self._made = 0

    def make(self) -> None:
        """An operator makes a key; each time that it is asked for, another secret is drawn."""
        caller = self._people.caller("key", OPERATOR)
        tenant_id, request = self._rng.choice(TENANTS), caller.request_id

        def renewed(wish: Wish) -> Command:
            self._made += 1
            key_id, salt = f"key_{self._made}", f"salt{self._made}"
            self._truth.asked.keys[key_id] = request
            key = Key(
                key_id=key_id,
                sha256=digest_of(key_id, salt),
                tenant_id=tenant_id,
                user_id=f"key:{key_id}",
                permissions=("JOBS_READ",),
                created_at_ms=self._coordinator.clock.now_ms(),
            )
            return PutKey(caller=caller, key=key, salt=salt)

        def heard(reply: Reply | Rejected) -> None:
            key = reply.key if isinstance(reply, Reply) else None
            if not isinstance(reply, Reply) or key is None:
                raise SimFailure(f"a key is refused: {reply}")
            if digest_of(key.key_id, reply.salt) != key.sha256:
                raise SimFailure(f"{key.key_id} is told with the secret of another", key.key_id)
            self._truth.acknowledge("key", key.key_id, 0)
            if self._rng.random() < 0.6:
                self._people.after(
                    self._rng.randint(0, 60) * SECOND, lambda: self._revoke(key.key_id)
                )

        self._people.ask("key", renewed=renewed, heard=heard)

    def _revoke(self, key_id: str) -> None:
        caller = self._people.caller("revoke", OPERATOR)

        def renewed(wish: Wish) -> Command | None:
            known = self._coordinator.view.keys.get(key_id)
            if known is None:
                return None  # a store has lost it
            at_ms = known.revoked_at_ms or self._coordinator.clock.now_ms()
            return PutKey(caller=caller, key=replace(known, revoked_at_ms=at_ms))

        def heard(reply: Reply | Rejected) -> None:
            if not isinstance(reply, Reply) or reply.key is None or not reply.key.revoked_at_ms:
                raise SimFailure(f"{key_id} is not revoked: {reply}", key_id)
            self._truth.acknowledge("revoke", key_id, 0)

        self._people.ask("revoke", renewed=renewed, heard=heard)

    def join(self, node_id: str, secret: str) -> None:
        """Who has a secret joins under a name, the first time or again."""
        sha256 = digest_of(node_id, secret)

        def heard(reply: Reply | Rejected) -> None:
            self._truth.looked["joins"] += 1
            held = self._truth.asked.credentials.get(node_id, set())
            if isinstance(reply, Rejected):
                if reply.reason is not Reason.NODE_NAME_TAKEN or not held - {sha256}:
                    raise SimFailure(f"{node_id} cannot join: {reply}", node_id)
            elif reply.key is None or reply.key.sha256 != sha256:
                raise SimFailure(f"{node_id} is told of the credential of another", node_id)

        self._people.ask("join", JoinNode(node_id=node_id, sha256=sha256), heard=heard)


class KeysStay(Checker):
    """One request is one key; what is revoked stays so; a node's credential goes only with the node."""

    facts = (Key, Retired)

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._keys: dict[str, Key] = {}
        self._told: dict[str, str] = {}  # key → what somebody was told of it last
        self._leaving: dict[str, int] = {}  # credential → commit in which its node went

    def rewound(self, store: RecordsKept) -> None:
        self._keys = {x.key_id: x for x in store.live.values() if isinstance(x, Key)}
        self._told.clear()
        self._leaving.clear()

    def committed(self, event: Event, number: int) -> None:
        if any(at != number for at in self._leaving.values()):
            raise SimFailure(f"nodes are gone and may still come in: {self._leaving}")
        if isinstance(event, Retired) and event.kind is Kind.NODE:
            if node_key_id(event.id) in self._keys:
                self._leaving[node_key_id(event.id)] = number
        elif isinstance(event, Retired) and event.kind is Kind.KEY:
            node_id = self._keys.pop(event.id).node_id
            self._leaving.pop(event.id, None)
            if node_id not in self._truth.asked.removed:
                raise SimFailure(f"the credential of {event.id} is gone, and nobody asked", node_id)
        elif isinstance(event, Changed) and isinstance(event.record, Key):
            self._put(event.record)

    def _put(self, key: Key) -> None:
        before = self._keys.get(key.key_id)
        self._keys[key.key_id] = key
        if key.node_id:
            self._truth.asked.credentials.setdefault(key.node_id, set()).add(key.sha256)
        if before is not None and replace(before, revoked_at_ms=key.revoked_at_ms) != key:
            raise SimFailure(f"{key.key_id} becomes another key", key.key_id)
        if before is not None and before.revoked_at_ms and not key.revoked_at_ms:
            raise SimFailure(f"{key.key_id} was revoked, and is good again", key.key_id)
        request = self._truth.asked.keys.get(key.key_id)
        same = [id for id in self._keys if request and self._truth.asked.keys.get(id) == request]
        if len(same) > 1:
            raise SimFailure(f"one request gave the keys {same}", *same)

    def acknowledged(self, what: str, id: str, number: int) -> None:
        if what in ("key", "revoke") and id in self._keys:
            self._told[id] = what
            self.settled()
        elif what in ("key", "revoke") and not self._truth.rewinds:
            raise SimFailure(f"{id} was told and is not kept", id)

    def settled(self) -> None:
        for key_id, what in self._told.items():
            key = self._keys.get(key_id)
            if key is None or (what == "revoke" and not key.revoked_at_ms):
                raise SimFailure(f"what was told of {key_id} does not hold", key_id)


__all__ = ["Caller", "KeyRing", "KeysStay"]
