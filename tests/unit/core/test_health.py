"""Grades: points add up and fade, facts move them as the table allows, and what is out is placed nowhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.commands import SetHealth
from coordinator.core.explain import explain
from coordinator.core.faults import POINT, TABLE, Fault, Severity, severity_of
from coordinator.core.health import (
    CLEAN,
    NODE,
    SOUND,
    Grade,
    Health,
    HealthRules,
    HealthState,
    Note,
    Witness,
    answered,
    changed,
    due_of,
    faded,
    is_blamed,
    noted,
    points_of,
    quarantined,
    wanted,
    witnessed,
)
from coordinator.core.reasons import Reason
from tests.unit.core.conftest import Bench, caller, offer

RULES = HealthRules()
HOUR_MS = 3_600_000
GRADES = st.builds(
    Grade,
    state=st.sampled_from((HealthState.HEALTHY, HealthState.SUSPECT)),
    points=st.integers(0, 64 * POINT),
    at_ms=st.integers(0, 10 * HOUR_MS),
    since_ms=st.integers(0, 10 * HOUR_MS),
)


def seen(grade: Grade, code: str, *, now_ms: int = 0) -> Grade:
    note = Note(code=code, text="", at_ms=now_ms)
    return noted(grade, note, severity=severity_of(code), now_ms=now_ms, rules=RULES)


def failed(job_id: str, user: str, *, at_ms: int = 0, weight: int = 1) -> Witness:
    return Witness(job_id=job_id, attempt=1, user=user, at_ms=at_ms, weight=weight)


@given(GRADES, st.integers(0, 400 * HOUR_MS), st.integers(0, 400 * HOUR_MS))
def test_points_only_fall_with_time_and_by_half_in_a_half_life(
    grade: Grade, one_ms: int, more_ms: int
) -> None:
    now_ms = grade.at_ms + one_ms
    points = points_of(grade, now_ms, rules=RULES)
    assert 0 <= points_of(grade, now_ms + more_ms, rules=RULES) <= points <= grade.points
    later = points_of(grade, now_ms + RULES.half_life_ms, rules=RULES)
    assert abs(2 * later - points) <= 2


@given(GRADES)
def test_what_is_due_by_time_changes_something_when_it_comes(grade: Grade) -> None:
    due_ms = due_of(grade, rules=RULES)
    if grade != CLEAN:
        after = faded(grade, now_ms=due_ms, rules=RULES)
        assert after != grade
        assert after is None or due_of(after, rules=RULES) > due_ms


def test_what_programs_cause_takes_nothing_out_however_often() -> None:
    grade = CLEAN
    for _ in range(100):
        grade = seen(grade, "XID_13")
    assert grade.state is HealthState.SUSPECT
    assert grade.notes[-1].count == 100


@pytest.mark.parametrize("code", ["XID_48", "XID_79", "XID_4711", "ROW_REMAP_FAILED"])
def test_what_leaves_no_doubt_takes_a_device_out_at_once(code: str) -> None:
    grade = seen(CLEAN, code)
    assert grade.state is HealthState.QUARANTINED
    assert grade.until_ms == RULES.rest_ms


def test_trouble_takes_a_device_out_when_it_comes_again_before_it_is_forgotten() -> None:
    once = seen(CLEAN, "NOT_ANSWERING")
    assert once.state is HealthState.SUSPECT
    assert seen(once, "NOT_ANSWERING").is_out
    assert not seen(once, "NOT_ANSWERING", now_ms=10 * RULES.half_life_ms).is_out


def test_what_is_only_noted_adds_nothing() -> None:
    assert seen(CLEAN, "XID_63").points == 0
    assert {TABLE[code] for code in ("XID_63", "XID_92")} == {Severity.NOTED}


def test_each_quarantine_rests_twice_as_long_and_never_longer_than_the_most() -> None:
    grade, rests = CLEAN, []
    for _ in range(12):
        grade = quarantined(replace(grade, state=HealthState.SUSPECT), now_ms=0, rules=RULES)
        rests.append(grade.until_ms)
    assert rests[:3] == [RULES.rest_ms, 2 * RULES.rest_ms, 4 * RULES.rest_ms]
    assert max(rests) == RULES.most_rest_ms


def test_a_node_is_blamed_only_by_several_users_and_only_lately() -> None:
    health = SOUND
    for number in range(9):
        health = witnessed(health, failed(f"j{number}", "ada"))
    assert not is_blamed(health, now_ms=0, rules=RULES)
    health = witnessed(health, failed("j9", "bob"))
    assert is_blamed(health, now_ms=0, rules=RULES)
    assert not is_blamed(health, now_ms=RULES.window_ms, rules=RULES)
    assert not is_blamed(health, now_ms=0, rules=HealthRules(users_count=0))


def test_one_job_is_one_witness_however_often_it_fails() -> None:
    health = SOUND
    for job_id, user in (("j1", "ada"), ("j1", "ada"), ("j1", "ada"), ("j2", "bob")):
        health = witnessed(health, failed(job_id, user))
    assert not is_blamed(health, now_ms=0, rules=RULES)


def test_a_canary_brings_back_what_passes_and_keeps_what_fails() -> None:
    trial = Grade(state=HealthState.PROBATION, points=8 * POINT, times=1)
    health = changed(Health(), {"d0": trial, "d1": trial})
    assert wanted(health, ["d0", "d1", "d2"]) == ("d0", "d1")
    after = answered(
        replace(health, asked=("d0", "d1"), canary=1), {"d1": "bad"}, now_ms=0, rules=RULES
    )
    assert after.grade("d0").state is HealthState.SUSPECT
    assert after.grade("d1").state is HealthState.QUARANTINED
    assert after.grade("d1").until_ms == 2 * RULES.rest_ms
    assert after.asked == ()


def test_a_node_passes_only_where_all_of_its_devices_do() -> None:
    trial = Grade(state=HealthState.PROBATION, points=8 * POINT, times=1)
    health = replace(changed(Health(), {NODE: trial}), asked=("d0", "d1"), canary=1)
    assert wanted(replace(health, asked=()), ["d0", "d1"]) == ("d0", "d1")
    assert answered(health, {}, now_ms=0, rules=RULES).node.is_suspect
    after = answered(health, {"d1": "bad"}, now_ms=0, rules=RULES)
    assert after.node.state is HealthState.QUARANTINED
    assert after.grade("d1").state is HealthState.QUARANTINED
    assert after.grade("d0") == CLEAN


def with_faults(node_id: str, count: int, **faults: Fault) -> dict[str, object]:
    devices = offer(node_id, count).devices
    return {
        "devices": tuple(
            replace(one, faults=(faults[f"d{one.index}"],)) if f"d{one.index}" in faults else one
            for one in devices
        )
    }


def test_a_suspect_node_is_taken_last_and_its_suspect_device_after_the_others(bench: Bench) -> None:
    bench.node("n1", 2, **with_faults("n1", 2, d0=Fault("XID_13", 1)))
    bench.node("n1", 2, **with_faults("n1", 2, d0=Fault("XID_13", 2)))
    bench.node("n2", 4)
    for job_id, devices in (("j1", 1), ("j2", 3), ("j3", 1)):
        bench.submit(job_id, devices)
    assert bench.lease("j1.1.0").node_id == "n2"
    assert bench.lease("j3.1.0").device_ids == ("n1-1",)


def test_a_waiting_job_is_told_what_is_kept_out_and_why(bench: Bench) -> None:
    bench.node("n1", 2)
    bench.step(SetHealth(caller=caller(), node_id="n1", state=HealthState.QUARANTINED))
    bench.node("n2", 2, **with_faults("n2", 2, d0=Fault("XID_48", 1)))
    bench.submit("j1", 2)
    found = explain(bench.core.state, bench.job("j1"), now_ms=bench.now_ms)
    told = {one.reason: one.message for one in found.blockers}
    assert "n1 is QUARANTINED (SET_BY_ADMIN)" in told[Reason.NODE_QUARANTINED]
    assert "1 devices of n2 are QUARANTINED (XID_48)" in told[Reason.NODE_QUARANTINED]
    verdicts = {one.node_id: one.reason for one in found.verdicts}
    assert verdicts["n1"] is Reason.NODE_QUARANTINED
    assert verdicts["n2"] is None  # one device at a time is asked of it, and one is there
