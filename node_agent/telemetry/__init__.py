"""The telemetry room: which devices this machine has, and what they and the machine measure."""

from node_agent.telemetry.detect import detect_devices, open_probe
from node_agent.telemetry.kept_samples import KeptSamples
from node_agent.telemetry.last_minute import last_minute, witness
from node_agent.telemetry.prometheus import page, render
from node_agent.telemetry.reporter import TelemetryReporter

__all__ = [
    "KeptSamples",
    "TelemetryReporter",
    "detect_devices",
    "last_minute",
    "open_probe",
    "page",
    "render",
    "witness",
]
