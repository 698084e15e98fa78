"""`scaimind up` without its programs: the plan, the claim on the folder, one program kept up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from scaimind.cli.exits import Fault
from scaimind.cli.up import claim, plan
from scaimind.cli.up.plan import Address, Start
from scaimind.cli.up.program import MAX_LOG_BYTES, Program

LIMIT_S = 90.0


def make(folder: Path, *, http: str = "127.0.0.1:0", devices: str = "cpu") -> plan.Plan:
    return plan.make(folder, http=http, grpc="127.0.0.1:0", devices=devices, nodes=2)


def test_a_free_port_is_taken_for_port_0(tmp_path: Path) -> None:
    made = make(tmp_path)
    assert made.http.port in plan.STEADY_PORTS
    assert made.grpc.port in plan.STEADY_PORTS


def test_a_port_in_use_is_told_with_its_flag(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Fault, match=f"--http {address}: is in use"):
            make(tmp_path, http=address)


@pytest.mark.parametrize("text", ["8080", "host:", "host:x", "host:99999", "host:-1"])
def test_an_address_is_host_and_port(tmp_path: Path, text: str) -> None:
    with pytest.raises(Fault, match="must be HOST:PORT"):
        make(tmp_path, http=text)


def test_what_is_set_for_one_machine_gives_way_to_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "MIND_BLAME_USERS": "--blame-users",
        "MIND_DATA_ROOTS": "--data-roots",
        "MIND_MIN_RUN_S": "--min-run-s",
        "MIND_CACHE_PATH": "--cache-path",
        "MIND_MAX_USER_STREAMS": "--max-user-streams",
        "MIND_RATE_LIMITS": "--no-rate-limits",
    }
    for name in names:
        monkeypatch.delenv(name, raising=False)
    made = make(tmp_path)
    command = [*made.coordinator().command, *made.gateway().command]
    assert set(names.values()) <= set(command)
    assert command[command.index("--blame-users") + 1] == "0"
    for name in names:
        monkeypatch.setenv(name, "1")
    assert not set(names.values()) & {*made.coordinator().command, *made.gateway().command}


@pytest.mark.parametrize("devices", ["gpu", "sim:", "sim:0xH100", "sim:8", "sim:8x", "sim:8xA B"])
def test_devices_are_checked(tmp_path: Path, devices: str) -> None:
    with pytest.raises(Fault, match="--devices"):
        make(tmp_path, devices=devices)


def test_simulated_devices_may_be_of_several_types(tmp_path: Path) -> None:
    made = make(tmp_path, devices="sim:2xH100,7xH100-1g.10gb")
    (first, *_) = made.agents()
    assert "sim:2xH100,7xH100-1g.10gb" in first.command


def test_programs_are_reached_locally_where_they_listen_on_all_addresses() -> None:
    assert str(Address("0.0.0.0", 80).reached_at()) == "127.0.0.1:80"
    assert str(Address("::", 80).reached_at()) == "[::1]:80"
    assert str(Address("10.0.0.1", 80).reached_at()) == "10.0.0.1:80"


@pytest.mark.parametrize(
    ("hostname", "count", "names"),
    [
        ("box", 1, ["box"]),
        ("box", 2, ["box-0", "box-1"]),
        ("-bad name!", 1, ["bad-name-"]),
        ("...", 1, ["node"]),
        ("", 1, ["node"]),
    ],
)
def test_nodes_are_named_after_the_machine(hostname: str, count: int, names: list[str]) -> None:
    assert plan.node_ids(count, hostname) == names


def test_each_program_gets_what_it_needs(tmp_path: Path) -> None:
    made = make(tmp_path, devices="sim:8xH100")
    first, second = made.agents()
    assert made.coordinator().command[1:4] == ["-P", "-m", "coordinator"]
    assert str(tmp_path / "gateway.secret") in made.gateway().command
    assert first.name != second.name
    assert first.command[first.command.index("--devices") + 1] == "sim:8xH100"
    assert str(tmp_path / "nodes" / made.nodes[0]) in first.command


def test_a_folder_is_claimed_by_one_up(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert not claim.is_claimed(folder)
    with claim.claim(folder):
        claim.write_note(folder, {"pid": 7, "url": "http://here"})
        assert claim.is_claimed(folder)
        with pytest.raises(Fault, match="pid 7, http://here"), claim.claim(folder):
            pass
    assert not claim.is_claimed(folder)
    assert claim.read_note(folder) == {}
    assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fault, match="--data-dir"), claim.claim(tmp_path / "file" / "data"):
        pass


class Deaths:
    """Hears of deaths, and lets a test wait for them."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    def __call__(self, _: Program, code: int, delay_s: float) -> None:
        self.heard.put_nowait((code, delay_s))


