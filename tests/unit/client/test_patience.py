"""When a caller tries again, when it gives up, and where a stream goes on."""

from __future__ import annotations

import pytest

from scaimind.client import DeadlineExceeded, NotFound, Unavailable, calls
from scaimind.client.patience import STEADY_S, Follow, Patience, Watch, is_settled
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import StreamJobLogsRequest
from scaimind.v1.stream_pb2 import LogEvent, StreamEnd

Job = job_pb2.Job
AWAY = Unavailable("away")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def patience(clock: Clock, *, total_s: float = 10, drawn: float = 1.0) -> Patience:
    return Patience(total_s, clock=clock, draw=lambda: drawn)


def test_the_limit_of_the_delay_doubles_up_to_two_seconds() -> None:
    patient = patience(Clock(), total_s=100)
    delays = [patient.delay_s(AWAY) for _ in range(7)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_a_delay_is_drawn_from_zero_to_the_limit() -> None:
    assert patience(Clock(), drawn=0.0).delay_s(AWAY) == 0.0
    assert patience(Clock(), drawn=0.5).delay_s(AWAY) == pytest.approx(0.05)


def test_the_server_may_ask_for_more_patience_within_bounds() -> None:
    patient = patience(Clock(), drawn=0.0)
    assert patient.delay_s(Unavailable("away", retry_after_s=1.5)) == 1.5
    assert patient.delay_s(Unavailable("away", retry_after_s=3600)) == 2.0


def test_an_outage_that_lasts_too_long_is_raised() -> None:
    clock = Clock()
    patient = patience(clock)
    patient.delay_s(AWAY)
    clock.now_s += 9.9
    assert patient.delay_s(AWAY) <= 0.1
    clock.now_s += 0.2
    with pytest.raises(Unavailable):
        patient.delay_s(AWAY)


def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(NotFound):
        patience(Clock()).delay_s(NotFound("gone"))


def asked(follow: Follow[LogEvent]) -> StreamJobLogsRequest:
    request = follow.call().request
    assert isinstance(request, StreamJobLogsRequest)
    return request


def test_a_stream_goes_on_after_the_last_event() -> None:
    follow = Follow(calls.logs("job_1", tail=-1), patience(Clock()))
    assert asked(follow).after == ""
    follow.see(LogEvent(id="c7"))
    follow.see(LogEvent())
    assert asked(follow).after == "c7"
    assert asked(follow).tail == -1


def test_a_stream_that_closes_after_its_end_is_done() -> None:
    follow = Follow(calls.logs("job_1"), patience(Clock()))
    follow.see(LogEvent(id="c8", end=StreamEnd(status=Job.COMPLETED)))
    assert follow.ended
    assert follow.closed() is None


def test_an_event_ends_an_outage() -> None:
    clock = Clock()
    follow = Follow(calls.logs("job_1"), patience(clock), clock=clock)
    for _ in range(5):
        follow.call()
        clock.now_s += 8
        follow.see(LogEvent(id="c"))
        assert follow.broken(AWAY) >= 0


def test_a_quiet_connection_that_held_ends_an_outage() -> None:
    clock = Clock()
    follow = Follow(calls.logs("job_1"), patience(clock), clock=clock)
    for _ in range(5):
        follow.call()
        clock.now_s += STEADY_S
        assert follow.broken(AWAY) >= 0
    follow.call()
    clock.now_s += 11
    with pytest.raises(Unavailable):
        follow.broken(AWAY)


@pytest.mark.parametrize("status", [Job.COMPLETED, Job.FAILED, Job.CANCELLED])
def test_final_jobs_are_settled(status: job_pb2.Job.Status.ValueType) -> None:
    assert is_settled(Job(status=status))


def test_a_preempted_job_is_settled_unless_it_queues_again_by_itself() -> None:
    job = Job(status=Job.PREEMPTED)
    assert not is_settled(job)
    job.scheduling_config.requeue_on_preemption = True
    assert not is_settled(job)
    job.scheduling_config.requeue_on_preemption = False
    assert is_settled(job)


def test_a_watch_looks_less_often_with_time_and_tells_changes_once() -> None:
    seen: list[int] = []
    watch = Watch(lambda job: seen.append(job.version), None, clock=Clock())
    running = Job(status=Job.TRAINING, version=1)
    looks = [watch.see(running) for _ in range(9)]
    assert looks[0] == 0.1
    assert looks[-1] == 1.0
    assert watch.see(Job(status=Job.COMPLETED, version=2)) is None
    assert seen == [1, 2]


def test_a_watch_ends_in_time() -> None:
    clock = Clock()
    watch = Watch(None, 0.05, clock=clock)
    assert watch.see(Job(status=Job.QUEUED)) == pytest.approx(0.05)
    clock.now_s += 0.05
    with pytest.raises(DeadlineExceeded):
        watch.see(Job(job_id="job_1", status=Job.QUEUED))
