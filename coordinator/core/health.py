"""How far a node and its devices are trusted: what was seen of them, and what follows from it.

A grade is of one device, or of the node as a whole. Each fact that speaks against it adds points, of
which half are forgotten in each half-life. A few make it SUSPECT: it is taken last. Many, or one fact
that leaves no doubt, make it QUARANTINED: nothing new is placed there, and what runs goes on. After a
rest it is on PROBATION: once nothing holds it any more a canary is asked for, and only one that passes
brings it back, as SUSPECT. Each quarantine rests twice as long as the one before, until all is forgotten.

Jobs that fail speak against a node as well, but a user's own fault follows him wherever he goes. So only a
job's first failure counts, only a fast one, and only the failures of several users together.

Rules of this file: values, and pure functions from a value, a fact and the time to the next value.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from coordinator.core.faults import POINT, Severity
from coordinator.core.replacing import replace

NODE = ""  # in place of a device's id
MOST_NOTES = 8
MOST_WITNESSES = 16
MOST_GRADES = 1024


class HealthState(StrEnum):
    """How far a node or a device is trusted; the names of the public API."""

    HEALTHY = "HEALTHY"
    SUSPECT = "SUSPECT"
    PROBATION = "PROBATION"
    QUARANTINED = "QUARANTINED"


OUT = frozenset({HealthState.PROBATION, HealthState.QUARANTINED})
"""States in which nothing new is placed there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRules:
    """What may be tuned. Times in milliseconds; points in thousandths."""

    half_life_ms: int = 24 * 3_600_000
    suspect_points: int = 2 * POINT
    quarantine_points: int = 8 * POINT
    rest_ms: int = 600_000  # until a canary is asked for; doubles with each quarantine
    most_rest_ms: int = 24 * 3_600_000
    fast_ms: int = 120_000  # a rank that fails so soon is a fast failure
    window_ms: int = 3_600_000  # in which failures are seen together
    witnesses_weight: int = 3
    users_count: int = 2  # a node is not blamed for what happens to fewer; 0: it never is
    part: int = 3  # one in so many nodes may be out by the word of jobs: more, and it is the jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing that was seen, newest of its code."""

    code: str
    text: str
    at_ms: int
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What is held of a device or a node."""

    state: HealthState = HealthState.HEALTHY
    points: int = 0  # as of `at_ms`
    at_ms: int = 0
    since_ms: int = 0  # of the state
    until_ms: int = 0  # QUARANTINED: when its rest is over; 0: when somebody says so
    times: int = 0  # quarantines, until all is forgotten
    notes: tuple[Note, ...] = ()  # why, oldest first

    @property
    def is_out(self) -> bool:
        """Whether it takes nothing new."""
        return self.state in OUT

    @property
    def is_suspect(self) -> bool:
        """Whether it is taken last."""
        return self.state is HealthState.SUSPECT


CLEAN = Grade()


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """An attempt that failed on a node."""

    job_id: str
    attempt: int
    user: str  # with the tenant
    at_ms: int
    weight: int = 0  # 0 proves nothing; it may still be refunded
    counted: bool = False  # against max_retries
    device_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is held of a node and its devices. `asked` are the devices on which a canary is to run."""

    node: Grade = CLEAN
    devices: tuple[tuple[str, Grade], ...] = ()  # of which anything is held, by id
    witnesses: tuple[Witness, ...] = ()  # oldest first
    canary: int = 0  # number of the newest that was asked for
    asked: tuple[str, ...] = ()  # () for none to wait for

    def grade(self, device_id: str) -> Grade:
        """Of a device, or of NODE."""
        if device_id == NODE:
            return self.node
        return next((grade for id, grade in self.devices if id == device_id), CLEAN)

    def grades(self) -> Iterator[tuple[str, Grade]]:
        """All of which anything is held, the node's own first."""
        yield NODE, self.node
        yield from self.devices

    def out_devices(self) -> frozenset[str]:
        """Devices that take nothing new."""
        return frozenset(id for id, grade in self.devices if grade.is_out)

    def bars(self, device_ids: Iterable[str]) -> bool:
        """Whether nothing new may be placed on one of these devices of the node."""
        out = self.out_devices()
        return self.node.is_out or any(device_id in out for device_id in device_ids)

    def suspect_devices(self) -> Container[str]:
        """Devices that are better taken last."""
        return {id for id, grade in self.devices if grade.is_suspect}


