"""What stands beside the methods: pages without a credential, tickets, copies."""

from __future__ import annotations

from pathlib import Path

from gateway.copies import Copies
from tests.integration.both import opened
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.tenants.conftest import DEVICES, NOWHERE, PATIENT, Two
from tests.integration.tenants.test_matrix import silent


async def test_pages_that_ask_for_no_credential_tell_of_no_tenant(two: Two) -> None:
    target = await two.furnish()
    rest = two.world.rest
    await rest.get(f"/jobs/{target.running}", headers=two.world.headers(two.owner))
    told = []
    for page in ("/metrics", "/healthz", "/livez", "/readyz"):
        answer = await rest.get(f"http://mind{page}", headers={"authorization": ""})
        assert answer.status_code == 200
        told.append(answer.text)
    silent({"pages": told}, target)


async def test_a_ticket_opens_no_stream_of_another_tenant(two: Two) -> None:
    target = await two.furnish()
    rest = two.world.rest
    rest.headers.update(two.world.headers(two.other))
    told = []
    for of in (target, NOWHERE):
        path = f"/jobs/{of.running}/logs"
        made = await rest.post("/stream-tickets", json={"path": path})
        ticket = made.json()["data"]["ticket"]
        nobody = {"authorization": ""}
        answer = await rest.get(path, params={"ticket": ticket}, headers=nobody)
        error = answer.json()["error"]
        told.append((made.status_code, answer.status_code, error["code"], error["message"]))
    mine, nobodys = (target.masked(repr(one), NOWHERE) for one in told)
    assert mine == nobodys
    assert "JOB_NOT_FOUND" in mine


async def test_copies_of_a_tenant_are_shown_to_no_other_while_the_coordinator_is_away(
    tmp_path: Path,
) -> None:
    copies = Copies(tmp_path / "copies.db")
    async with opened(tmp_path, *PATIENT, copies=copies) as world:
        agent = FakeAgent(world.house.agents, devices=DEVICES)
        await agent.sync()
        owner, other = [await world.house.caller(one) for one in ("alpha-tenant", "beta-tenant")]
        target = await Two(world, agent, owner, other).furnish()
        paths = ["/jobs", "/evaluations", *(f"/jobs/{job_id}" for job_id in target.jobs)]
        for caller in (owner, other):
            for path in paths:
                await world.rest.get(path, headers=world.headers(caller))
        await copies.flush()
        await world.house.now.server.stop(0)
        stale = await world.rest.get(f"/jobs/{target.waiting}", headers=world.headers(owner))
        assert stale.json()["meta"]["stale"] is True
        told = [(await world.rest.get(path, headers=world.headers(other))).text for path in paths]
        silent({"copies": told}, target)
        assert '"jobs":[]' in told[0].replace(" ", "") or "COORDINATOR_UNAVAILABLE" in told[0]
