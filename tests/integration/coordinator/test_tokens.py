"""Tokens of an identity provider presented over gRPC: the rules of the gateway, and the same answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import structlog

from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.house import Caller, House, open_house
from tests.support.provider import AUDIENCE, ISSUER, Provider, provider
from tests.support.tokens import GOOD, GOOD_TOKENS, bad_tokens, signed

CODE = grpc.StatusCode


@asynccontextmanager
async def guarded(folder: Path, made: Provider) -> AsyncIterator[House]:
    """A coordinator that takes the provider's tokens beside API keys."""
    words = ("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE)
    async with open_house(folder, *words, "--jwt-jwks-url", f"{made.url}/jwks") as house:
        yield house


async def test_every_bad_token_has_the_answer_of_a_bad_key(tmp_path: Path) -> None:
    bad = bad_tokens(int(time.time()))
    assert len(bad) >= 60
    # What cannot stand in a header of HTTP/2 does not get as far as the coordinator.
    travels = {name: text for name, text in bad.items() if text.isascii() and len(text) < 8000}
    async with provider() as made, guarded(tmp_path, made) as house:
        faults = set()
        with structlog.testing.capture_logs() as logs:
            for name, text in travels.items():
                fault = await Caller(house.channel, text).refused("ListJobs", api.ListJobsRequest())
                assert fault.code is CODE.UNAUTHENTICATED, name
                faults.add(fault)
        faults.add(await Caller(house.channel, "sgk_x").refused("ListJobs", api.ListJobsRequest()))
        assert {fault.reason for fault in faults} == {"AUTH_TOKEN_INVALID"}
        assert len(faults) == 1
        assert not any(text[:40] in repr(logs) for text in travels.values() if len(text) > 60)
        assert made.fetched <= 2


async def test_a_good_token_says_who_calls_and_what_they_may_do(tmp_path: Path) -> None:
    async with provider() as made, guarded(tmp_path, made) as house:
        for good in GOOD_TOKENS:
            caller = Caller(house.channel, good)
            await caller.call("ListJobs", api.ListJobsRequest())
            fault = await caller.refused("CancelJob", api.CancelJobRequest(job_id="a"))
            assert fault.code is CODE.PERMISSION_DENIED
        engineer = Caller(house.channel, signed(module_permissions=["scaimind:manage"]))
        job = await engineer.job(await engineer.submit())
        assert (job.tenant_id, job.user_id) == ("acme", "ann")
        await house.admin.call("ListJobs", api.ListJobsRequest())


async def test_a_tenant_that_is_named_beside_a_token_is_not_read(tmp_path: Path) -> None:
    async with provider() as made, guarded(tmp_path, made) as house:
        fields = {"x_tenant_id": "other", "x_permissions": "scaimind:manage"}
        caller = Caller(house.channel, GOOD, **fields)
        fault = await caller.refused("CancelJob", api.CancelJobRequest(job_id="a"))
        assert fault.code is CODE.PERMISSION_DENIED


async def test_a_provider_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    async with provider() as made, guarded(tmp_path, made) as house:
        made.status = 500
        with structlog.testing.capture_logs() as logs:
            fault = await Caller(house.channel, GOOD).refused("ListJobs", api.ListJobsRequest())
        assert (fault.code, fault.reason) == (CODE.UNAVAILABLE, "IDENTITY_PROVIDER_UNAVAILABLE")
        assert made.url not in fault.text + repr(logs)
        await house.admin.call("ListJobs", api.ListJobsRequest())


async def test_without_a_provider_no_token_is_good(house: House) -> None:
    fault = await Caller(house.channel, GOOD).refused("ListJobs", api.ListJobsRequest())
    assert (fault.code, fault.reason) == (CODE.UNAUTHENTICATED, "AUTH_TOKEN_INVALID")
