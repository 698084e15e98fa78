"""A real browser follows a log: its EventSource is cut, goes on, and stops at the end.

The page uses the example's follow.js and tells this test's server all that it sees. It comes from the
same place as the module, as a host's own pages do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route

from examples.host_app import app as host_app
from gateway.app import PREFIX, create_app
from gateway.catalog import Catalog
from gateway.server import listen
from gateway.upstream import Upstream
from scaimind.v1 import job_pb2, stream_pb2
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House, open_house
from tests.integration.gateway.scripted import ALL_KEY, OPEN, SECRET, Coordinator
from tests.support.browser import showing

WITHIN_S = 150.0
FOLLOW = Path(host_app.__file__).with_name("follow.js")
PAGE = """<!doctype html><meta charset=utf-8><title>log</title><script type=module>
import {{ follow }} from "/follow.js";
const seen = {{number: 0, log: [], ids: [], gap: [], end: [], closed: 0}};
let sending = Promise.resolve();
function tell() {{
  const body = JSON.stringify({{...seen, number: ++seen.number}});
  sending = sending.then(() => fetch("/report", {{method: "POST", body}})).catch(() => 0);
}}
async function ticket() {{
  const answer = await fetch("{place}/stream-tickets", {{
    method: "POST",
    headers: {{"authorization": "Bearer {key}", "content-type": "application/json"}},
    body: JSON.stringify({{path: "{place}{stream}"}}),
  }});
  return (await answer.json()).data.ticket;
}}
follow("{place}{stream}", {{
  log: (line, id) => {{ seen.log.push(line.message); seen.ids.push(id); tell(); }},
  gap: (data) => {{ seen.gap.push(data.reason); tell(); }},
  end: (data) => {{ seen.end.push(data.status); tell(); }},
  closed: () => {{ seen.closed += 1; tell(); }},
}}, {with_ticket} ? ticket : null);
</script>"""


@dataclass
class Site:
    """A web site with the module in it, and what the page in the browser said of itself."""

    page: str = ""
    cookie: str = ""
    seen: dict[str, Any] = field(default_factory=lambda: {"number": 0, "log": []})
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    """Of each opening of the stream: query, Last-Event-ID, status."""
    told: asyncio.Event = field(default_factory=asyncio.Event)
    server: uvicorn.Server | None = None
    url: str = ""

    def cut(self) -> None:
        """Breaks every connection, as a network does."""
        assert self.server is not None
        for connection in tuple(self.server.server_state.connections):
            connection.transport.abort()

    async def until(self, condition: Callable[[dict[str, Any]], object]) -> None:
        """Waits for the page to say so."""
        async with asyncio.timeout(WITHIN_S):
            while not condition(self.seen):
                self.told.clear()
                await self.told.wait()

    async def show(self, request: Request) -> Response:
        answer = HTMLResponse(self.page)
        if self.cookie:
            answer.set_cookie("session", self.cookie)
        return answer

    async def report(self, request: Request) -> Response:
        told = json.loads(await request.body())
        if told["number"] > self.seen["number"]:
            self.seen = told
            self.told.set()
        return Response(status_code=204)


@asynccontextmanager
async def site(inner: Any, page: dict[str, str], *, cookie: str = "") -> AsyncIterator[Site]:
    """Serves the page and the module on a free port."""
    made = Site(PAGE.format(**page), cookie)

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        query = scope["query_string"].decode()

        async def note(message: Any) -> None:
            if message["type"] == "http.response.start" and "/logs" in scope["path"]:
                last = dict(scope["headers"]).get(b"last-event-id", b"").decode()
                made.asked.append((query, last, message["status"]))
            await send(message)

        await inner(scope, receive, note)

    routes = [
        Route("/page", made.show),
        Route("/report", made.report, methods=["POST"]),
        Route("/follow.js", lambda _: FileResponse(FOLLOW)),
        Mount("/", app=noting),
    ]
    sock = listen("127.0.0.1", 0, send_timeout_s=30)
    config = uvicorn.Config(
        Starlette(routes=routes), log_config=None, timeout_graceful_shutdown=1, lifespan="off"
    )
    made.server, made.url = uvicorn.Server(config), f"http://127.0.0.1:{sock.getsockname()[1]}"
    serving = asyncio.create_task(made.server.serve(sockets=[sock]))
    try:
        yield made
    finally:
        made.server.should_exit = True
        await serving
        sock.close()


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[tuple[House, FakeAgent, str, str]]:
    """A coordinator with a running job of the example host's user: house, agent, job, lease."""
    async with open_house(folder) as house:
        agent = FakeAgent(house.agents)
        await agent.sync()
        ann: Caller = await house.caller("acme")
        job_id = await ann.submit()
        [lease_id] = await agent.granted()
        await agent.runs(lease_id)
        yield house, agent, job_id, lease_id