def program(folder: Path, code: str, deaths: Deaths) -> Program:
    start = Start("one", [sys.executable, "-S", "-c", code])
    return Program(start, folder / "log", on_death=deaths)


async def line(path: Path, text: str) -> None:
    """Waits for a text in a file."""
    async with asyncio.timeout(LIMIT_S):
        while not path.exists() or text not in path.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_program_that_dies_is_started_again_after_a_longer_and_longer_delay(
    tmp_path: Path,
) -> None:
    deaths = Deaths()
    one = program(tmp_path, "print('here', flush=True); raise SystemExit(3)", deaths)
    one.start()
    async with asyncio.timeout(LIMIT_S):
        assert [await deaths.heard.get() for _ in range(2)] == [(3, 0.2), (3, 0.4)]
    await one.stop()
    assert one.last_lines()[:2] == ["here", "here"]


async def test_a_program_is_stopped_with_grace(tmp_path: Path) -> None:
    code = (
        "import signal,sys\n"
        "signal.signal(15, lambda *_: sys.exit(print('bye')))\n"
        "print('up', flush=True); signal.pause()"
    )
    one = program(tmp_path, code, Deaths())
    one.start()
    await line(one.log_path, "up")
    await one.stop()
    assert one.last_lines() == ["up", "bye"]


async def test_a_program_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    code = "import signal; signal.signal(15, 1); print('up', flush=True)\nwhile 1: signal.pause()"
    one = program(tmp_path, code, Deaths())
    one.start()
    await line(one.log_path, "up")
    await one.stop(grace_s=0.1)
    assert one.last_lines() == ["up"]


async def test_a_large_log_is_put_aside(tmp_path: Path) -> None:
    deaths = Deaths()
    one = program(tmp_path, "print('fresh')", deaths)
    one.log_path.parent.mkdir()
    with one.log_path.open("wb") as file:
        file.truncate(MAX_LOG_BYTES + 1)
    one.start()
    async with asyncio.timeout(LIMIT_S):
        await deaths.heard.get()
    await one.stop()
    assert one.log_path.read_text().startswith("fresh\n")
    assert (tmp_path / "log" / "one.log.1").stat().st_size == MAX_LOG_BYTES + 1


async def test_the_callers_key_is_kept_from_the_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIND_API_KEY", "sgk_secret")
    deaths = Deaths()
    one = program(tmp_path, "import os; print(os.environ.get('MIND_API_KEY'))", deaths)
    one.start()
    async with asyncio.timeout(LIMIT_S):
        await deaths.heard.get()
    await one.stop()
    assert one.last_lines()[0] == "None"


PARENT = """
import asyncio, sys
from pathlib import Path
from scaimind.cli.up.plan import Start
from scaimind.cli.up.program import Program
async def main():
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    start = Start("one", [sys.executable, "-S", "-c", code])
    Program(start, Path(sys.argv[1]), on_death=print).start()
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_program_stops_when_up_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(tmp_path))
    await line(log, "\n")
    child = psutil.Process(int(log.read_text()))
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    await asyncio.to_thread(child.wait, LIMIT_S)
    assert not child.is_running()
