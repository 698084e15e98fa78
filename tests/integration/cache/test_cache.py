"""The cache with real fetching processes, against servers that are really there."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import pytest

from node_agent.cache.cache import Cache, Wanted
from node_agent.cache.fetcher import CannotFetch
from node_agent.cache.store import Entry, User
from node_agent.cache.terms import Go, Order, Rules
from node_agent.holdings import Holdings
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.service.reach.guard import NOT_ALLOWED
from scaimind.service.reach.keys import image_key, key_of
from scaimind.service.reach.stores import NOT_BELOW
from tests.support.files import BUCKET, Answer, Files, serving
from tests.support.processes import words_of
from tests.support.waiting import until
from tests.support.written import written
from tests.unit.node_agent.cache.test_unpack import zipped

LINES = b'{"text": "one"}\n' * 1000
LARGE = os.urandom(3 << 20)
NEAR = Rules(networks=("127.0.0.1/32",))
CANARY = "canary-token-5b2e"


def user(name: str, tenant_id: str = "acme") -> User:
    return User(owner=f"lease-{name}", job_id=f"job-{name}", tenant_id=tenant_id)


class Disk(NamedTuple):
    """What a disk says of itself."""

    total: int
    used: int
    free: int


class House:
    """Caches in one folder, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.progress: list[tuple[int, int]] = []
        self.caches: list[Cache] = []

    async def open(self, rules: Rules = NEAR, *, budget_bytes: int = 1 << 30) -> Cache:
        cache = Cache(self.folder, budget_bytes=budget_bytes, rules=rules)
        self.caches.append(cache)
        await cache.open()
        return cache

    async def get(self, cache: Cache, uri: str, who: str = "a", **given: object) -> Path:
        wanted = Wanted(uri, **given)  # type: ignore[arg-type]
        _, path = await cache.get(
            wanted, user=user(who), progress=lambda *done: self.progress.append(done)
        )
        return path


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "cache")
    yield made
    for cache in made.caches:
        cache.close()


@contextmanager
def one(answer: Answer) -> Iterator[tuple[Files, str]]:
    with serving({"/d/train.jsonl": answer}) as server:
        yield server, f"{server.url}/d/train.jsonl"


async def test_a_file_is_fetched_once_and_found_again_also_by_the_next_agent(house: House) -> None:
    cache = await house.open()
    with one(Answer(LINES)) as (server, uri):
        path = await house.get(cache, f"{uri}?secret=1#x")
        assert (path.name, path.read_bytes()) == ("train.jsonl", LINES)
        assert path.stat().st_mode & 0o777 == 0o444
        assert await house.get(cache, f"{uri}?secret=1#x") == path
        later = await house.open()
        assert await house.get(later, f"{uri}?secret=1#x", "b") == path
        entries = await later.entries()
        assert [(one.uris, one.size_bytes, one.pinned_by) for one in entries] == [
            ((uri,), len(LINES), ("job-b",))
        ]
        assert entries[0].digest == f"sha256:{hashlib.sha256(LINES).hexdigest()}"
        assert server.ranges == ["", "", ""]  # each asks what is there now
    assert house.progress[-1] == (len(LINES), len(LINES))


async def test_what_has_changed_at_its_source_is_fetched_anew(house: House) -> None:
    cache = await house.open()
    answers = {"/a": Answer(b"one")}
    with serving(answers) as server:
        first = await house.get(cache, f"{server.url}/a")
        answers["/a"] = Answer(b"two")
        second = await house.get(cache, f"{server.url}/a")
        assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
        answers["/a"] = Answer(b"two", has_mark=False)
        assert await house.get(cache, f"{server.url}/a") == second  # the same bytes once


