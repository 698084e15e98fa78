"""What supervisors ask of the kernel beyond the standard library: prctl, and a timer of boot time.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import ctypes
import os
import time

_CLOCK_BOOTTIME = 7
_TFD_TIMER_ABSTIME = 1
_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_SUBREAPER = 36
_SET_NAME = 15
_NO_NEW_PRIVILEGES = 38

_libc: ctypes.CDLL | None = None


class _Itimerspec(ctypes.Structure):
    """struct itimerspec: interval, then value, each in seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


def prepare() -> None:
    """Loads the C library: it takes a millisecond, which no start should pay."""
    _loaded()


def become_supervisor(name: bytes) -> None:
    """Names this process, and makes whatever its descendants leave behind its children."""
    for option, value in ((_SET_NAME, name), (_SUBREAPER, 1)):
        if _loaded().prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")


def forbid_privileges() -> None:
    """Keeps this process and all that it executes from gaining privileges, for ever."""
    if _loaded().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def boot_now_ms() -> int:
    """Milliseconds since the boot, those included in which the machine slept."""
    return time.clock_gettime_ns(_CLOCK_BOOTTIME) // 1_000_000


class BootTimer:
    """A descriptor that is readable once a moment of boot time has passed, be it in sleep."""

    def __init__(self) -> None:
        """Is set to nothing yet. OSError where there are no descriptors left."""
        self.fd = _loaded().timerfd_create(_CLOCK_BOOTTIME, _TFD_NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, at_ms: int | None) -> None:
        """Rings at a boot time, at once where it has passed; None: never."""
        at_ms = 0 if at_ms is None else max(1, at_ms)
        when = _Itimerspec(0, 0, at_ms // 1000, at_ms % 1000 * 1_000_000)
        _loaded().timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(when), None)


def _loaded() -> ctypes.CDLL:
    global _libc
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    return _libc
