"""More nodes at once than the cloud can take: each is worked on while it waits, or told when to come again."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from sqlalchemy import func, select, update
from tests.cloud.office import Answer, NodeClient, Office, open_office

from pullprint.cloud import app, gate, tables
from pullprint.cloud.gate import Cloud
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import nonce
from pullprint.node.client import CloudClient, CloudRefused


@pytest.fixture
async def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Office, Cloud]]:
    """A cloud that works on one request at a time."""
    clouds: list[Cloud] = []
    build = app.build

    def remembered(cloud: Cloud) -> web.Application:
        clouds.append(cloud)
        return build(cloud)

    monkeypatch.setattr(app, "build", remembered)
    monkeypatch.setattr(gate, "AT_ONCE", 1)
    async with open_office(tmp_path) as office:
        yield office, clouds[0]


@contextmanager
def _locked(office: Office) -> Iterator[Callable[[], None]]:
    """The database is written to by another program, until the block ends or what it is given is called."""
    begun, over = threading.Event(), threading.Event()

    def hold(t: Transaction) -> None:
        t.run(update(tables.node).values(seen=tables.node.c.seen))
        begun.set()
        over.wait(8)

    thread = threading.Thread(target=office.store.transact, args=(hold,))
    thread.start()
    begun.wait(8)
    try:
        yield over.set
    finally:
        over.set()
        thread.join()


async def _until_waiting(cloud: Cloud, count: int) -> None:
    async with asyncio.timeout(5):
        while cloud.line.waiting != count:
            await asyncio.sleep(0.01)


async def _ask_twice(node: NodeClient, cloud: Cloud) -> list[asyncio.Task[Answer]]:
    """Requests of *node* while the database is locked: one that is worked on, and one that waits."""
    asked = [asyncio.create_task(node.call("GET", "/node/v1/config")) for _ in range(2)]
    await _until_waiting(cloud, 1)
    return asked


def _nonces(office: Office, node: NodeClient) -> int:
    count = select(func.count()).select_from(nonce).where(nonce.c.node == node.id)
    return office.store.transact(lambda t: int(t.run(count).scalar_one()))


async def test_request_whose_sender_has_gone_never_reaches_the_database(
    crowded: tuple[Office, Cloud], caplog: pytest.LogCaptureFixture
) -> None:
    office, cloud = crowded
    node, impatient = await office.join(), await office.join(name="desk-2")
    before = _nonces(office, impatient)
    context = ssl.create_default_context(cafile=office.authority)
    host, port = office.url.removeprefix("https://").split(":")
    with _locked(office) as unlock:
        asked = await _ask_twice(node, cloud)
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        head = [f"{name}: {value}" for name, value in impatient.signed("GET", "/node/v1/config").items()]
        writer.write("\r\n".join(["GET /node/v1/config HTTP/1.1", f"Host: {host}", *head, "", ""]).encode())
        await _until_waiting(cloud, 2)
        writer.close()
        await writer.wait_closed()  # the cloud has taken leave, too
        unlock()
        assert [(await each).status for each in asked] == [200, 200]
    assert (await node.call("GET", "/node/v1/config")).status == 200  # behind it in the line
    assert _nonces(office, impatient) == before
    assert not [record for record in caplog.records if record.name == "aiohttp.server"]


async def test_who_finds_the_line_full_is_told_at_once_when_to_come_again(
    crowded: tuple[Office, Cloud], monkeypatch: pytest.MonkeyPatch
) -> None:
    office, cloud = crowded
    node = await office.join()
    monkeypatch.setattr(gate, "LINE", 1)
    pem = office.authority.read_text()
    async with CloudClient(
        office.url.replace("127.0.0.1", "localhost"), pem, node.id, node.key, office.clock
    ) as client:
        with _locked(office) as unlock:
            asked = await _ask_twice(node, cloud)
            answer = await node.call("GET", "/node/v1/config")
            assert (answer.status, answer.code) == (503, "store-busy")
            assert 5 <= int(answer.headers["Retry-After"]) <= 30
            with pytest.raises(CloudRefused) as refused:
                await client.tell("/node/v1/printers", node.party_key)
            assert refused.value.status == 503 and 5 <= refused.value.retry_after <= 30
            unlock()
            assert [(await each).status for each in asked] == [200, 200]


async def test_who_has_waited_too_long_is_sent_away_unheard(
    crowded: tuple[Office, Cloud], monkeypatch: pytest.MonkeyPatch
) -> None:
    office, cloud = crowded
    node = await office.join()
    monkeypatch.setattr(gate, "LINE_TIME", 0.2)
    with _locked(office) as unlock:
        first, second = await _ask_twice(node, cloud)
        answer = await second
        assert (answer.status, answer.code) == (503, "store-busy") and answer.headers["Retry-After"]
        unlock()
        assert (await first).status == 200
    assert (await node.call("GET", "/node/v1/config")).status == 200
