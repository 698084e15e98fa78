"""Bytes of every version that was ever written can be read, and mean what they meant."""

import json
import re
from pathlib import Path

import pytest

from coordinator.core.records import Kind, Record
from coordinator.core.replacing import replace
from coordinator.store.codec import CODECS, STEPS, Codec, CodecError, decode, encode, inside
from tests.contract.stores.samples import BARE, DEFAULTS, FULL, GOLDEN, defaults, job, whole

FILES = sorted(GOLDEN.glob("*.v*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_file_reads_as_the_record_that_was_written(file: Path) -> None:
    kind = Kind(file.name.split(".")[0])
    assert decode(kind, file.read_bytes()) == FULL[kind]


def test_every_version_of_every_kind_has_a_golden_file() -> None:
    assert {file.stem for file in FILES} == {
        f"{kind}.v{version}"
        for kind, codec in CODECS.items()
        for version in range(1, codec.version + 1)
    }
    assert set(STEPS) == set(FULL) == set(Kind) - {Kind.DOCUMENT}


@pytest.mark.parametrize("kind", list(FULL))
def test_every_record_comes_back_as_it_was(kind: Kind) -> None:
    assert decode(kind, encode(FULL[kind])) == FULL[kind]


def test_fields_of_a_later_program_are_passed_over() -> None:
    version, tree = json.loads(encode(job(1)))
    tree["colour"] = {"deep": [1]}
    tree["demand"]["colour"] = 1
    assert decode(Kind.JOB, json.dumps([version, tree], separators=(",", ":")).encode()) == job(1)


def test_fields_that_an_earlier_program_did_not_write_have_their_defaults() -> None:
    version, tree = json.loads(encode(FULL[Kind.JOB]))
    del tree["priority"], tree["policy"]["grace_ms"]
    read = decode(Kind.JOB, json.dumps([version, tree]).encode())
    assert (read.priority, read.policy.grace_ms) == (5, 120_000)
    policy = replace(read.policy, grace_ms=5)
    assert replace(read, priority=9, policy=policy) == FULL[Kind.JOB]


def test_fields_that_are_as_by_default_are_left_out() -> None:
    version, tree = json.loads(encode(job(1)))
    assert version == 1
    assert tree == {
        "job_id": "job_0001",
        "sequence": 1,
        "lineage_id": "job_0001",
        "tenant_id": "acme",
        "user_id": "ada",
        "name": "train-1",
        "demand": {"device_count": 1},
        "policy": {},
        "created_at_ms": 1001,
        "updated_at_ms": 1001,
    }


@pytest.mark.parametrize("record", [*FULL.values(), *BARE], ids=lambda one: str(one.kind))
def test_bytes_with_every_field_are_read_as_well(record: Record) -> None:
    read = decode(record.kind, whole(record))
    assert read == record
    assert encode(read) == encode(record)


@pytest.mark.parametrize("record", [*FULL.values(), *BARE], ids=lambda one: str(one.kind))
def test_equal_records_have_equal_bytes(record: Record) -> None:
    assert encode(decode(record.kind, encode(record))) == encode(record)


def test_no_default_of_a_stored_field_has_changed() -> None:
    """Bytes that leave a field out mean the default that it had when they were written."""
    assert json.loads(DEFAULTS.read_bytes()) == json.loads(defaults()), (
        "a changed default needs a step in codec.py; a new field: make the file anew"
    )


def test_a_step_turns_the_older_version_into_the_newer() -> None:
    older = Codec(Kind.JOB, ())
    newer = Codec(Kind.JOB, (lambda tree: {**tree, "name": tree["name"].upper()},))
    assert newer.version == older.version + 1
    assert newer.decode(older.encode(job(1))).name == "TRAIN-1"
    assert newer.decode(newer.encode(job(1))).name == "train-1"


def test_a_step_reaches_a_record_inside_another() -> None:
    step = inside("job", lambda tree: {**tree, "name": "changed"})
    newer = Codec(Kind.REQUEST, (step,))
    older = Codec(Kind.REQUEST, ())
    assert newer.decode(older.encode(FULL[Kind.REQUEST])).job.name == "changed"
    assert step({"job": None}) == {"job": None}


def test_a_version_of_the_future_is_refused_with_what_to_do() -> None:
    newer = Codec(Kind.JOB, (lambda tree: tree,))
    with pytest.raises(CodecError, match=re.escape("version 2; known here are 1 to 1: upgrade")):
        Codec(Kind.JOB, ()).decode(newer.encode(job(1)))


@pytest.mark.parametrize("body", [b"", b"{", b"[1,{}]", b"[0,{}]", b'["1",{}]', b"[1]", b"\xff"])
def test_what_is_no_record_is_refused(body: bytes) -> None:
    with pytest.raises(CodecError):
        decode(Kind.JOB, body)