SOUND = Health()


def points_of(grade: Grade, now_ms: int, *, rules: HealthRules) -> int:
    """The points that are left by now: by halves, and evenly within each half-life."""
    lives, rest_ms = divmod(max(0, now_ms - grade.at_ms), rules.half_life_ms)
    left = grade.points >> min(lives, 64)
    return left - left * rest_ms // (2 * rules.half_life_ms)


def noted(
    grade: Grade, note: Note, *, severity: Severity, now_ms: int, rules: HealthRules
) -> Grade:
    """The grade after something was seen."""
    points = points_of(grade, now_ms, rules=rules) + severity.points
    if not severity.is_proof:  # what any user can cause again and again takes nothing out
        points = min(points, max(grade.points, rules.quarantine_points - 1))
    after = replace(grade, points=points, at_ms=now_ms, notes=_with_note(grade.notes, note))
    falls = severity.points and (
        grade.state is HealthState.PROBATION or points >= rules.quarantine_points
    )
    if falls and severity.is_proof:
        return quarantined(after, now_ms=now_ms, rules=rules)
    if after.is_out or points < rules.suspect_points or after.state is HealthState.SUSPECT:
        return after
    return replace(after, state=HealthState.SUSPECT, since_ms=now_ms)


def quarantined(grade: Grade, *, now_ms: int, rules: HealthRules) -> Grade:
    """Out until a rest is over. What somebody has taken out stays so until he says otherwise."""
    again = grade.state is HealthState.QUARANTINED
    if again and not grade.until_ms:
        return grade
    times = grade.times if again else grade.times + 1
    rest_ms = min(rules.rest_ms << min(max(0, times - 1), 20), rules.most_rest_ms)
    return replace(
        grade,
        state=HealthState.QUARANTINED,
        points=max(grade.points, rules.quarantine_points),
        at_ms=now_ms,
        since_ms=grade.since_ms if again else now_ms,
        until_ms=now_ms + rest_ms,
        times=times,
    )


def suspected(grade: Grade, *, now_ms: int, rules: HealthRules) -> Grade:
    """At least SUSPECT, with points enough to stay so for a while."""
    if grade.is_out:
        return grade
    points = max(points_of(grade, now_ms, rules=rules), rules.suspect_points)
    since_ms = grade.since_ms if grade.is_suspect else now_ms
    return replace(grade, state=HealthState.SUSPECT, points=points, at_ms=now_ms, since_ms=since_ms)


def said(grade: Grade, state: HealthState, *, note: Note, rules: HealthRules) -> Grade:
    """The grade by somebody's word: HEALTHY forgets all, QUARANTINED stays until the next word."""
    notes = _with_note(grade.notes, note)
    if state is HealthState.HEALTHY:
        return replace(CLEAN, since_ms=note.at_ms, notes=(note,))
    points = max(points_of(grade, note.at_ms, rules=rules), rules.quarantine_points)
    return replace(
        grade,
        state=state,
        points=points,
        at_ms=note.at_ms,
        since_ms=grade.since_ms if grade.state is state else note.at_ms,
        until_ms=0,
        notes=notes,
    )


def faded(grade: Grade, *, now_ms: int, rules: HealthRules) -> Grade | None:
    """The grade as time has made it; None for one of which nothing is left to know."""
    if grade.state is HealthState.QUARANTINED:
        if not grade.until_ms or grade.until_ms > now_ms:
            return grade
        return replace(grade, state=HealthState.PROBATION, since_ms=now_ms, until_ms=0)
    due_ms = due_of(grade, rules=rules)
    if not due_ms or due_ms > now_ms:
        return grade
    if grade.state is HealthState.SUSPECT:
        grade = replace(grade, state=HealthState.HEALTHY, since_ms=now_ms)
        due_ms = due_of(grade, rules=rules)
    return grade if due_ms > now_ms else None