async def test_a_source_that_now_refuses_its_caller_is_not_served_from_the_cache(
    house: House,
) -> None:
    cache = await house.open()
    with one(Answer(LINES, token="good")) as (server, _):
        rules = Rules(origins={"scaidrive": f"{server.url}/d"})
        cache = await house.open(rules)
        await house.get(cache, "scaidrive://train.jsonl", tokens={"scaidrive": "good"})
        with pytest.raises(CannotFetch, match="access is denied there"):
            await house.get(cache, "scaidrive://train.jsonl", tokens={"scaidrive": "bad"})
        with pytest.raises(CannotFetch, match="without a token for scaidrive"):
            await house.get(cache, "scaidrive://train.jsonl")


async def test_of_one_content_there_is_one_fetch(house: House) -> None:
    cache = await house.open()
    gate = threading.Event()
    with one(Answer(LARGE, cut_bytes=1 << 20, hold=gate)) as (server, uri):
        getting = [asyncio.create_task(house.get(cache, uri, str(n))) for n in range(3)]
        await eventually(lambda: len(server.asked) == 3 and bool(house.progress))
        gate.set()
        paths = await asyncio.gather(*getting)
        assert len(set(paths)) == 1
        assert paths[0].read_bytes() == LARGE
        assert len(server.asked) == 3  # three looked, and one of these went on
    (entry,) = await cache.entries()
    assert sorted(entry.pinned_by) == ["job-0", "job-1", "job-2"]


async def test_when_the_one_that_fetches_is_stopped_another_goes_on_from_there(
    house: House,
) -> None:
    cache = await house.open()
    gate = threading.Event()
    with one(Answer(LARGE, cut_bytes=1 << 20, hold=gate)) as (server, uri):
        first = asyncio.create_task(house.get(cache, uri, "first"))
        await eventually(lambda: _partial_bytes(house) >= 1 << 20)
        second = asyncio.create_task(house.get(cache, uri, "second"))
        await eventually(lambda: len(server.asked) == 2)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)  # its process is gone then
        gate.set()
        assert (await second).read_bytes() == LARGE
        assert server.ranges[-1] == f"bytes={1 << 20}-"


async def test_a_fetch_whose_process_is_killed_leaves_a_part_that_is_resumed(house: House) -> None:
    cache = await house.open()
    gate = threading.Event()
    with one(Answer(LARGE, cut_bytes=1 << 20, hold=gate)) as (server, uri):
        getting = asyncio.create_task(house.get(cache, uri))
        await eventually(lambda: _partial_bytes(house) >= 1 << 20)
        for child in _fetchers():
            child.send_signal(signal.SIGKILL)
        with pytest.raises(CannotFetch, match="has failed"):
            await getting
        assert await cache.entries() == []
        gate.set()
        again = await house.open()
        assert (await house.get(again, uri)).read_bytes() == LARGE
        assert server.ranges == ["", "", f"bytes={1 << 20}-"]
        assert list((house.folder / "partial").iterdir()) == []


async def test_a_connection_that_breaks_again_and_again_is_taken_up_where_it_broke(
    house: House,
) -> None:
    cache = await house.open()
    with one(Answer(LARGE, cut_bytes=1 << 20)) as (server, uri):
        path = await house.get(cache, uri)
        assert path.read_bytes() == LARGE
        assert server.ranges == ["", f"bytes={1 << 20}-", f"bytes={2 << 20}-"]


def test_a_fetch_ends_with_its_agent(tmp_path: Path) -> None:
    gate = threading.Event()
    with one(Answer(LARGE, cut_bytes=1 << 20, hold=gate)) as (_, uri):
        order = Order(uri=uri, tenant_id="acme", partials=str(tmp_path), rules=NEAR)
        command = [sys.executable, "-P", "-m", "node_agent.cache"]
        with subprocess.Popen(command, stdin=-1, stdout=-1) as process:
            assert process.stdin is not None
            for message in (order, Go(1 << 30)):
                process.stdin.write(msgspec.json.encode(message) + b"\n")
            process.stdin.flush()
            until(lambda: _has_begun(tmp_path), "the fetch has begun")
            process.stdin.close()
            assert process.wait(90) == 1
        gate.set()


