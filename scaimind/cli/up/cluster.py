"""Starts the cluster in order, keeps it up, and stops it in reverse order."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any

from scaimind.cli import exits
from scaimind.cli.up import claim, ready
from scaimind.cli.up.plan import Plan, Start
from scaimind.cli.up.program import Program
from scaimind.client.connection import KEY_FILE

DEFAULT_QUEUE = "default"
READY_S = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(plan: Plan) -> None:
    """Keeps the cluster of `plan` up until a signal; the caller holds the data directory.

    Raises:
        Fault: it did not become ready.
    """
    asyncio.run(Cluster(plan).run())


class Cluster:
    """The programs of one `scaimind up`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._programs: list[Program] = []
        self._stop = asyncio.Event()
        self._broken: asyncio.Future[exits.Fault] | None = None
        self._is_ready = False

    async def run(self) -> None:
        """Starts, keeps and stops the cluster."""
        loop = asyncio.get_running_loop()
        self._broken = loop.create_future()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            await self._until(self._start())
            await self._stop.wait()
            await self._farewell()
        finally:
            await self._stop_all()

    def _on_signal(self) -> None:
        """The first asks everything to stop; the next one kills."""
        if self._stop.is_set():
            for program in self._programs:
                program.send(signal.SIGKILL)
        self._stop.set()

    async def _until(self, starting: Coroutine[Any, Any, None]) -> None:
        """Waits until all is ready, a program dies, the time is up, or a signal comes."""
        assert self._broken is not None
        start = asyncio.create_task(starting)
        stop = asyncio.create_task(self._stop.wait())
        try:
            waited: list[asyncio.Future[Any]] = [start, stop, self._broken]
            await asyncio.wait(waited, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                raise self._broken.result()
            if start.done():
                start.result()
            elif not stop.done():
                raise self._late()
        finally:
            start.cancel()
            stop.cancel()

    async def _start(self) -> None:
        plan, since_s = self._plan, time.time()
        is_new = not (plan.data_dir / KEY_FILE).exists()
        self._note(is_ready=False)
        self._launch(plan.coordinator())
        await ready.coordinator_serves(plan.grpc.reached_at())
        for start in (plan.gateway(), *plan.agents()):
            self._launch(start)
        await ready.gateway_serves(plan.http.reached_at())
        async with ready.admin_client(plan.data_dir, plan.grpc.reached_at()) as client:
            if is_new:  # later it is as its admin leaves it
                await client.set_queue(DEFAULT_QUEUE, preempts=True)
            await ready.nodes_joined(client, plan.nodes, since_s=since_s)
        self._is_ready = True
        self._note(is_ready=True)
        count = len(plan.nodes)
        nodes = "1 node" if count == 1 else f"{count} nodes"
        print(
            f"ready: {plan.url}  grpc {plan.grpc.reached_at()}  {nodes}  data {plan.data_dir}"
            + (f"  metrics {plan.metrics.reached_at()}" if plan.metrics else ""),
            flush=True,
        )

    def _launch(self, start: Start) -> None:
        log_dir = self._plan.data_dir / "log"
        program = Program(start, log_dir, on_death=self._on_death)
        self._programs.append(program)
        program.start()

    def _on_death(self, program: Program, code: int, delay_s: float) -> None:
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        if self._is_ready:
            _say(f"{program.name} died ({how}); starting it again in {delay_s:.1f} s")
        elif self._broken is not None and not self._broken.done():
            self._broken.set_result(
                _fault(f"{program.name} died before it was ready ({how})", program)
            )

    def _late(self) -> exits.Fault:
        """The fault of a start that took too long; the program started last is the suspect."""
        message = f"the cluster was not ready within {READY_S:.0f} s"
        return _fault(message, *self._programs[-1:])

    def _note(self, *, is_ready: bool) -> None:
        plan = self._plan
        note = {
            "pid": os.getpid(),
            "url": plan.url,
            "grpc": str(plan.grpc.reached_at()),
            "ready": is_ready,
        }
        claim.write_note(plan.data_dir, note)

    async def _farewell(self) -> None:
        """Says what goes on without the cluster."""
        if not self._is_ready:
            return
        async with ready.admin_client(self._plan.data_dir, self._plan.grpc.reached_at()) as client:
            count = await ready.running_jobs(client)
        if count:
            jobs = "1 job goes on" if count == 1 else f"{count} jobs go on"
            _say(f"{jobs}; `scaimind up` picks {'it' if count == 1 else 'them'} up again")

    async def _stop_all(self) -> None:
        """Agents, gateway, coordinator: nobody loses the one that it talks to."""
        agents = self._programs[2:]
        await asyncio.gather(*(agent.stop() for agent in agents))
        for program in reversed(self._programs[:2]):
            await program.stop()


def _fault(message: str, *programs: Program) -> exits.Fault:
    lines = [line for program in programs for line in program.last_lines()]
    logs = ", ".join(str(program.log_path) for program in programs)
    return exits.Fault(message, lines=lines, hint=f"see {logs}", code=exits.UNAVAILABLE)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
