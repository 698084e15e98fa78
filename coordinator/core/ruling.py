"""Why attempts had to give their devices up: kept with the decision, in the same commit.

Theory of operation. A ruling is all that a decision was made of: who needed devices, by which rule, who
was considered, what each would have lost, and who would have gone instead of one that went. So "why was I
preempted on Tuesday" is answered by what was decided then, by the version that decided it, and it can be
decided again (`replay.py`). One that the scheduler makes is kept when devices are set aside; one of a drain
when the attempt is really stopped, as a drain may be taken back before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from coordinator.core.cadence import SAVE_MS, awaited_ms, hears
from coordinator.core.reasons import Reason
from coordinator.core.records import WHOLE, Considered, Job, Kind, Lease, Ruling, Share
from coordinator.core.replacing import replace
from coordinator.core.replay import Rule
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn

MOST_TOLD = 16  # of those considered, that are kept beside those that go


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Who was considered, and who of them makes room by going."""

    victims: list[Job]  # that were chosen
    considered: list[Job]
    beside: Collection[str] = ()  # those who run nowhere on the nodes that were found first
    instead: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # of a victim: who else would go
    moves: Mapping[str, tuple[Share, ...]] = field(default_factory=dict)
    """Of the victims: who is moved, and where to."""


def loss_ms(job: Job, now_ms: int, *, settings: CoreSettings | None = None) -> int:
    """Device-milliseconds that are lost when the job's attempt is preempted now.

    Who has proven a checkpoint is taken to prove another, when asked or, by `settings`, as one is near.
    """
    attempt = job.attempt
    assert attempt is not None
    if not attempt.started_at_ms:
        return 0
    newest_ms = max(
        (x.created_at_ms for x in job.checkpoints if x.attempt == attempt.number), default=0
    )
    since_ms = now_ms - max(attempt.started_at_ms, newest_ms)
    if job.checkpoints and (
        hears(job) or (settings and awaited_ms(job, now_ms=now_ms, settings=settings))
    ):
        since_ms = min(since_ms, SAVE_MS)
    return job.demand.size * since_ms // WHOLE


def cost_ms(job: Job, now_ms: int, *, settings: CoreSettings | None = None) -> int:
    """Device-milliseconds that a preemption costs: what is lost, and what starting again takes, which is
    taken to be what it took this time."""
    attempt = job.attempt
    assert attempt is not None
    took_ms = max(0, attempt.started_at_ms - attempt.granted_at_ms)
    return loss_ms(job, now_ms, settings=settings) + job.demand.size * took_ms // WHOLE


def keep_ruling(
    turn: Turn,
    job: Job,
    *,
    node_ids: tuple[str, ...],
    choice: Choice,
) -> None:
    """Keeps why some are preempted for a job, before they are."""
    goes = {victim.job_id for victim in choice.victims}
    told = [
        _considered(turn, one, rule=_rule(job, victim=one, choice=choice), goes=one.job_id in goes)
        for one in choice.considered
    ]
    needed = goes.union(*choice.instead.values())
    told.sort(key=lambda one: (not one.goes, one.job_id not in needed, one.loss_ms, one.job_id))
    del told[max(MOST_TOLD, len(needed)) :]
    told.sort(key=lambda one: (not one.goes, one.loss_ms, one.job_id))
    places = {one.job_id: place for place, one in enumerate(told)}
    for place, one in enumerate(told):
        instead = choice.instead.get(one.job_id)
        told[place] = replace(
            one,
            beside=one.job_id in choice.beside,
            instead=None if instead is None else tuple(sorted(map(places.__getitem__, instead))),
        )
    ruling = Ruling(
        job_id=job.job_id,
        at_ms=turn.now_ms,
        queue_name=job.queue_name,
        priority=job.standing,
        devices_milli=job.demand.size,
        node_ids=node_ids,
        considered=tuple(told),
    )
    _put(turn, ruling)


def keep_request(turn: Turn, job: Job, *, reason: str) -> None:
    """Keeps that somebody asked for a job's preemption."""
    attempt = job.attempt
    node_ids = tuple(share.node_id for share in attempt.shares) if attempt else ()
    told = _considered(turn, job, rule=Rule.REQUEST)
    _put(turn, _for_nobody(turn, told, node_ids=node_ids, reason=reason, actor=turn.actor))


def keep_drain(turn: Turn, job: Job, *, leases: Sequence[Lease]) -> None:
    """Keeps for which drain a job is stopped."""
    nodes = [turn.state.nodes.get(lease.node_id) for lease in leases]
    drains = [(node.node_id, node.drain) for node in nodes if node and node.drain]
    drain = drains[0][1] if drains else None  # none where it was taken back too late
    ruling = _for_nobody(
        turn,
        _considered(turn, job, rule=Rule.DRAIN),
        node_ids=tuple(node_id for node_id, _ in drains),
        reason=drain.reason if drain else "",
        actor=drain.actor if drain else "",
    )
    _put(turn, ruling)


def _for_nobody(
    turn: Turn, told: Considered, *, node_ids: tuple[str, ...], reason: str, actor: str
) -> Ruling:
    return Ruling(
        job_id="",
        at_ms=turn.now_ms,
        queue_name="",
        priority=0,
        devices_milli=0,
        node_ids=node_ids,
        considered=(told,),
        reason=reason,
        actor=actor,
    )


def _put(turn: Turn, ruling: Ruling) -> None:
    """Lets old rulings go, one more than comes."""
    rulings, settings = turn.state.rulings, turn.state.settings
    for id in [*islice(rulings, 2)]:
        too_old = rulings[id].at_ms < turn.now_ms - settings.ruling_ttl_ms
        if too_old or len(rulings) >= settings.max_rulings:
            turn.retire(Kind.RULING, id)
    turn.put(ruling, Reason.RULED)


def _considered(turn: Turn, victim: Job, *, rule: Rule, goes: bool = True) -> Considered:
    assert victim.attempt is not None
    settings = turn.state.settings
    lost_ms = loss_ms(victim, turn.now_ms, settings=settings)
    again_ms = cost_ms(victim, turn.now_ms, settings=settings) - lost_ms
    if rule is Rule.MOVED:  # only once a checkpoint is proven
        lost_ms = min(lost_ms, SAVE_MS * victim.demand.size // WHOLE)
    return Considered(
        job_id=victim.job_id,
        attempt=victim.attempt.number,
        rule=rule.value,
        loss_ms=lost_ms + again_ms,
        goes=goes,
        awaited_ms=awaited_ms(victim, now_ms=turn.now_ms, settings=settings)
        if goes and rule is not Rule.DRAIN
        else 0,
    )


def _rule(job: Job, *, victim: Job, choice: Choice) -> Rule:
    if victim.job_id in choice.moves:
        return Rule.MOVED
    if victim.attempt is not None and victim.attempt.lent_by == job.job_id:
        return Rule.LENT
    if victim.queue_name != job.queue_name:
        return Rule.GUARANTEE
    return Rule.PRIORITY if victim.standing < job.standing else Rule.LESS_TO_DO
