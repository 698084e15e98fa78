"""Runs the canary that the coordinator desires, once, and tells how it ended for as long as it is desired.

It is a process of its own, under the Python of the ranks and as their user, with nothing of the agent in its
environment. It is bounded in time: one that says nothing in time has failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from node_agent.ranks import CPU_TYPE, DetectedDevice
from node_agent.runtime.rules import ProcessRules
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

PROGRAM = Path(__file__).with_name("canary_program.py")
LIMIT_S = 180
OUTPUT_MAX = 1 << 16
AT_ONCE = 8  # processes
KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")  # of the agent's environment
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

log = structlog.get_logger()


class Canary:
    """The canary of one node; `devices` tells what the node has."""

    def __init__(
        self,
        devices: Callable[[], Sequence[DetectedDevice]],
        rules: ProcessRules,
        *,
        limit_s: float = LIMIT_S,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._devices = devices
        self._rules = rules
        self._limit_s = limit_s
        self._number = 0
        self._work: asyncio.Task[None] | None = None
        self._ended: agent_pb2.ObservedCanary | None = None

    def desire(self, canary: agent_pb2.DesiredCanary | None) -> None:
        """Begins what is new; what is not desired any more is stopped and forgotten."""
        number = canary.number if canary is not None else 0
        if number == self._number:
            return
        self._number, self._ended = number, None
        if self._work is not None:
            self._work.cancel()
            self._work = None
        if canary is not None:
            self._work = asyncio.ensure_future(self._run(number, list(canary.device_ids)))

    def report(self) -> agent_pb2.ObservedCanary | None:
        """How the desired one ended; None before."""
        return self._ended

    async def close(self) -> None:
        """Stops what runs."""
        self.desire(None)

    async def _run(self, number: int, device_ids: list[str]) -> None:
        log.info("canary_begins", number=number, devices=device_ids)
        known = {device.device_id: device for device in self._devices()}
        failures = {id: "there is no such device" for id in device_ids if id not in known}
        there = [known[id] for id in device_ids if id in known]
        if there and not failures:
            failures = await self._try(there)
        log.info("canary_ended", number=number, failures=failures)
        self._ended = agent_pb2.ObservedCanary(
            number=number,
            failures=[
                agent_pb2.CanaryFailure(device_id=id, message=why[:512])
                for id, why in sorted(failures.items())
            ],
        )
        self.on_change()

    async def _try(self, devices: Sequence[DetectedDevice]) -> dict[str, str]:
        """Why devices fail, by device; by "" for all together.

        CUDA shows a process one instance of a partitioned GPU (MIG): each is tried by a process of its own, and
        nothing is added up over them.
        """
        whole = [device for device in devices if not device.is_instance]
        groups = [[device] for device in devices if device.is_instance] + ([whole] if whole else [])
        turns = asyncio.Semaphore(AT_ONCE)

        async def in_turn(group: Sequence[DetectedDevice]) -> dict[str, str]:
            async with turns:
                return await self._try_together(group)

        failures: dict[str, str] = {}
        for found in await asyncio.gather(*map(in_turn, groups)):
            failures |= found
        return failures

    async def _try_together(self, devices: Sequence[DetectedDevice]) -> dict[str, str]:
        """The same, in one process."""
        asked = {
            "devices": [device.device_id for device in devices],
            "gpus": all(d.type != CPU_TYPE and not d.simulated for d in devices),
            "limit_s": int(self._limit_s) + 1,
        }
        user = self._rules.user
        try:
            process = await asyncio.create_subprocess_exec(
                self._rules.python,
                str(PROGRAM),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_environment(devices),
                cwd="/",
                start_new_session=True,
                user=user[0] if user else None,
                group=user[1] if user else None,
                extra_groups=[] if user else None,
            )
        except OSError as error:
            return {"": f"the canary cannot be started: {error.strerror}"}
        try:
            async with asyncio.timeout(self._limit_s):
                said = await _talk(process, json.dumps(asked).encode() + b"\n")
            return _failures(said, devices)
        except TimeoutError:
            return {"": f"the canary said nothing within {self._limit_s:g} s"}
        finally:
            _end(process)
            await process.wait()


def _environment(devices: Sequence[DetectedDevice]) -> dict[str, str]:
    ids = ",".join(device.device_id for device in devices if device.type != CPU_TYPE)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ids, **ONE_THREAD}


async def _talk(process: asyncio.subprocess.Process, line: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.close()
    said = b""
    while len(said) < OUTPUT_MAX and (more := await process.stdout.read(OUTPUT_MAX)):
        said += more
    return said


def _failures(said: bytes, devices: Sequence[DetectedDevice]) -> dict[str, str]:
    """What the program said, checked; what cannot be read is a failure of all."""
    try:
        told: Mapping[str, object] = json.loads(said.strip().rpartition(b"\n")[2])["failures"]
        ids = {"", *(device.device_id for device in devices)}
        return {id: str(why) for id, why in told.items() if id in ids}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"": "the canary ended without a word"}


def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the process with all that it started."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("canary_gone", pid=process.pid)
