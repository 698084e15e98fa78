"""A kept ruling decided again: from what it was made of, or from that with something changed.

Theory of operation. Who has to go is a choice between sets of attempts, each of which makes room by
ending: `thin` lets those stay that are not needed, the dearest first. Live it asks the scheduler on a supposed
state whether there is room still. A ruling keeps the sets that are enough, so there the same is read from it:
those that went and, for each of them, those whom the scheduler found when it was asked without that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from coordinator.core.notes import Considered, Ruling
from coordinator.core.order import HIGHEST_PRIORITY


class Rule(StrEnum):
    """Why an attempt has to give its devices up."""

    PRIORITY = "PRIORITY"  # the job's is higher, in the same queue
    LESS_TO_DO = "LESS_TO_DO"  # the job has less left to do, by a factor, in the same queue
    GUARANTEE = "GUARANTEE"  # the job's queue holds less than it is guaranteed, the other's more
    LENT = (
        "LENT"  # it was lent what was set aside for the job, and has it still when its time comes
    )
    MOVED = "MOVED"  # it goes on elsewhere at once, so that the job has its devices close together
    DRAIN = "DRAIN"  # a node of it is being emptied
    REQUEST = "REQUEST"  # somebody asked for it


BY_PRIORITY = (Rule.PRIORITY, Rule.LESS_TO_DO)
BY_CHOICE = (*BY_PRIORITY, Rule.GUARANTEE)  # of several that might go; the others leave no choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Otherwise:
    """What one of the considered might have been like, instead of what it was."""

    loss_ms: int | None = None  # device-milliseconds that it would have lost
    priority: int | None = None
    preemptible: bool = True


@dataclass(frozen=True, slots=True)
class Spared:
    """A change by which an attempt would have stayed, and the jobs that would have gone instead.

    Those who went anyway are not named. Nobody is where others were not enough: the job would have waited.
    """

    change: str
    instead: tuple[str, ...]


def thin(losses_ms: Mapping[str, int], may_stay: Callable[[str], bool]) -> list[str]:
    """Who has to go, the dearest first: each stays if `may_stay` says that there is room without it
    and without those who stay already."""
    dearest = sorted(losses_ms, key=lambda name: (-losses_ms[name], name))
    return [name for name in dearest if not may_stay(name)]


def decide(
    ruling: Ruling, *, changed: Mapping[str, Otherwise] | None = None
) -> tuple[str, ...] | None:
    """The jobs that go, in order of their names; `changed` tells by job who was otherwise.

    None where too little was kept to tell; () where nobody goes, as those who still may are not enough.
    """
    if not _is_kept(ruling):
        return None
    changed = changed or {}
    considered = ruling.considered
    may_go = {
        one.job_id
        for one in considered
        if _may_go(ruling, one, otherwise=changed.get(one.job_id, Otherwise()))
    }
    went = frozenset(one.job_id for one in considered if one.goes)
    if _has_moves(ruling):  # found together; what else might have been done was not sought
        return tuple(sorted(went)) if went <= may_go else None
    instead = {
        one.job_id: frozenset(considered[place].job_id for place in one.instead)
        for one in considered
        if one.instead is not None
    }
    for name in sorted(went - may_go):  # it was sought on without this one
        found = instead.get(name)
        return None if found is None or not found <= may_go else tuple(sorted(found))
    enough = [went, *(one for one in instead.values() if one)]
    left = set(may_go)

    def may_stay(name: str) -> bool:
        is_enough = any(one <= left - {name} for one in enough)
        left.difference_update((name,) if is_enough else ())
        return is_enough

    for is_beside in (True, False):
        losses_ms = {
            one.job_id: _loss_ms(one, changed)
            for one in considered
            if one.beside is is_beside and one.job_id in may_go
        }
        thin(losses_ms, may_stay)
    return tuple(sorted(left))


def is_same(ruling: Ruling) -> bool | None:
    """Whether it comes out the same when it is decided again; None where that cannot be told."""
    found = decide(ruling)
    if found is None:
        return None
    return found == tuple(sorted(one.job_id for one in ruling.considered if one.goes))


def spared(ruling: Ruling, job_id: str) -> list[Spared]:
    """What would have kept one of those that went; nothing where that was not found out."""
    own = next(one for one in ruling.considered if one.job_id == job_id)
    if own.instead is None:
        return []
    wishes = {"preemptible=false": Otherwise(preemptible=False)}
    if own.rule in BY_PRIORITY and ruling.priority < HIGHEST_PRIORITY:
        higher = ruling.priority + 1
        wishes = {f"priority={higher}": Otherwise(priority=higher), **wishes}
    went = {one.job_id for one in ruling.considered if one.goes}
    found = []
    for text, otherwise in wishes.items():
        go = decide(ruling, changed={job_id: otherwise}) or ()
        found.append(Spared(text, tuple(name for name in go if name not in went)))
    return found


def _is_kept(ruling: Ruling) -> bool:
    """Whether it is known who would have gone instead, or there was no choice."""
    return (
        any(one.instead is not None for one in ruling.considered)
        or all(one.goes and one.rule not in BY_CHOICE for one in ruling.considered)
        or _has_moves(ruling)
    )


def _has_moves(ruling: Ruling) -> bool:
    return any(one.rule == Rule.MOVED for one in ruling.considered)


def _may_go(ruling: Ruling, one: Considered, *, otherwise: Otherwise) -> bool:
    if not otherwise.preemptible:
        return False
    higher = otherwise.priority is not None and otherwise.priority > ruling.priority
    return not (higher and one.rule in BY_PRIORITY)


def _loss_ms(one: Considered, changed: Mapping[str, Otherwise]) -> int:
    loss_ms = changed.get(one.job_id, Otherwise()).loss_ms
    return one.loss_ms if loss_ms is None else loss_ms
