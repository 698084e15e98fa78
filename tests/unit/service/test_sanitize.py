"""What must not leave, and what must not be lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaimind.service.sanitize import MASK, MAX_TEXT, WITHHELD, cleaned, leaks

INSIDE = [
    'Traceback (most recent call last):\n  File "x.py", line 3, in f\nKeyError: 1',
    'File "jobs.py", line 12',
    "line 12, in step",
    "KeyError: 'job'",
    "sqlite3.OperationalError: database is locked",
    "grpc.aio._call.AioRpcError",
    "panicked at src/main.rs",
    "no such table: jobs",
    "UNIQUE constraint failed: jobs.id",
    "SELECT * FROM jobs WHERE id=1",
    "SELECT id\nFROM jobs",
    "select id, name from jobs where id = 3",
    "select * from x",
    "INSERT INTO jobs VALUES (1)",
    "insert or replace into jobs (a) values (1)",
    "update jobs set status = 3",
    "DELETE FROM jobs",
    "drop table jobs",
    'near "x": syntax error',
    "PRAGMA journal_mode",
    "/var/lib/mind/state.db",
    "could not open /tmp/x",
    "open('/tmp')",
    "no space left: /data",
    "see /a/b",
    "coordinator/rpc/jobs.py:42",
    "jobs.py:42",
    "./run/state.sock",
    "~/.config/mind",
    "~root/x",
    "file:///etc/passwd",
    "C:\\Users\\a",
    "\\\\server\\share",
    "at 10.0.0.5:6379",
    "10.0.0.5",
    "(192.168.1.7)",
    "http://10.0.0.1/x",
    "[::1]:50051",
    "fe80::1",
    "2001:db8::8a2e:370:7334",
    "ipv4:127.0.0.1:50051: Failed to connect",
    "ipv6:%5B::1%5D:50051",
    "unix:/run/x.sock",
    "dns:///coordinator",
    "connect to localhost",
    "redis:6379 refused",
    "mind-coordinator:50051",
    "example.com:443",
    "http://web:8080/x",
    "redis://cache",
    "postgresql://user@db/mind",
    "coordinator.svc.cluster.local",
    "node-a.internal",
    "<Job object at 0x7f3a2b1c9d00>",
    "sgk_0123456789abcdef",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln",
    "Authorization: Bearer 0123456789abcdef",
    "-----BEGIN PRIVATE KEY-----",
    "x" * (MAX_TEXT + 1),
]

OUTSIDE = [
    "",
    "gpu_type 'H100' is not known; the cluster has A100, CPU",
    "needs 8 of type H100; the cluster has 4: A100",
    "meta-llama/Llama-3.1-8B",
    "'a/b'",
    "queue 'research/vision' is full",
    "input/output and/or 3/4",
    "s3://bucket/data/train.jsonl cannot be read",
    "hf://datasets/x/y",
    "https://example.com/data.jsonl",
    "scaidrive://acme/models/support-v3/",
    "pytorch:24.05-py3",
    "nvcr.io/nvidia/pytorch:24.05-py3",
    "ghcr.io/org/image:1.2",
    "ubuntu:22.04",
    "job job_01J9XK is COMPLETED and cannot be paused",
    "node-1 is DRAINING",
    "node gpu-01.rack7 is DRAINED",
    "at 2026-01-31T12:00:00Z",
    "12:30:45",
    "sim:8xH100",
    "step:1000",
    "key_id:1234567",
    "std::string",
    "::",
    "rank 3: exit code 1",
    "version 1.2.3 or 2.13.0",
    "label key=value",
    "train.py",
    "resource_config.gpu_count must be at least 1",
    'labels["a=b"] is too long',
    "key_01J9XK",
    "the bearer of bad news",
    "select a node from the list",
    "update the set of nodes",
    "create a table-like view",
    "Delete from the queue first",
    "an error occurred; see the file of the job",
    "50 % / 100",
    "tabs\tand unicode — ümlaut 漢字",
    "a" * MAX_TEXT,
]


@pytest.mark.parametrize("text", INSIDE)
def test_the_inside_is_found(text: str) -> None:
    assert leaks(text)
    assert leaks(f"cannot do it: {text}")


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_users_say_survives(text: str) -> None:
    assert not leaks(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("script: '/a/train.py' is not there", f"script: {MASK} is not there"),
        ("s3://bucket/x, then 10.0.0.5:80.", f"s3://bucket/x, then {MASK}"),
        ("rank 3: exit code 1", "rank 3: exit code 1"),
        ("SELECT id FROM jobs", WITHHELD),
        ("Traceback (most recent call last): it failed", WITHHELD),
        ("a " * MAX_TEXT, WITHHELD),
    ],
)
def test_a_record_loses_the_words_that_leak(text: str, kept: str) -> None:
    assert cleaned(text) == kept


@pytest.mark.parametrize("text", INSIDE)
def test_what_is_left_of_a_record_never_leaks(text: str) -> None:
    assert not leaks(cleaned(f"cannot do it: {text}"))


@given(st.text(max_size=200))
@settings(max_examples=20, deadline=None)
def test_any_text_has_an_answer(text: str) -> None:
    assert leaks(text) in (True, False)


@given(st.text(alphabet="/.a:0\\ -[x~\n", min_size=500, max_size=4000))
@settings(max_examples=20, deadline=None)
def test_hostile_text_takes_no_time(text: str) -> None:
    leaks(text)


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True))
@settings(max_examples=20, deadline=None)
def test_plain_names_survive(name: str) -> None:
    if name.lower() != "localhost":
        assert not leaks(f"'{name}' is not known")
