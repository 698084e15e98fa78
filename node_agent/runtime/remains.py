"""What a supervisor leaves in a rank's folder, as the agent reads it.

The rank's user can write there as well: nothing is trusted to be there or to have the right type.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from node_agent.core.leases import Category, Fault
from node_agent.runtime import orphans
from node_agent.runtime.container_body import GATE
from node_agent.runtime.folder import CONTROL, EXIT, LINE_CHARACTERS, LINES, STARTED
from node_agent.runtime.proc import now_at_ms

MAX_FILE_BYTES = 64 * 1024


def open_control(path: Path) -> int | None:
    """The write end of the supervisor's FIFO; None where there is no supervisor, now and for ever.

    Where there never was one the folder is claimed, so that none comes late.
    """
    while True:
        try:
            control = os.open(path / CONTROL, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            if _claim(path):
                return None
        except OSError:  # ENXIO: it is gone
            return None
        else:
            if stat.S_ISFIFO(os.fstat(control).st_mode):
                return control
            os.close(control)
            return None


def _claim(path: Path) -> bool:
    """Takes the supervisor's place; False where one has just come."""
    try:
        os.mkfifo(path / CONTROL, 0o600)
    except FileExistsError:
        return False
    except OSError:
        return True  # there is no folder any more to come to
    return True


def started_at_ms(path: Path) -> int | None:
    """When the rank began, as far as it was written down."""
    return _number(_read(path / STARTED).get("started_at_ms"))


def exit_of(path: Path) -> dict[str, Any] | None:
    """What exit.json says, as fields of `Rank`; None where it is missing or damaged."""
    content = _read(path / EXIT)
    if not {"exit_code", "signal", "ended_at_ms"} <= content.keys():
        return None
    error = content.get("error")
    fault = None
    if isinstance(error, dict):
        names = {category.value: category for category in Category}
        category = names.get(str(error.get("category")), Category.USER_CODE)
        fault = Fault(category, str(error.get("message", "")))
    return {
        "exit_code": _number(content["exit_code"]),
        "signal": _number(content["signal"]),
        "ended_at_ms": _number(content["ended_at_ms"]),
        "stopped": content.get("stopped") is True,
        "last_lines": _lines(content),
        "fault": fault,
    }


def lose(path: Path, boot: str) -> dict[str, Any]:
    """Ends what a lost supervisor left, writes it down, and returns fields of `Rank`. Blocks."""
    started = _read(path / STARTED)
    same_boot = started.get("boot") == boot
    if same_boot or not started:
        pid, ticks = _number(started.get("pid")), _number(started.get("start_ticks"))
        orphans.end(path, pid=pid or 0, start_ticks=ticks or 0)
    if not started:
        message = "the agent or the supervisor stopped before the rank was started"
    elif same_boot:
        message = "the rank's supervisor was lost"
    else:
        message = "the node was restarted while the rank ran"
    ended = {"exit_code": None, "signal": 9 if started else None, "ended_at_ms": now_at_ms()}
    error = {"category": Category.NODE_LOST, "message": message}
    _write_exit(path, {**ended, "error": error})
    return {**ended, "fault": Fault(Category.NODE_LOST, message)}


def refuse(path: Path, fault: Fault | None) -> None:
    """Writes down that a rank was not started, and makes sure that it never is; blocks.

    No fault: it was stopped before.
    """
    if (control := open_control(path)) is not None:
        os.close(control)  # it has a supervisor in spite of all
        return
    ended = {"exit_code": None, "signal": None, "ended_at_ms": now_at_ms()}
    error = fault and {"category": fault.category, "message": fault.message}
    _write_exit(path, {**ended, "stopped": fault is None, "error": error})


def has_container(path: Path) -> bool:
    """Whether a container was made for the rank."""
    return (path / GATE).exists()


def _write_exit(path: Path, content: dict[str, Any]) -> None:
    with suppress(OSError):  # on a full disk it is found out again after the next restart
        draft = path / f"{EXIT}.lost"
        draft.write_text(json.dumps(content))
        draft.rename(path / EXIT)


def _lines(content: dict[str, Any]) -> tuple[str, ...]:
    """The last lines; a supervisor that was started by an older agent has written one."""
    lines = content.get("last_lines", [content.get("last_line", "")])
    if not isinstance(lines, list):
        return ()
    return tuple(
        line[:LINE_CHARACTERS] for line in lines[-LINES:] if isinstance(line, str) and line
    )


def _number(value: object) -> int | None:
    return value if type(value) is int and abs(value) < 2**63 else None


def _read(path: Path) -> dict[str, Any]:
    """A JSON object from a small file; empty where there is none or it is damaged."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
