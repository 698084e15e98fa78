"""Images of containers: had already, or fetched once however many ranks wait for them.

How far a fetch is goes to the agent's own log, never to the job's. How fast it was is known where all of an
image came: with the size that it has here, which is what is known of images elsewhere too.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import requests
import structlog
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import parse_repository_tag

from node_agent.cache.pace import Pace
from node_agent.core.leases import Category, Fault
from node_agent.runtime.protocol import CannotStart
from scaimind.service.reach.keys import same_repository

FIELD = "resource_config.image"
LOCAL = "localhost/"
THREADS = 4
TELL_S = 10.0
HERE = "Already exists"  # what engines say of a layer that they need not fetch
DIGEST = re.compile("sha256:[0-9a-f]{64}")

log = structlog.get_logger()


class Images:
    """The images of one engine."""

    def __init__(self, client: docker.APIClient, pace: Pace) -> None:
        """Fetches nothing yet; `pace` is told how fast it was."""
        self._client = client
        self._pace = pace
        self._threads = ThreadPoolExecutor(THREADS, "images")
        self._pulls: dict[str, asyncio.Future[dict[str, Any] | None]] = {}

    async def get(self, name: str, *, on_pull: Callable[[], None]) -> dict[str, Any]:
        """What the engine says of an image (Id, Config), which it has from now on.

        `on_pull` is called where it has to be fetched.

        Raises:
            CannotStart: it cannot be had.
        """
        found: dict[str, Any] | None = await self._in_thread(self._find, name)
        if found is None:
            on_pull()
            if name not in self._pulls:
                pull = asyncio.ensure_future(self._fetched(name))
                self._pulls[name] = pull
                pull.add_done_callback(lambda _: self._pulls.pop(name, None))
            found = await asyncio.shield(self._pulls[name])
        if found is None:
            raise CannotStart(Fault(Category.IMAGE, f"{FIELD}: it was fetched, and is gone again"))
        return found

    async def digest(self, name: str) -> str:
        """What the name of an image stands for here, as `sha256:…`; it is there from now on.

        "" where no registry knows it. CannotStart.
        """
        image = await self.get(name, on_pull=lambda: None)
        return digest_of(name, image)

    async def sizes(self) -> dict[str, int]:
        """Bytes of the images that the engine has, by their names; none where it does not say."""
        try:
            found: list[dict[str, Any]] = await self._in_thread(self._client.images)
        except (DockerException, requests.RequestException, OSError):
            return {}
        return {
            name: _size(one)
            for names in ("RepoTags", "RepoDigests")
            for one in found
            for name in one.get(names) or ()
        }

    def close(self) -> None:
        """Gives up what is being fetched."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _fetched(self, name: str) -> dict[str, Any] | None:
        """Fetches it, and takes how fast it comes. CannotStart."""
        self._pace.begin(time.monotonic())
        try:
            came_whole = await self._in_thread(self._pull, name)
            found: dict[str, Any] | None = await self._in_thread(self._find, name)
            if found is not None and came_whole:
                self._pace.come(_size(found), time.monotonic())
        finally:
            self._pace.end()
        return found

    def _in_thread(self, work: Callable[..., Any], *args: object) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _find(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._client.inspect_image(name)  # type: ignore[no-untyped-call]
        except ImageNotFound:
            if not name.startswith(LOCAL):
                return None
            message = f"{FIELD}: this node has no image {name}, and {LOCAL} is nowhere else"
            raise CannotStart(Fault(Category.IMAGE, message)) from None
        except (DockerException, requests.RequestException, OSError) as error:
            raise CannotStart(_fault(error)) from None
        return found

    def _pull(self, name: str) -> bool:
        """Fetches it; tells whether no part of it was here before. CannotStart."""
        came_whole = True
        repository, tag = parse_repository_tag(name)
        told_s = time.monotonic()
        log.info("image_pull", image=name)
        try:
            for step in self._client.pull(
                repository, tag=tag or "latest", stream=True, decode=True
            ):
                if "error" in step:
                    text = " ".join(str(step["error"]).split())[:300]
                    raise CannotStart(Fault(Category.IMAGE, f"{FIELD}: {text}"))
                came_whole &= step.get("status") != HERE
                if time.monotonic() - told_s > TELL_S:
                    told_s = time.monotonic()
                    log.info("image_pull_goes_on", image=name, step=json.dumps(step)[:200])
        except (DockerException, requests.RequestException, OSError) as error:
            raise CannotStart(_fault(error)) from None
        log.info("image_pulled", image=name)
        return came_whole


def digest_of(name: str, image: Mapping[str, Any]) -> str:
    """What a name stands for, by what the engine says of the image; "" where no registry knows it."""
    if name.startswith(LOCAL):
        return ""
    if "@" in name:
        return name.partition("@")[2]
    named = [one for one in image.get("RepoDigests") or () if same_repository(one, name)]
    found = sorted(one.partition("@")[2] for one in named)
    return next((one for one in found if DIGEST.fullmatch(one)), "")


def _size(image: Mapping[str, Any]) -> int:
    """Bytes of an image, unpacked, by what the engine says of it."""
    return max(0, int(image.get("Size") or 0))


def _fault(error: Exception) -> Fault:
    if isinstance(error, APIError):
        text = " ".join(str(error.explanation or error).split())[:300]
        return Fault(Category.IMAGE, f"{FIELD}: {text}")
    return Fault(Category.NODE_LOST, "the node's container engine cannot be reached")
