"""Which devices this machine offers: what `--devices` says, made into a probe."""

from __future__ import annotations

import re

import structlog

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.instances import instance_type, sizes_of
from node_agent.telemetry.local import CpuProbe, SimulatedProbe
from node_agent.telemetry.models import MEMORY_BYTES
from node_agent.telemetry.nvml import NoDriver, NvmlProbe
from node_agent.telemetry.probe import Probe

MAX_SIMULATED = 64
_PART = re.compile(r"([1-9][0-9]{0,3})x([A-Za-z0-9]{1,32})(?:-([a-z0-9.]{1,32}))?")
_log = structlog.get_logger()


def detect_devices(spec: str) -> list[DetectedDevice]:
    """The devices of `spec`, see `open_probe`."""
    probe = open_probe(spec)
    try:
        return probe.devices()
    finally:
        probe.close()


def open_probe(spec: str) -> Probe:
    """The probe for `auto` (GPUs if there are any, else the cores), `cpu`, or `sim:8xH100`.

    Raises:
        ValueError: the specification is none of these; names what is allowed.
    """
    if spec == "auto":
        return _gpus() or CpuProbe()
    if spec == "cpu":
        return CpuProbe()
    if spec.startswith("sim:"):
        return SimulatedProbe(parse_simulated(spec.removeprefix("sim:")))
    raise ValueError(f"devices must be auto, cpu or sim:<count>x<type>, got {spec[:64]!r}")


def parse_simulated(text: str) -> list[str]:
    """The type of each device in `8xH100`, `4xA100,8xL4` or `2xH100,7xH100-1g.10gb`.

    Raises:
        ValueError: names what is wrong, and what is allowed.
    """
    names = {name.upper(): name for name in MEMORY_BYTES}
    types: list[str] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"simulated devices are written <count>x<type>, as in 8xH100; got {part[:64]!r}"
            )
        name = names.get(match[2].upper())
        if name is None:
            allowed = ", ".join(MEMORY_BYTES)
            raise ValueError(f"{match[2]} cannot be simulated; there are {allowed}")
        if match[3]:
            sizes_of(match[3])
            name = instance_type(name, match[3])
        types += [name] * int(match[1])
        if len(types) > MAX_SIMULATED:
            raise ValueError(f"at most {MAX_SIMULATED} devices can be simulated on one node")
    return types


def _gpus() -> Probe | None:
    try:
        probe = NvmlProbe()
    except NoDriver as error:
        _log.info("no_gpus", reason=str(error))
        return None
    if probe.devices():
        return probe
    probe.close()
    return None