def due_of(grade: Grade, *, rules: HealthRules) -> int:
    """When `faded` has something to do; 0 for never."""
    match grade.state:
        case HealthState.QUARANTINED:
            return grade.until_ms
        case HealthState.PROBATION:
            return 0
        case HealthState.SUSPECT:
            least = rules.suspect_points // 2
        case HealthState.HEALTHY:
            least = POINT // 2
    if grade == CLEAN:
        return 0
    falls_ms = grade.at_ms + _fall_ms(grade.points, least, half_life_ms=rules.half_life_ms)
    if grade.state is HealthState.SUSPECT:
        return falls_ms
    seen_ms = max(grade.since_ms, *(note.at_ms for note in grade.notes), 0)
    return max(falls_ms, seen_ms + rules.half_life_ms)


def due_ms(health: Health, *, rules: HealthRules) -> int:
    """When time alone changes something; 0 for never."""
    found = (due_of(grade, rules=rules) for _, grade in health.grades())
    return min((at_ms for at_ms in found if at_ms), default=0)


def changed(health: Health, grades: Mapping[str, Grade | None]) -> Health:
    """With some grades instead of what was held; None is nothing."""
    node = grades.get(NODE, health.node) or CLEAN
    held = dict(health.devices) | {id: x or CLEAN for id, x in grades.items() if id != NODE}
    kept = sorted((id, grade) for id, grade in held.items() if grade != CLEAN)
    return replace(health, node=node, devices=tuple(kept[:MOST_GRADES]))


def witnessed(health: Health, witness: Witness) -> Health:
    """With one more failure; the oldest goes where there are too many."""
    return replace(health, witnesses=(*health.witnesses, witness)[-MOST_WITNESSES:])


def is_blamed(health: Health, *, now_ms: int, rules: HealthRules) -> bool:
    """Whether the failures of several users say together that it is the node."""
    lately = [x for x in health.witnesses if x.weight and now_ms - x.at_ms < rules.window_ms]
    weights: dict[str, int] = {}
    for one in lately:
        weights[one.job_id] = max(one.weight, weights.get(one.job_id, 0))
    users = {x.user for x in lately}
    enough = sum(weights.values()) >= rules.witnesses_weight
    return enough and 0 < rules.users_count <= len(users)


def wanted(health: Health, device_ids: Iterable[str]) -> tuple[str, ...]:
    """The devices, of those of the node, on which a canary is to run; () for none."""
    if health.asked:
        return ()
    if health.node.state is HealthState.PROBATION:
        return tuple(device_ids)
    trial = {id for id, grade in health.devices if grade.state is HealthState.PROBATION}
    return tuple(device_id for device_id in device_ids if device_id in trial)


def answered(
    health: Health, failed: Mapping[str, str], *, now_ms: int, rules: HealthRules
) -> Health:
    """After a canary; `failed` tells why, by device or NODE. Who has passed comes back as SUSPECT."""
    found: dict[str, Grade | None] = {}
    for id in (NODE, *health.asked):
        grade = health.grade(id)
        text = failed.get(id)
        if grade.state is HealthState.PROBATION and text is None and not (id == NODE and failed):
            note = Note(code="CANARY_PASSED", text="the canary passed", at_ms=now_ms)
            back = replace(grade, state=HealthState.HEALTHY, notes=_with_note(grade.notes, note))
            found[id] = suspected(back, now_ms=now_ms, rules=rules)
        elif text is not None or grade.state is HealthState.PROBATION:
            note = Note(code="CANARY_FAILED", text=text or "the canary failed", at_ms=now_ms)
            grade = replace(grade, notes=_with_note(grade.notes, note))
            found[id] = quarantined(grade, now_ms=now_ms, rules=rules)
    after = changed(replace(health, asked=()), found)
    return replace(after, witnesses=()) if health.node.is_out and not after.node.is_out else after


def _with_note(notes: tuple[Note, ...], note: Note) -> tuple[Note, ...]:
    """One note of each code, the newest last; what is the same again is counted."""
    same = next((x for x in notes if x.code == note.code), None)
    if same is not None:
        note = replace(note, count=same.count + note.count)
    return (*(x for x in notes if x is not same), note)[-MOST_NOTES:]


def _fall_ms(points: int, least: int, *, half_life_ms: int) -> int:
    """How long it takes until `points` are below `least`; rounded up."""
    lives = 0
    while points >> 1 >= least > 0:
        points >>= 1
        lives += 1
    if points < least or not points:
        return max(1, lives * half_life_ms)
    over = 2 * half_life_ms * (points - least + 1)
    return lives * half_life_ms + min(half_life_ms, -(-over // points))
