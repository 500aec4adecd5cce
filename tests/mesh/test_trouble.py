"""Peers that answer never, slowly, or with a gigabyte: found out in three seconds, at no cost to anybody else."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.mesh.site import JOB, Node, Site

from pullprint.mesh import client
from pullprint.mesh.client import PeerAway, PeerRefused
from pullprint.wire.mesh import Accepted, Ballots, Commit, Offer

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
COMMIT = Commit(job=JOB, generation=1, ballot=1, order="an order")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.asynccontextmanager
async def liar(site: Site, speak: Speak, plain: bool = False) -> AsyncIterator[tuple[Node, Node, Node]]:
    """Anna, an honest peer, and one with a good certificate, at whose address *speak* answers."""

    tasks: set[asyncio.Task[None]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            if not plain:
                await reader.readuntil(b"\r\n\r\n")
            await speak(reader, writer)
        writer.transport.abort()

    async with site.node("anna") as anna, site.node("bert") as bert, site.node("mallory") as mallory:
        context = None if plain else mallory.credentials.server
        listening = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
        entry = mallory.entry.model_copy(update={"endpoints": (f"127.0.0.1:{port}",)})
        await site.tell(site.roster([anna.entry, bert.entry, entry]), anna, bert, mallory)
        async with listening:
            yield anna, bert, mallory
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks)


async def away_within(seconds: float, anna: Node, node: Node) -> PeerAway:
    begin = time.monotonic()
    with pytest.raises(PeerAway) as away:
        await anna.client.ask(node.node, "/mesh/v1/commits", COMMIT, Ballots)
    assert time.monotonic() - begin < seconds
    assert anna.peers.state(node.node).trouble and not anna.peers.awake(node.node)
    return away.value


async def silence(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3_600)


@pytest.mark.parametrize("plain", [True, False], ids=["before TLS", "after the question"])
async def test_silence_is_noticed_in_three_seconds_and_costs_others_nothing(site: Site, plain: bool) -> None:
    async with liar(site, silence, plain) as (anna, bert, mallory):
        async with asyncio.TaskGroup() as group:
            for _ in range(20):  # more than there are connections to one peer
                group.create_task(away_within(3.5, anna, mallory))
            await asyncio.sleep(0.2)
            for _ in range(50):
                begin = time.monotonic()
                await anna.client.ask(bert.node, "/mesh/v1/commits", COMMIT, Ballots)
                assert time.monotonic() - begin < 0.5
        assert len(bert.handlers.said) == 50


async def test_an_address_where_nobody_answers_is_passed_over(site: Site) -> None:
    async with liar(site, silence, plain=True) as (anna, bert, mallory):
        at = anna.peers.endpoints(mallory.node)[0]
        entry = bert.entry.model_copy(update={"endpoints": (at, bert.endpoint)})
        await site.tell(site.roster([anna.entry, entry, mallory.entry]), anna)
        begin = time.monotonic()
        await anna.client.hello(bert.node)
        assert time.monotonic() - begin < 2
        begin = time.monotonic()
        async with asyncio.timeout(1):
            await anna.client.hello(bert.node)


async def test_nobody_listens_there(site: Site) -> None:
    async with site.node("anna") as anna, site.node("bert") as bert:
        entry = bert.entry.model_copy(update={"endpoints": ("127.0.0.1:9",)})
        await site.tell(site.roster([anna.entry, entry]), anna)
        assert "no connection" in (await away_within(1, anna, bert)).sentence
        await site.tell(site.roster([anna.entry, bert.entry.model_copy(update={"endpoints": ()})]), anna)
        assert "no address" in (await away_within(1, anna, bert)).sentence


async def test_an_answer_that_drips_is_no_answer(site: Site) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"{")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with liar(site, drip) as (anna, _, mallory):
        assert "silent" in (await away_within(3.5, anna, mallory)).sentence


@pytest.mark.parametrize("length", [b"Content-Length: 1073741824", b"Transfer-Encoding: chunked"])
async def test_a_gigabyte_is_not_taken_in(site: Site, length: bytes) -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD + length + b"\r\n\r\n")
        block = b"x" * (1 << 16)
        while sent < 1 << 30:
            writer.write(b"10000\r\n" + block + b"\r\n" if b"chunked" in length else block)
            sent += len(block)
            await writer.drain()

    async with liar(site, flood) as (anna, _, mallory):
        assert "too long" in (await away_within(3.5, anna, mallory)).sentence
        assert sent < 16 << 20


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 4\r\n\r\nnope",
        HEAD + b"Content-Length: 8\r\n\r\n\xff\xfe\xfd[[[[[",
        HEAD + b"Content-Length: 100000\r\n\r\n" + b"[" * 100_000,
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://example.com/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nwoe",
        b"HTTP/1.1 999999 What\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        HEAD + b"Content-Length: 100\r\n\r\n{",
    ],
)
async def test_nonsense_is_no_answer(site: Site, answer: bytes) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.write_eof() if writer.can_write_eof() else writer.close()
        await asyncio.sleep(0.2)

    async with liar(site, speak) as (anna, bert, mallory):
        await away_within(3.5, anna, mallory)
        await anna.client.ask(bert.node, "/mesh/v1/commits", COMMIT, Ballots)


async def test_a_peer_that_says_that_it_is_another_does_not_count_as_awake(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    bert.handlers.node = anna.node
    with pytest.raises(PeerAway):
        await anna.client.hello(bert.node)
    assert anna.peers.state(bert.node).hello is None


async def test_a_refusal_is_told_with_its_word_and_its_sentence(site: Site) -> None:
    body = b'{"code":"no-room","sentence":"There is no room \\u202e here."}'

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 507 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        await asyncio.sleep(0.2)

    async with liar(site, speak) as (anna, _, mallory):
        with pytest.raises(PeerRefused) as refused:
            await anna.client.ask(
                mallory.node, f"/mesh/v1/copies/{JOB}", Offer(size=1, digest=bytes(32), expires=1), Accepted
            )
        assert (refused.value.status, refused.value.code) == (507, "no-room")
        assert refused.value.sentence == "There is no room \ufffd here."
        assert anna.peers.awake(mallory.node)  # it has answered


async def test_a_kept_connection_that_was_closed_meanwhile_costs_no_question(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    connections = bert.server._connections
    assert connections is not None
    for _ in range(20):
        await anna.client.ask(bert.node, "/mesh/v1/commits", COMMIT, Ballots)
        connections.keep_only(set())
    assert len(bert.handlers.said) == 20


async def test_both_at_once_leave_no_connection_behind(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(anna.client.ask(bert.node, "/mesh/v1/commits", COMMIT, Ballots))
            group.create_task(bert.client.ask(anna.node, "/mesh/v1/commits", COMMIT, Ballots))
    for node in pair:
        assert node.server._connections is not None and node.server._connections.count() <= client.PER_PEER