async def test_an_event_source_is_cut_goes_on_by_its_last_id_and_stops_at_204(
    tmp_path: Path,
) -> None:
    async with talking(tmp_path) as (house, agent, job_id, lease_id):
        parts = house.now.parts
        host = host_app.create_host(
            Upstream(f"127.0.0.1:{house.now.port}", secret=parts.api_secret)
        )
        page = {"place": PREFIX, "stream": f"/jobs/{job_id}/logs?tail=-1"}
        page |= {"key": "", "with_ticket": "false"}
        async with site(host, page, cookie="ann-session") as here:
            with showing(f"{here.url}/page", tmp_path):
                texts = [f"line {number}" for number in range(60)]
                await agent.says(job_id, *texts[:20])
                await here.until(lambda seen: len(seen["log"]) == 20)
                here.cut()
                await agent.says(job_id, *texts[20:40])
                await here.until(lambda seen: len(seen["log"]) == 40)
                await agent.says(job_id, *texts[40:])
                await agent.ends(lease_id)
                await agent.forgets(lease_id)
                await here.until(lambda seen: seen["closed"])
            seen = here.seen
    assert seen["log"] == texts
    assert len(set(seen["ids"])) == len(texts)
    assert (seen["gap"], seen["end"], seen["closed"]) == ([], ["COMPLETED"], 1)
    queries, last_ids, statuses = zip(*here.asked, strict=True)
    assert statuses == (200, 200, 204)
    assert last_ids[:2] == ("", seen["ids"][19])
    assert set(queries) == {"tail=-1"}


def a_batch(*ids: str) -> stream_pb2.StreamJobLogsResponse:
    batch = stream_pb2.StreamJobLogsResponse()
    for name in ids:
        batch.events.add(id=name).log.message = f"line {name}"
    return batch


async def breaking(request: Any, context: Any) -> AsyncIterator[Any]:
    """Three lines before it breaks; then a gap, the last line and the end."""
    await context.send_initial_metadata(OPEN)
    if not request.after:
        yield a_batch("1", "2", "3")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
    assert request.after == "3"
    batch = stream_pb2.StreamJobLogsResponse()
    gap = batch.events.add(id="7").gap
    setattr(gap, "from", "3")
    gap.to, gap.reason = "7", "SLOW_READER"
    batch.events.add(id="8").log.message = "line 8"
    batch.events.add(id="9").end.status = job_pb2.Job.COMPLETED
    yield batch


async def test_a_page_without_a_cookie_opens_each_connection_with_a_ticket(tmp_path: Path) -> None:
    made = Coordinator()
    await made.start(Catalog.default())
    module = create_app(Upstream(f"127.0.0.1:{made.port}", secret=SECRET))
    made.scripts["StreamJobLogs"] = breaking
    page = {"place": PREFIX, "stream": "/jobs/job_1/logs", "key": ALL_KEY, "with_ticket": "true"}
    try:
        async with site(module, page) as here:
            with showing(f"{here.url}/page", tmp_path):
                await here.until(lambda seen: seen.get("closed"))
    finally:
        await module.close()
        await made.stop()
    assert here.seen["log"] == ["line 1", "line 2", "line 3", "line 8"]
    assert here.seen["gap"] == ["SLOW_READER"]
    assert len(here.seen["end"]) == 1
    queries = [query for query, _, status in here.asked if status == 200]
    assert len(queries) == len(set(queries)) == 2
    assert all("ticket=" in query for query in queries)
    assert "after=3" in queries[1]