async def test_the_least_recently_used_goes_and_nothing_that_a_lease_holds(house: House) -> None:
    answers = {f"/{name}": Answer(name.encode() * 400) for name in "abcd"}
    with serving(answers) as server:
        cache = await house.open(budget_bytes=1000)
        for name in "ab":
            await house.get(cache, f"{server.url}/{name}", name)
        with pytest.raises(CannotFetch, match="has room for"):
            await house.get(cache, f"{server.url}/c", "c")
        for name in "ab":
            await cache.release(f"lease-{name}")
        await house.get(cache, f"{server.url}/a", "a")
        await cache.release("lease-a")
        await house.get(cache, f"{server.url}/c", "c")
        assert _names(await cache.entries()) == ["c", "a"]
        later = await house.open(budget_bytes=1000)
        held = [path.name for path in (house.folder / "objects").iterdir()]
        await later.pin(held, owner="lease-c", job_id="job-c")
        with pytest.raises(CannotFetch, match="has room for"):
            await house.get(later, f"{server.url}/d", "d")


async def test_a_part_of_the_disk_is_left_to_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = Disk(10_000, 9_000, 1_000)
    cache = await house.open()
    with serving({"/a": Answer(b"a" * 400), "/b": Answer(b"b" * 400)}) as server:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        await house.get(cache, f"{server.url}/a", "a")
        usage = Disk(10_000, 9_400, 600)
        with pytest.raises(CannotFetch, match="has room for"):
            await house.get(cache, f"{server.url}/b", "b")
        await cache.release("lease-a")
        await house.get(cache, f"{server.url}/b", "b")
        assert _names(await cache.entries()) == ["b"]


async def test_a_file_that_was_changed_here_is_not_taken_for_whole(house: House) -> None:
    cache = await house.open()
    with one(Answer(LINES)) as (_, uri):
        path = await house.get(cache, uri)
        path.chmod(0o644)
        path.write_bytes(b"other")
        again = await house.get(cache, uri)
        assert again.read_bytes() == LINES


@pytest.mark.parametrize(
    ("uri", "rules", "error"),
    [
        ("http://169.254.169.254/latest/meta-data", NEAR, NOT_ALLOWED),
        ("http://localhost:1/x", Rules(), NOT_ALLOWED),
        ("http://127.0.0.1:1/x", Rules(networks=NEAR.networks, hosts=(".org",)), "its host is not"),
        (f"s3://{BUCKET}/rival/x", Rules(roots=(f"s3://{BUCKET}/{{tenant}}",)), NOT_BELOW),
        (f"gs://{BUCKET}/acme/../x", Rules(roots=(f"gs://{BUCKET}/",)), NOT_BELOW),
        ("scaidrive://a", Rules(), "is not set up here"),
        ("memory://a", NEAR, "is not set up here"),
        ("/etc/passwd", NEAR, "read where it is"),
        ("file:///etc/passwd", NEAR, "read where it is"),
    ],
)
async def test_what_the_admin_does_not_allow_is_not_fetched(
    house: House, uri: str, rules: Rules, error: str
) -> None:
    with pytest.raises(CannotFetch, match=error):
        await house.get(await house.open(rules), uri)


async def test_a_token_is_in_no_file_and_no_list_of_processes(house: House) -> None:
    gate = threading.Event()
    with one(Answer(LINES, token=CANARY, cut_bytes=10, hold=gate)) as (server, _):
        cache = await house.open(Rules(origins={"scaiatlas": f"{server.url}/d"}))
        tokens = {"scaiatlas": CANARY, "scaidrive": f"{CANARY}-2"}
        getting = asyncio.create_task(house.get(cache, "scaiatlas://train.jsonl", tokens=tokens))
        await eventually(lambda: _has_begun(house.folder))
        assert _fetchers()
        for child in _fetchers():
            assert CANARY not in f"{child.cmdline()} {child.environ()}"
        gate.set()
        await getting
    assert not [path for path, read in written(house.folder) if CANARY.encode() in read]


def _has_begun(folder: Path) -> bool:
    return any(path.name == "train.jsonl" for path, _ in written(folder))


