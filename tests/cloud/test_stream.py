"""What a page is shown live, and what is shown of jobs that ended."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.cloud.office import Office

from pullprint.cloud import jobs, stream


class Events:
    """A stream of server-sent events, read as a browser reads it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> tuple[str, Any]:
        """The next event's name and data; comments are passed over. An empty name at the end."""
        name, data = "", ""
        async with asyncio.timeout(10):
            async for line in self.response.content:
                word, _, value = line.decode().rstrip("\n").partition(": ")
                if word == "event":
                    name = value
                elif word == "data":
                    data = value
                elif not word and name:
                    return name, json.loads(data) if data else None
        return "", None

    async def state(self, job: str, state: str) -> dict[str, Any]:
        """The view of *job* once it is in *state*."""
        while True:
            name, listing = await self.next()
            assert name == "jobs", name
            for view in listing["jobs"]:
                if (view["id"], view["state"]) == (job, state):
                    return dict(view)


@asynccontextmanager
async def listening(office: Office, token: str) -> AsyncIterator[Events]:
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    async with office.http.get(f"{office.url}/api/v1/events", headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        yield Events(response)


async def test_a_page_is_shown_the_list_and_every_change(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    async with listening(office, token) as events:
        assert await events.next() == ("jobs", {"version": 1, "jobs": []})
        job = await node.hold()
        assert (await events.state(job, "held"))["title"] == "Payslip"
        await node.report_state(job, "sending", pages=2, sentence="Foyer is printing.")
        view = await events.state(job, "sending")
        assert (view["printed"], view["sentence"]) == (2, "Foyer is printing.")


async def test_nobody_is_shown_another_users_jobs(office: Office) -> None:
    node = await office.join()
    gus = await office.sign_in("gus@example.com")
    async with listening(office, gus) as events:
        await events.next()
        await node.hold()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(events.next(), 0.5)


async def test_a_page_hears_that_a_printer_has_changed(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    async with listening(office, token) as events:
        assert (await events.next())[0] == "jobs"
        state = {"printer": office.printer, "ready": False, "trouble": "The printer is out of paper."}
        assert (await node.call("POST", "/node/v1/printers", {"printers": [state]})).status == 204
        assert await events.next() == ("printers", None)
    seen = (await office.ask("GET", f"/api/v1/printers/{office.printer}", token=token)).body
    assert (seen["ready"], seen["trouble"]) == (False, "The printer is out of paper.")


async def test_a_stream_ends_with_its_session(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    async with listening(office, token) as events:
        await events.next()
        assert (await office.ask("DELETE", "/api/v1/session", token=token)).status == 204
        await node.hold()
        assert await events.next() == ("ended", None)
        assert await events.next() == ("", None)


async def test_a_stream_without_a_session_is_refused(office: Office) -> None:
    assert (await office.ask("GET", "/api/v1/events")).status == 401
    assert (await office.ask("GET", "/api/v1/events", token="x" * 43)).code == "not-signed-in"


async def test_a_user_has_so_many_streams_and_gets_them_back(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STREAMS", 2)
    token = await office.sign_in()
    async with listening(office, token) as one, listening(office, token) as two:
        await one.next()
        await two.next()
        assert await refused(office, token)
    await until_free(office, token)


async def test_a_browser_that_takes_nothing_is_let_go(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STREAMS", 1)
    monkeypatch.setattr(stream, "WRITE_TIME", 0.3)
    node, token = await office.join(), await office.sign_in()
    trust = ssl.create_default_context(cafile=office.authority)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(office.url.rpartition(":")[2]), ssl=trust)
    writer.write(f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    await writer.drain()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.transport.pause_reading()
    assert await refused(office, token)
    try:
        await node.report(*(node.job_report(title="x" * 255, sentence="y" * 900) for _ in range(500)))
        free = asyncio.create_task(until_free(office, token))
        while not free.done():
            await node.hold()
            await asyncio.sleep(0.1)
        await free
    finally:
        writer.transport.abort()


async def refused(office: Office, token: str) -> bool:
    """Whether another stream is one too many."""
    headers = {"Authorization": f"Bearer {token}"}
    async with office.http.get(f"{office.url}/api/v1/events", headers=headers) as response:
        return response.status == 429


async def until_free(office: Office, token: str) -> None:
    async with asyncio.timeout(30):
        while await refused(office, token):
            await asyncio.sleep(0.05)


async def test_trouble_is_told_until_the_next_try(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    job = await node.hold()
    body = {"printer": office.printer}
    assert (await office.ask("POST", f"/api/v1/jobs/{job}/release", body, token)).body["printer"] == "Foyer"
    order, _ = node.open(await node.poll_for("order"))
    await node.report_state(job, "held", ballot=order.ballot, order=order.jti, nothing_sent=True, sentence="Off.")
    view = (await office.ask("GET", f"/api/v1/jobs/{job}", token=token)).body
    assert (view["trouble"], view["sentence"], view["printer"]) == (True, "Off.", "Foyer")
    again = (await office.ask("POST", f"/api/v1/jobs/{job}/release", body, token)).body
    assert (again["trouble"], again["printed"]) == (False, None)


async def test_history_comes_in_pages_and_misses_none(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_HISTORY", jobs._HISTORY.limit(None).limit(3))
    monkeypatch.setattr(jobs, "HISTORY_PAGE", 3)
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    ended = [await node.hold() for _ in range(7)]
    for job in ended:
        await node.report_state(job, "done", pages=2)
    seen: list[str] = []
    cursor = ""
    for _ in range(4):
        page = (await office.ask("GET", f"/api/v1/history?before={cursor}", token=token)).body
        seen += [view["id"] for view in page["jobs"]]
        assert all(view["printed"] == 2 and view["ended"] for view in page["jobs"])
        cursor = page["next"]
        if not cursor:
            break
    assert seen == list(reversed(ended)) and held not in seen


@pytest.mark.parametrize("cursor", ["x", "1-2", "nan-" + "0" * 32, "inf-" + "0" * 32, "1e400-" + "0" * 32, "9" * 500])
async def test_a_place_in_the_history_that_is_none_is_refused(office: Office, cursor: str) -> None:
    answer = await office.ask("GET", f"/api/v1/history?before={cursor}", token=await office.sign_in())
    assert (answer.status, answer.code) == (400, "bad-request")
