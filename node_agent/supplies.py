"""What a job names, brought to the node before its ranks start: image, data, mounts, a script, its code.

Local paths are used where they lie, and need nothing. What is remote comes from the data cache, and stays
there for as long as the lease does: which objects that is lies in the lease's folder, so that an agent
that comes later pins them before it drops anything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from node_agent.cache.cache import Cache, Wanted
from node_agent.cache.fetcher import CannotFetch
from node_agent.cache.names import BadName, parts_of
from node_agent.cache.store import User
from node_agent.command import MODULE, SCRIPT, Refused, local_path, refuse
from node_agent.core.leases import Category, Fault
from node_agent.runtime.protocol import CannotStart
from node_agent.runtime.rules import Rules
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2

PINS_FILE = "pins.json"
CODE = "training_config.framework.source_uri"
TELL_S = 1.0
LOCAL = ("", "local", "file")


@dataclass(frozen=True, slots=True)
class Supplies:
    """Where things lie: `fetched` by their URIs, `code` unpacked; `objects` of the cache are in use.

    `image_digest`: what the job's image is; "" where no registry knows it.
    """

    fetched: Mapping[str, Path] = field(default_factory=dict)
    code: Path | None = None
    objects: tuple[str, ...] = ()
    image_digest: str = ""

    def path(self, name: str, uri: str) -> Path:
        """Where a URI lies; Refused, with the field's name, where this node cannot have it."""
        return self.fetched.get(uri) or local_path(name, uri)

    def script(self, framework: job_pb2.Framework) -> Path | None:
        """Where the script lies that was brought here; None where it was not.

        Raises:
            Refused: it is to be in the job's code, and its path leads elsewhere.
        """
        given = framework.custom_script_path
        if self.code is None or given.startswith(MODULE):
            return self.fetched.get(given)
        try:
            return self.code.joinpath(*parts_of(given))
        except BadName as fault:
            raise refuse(SCRIPT, f"with source_uri it is a path in there: {fault}") from None


NOTHING = Supplies()
Images = Callable[[str], Awaitable[str]]
"""Has an image there, and tells what its name stands for. May be cancelled. CannotStart."""
Progress = Callable[[int, int], None]
_T = TypeVar("_T")


def uri_of(source: job_pb2.DataSource) -> str:
    """The URI of a source of data, whose kind may stand beside its path."""
    kind = source.type.strip().lower()
    plain = "://" in source.path or kind in LOCAL
    return source.path if plain else f"{kind}://{source.path}"


def uris(spec: agent_pb2.LeaseSpec) -> dict[str, str]:
    """URIs by the fields that name them; the code is not among them."""
    config, framework = spec.job.data_config, spec.job.training_config.framework
    found = {
        f"data_config.sources[{n}].path": uri_of(source) for n, source in enumerate(config.sources)
    }
    found |= {
        f"data_config.storage_mounts[{n}].source_uri": mount.source_uri
        for n, mount in enumerate(config.storage_mounts)
    }
    if not framework.source_uri and not framework.custom_script_path.startswith(MODULE):
        found[SCRIPT] = framework.custom_script_path
    return found


def is_remote(uri: str) -> bool:
    """Whether it does not lie on this machine."""
    scheme, is_uri, _ = uri.partition("://")
    return bool(is_uri) and scheme.lower() != "file"


def remote(spec: agent_pb2.LeaseSpec, tokens: Mapping[str, str]) -> list[Wanted]:
    """All that a job names and that does not lie on this machine."""
    named = [Wanted(uri, tokens) for uri in dict.fromkeys(uris(spec).values())]
    code_uri = spec.job.training_config.framework.source_uri
    return [one for one in (*named, Wanted(code_uri, tokens, bundle=True)) if is_remote(one.uri)]


