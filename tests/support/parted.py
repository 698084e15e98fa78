"""A coordinator here, and nodes behind cables that can be cut; all of them real processes.

Time is short, unless it is asked for as it really is. What ran is proven by the ranks themselves:
each writes down, fifty times a second, that it lives, on the one clock of the machine, so that no
belief of any program has to be trusted.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from scaimind import Client
from scaimind.v1 import job_pb2, node_pb2
from tests.support import jobs, processes
from tests.support.networks import Network
from tests.support.ports import Port
from tests.support.several import START_S, Program
from tests.support.waiting import WITHIN_S, until


@dataclass(frozen=True, slots=True)
class Times:
    """How long a call is held, a silent node is waited for, and until its jobs run elsewhere."""

    hold_ms: int
    unreachable_s: float
    replace_s: float  # ranks stop by themselves after half of it


SHORT = Times(300, 3.0, 7.0)
REAL = Times(5_000, 20.0, 60.0)  # what the programs do by themselves
BEATING = """
    import os, sys, time
    folder = sys.argv[1]
    attempt, rank, pid = os.environ["MIND_ATTEMPT"], os.environ["RANK"], os.getpid()
    with open(f"{folder}/{attempt}.{rank}.{pid}", "w", buffering=1) as proof:
        number = 0
        while not os.path.exists(f"{folder}/end"):
            proof.write(f"{time.monotonic_ns()}\\n")
            print(number)
            number += 1
            time.sleep(0.02)
    print("last", number)
    """


@dataclass(frozen=True, slots=True)
class Proof:
    """What one process wrote of its life; times on the monotonic clock."""

    attempt: int
    rank: int
    pid: int
    beats: tuple[float, ...]

    @property
    def first_s(self) -> float:
        """When it is known to have lived first."""
        return self.beats[0]

    @property
    def last_s(self) -> float:
        """When it is known to have lived last."""
        return self.beats[-1]

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    @property
    def lives(self) -> bool:
        """Whether it does now. A frozen process lives."""
        return processes.is_alive(self.pid)


class Machine:
    """A node: its network and its agent."""

    def __init__(self, folder: Path, node_id: str, *words: str, hold_ms: int) -> None:
        self.node_id = node_id
        self.network = Network()
        self.data_dir = folder / node_id
        self.agent = Program(
            folder,
            *(node_id, "node_agent", "--node-id", node_id, "--data-dir", str(self.data_dir)),
            *("--hold-ms", str(hold_ms)),
            *("--storage-dir", str(folder / "storage"), "--address", self.network.there, *words),
        )
        self.agent.prefix = self.network.prefix
        self._words = self.agent.words

    def talks_to(self, coordinator: str) -> None:
        """From its next start on the agent calls this address."""
        self.agent.words = (*self._words, "--coordinator", coordinator)


class Parted:
    """All of it in a folder. Use it as a context manager."""

    def __init__(self, folder: Path, *, times: Times = SHORT, devices: int = 1) -> None:
        self.folder = folder
        token = folder / "join.token"
        token.write_text("join-token-of-the-tests\n")
        self._stack = ExitStack()
        self._port = self._stack.enter_context(Port())
        joins = ("--join-token-file", str(token))
        words = (*joins, "--devices", f"sim:{devices}xH100")
        self.machines = [
            Machine(folder, name, *words, hold_ms=times.hold_ms) for name in ("n1", "n2")
        ]
        for machine in self.machines:
            self._stack.enter_context(machine.network)
        self.address = f"{self.machines[0].network.here}:{self._port.number}"
        for machine in self.machines:
            machine.talks_to(self.address)
        self.coordinator = Program(
            folder,
            *("coordinator", "coordinator", "--data-dir", str(folder / "coordinator")),
            *("--grpc", self.address, *joins),
            *("--unreachable-after-s", str(times.unreachable_s)),
            *("--replace-after-s", str(times.replace_s)),
        )

    def __enter__(self) -> Parted:
        try:
            self.coordinator.start()
            until(self._answers, lambda: f"it answers\n{self.story()}", within_s=START_S)
            for machine in self.machines:
                machine.agent.start()
            self.wait_until_all_are_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills everything that it started."""
        if "client" in self.__dict__:
            self.client.close()
        for machine in self.machines:
            machine.agent.kill()
        self.coordinator.kill()
        processes.kill_all(processes.of_folder(self.folder))
        self._stack.close()

    @cached_property
    def client(self) -> Client:
        """A client with the admin's key."""
        key = (self.folder / "coordinator" / "admin.key").read_text().strip()
        return Client(self.address, key, timeout_s=START_S, retry_s=START_S)

    def machine_of(self, job_id: str) -> Machine:
        """The node of the job's newest attempt."""
        (node_id,) = self.client.get_job(job_id).attempt.node_ids
        return next(one for one in self.machines if one.node_id == node_id)

    def wait_until_all_are_ready(self) -> None:
        """Every node is in contact."""
        names = {machine.node_id for machine in self.machines}
        until(
            lambda: {node.node_id for node in self.client.nodes(status="READY")} == names,
            lambda: f"all nodes are ready\n{self.story()}",
            within_s=START_S,
        )

    def is_unreachable(self, machine: Machine) -> bool:
        """Whether the coordinator takes a node to be out of contact."""
        return self.client.node(machine.node_id).status == node_pb2.Node.UNREACHABLE

    def wait_until_unreachable(self, machine: Machine) -> None:
        """The coordinator has missed it for long enough."""
        until(
            lambda: self.is_unreachable(machine),
            lambda: f"{machine.node_id} is unreachable\n{self.story()}",
        )

    def story(self) -> str:
        """The ends of all logs, for messages."""
        programs = (self.coordinator, *(machine.agent for machine in self.machines))
        return "\n".join(one.story() for one in programs)

    def _answers(self) -> bool:
        if not (self.folder / "coordinator" / "admin.key").exists():
            return False
        return not list(self.client.nodes())


