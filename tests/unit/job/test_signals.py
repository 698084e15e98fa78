"""Requests to stop and to save arrive as signals."""

import os
import signal
import threading

import pytest

from scaimind.job import Attempt
from scaimind.job.environment import read
from tests.unit.job.conftest import Events
from tests.unit.job.test_checkpoints import save


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_no_request_is_there_before_a_signal(run: Attempt) -> None:
    assert (run.should_stop, run.should_checkpoint) == (False, False)


def test_sigterm_asks_to_stop(run: Attempt) -> None:
    send(signal.SIGTERM)
    assert (run.should_stop, run.should_checkpoint) == (True, False)


def test_sigusr1_asks_for_a_checkpoint_until_one_is_saved(run: Attempt) -> None:
    send(signal.SIGUSR1)
    send(signal.SIGUSR1)
    assert run.should_checkpoint
    assert not run.should_stop
    save(run, 1)
    assert not run.should_checkpoint


def test_a_request_during_a_save_asks_for_another(run: Attempt) -> None:
    send(signal.SIGUSR1)
    with run.checkpoint(1) as folder:
        (folder / "model").write_text("older than the request")
        send(signal.SIGUSR1)
    assert run.should_checkpoint
    save(run, 2)
    assert not run.should_checkpoint


def test_a_save_that_failed_does_not_answer_the_request(run: Attempt) -> None:
    send(signal.SIGUSR1)
    with pytest.raises(RuntimeError), run.checkpoint(1):
        raise RuntimeError
    assert run.should_checkpoint


def test_a_checkpoint_of_other_code_answers_the_request(run: Attempt) -> None:
    send(signal.SIGUSR1)
    run.checkpoint_saved("checkpoint-1", step=1)
    assert not run.should_checkpoint


def test_a_stopped_block_does_not_say_done_unless_the_script_does(
    run: Attempt, events: Events
) -> None:
    with run:
        send(signal.SIGTERM)
    assert events() == []
    with run:
        run.done()
    assert events() == [{"event": "done"}]


def test_handlers_that_were_there_before_are_called_too(environ: dict[str, str]) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    run = Attempt(read(environ))
    send(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert run.should_stop


def test_off_the_main_thread_signals_are_left_alone(environ: dict[str, str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    made: list[Attempt] = []
    thread = threading.Thread(target=lambda: made.append(Attempt(read(environ))))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
    assert not made[0].should_stop


def test_a_forked_child_dies_of_sigterm_and_not_of_sigusr1(run: Attempt) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.write(tell, b"alive")
        while True:
            signal.pause()
    try:
        assert os.read(ready, 5) == b"alive"
    finally:
        os.kill(child, signal.SIGTERM)
        status = os.waitpid(child, 0)[1]
        os.close(ready)
        os.close(tell)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert not run.should_stop
    assert not run.should_checkpoint
