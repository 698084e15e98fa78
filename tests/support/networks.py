"""Machines with networks of their own: namespaces, each joined to this machine by a cable to cut.

Needs root, `ip` and `tc` (iproute2) and `nft` (nftables). Addresses are 10.213.<n>.0/30, of which .1
is here and .2 there; <n> is held by a lock, so that tests in several processes never meet.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

COUNT = 250
_DEVICE = "cable"
_SIDE = {"input": "iifname", "output": "oifname"}


class Network:
    """A namespace and its cable. Use it as a context manager.

    `here` and `there` are the addresses of this machine and of the other one; a command that begins
    with `prefix` runs over there. All addresses of this machine can be reached from there.
    """

    def __init__(self) -> None:
        number, self._lock = _take_number()
        self.name = f"mind{number}"
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"
        self.prefix = ("nsenter", f"--net=/run/netns/{self.name}")
        self._make()

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def unplug(self) -> None:
        """Takes the cable out: nothing arrives either way, and nobody is told."""
        _do("ip", "-n", self.name, "link", "set", _DEVICE, "down")

    def drop(self, *chains: str, percent: int = 100) -> None:
        """Loses some of the packets that go out (`output`) or come in (`input`) over there."""
        rules = ["flush ruleset", "add table inet cut"]
        which = f"numgen random mod 100 < {percent} " if percent < 100 else ""
        for chain in chains:
            rules += [
                f"add chain inet cut {chain} {{ type filter hook {chain} priority 0; }}",
                f"add rule inet cut {chain} {_SIDE[chain]} {_DEVICE} {which}drop",
            ]
        _do(*self.prefix, "nft", "-f", "-", said="\n".join(rules))

    def slow_down(self, kbit: int) -> None:
        """Lets so many kilobits a second out."""
        limit = ("rate", f"{kbit}kbit", "burst", "8kb", "latency", "400ms")
        _do("tc", "-n", self.name, "qdisc", "replace", "dev", _DEVICE, "root", "tbf", *limit)

    def heal(self) -> None:
        """Takes back whatever was done to it."""
        _do(*self.prefix, "nft", "flush", "ruleset")
        with suppress(subprocess.CalledProcessError):  # there is nothing to take back
            _do("tc", "-n", self.name, "qdisc", "del", "dev", _DEVICE, "root")
        _do("ip", "-n", self.name, "link", "set", _DEVICE, "up")
        _do("ip", "-n", self.name, "route", "replace", "default", "via", self.here)

    def close(self) -> None:
        """Removes it; what still runs over there is cut off for good."""
        with suppress(subprocess.CalledProcessError):
            _do("ip", "link", "del", self.name)
        _do("ip", "netns", "del", self.name)
        os.close(self._lock)

    def _make(self) -> None:
        for left in (("link", "del", self.name), ("netns", "del", self.name)):
            with suppress(subprocess.CalledProcessError):
                _do("ip", *left)
        _do("ip", "netns", "add", self.name)
        cable = ("type", "veth", "peer", "name", _DEVICE, "netns", self.name)
        _do("ip", "link", "add", self.name, *cable)
        _do("ip", "addr", "add", f"{self.here}/30", "dev", self.name)
        _do("ip", "link", "set", self.name, "up")
        # what one of these machines sends to another is passed on here
        Path(f"/proc/sys/net/ipv4/conf/{self.name}/forwarding").write_text("1")
        _do("ip", "-n", self.name, "link", "set", "lo", "up")
        _do("ip", "-n", self.name, "addr", "add", f"{self.there}/30", "dev", _DEVICE)
        self.heal()


class Delay:
    """A TCP proxy on `host` that passes everything on a while later. Use it as a context manager."""

    def __init__(self, host: str, to: tuple[str, int], *, delay_s: float) -> None:
        self._to, self._delay_s = to, delay_s
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, host, 0))
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Delay:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            behind, forward = await asyncio.open_connection(*self._to)
            await asyncio.gather(self._pump(reader, forward), self._pump(behind, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def read() -> None:
            data = b"more"
            while data:
                try:
                    data = await reader.read(1 << 16)
                except OSError:
                    data = b""
                await parts.put((self._loop.time() + self._delay_s, data))

        reading = asyncio.ensure_future(read())
        try:
            with suppress(OSError):
                while True:
                    due, data = await parts.get()
                    await asyncio.sleep(due - self._loop.time())
                    if not data:
                        break
                    writer.write(data)
                    await writer.drain()
        finally:
            reading.cancel()
            writer.close()


def _take_number() -> tuple[int, int]:
    folder = Path(tempfile.gettempdir()) / f"mindcoordinator-networks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in range(1, COUNT):
        lock = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            # one that is there may be of a run whose locks lie elsewhere, such as in a container
            if not Path(f"/sys/class/net/mind{number}").exists():
                return number, lock
            os.close(lock)
    raise RuntimeError("no free network was found")


def _do(*words: str, said: str = "") -> None:
    try:
        subprocess.run(words, input=said, text=True, check=True, capture_output=True, timeout=120)
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stderr.strip()} (network namespaces need root)")
        raise