class Beating:
    """A job of one rank that prints rising numbers, and proves when it lived."""

    def __init__(
        self,
        cluster: Parted,
        folder: Path,
        *,
        scheduling: Mapping[str, Any] | None = None,
        starts: bool = True,
    ) -> None:
        """Submits it, and waits until it runs if it `starts` at once."""
        self.cluster = cluster
        self._folder = folder
        program = jobs.script(folder, "beating.py", BEATING)
        self._proofs = folder / "proofs"
        self._proofs.mkdir(parents=True)
        given = jobs.body(program, args=str(self._proofs), gpu_type="H100", scheduling=scheduling)
        self.job_id = cluster.client.submit(given).job_id
        if starts:
            self.beats(1)
            jobs.reaches(cluster.client, self.job_id, "TRAINING")

    def proofs(self) -> list[Proof]:
        """Of every process that the job ever had, oldest first."""
        found = []
        for path in self._proofs.iterdir():
            beats = tuple(int(line) / 1e9 for line in path.read_text().split("\n")[:-1])
            if beats:
                attempt, rank, pid = map(int, path.name.split("."))
                found.append(Proof(attempt, rank, pid, beats))
        return sorted(found, key=lambda proof: proof.first_s)

    def beats(self, attempt: int, *, within_s: float = WITHIN_S) -> Proof:
        """Waits until a process of this attempt lives on; no later one may."""
        asked_s = time.monotonic()

        def look() -> Proof | None:
            last = next(reversed(self.proofs()), None)
            return last if last and last.last_s > asked_s and last.attempt >= attempt else None

        proof = until(look, lambda: f"it beats\n{self.cluster.story()}", within_s=within_s)
        assert proof.attempt == attempt
        return proof

    @property
    def record(self) -> job_pb2.Job:
        """The job as the coordinator has it."""
        return self.cluster.client.get_job(self.job_id)

    def tell_end(self) -> None:
        """Lets it end well."""
        (self._proofs / "end").touch()

    def end(self, *, attempts: int = 1, unstarted: Collection[int] = ()) -> job_pb2.Job:
        """Lets it end well, and checks what holds for every job.

        No two of its processes lived at a time; there was one per attempt, but for those that were
        not started; of each attempt, every line is in the log exactly once and in order, those of the
        last attempt to its end.
        """
        self.tell_end()
        job = jobs.final(self.cluster.client, self.job_id)
        assert job.status == job_pb2.Job.COMPLETED, self.cluster.story()
        assert job.attempts_count == attempts
        proofs = self.proofs()
        started = [number for number in range(1, attempts + 1) if number not in unstarted]
        assert [proof.attempt for proof in proofs] == started
        for before, after in pairwise(proofs):
            assert before.last_s < after.first_s
        shown: dict[int, list[str]] = {number: [] for number in range(1, attempts + 1)}
        for event in self.cluster.client.logs(self.job_id, tail=-1):
            if event.WhichOneof("event") == "log":
                shown[event.log.attempt].append(event.log.message)
            else:
                assert event.WhichOneof("event") == "end", event
        last = shown[attempts].pop()
        assert last == f"last {len(shown[attempts])}"
        for lines in shown.values():
            assert lines == [*map(str, range(len(lines)))]
        return job

    def close(self) -> None:
        """Ends it, whatever has happened."""
        self.tell_end()
        for proof in self.proofs():
            if proof.lives:
                proof.send(signal.SIGKILL)
