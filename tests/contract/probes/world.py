"""The worlds in which the probe contract runs: pynvml itself over a library that was compiled
here, and a stand-in for pynvml.

NVML is loaded once per process, so the compiled library is used in a process of its own, which
obeys one line of JSON at a time: this module run as a program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, Self

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.detect import parse_simulated
from node_agent.telemetry.local import SimulatedProbe
from node_agent.telemetry.nvml import NoDriver, NvmlProbe
from node_agent.telemetry.probe import Reading
from scaimind.service import log
from tests.contract.probes.stand_in import StandIn

SOURCE = Path(__file__).with_name("fake_nvml.c")
ROOT = Path(__file__).parents[3]
READ_TIMEOUT_S = 1.0


class AnyWorld(Protocol):
    """A machine with GPUs on which a probe can be started and asked.

    `partition` splits a GPU into so many instances (MIG), or none; None makes it whole again.
    """

    def start(self, *, gpus: int, init_error: int = 0, no_power: bool = False) -> None: ...
    def partition(self, gpu: int, count: int | None) -> None: ...
    def devices(self) -> list[DetectedDevice]: ...
    def read(self) -> dict[str, Reading]: ...
    def close(self) -> None: ...


class World(AnyWorld, Protocol):
    """One that has a driver, of which anything can be expected."""

    def lose(self) -> None: ...
    def hang(self, hangs: bool) -> None: ...
    def threads(self) -> int: ...


class StandInWorld:
    """The probe in this process, over the stand-in."""

    def __init__(self) -> None:
        self._library = StandIn(0)
        self._probe: NvmlProbe | None = None

    def start(self, *, gpus: int, init_error: int = 0, no_power: bool = False) -> None:
        self._library.gpus = gpus
        self._library.init_error = init_error
        self._library.no_power = no_power
        self._probe = NvmlProbe(
            self._library, start_timeout_s=READ_TIMEOUT_S, read_timeout_s=READ_TIMEOUT_S
        )

    def lose(self) -> None:
        self._library.lost = True

    def partition(self, gpu: int, count: int | None) -> None:
        self._library.instances = {} if count is None else {gpu: count}

    def hang(self, hangs: bool) -> None:
        (self._library.go_on.clear if hangs else self._library.go_on.set)()

    def devices(self) -> list[DetectedDevice]:
        return self._of().devices()

    def read(self) -> dict[str, Reading]:
        return dict(self._of().read())

    def threads(self) -> int:
        import threading

        return sum(thread.name.startswith("nvml") for thread in threading.enumerate())

    def close(self) -> None:
        self.hang(False)
        if self._probe is not None:
            self._probe.close()

    def _of(self) -> NvmlProbe:
        assert self._probe is not None
        return self._probe


class CompiledWorld:
    """The probe in another process, over pynvml and the compiled library."""

    def __init__(self, folder: Path) -> None:
        build_library(folder)
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def start(self, *, gpus: int, init_error: int = 0, no_power: bool = False) -> None:
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(self._folder),
            "FAKE_GPUS": str(gpus),
            "FAKE_INIT": str(init_error),
            "FAKE_LOST_FILE": str(self._folder / "lost"),
            "FAKE_HANG_FILE": str(self._folder / "hang"),
            "FAKE_MIG_FILE": str(self._folder / "mig"),
            **({"FAKE_NO_POWER": "1"} if no_power else {}),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.probes.world"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        reason = self._ask("start")
        if reason is not None:
            raise NoDriver(reason)

    def lose(self) -> None:
        (self._folder / "lost").touch()

    def partition(self, gpu: int, count: int | None) -> None:
        path, new = self._folder / "mig", self._folder / "mig.new"
        new.write_text("none" if count is None else f"{gpu} {count}")
        new.replace(path)

    def hang(self, hangs: bool) -> None:
        path = self._folder / "hang"
        path.touch() if hangs else path.unlink(missing_ok=True)

    def devices(self) -> list[DetectedDevice]:
        return [DetectedDevice(**device) for device in self._ask("devices")]

    def read(self) -> dict[str, Reading]:
        return {key: Reading(**reading) for key, reading in self._ask("read").items()}

    def threads(self) -> int:
        return int(self._ask("threads"))

    def close(self) -> None:
        self.hang(False)
        if self._process is not None:
            self._process.communicate(timeout=90)

    def _ask(self, question: str) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(question + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())


class SimulatedWorld:
    """Simulated GPUs, which are never lost; what they are made of is said before they start."""

    def __init__(self) -> None:
        self._partitioned: tuple[int, int] | None = None
        self._probe: SimulatedProbe | None = None

    def partition(self, gpu: int, count: int | None) -> None:
        self._partitioned = None if count is None else (gpu, count)

    def start(self, *, gpus: int, init_error: int = 0, no_power: bool = False) -> None:
        parts = [f"{gpus}xH100"]
        if self._partitioned is not None:
            gpu, count = self._partitioned
            counts = (f"{gpu}xH100", f"{count}xH100-1g.10gb", f"{gpus - gpu - 1}xH100")
            parts = [part for part in counts if not part.startswith("0")]
        self._probe = SimulatedProbe(parse_simulated(",".join(parts)))

    def devices(self) -> list[DetectedDevice]:
        assert self._probe is not None
        return self._probe.devices()

    def read(self) -> dict[str, Reading]:
        assert self._probe is not None
        return dict(self._probe.read())

    def close(self) -> None:
        pass


def build_library(folder: Path) -> None:
    """Makes the library that stands for NVIDIA's, for LD_LIBRARY_PATH to name its folder."""
    library = folder / "libnvidia-ml.so.1"
    build = ["gcc", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run(build, check=True, timeout=60)


class _Served(StandInWorld):
    """The probe over pynvml, in the process that serves it."""

    def start(self, *, gpus: int = 0, init_error: int = 0, no_power: bool = False) -> None:
        self._probe = NvmlProbe(read_timeout_s=READ_TIMEOUT_S)

    @classmethod
    def serve(cls) -> Self:
        """Answers questions from standard input until its end; standard output is for answers."""
        log.configure(level="WARNING", json=False)
        world = cls()
        for line in sys.stdin:
            print(json.dumps(world.answer(line.strip())), flush=True)
        return world

    def answer(self, question: str) -> object:
        if question == "start":
            try:
                self.start()
            except NoDriver as error:
                return str(error)
            return None
        if question == "devices":
            return [asdict(device) for device in self.devices()]
        if question == "read":
            return {key: asdict(reading) for key, reading in self.read().items()}
        return self.threads()


if __name__ == "__main__":
    _Served.serve()