async def test_a_digest_that_the_job_names_is_held_to(house: House) -> None:
    cache = await house.open()
    digest = hashlib.sha256(LINES).hexdigest()
    with one(Answer(LINES)) as (_, uri):
        assert (await house.get(cache, f"{uri}#sha256={digest}")).read_bytes() == LINES
        with pytest.raises(CannotFetch, match="is not the one that the job names"):
            await house.get(cache, f"{uri}#sha256={'0' * 64}")
    assert len(await cache.entries()) == 1


async def test_a_bundle_is_unpacked_into_the_cache_and_a_bad_one_leaves_nothing(
    house: House, tmp_path: Path
) -> None:
    cache = await house.open()
    local = tmp_path / "code.zip"
    local.write_bytes(zipped(("pkg/train.py", b"print(1)\n")))
    evil = zipped(("../../train.py", b"print(1)\n"))
    with serving({"/code.zip": Answer(local.read_bytes()), "/evil.zip": Answer(evil)}) as server:
        for uri in (f"{server.url}/code.zip", str(local), local.as_uri()):
            tree = await house.get(cache, uri, bundle=True)
            assert (tree / "pkg/train.py").read_bytes() == b"print(1)\n"
        with pytest.raises(CannotFetch, match="has an empty part"):
            await house.get(cache, f"{server.url}/evil.zip", bundle=True)
    assert len(await cache.entries()) == 1
    reader = (65534, 65534)
    local.chmod(0o600)
    if os.getuid() == 0:  # only root could read what the job's own user cannot
        with pytest.raises(CannotFetch, match="permission denied"):
            await house.get(cache, str(local), bundle=True, reader=reader)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
async def test_a_bucket_is_fetched_by_file_and_by_folder(
    house: House, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    objects = {"acme/d/a.jsonl": LINES, "acme/d/deep/b.bin": LARGE, "rival/x": b"x"}
    with serving({}, objects=objects) as server:
        rules = Rules(roots=(f"{scheme}://{BUCKET}/{{tenant}}",), endpoints={scheme: server.url})
        cache = await house.open(rules)
        path = await house.get(cache, f"{scheme}://{BUCKET}/acme/d/a.jsonl")
        assert (path.name, path.read_bytes()) == ("a.jsonl", LINES)
        folder = await house.get(cache, f"{scheme}://{BUCKET}/acme/d/")
        assert (folder / "a.jsonl").read_bytes() == LINES
        assert (folder / "deep/b.bin").read_bytes() == LARGE
        assert await house.get(cache, f"{scheme}://{BUCKET}/acme/d/") == folder


async def eventually(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, condition, "the fetches are so far")


async def test_what_is_here_is_listed_and_offered_by_its_hash(house: House) -> None:
    cache = await house.open()
    told: list[agent_pb2.ReportCacheRequest] = []
    offered = asyncio.Event()

    async def report(request: agent_pb2.ReportCacheRequest) -> None:
        told.append(request)

    async def images() -> dict[str, int]:
        return {"docker.io/library/torch:2": 7}

    holdings = Holdings(cache, report, node_id="n1", images=images)
    holdings.on_change = offered.set
    telling = asyncio.create_task(holdings.run())
    with one(Answer(LINES)) as (_, uri):
        await house.get(cache, f"{uri}?signature=1")
        await eventually(lambda: bool(told and told[-1].entries))
    telling.cancel()
    assert holdings.keys == {key_of(uri): len(LINES), image_key("torch:2"): 7}
    assert offered.is_set()
    (held,) = told[-1].entries
    assert (held.entry.uri, list(held.tenants)) == (uri, ["acme"])
    assert list(held.entry.pinned_by) == ["job-a"]
    assert (told[-1].entries_count, told[-1].used_bytes) == (1, len(LINES))


def _names(entries: list[Entry]) -> list[str]:
    return [one.uris[0].rpartition("/")[2] for one in entries]


def _partial_bytes(house: House) -> int:
    return sum(len(read) for _, read in written(house.folder / "partial"))


def _fetchers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "node_agent.cache" in words_of(child)]