class Supplier:
    """Has things there for leases."""

    def __init__(self, cache: Cache, rules: Rules, *, images: Images | None = None) -> None:
        """Fetches nothing yet; without `images` there are none to be had here."""
        self._cache = cache
        self._rules = rules
        self._images = images

    def needs(self, spec: agent_pb2.LeaseSpec) -> bool:
        """Whether a lease waits for anything; most do not."""
        framework, needs = spec.job.training_config.framework, spec.job.resource_config
        in_image = bool(needs.image) and self._images is not None
        return (
            bool(framework.source_uri)
            or in_image
            or any(is_remote(uri) for uri in uris(spec).values())
        )

    async def get(
        self, grant: agent_pb2.DesiredLease, tokens: Mapping[str, str], progress: Progress
    ) -> Supplies:
        """Has all of it there. May be cancelled.

        Raises:
            Refused: something cannot be had.
        """
        spec = grant.spec
        image_digest = await self._image_digest(spec.job.resource_config.image)
        remote = {uri: name for name, uri in uris(spec).items() if is_remote(uri)}
        tell = _Sum(progress)
        code_uri = spec.job.training_config.framework.source_uri
        getting = [
            self._get(grant, name, wanted=Wanted(uri, tokens), tell=tell)
            for uri, name in remote.items()
        ]
        if code_uri:
            wanted = Wanted(code_uri, tokens, bundle=True, reader=self._reader(spec, code_uri))
            getting.append(self._get(grant, CODE, wanted=wanted, tell=tell))
        try:
            found = await _all(getting)
        finally:
            tell.end()
        paths = [path for _, path in found]
        return Supplies(
            image_digest=image_digest,
            fetched=dict(zip(remote, paths, strict=False)),
            code=paths[-1] if code_uri else None,
            objects=tuple(dict.fromkeys(object_id for object_id, _ in found)),
        )

    async def adopt(self, grant: agent_pb2.DesiredLease, folder: Path) -> None:
        """Pins what a lease uses that an earlier agent has supplied."""
        try:
            objects = json.loads((folder / PINS_FILE).read_bytes())
        except (OSError, ValueError):
            return
        await self._cache.pin(objects, owner=owner_of(grant), job_id=grant.spec.job_id)

    async def release(self, grant: agent_pb2.DesiredLease) -> None:
        """Says that a lease is over."""
        await self._cache.release(owner_of(grant))

    def _reader(self, spec: agent_pb2.LeaseSpec, uri: str) -> tuple[int, int] | None:
        """With whose rights a bundle of this machine is read; Refused where containers do not see it."""
        if is_remote(uri):
            return None
        path = local_path(CODE, uri)
        if not spec.job.resource_config.image:
            return self._rules.processes.user
        rules = self._rules.containers
        if rules is None or not any(path.is_relative_to(shown) for shown in rules.mounts):
            raise refuse(CODE, f"containers of this node do not see it: {path}")
        return rules.owner

    async def _image_digest(self, name: str) -> str:
        """What an image is, which is there from now on; "" for none. Refused where it cannot be had."""
        if not name or self._images is None:
            return ""
        try:
            return await self._images(name)
        except CannotStart as cannot:
            raise Refused(cannot.fault) from None

    async def _get(
        self, grant: agent_pb2.DesiredLease, name: str, *, wanted: Wanted, tell: _Sum
    ) -> tuple[str, Path]:
        spec = grant.spec
        user = User(owner=owner_of(grant), job_id=spec.job_id, tenant_id=spec.tenant_id)
        try:
            return await self._cache.get(
                wanted, user=user, progress=lambda done, total: tell.grown(name, done, total=total)
            )
        except CannotFetch as fault:
            category = Category.CONFIG if fault.is_final else Category.STORAGE
            raise Refused(Fault(category, f"{name}: {fault}")) from None


def owner_of(grant: agent_pb2.DesiredLease) -> str:
    """What a lease is called in the cache."""
    return f"{grant.lease_id}.{grant.epoch}"


async def _all(getting: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """All of them; where one fails the others are given up, and its error is raised."""
    doing = [asyncio.ensure_future(one) for one in getting]
    try:
        return list(await asyncio.gather(*doing))
    finally:
        for one in doing:
            one.cancel()
        await asyncio.gather(*doing, return_exceptions=True)


class _Sum:
    """The progress of several, told now and then."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._grown: dict[str, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def grown(self, name: str, done: int, *, total: int) -> None:
        self._grown[name] = (done, max(done, total)) if total else (0, 0)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL_S, self._tell)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._timer = None
        done_all, total_all = map(sum, zip(*self._grown.values(), strict=True))
        self._progress(done_all, total_all)
