"""What every runtime of the agent has to do."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from node_agent.core.leases import Category
from tests.contract.runtimes.conftest import Bench

GLIBC_INTERNAL = 1 << 31 | 1 << 32  # signals 32 and 33, which posix_spawn leaves ignored
OF_TERMINALS = 0b111 << 19  # signals 20 to 22, which the init of a container blocks
IGNORING = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"


async def test_a_rank_that_ends_at_once_is_ended_with_code_0(bench: Bench) -> None:
    rank = await bench.ended(bench.start("/bin/true"))
    assert (rank.exit_code, rank.signal, rank.fault, rank.stopped) == (0, None, None, False)
    assert rank.succeeded
    assert rank.started_at_ms is not None
    assert rank.ended_at_ms is not None
    assert rank.started_at_ms <= rank.ended_at_ms + 1


@pytest.mark.parametrize("code", [1, 3, 127, 255])
async def test_the_exit_code_is_kept(bench: Bench, code: int) -> None:
    rank = await bench.ended(bench.start("/bin/sh", "-c", f"echo why >&2; exit {code}"))
    assert rank.exit_code == code
    assert rank.failed
    assert rank.last_lines == ("why",)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_a_rank_that_a_signal_ends_names_the_signal(bench: Bench, number: int) -> None:
    rank = await bench.ended(bench.start("/bin/sh", "-c", f"kill -{int(number)} $$"))
    assert (rank.exit_code, rank.signal) == (None, number)
    assert rank.failed


async def test_output_goes_to_files_of_its_own(bench: Bench) -> None:
    path = bench.start("/bin/sh", "-c", "echo out; echo err >&2")
    await bench.ended(path)
    assert (path / "stdout").read_text() == "out\n"
    assert (path / "stderr").read_text() == "err\n"


async def test_megabytes_without_a_newline_are_kept_whole(bench: Bench) -> None:
    path = bench.python("import sys; sys.stdout.write('x' * 8_000_000)")
    rank = await bench.ended(path)
    assert rank.succeeded
    assert (path / "stdout").stat().st_size == 8_000_000


async def test_arguments_environment_and_folder_arrive_as_ordered(bench: Bench) -> None:
    path = bench.start(
        "/bin/sh", "-c", 'echo "$0|$1|$GREETING|$(pwd)"', "a b", "ü'\"", env={"GREETING": "hi\nyou"}
    )
    await bench.ended(path)
    assert (path / "stdout").read_text() == f"a b|ü'\"|hi\nyou|{bench.folder}\n"


async def test_a_rank_starts_with_default_signals_and_no_stray_descriptors(bench: Bench) -> None:
    signals = bench.start("/bin/grep", "-E", "Sig(Ign|Blk)", "/proc/self/status")
    files = bench.start("/bin/ls", "/proc/self/fd")
    await bench.ended(signals)
    await bench.ended(files)
    blocked, ignored = (signals / "stdout").read_text().split()[1::2]
    assert int(blocked, 16) & ~OF_TERMINALS == 0
    assert int(ignored, 16) & ~GLIBC_INTERNAL == 0
    assert (files / "stdout").read_text().split() == ["0", "1", "2", "3"]  # 3 lists the folder


async def test_a_program_that_does_not_exist_is_a_fault_of_the_config(bench: Bench) -> None:
    rank = await bench.ended(bench.start("/no/such/program"))
    assert rank.exit_code == 127
    assert rank.fault is not None
    assert rank.fault.category is Category.CONFIG
    assert rank.fault.message.startswith("custom_script_path: ")


async def test_a_script_whose_interpreter_is_missing_is_a_fault_of_the_config(
    bench: Bench,
) -> None:
    script = bench.folder / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    rank = await bench.ended(bench.start(str(script)))
    assert rank.exit_code == 127
    assert rank.fault is not None
    assert "first line" in rank.fault.message


@pytest.mark.parametrize("content", ["just text\n", ""])
async def test_a_file_that_is_no_program_is_a_fault_of_the_config(
    processes: Bench, content: str
) -> None:
    script = processes.folder / "script"
    script.write_text(content)
    script.chmod(0o755)
    rank = await processes.ended(processes.start(str(script)))
    assert rank.exit_code == 126
    assert rank.fault is not None
    assert "not a program" in rank.fault.message


async def test_arguments_that_are_too_large_are_a_fault_of_the_config(bench: Bench) -> None:
    rank = await bench.ended(bench.start("/bin/true", "x" * 3_000_000))
    assert rank.fault is not None
    assert "too large" in rank.fault.message


async def test_a_save_is_sigusr1_to_a_rank_that_listens_however_late(bench: Bench) -> None:
    code = (
        "import signal, time; print('up'); time.sleep(0.7);"
        "signal.signal(10, lambda *_: print('saved')); print('listens');\n"
        "while True: time.sleep(1)"
    )
    path = bench.python(code)
    await bench.printed(path, "up")
    bench.runtime.save(path)
    await bench.printed(path, "saved")
    bench.runtime.save(path)
    await bench.printed(path, "saved\nsaved")


async def test_a_rank_that_knows_nothing_of_saves_survives_one(bench: Bench) -> None:
    os.mkfifo(bench.folder / "wait")
    path = bench.start("/bin/sh", "-c", "echo up; read _ < wait; echo alive")
    await bench.printed(path, "up")
    bench.runtime.save(path)
    listens = bench.python(
        "import signal, time; signal.signal(10, lambda *_: print('saved')); print('up')\n"
        "while True: time.sleep(1)"
    )
    await bench.printed(listens, "up")
    bench.runtime.save(listens)
    await bench.printed(listens, "saved")  # so the first one had time to hear of its own
    (bench.folder / "wait").write_text("\n")
    assert (await bench.ended(path)).succeeded
    assert (path / "stdout").read_text() == "up\nalive\n"


async def test_a_stop_is_sigterm_and_its_answer_counts(bench: Bench) -> None:
    path = bench.start("/bin/sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; sleep 600 & wait")
    await bench.printed(path, "up")
    bench.runtime.stop(path, 60_000)
    rank = await bench.ended(path)
    assert (rank.exit_code, rank.stopped) == (0, True)
    assert not rank.failed


async def test_a_rank_that_ignores_sigterm_is_killed_after_the_grace(bench: Bench) -> None:
    path = bench.python(IGNORING)
    await bench.printed(path, "up")
    bench.runtime.stop(path, 200)
    rank = await bench.ended(path)
    assert (rank.signal, rank.stopped) == (signal.SIGKILL, True)


async def test_a_second_stop_shortens_the_grace_and_never_lengthens_it(bench: Bench) -> None:
    path = bench.python(IGNORING)
    await bench.printed(path, "up")
    bench.runtime.stop(path, 600_000)
    bench.runtime.stop(path, 100)
    bench.runtime.stop(path, 600_000)
    assert (await bench.ended(path)).signal == signal.SIGKILL


async def test_a_rank_hears_one_sigterm_however_often_it_is_stopped(bench: Bench) -> None:
    path = bench.python(
        "import signal, time\n"
        "signal.signal(15, lambda *_: print('term', flush=True))\n"
        "print('up')\n"
        "while True: time.sleep(0.01)"
    )
    await bench.printed(path, "up")
    for grace_ms in (60_000, 50_000, 1_500):
        bench.runtime.stop(path, grace_ms)
    await bench.ended(path)
    assert (path / "stdout").read_text() == "up\nterm\n"


async def test_a_stop_during_the_start_is_not_lost(bench: Bench) -> None:
    path = bench.start("/bin/sleep", "600")
    bench.runtime.stop(path, 60_000)
    rank = await bench.ended(path)
    assert rank.signal == signal.SIGTERM
    assert rank.stopped


async def test_a_stopped_wrapper_leaves_its_grace_to_what_it_wraps(processes: Bench) -> None:
    bench = processes
    path = bench.start(
        "/bin/sh", "-c", "sh -c \"trap 'echo saved; exit' TERM; echo up; sleep 600 & wait\"; true"
    )
    await bench.printed(path, "up")
    bench.runtime.stop(path, 60_000)
    await bench.ended(path)
    assert (path / "stdout").read_text() == "up\nsaved\n"


async def test_children_that_outlive_their_rank_are_ended_with_it(bench: Bench) -> None:
    path = bench.python(
        "import os, subprocess\n"
        "p = subprocess.Popen(['sleep', '600'])\n"
        "print(p.pid)\n"
        "d = subprocess.Popen(['setsid', 'sh', '-c', 'trap \"\" TERM; sleep 600 & echo $! $$; wait'])\n"
        "os.wait4(d.pid, os.WNOHANG)\n"
        "import time; time.sleep(0.3)"
    )
    rank = await bench.ended(path)
    assert rank.succeeded
    await bench.gone(path)


async def test_a_child_that_double_forks_away_is_ended_too(bench: Bench) -> None:
    path = bench.python(
        "import os, time\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        os.environ.clear(); os.write(w, b'x'); print(os.getpid())\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "os.read(r, 1); os.wait(); time.sleep(0.1)"
    )
    assert (await bench.ended(path)).succeeded
    await bench.gone(path)


async def test_many_ranks_at_once_all_run_and_end(bench: Bench) -> None:
    many = 8 if bench.container else 50
    paths = [bench.start("/bin/sh", "-c", f"exit {n % 7}") for n in range(many)]
    ranks = await asyncio.gather(*(bench.ended(path) for path in paths))
    assert [rank.exit_code for rank in ranks] == [n % 7 for n in range(many)]
    assert [rank.rank for rank in ranks] == list(range(many))


async def test_a_started_folder_is_never_started_again(bench: Bench) -> None:
    path = bench.start("/bin/sh", "-c", "echo once")
    await bench.ended(path)
    bench.runtime.forget(path)
    await bench.runtime.adopt(path, 0)
    rank = await bench.ended(path)
    assert rank.succeeded
    assert (path / "stdout").read_text() == "once\n"


async def test_a_folder_in_which_nothing_was_started_is_lost_when_adopted(bench: Bench) -> None:
    path = bench.folder / "rank-9"
    path.mkdir()
    await bench.runtime.adopt(path, 9)
    rank = await bench.ended(path)
    assert rank.fault is not None
    assert rank.fault.category is Category.NODE_LOST


async def test_a_running_rank_is_found_again(bench: Bench) -> None:
    path = bench.start("/bin/sh", "-c", "echo up; read x < $PWD/go; exit 5")
    os.mkfifo(bench.folder / "go")
    await bench.printed(path, "up")
    before = await bench.running(path)
    bench.runtime.forget(path)
    await bench.runtime.adopt(path, before.rank)
    assert bench.runtime.observe(path) == before
    await asyncio.to_thread((bench.folder / "go").write_text, "\n")
    assert (await bench.ended(path)).exit_code == 5
