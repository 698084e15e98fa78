"""A rank in a container, as its supervisor handles it: start, signals, end.

Theory of operation. The agent has created the container; only the supervisor starts it, so that one
that runs always has a supervisor, which holds its deadline. The container's first program waits at
a gate, a FIFO in the rank's folder: it becomes the rank's program when the supervisor says so, that
is when the deadline has not passed meanwhile, the first process is known to the kernel and its
memory is watched. What could not become a program says so through the same FIFO.

Signals go to the container's first process (an init that passes SIGTERM on) through a process
descriptor, and the kernel tells when it is gone, and with it all of the container: the engine is not
needed to stop a rank, so one that hangs or is being upgraded keeps nothing alive. It is asked for the
exit code alone.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import Any

from node_agent.runtime.body import OUT_OF_MEMORY, NotStarted, ended_with, save_all
from node_agent.runtime.cgroups import OomCount, groups
from node_agent.runtime.folder import RankFolder
from node_agent.runtime.proc import descendants
from node_agent.runtime.wire import EngineError, ask, ask_json

GATE = "gate"
REFUSED = b"refused"
START_S = 120.0
ANSWER_S = 10.0
EXIT_S = 60.0  # how long an engine that does not answer is asked how a container ended
POLL_S = 0.01
POLL_MAX_S = 0.2
SIGNALS = range(129, 160)  # exit codes with which an init tells that a signal ended its child
MISSING = (
    "the program, or the interpreter that its first line names, does not exist in the container"
)


class ContainerBody:
    """A container that was created and not started. See `Body` for what its methods promise."""

    def __init__(self, order: dict[str, Any], folder: RankFolder) -> None:
        """Takes of an order: subject, and container with engine (a socket's path) and id."""
        self._subject: str = order["subject"]
        self._engine: str = order["container"]["engine"]
        self._id: str = order["container"]["id"]
        self._gate = folder.open_fifo(GATE)
        self._memory: OomCount | None = None
        self.pid = 0
        self.wakeup = -1

    def prepare(self) -> None:
        """Starts the container, up to the gate."""
        try:
            ask(self._engine, "POST", f"/containers/{self._id}/start", timeout_s=START_S)
            state = self._state()
        except OSError as error:
            self.abandon()
            raise self._not_started(error) from None
        self.pid = int(state.get("Pid") or 0)
        if not self.pid:
            raise self._not_started(EngineError(0, self._last_words() or "it ended at once"))
        self.wakeup = os.pidfd_open(self.pid)
        if not any(self._id in path for path in groups(self.pid).values()):
            self.abandon()
            text = "the engine numbers its processes as this agent does not see them"
            raise NotStarted("NODE_LOST", f"the node's containers cannot be watched: {text}")
        self._memory = OomCount(self.pid)

    def begin(self) -> None:
        """Opens the gate."""
        os.write(self._gate, b"\n")

    def abandon(self) -> None:
        """Ends the container, of which nothing but the gate has run."""
        if self.wakeup >= 0:
            self.kill()
            return
        with suppress(OSError):
            ask(self._engine, "POST", f"/containers/{self._id}/kill", timeout_s=ANSWER_S)

    def look(self) -> tuple[bool, dict[str, Any] | None]:
        """When the first process is gone, all of the container is."""
        if not select.select([self.wakeup], [], [], 0)[0]:
            return True, None
        kills = self._memory.read() if self._memory else None
        return False, self._ended(kills)

    def ask(self) -> None:
        """SIGTERM, which the init passes on."""
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)

    def ask_rest(self) -> None:
        """There is no rest: it ended with the first process."""

    def save(self) -> bool:
        """SIGUSR1 to those processes of the container that listen."""
        return save_all(descendants(self.pid))

    def kill(self) -> None:
        """SIGKILL to the first process, and by that to all."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with suppress(OSError):
            signal.pidfd_send_signal(self.wakeup, number)

    def _state(self) -> dict[str, Any]:
        path = f"/containers/{self._id}/json"
        content = ask_json(self._engine, "GET", path, timeout_s=ANSWER_S)
        state = content.get("State")
        return state if isinstance(state, dict) else {}

    def _ended(self, kills: int | None) -> dict[str, Any]:
        """How it ended, as the engine tells; what it said at the gate counts for more."""
        state = self._final_state()
        code = state.get("ExitCode")
        if type(code) is not int:
            ended = ended_with(0) | {"exit_code": None}
            text = "the container engine did not tell how the container ended"
            return ended | {"error": {"category": "NODE_LOST", "message": text}}
        if self._said_refused():
            reason = MISSING if code == 127 else "it cannot be executed in the image"
            error = {"category": "CONFIG", "message": f"{self._subject}: {reason}"}
            return ended_with(code) | {"error": error}
        ended = ended_with(128 - code if code in SIGNALS else code)
        if code and (kills or (kills is None and state.get("OOMKilled") is True)):
            ended["error"] = OUT_OF_MEMORY
        return ended

    def _final_state(self) -> dict[str, Any]:
        give_up_s = time.monotonic() + EXIT_S
        wait_s = POLL_S
        while time.monotonic() < give_up_s:
            with suppress(OSError):
                state = self._state()
                if state.get("Running") is False and not state.get("Pid"):
                    return state
            time.sleep(wait_s)
            wait_s = min(POLL_MAX_S, 1.5 * wait_s)
        return {}

    def _said_refused(self) -> bool:
        with suppress(OSError):
            return REFUSED in os.read(self._gate, 4096)
        return False

    def _last_words(self) -> str:
        """What the container itself printed, which before the gate only its engine does."""
        path = f"/containers/{self._id}/logs?stdout=1&stderr=1&tail=5"
        text = b""
        with suppress(OSError):
            text = ask(self._engine, "GET", path, timeout_s=ANSWER_S)[8:]  # without its frame
        return " ".join(text.replace(b"\0", b"").decode("utf-8", "replace").split())[:300]

    def _not_started(self, error: OSError) -> NotStarted:
        if not isinstance(error, EngineError):
            return NotStarted("NODE_LOST", f"the container engine cannot be reached: {error}")
        if "/bin/sh" in error.text:
            text = "resource_config.image: the image has no shell at /bin/sh"
            return NotStarted("IMAGE", text, exit_code=127)
        if "CDI" in error.text or "nvidia" in error.text.lower():
            return NotStarted("NODE_LOST", f"the node does not give the job's GPUs: {error.text}")
        return NotStarted("CONFIG", f"the container cannot be started: {error.text}")
