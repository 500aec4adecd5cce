"""Callers that connect and say nothing, half of it, too much, or nonsense; and handlers that fail."""

import asyncio
import contextlib
import logging
import socket
import ssl

import pytest
from tests.mesh.site import JOB, Node, Site
from tests.mesh.test_identity import get, news, raw

from pullprint.base.errors import ConfigError, NotFound
from pullprint.mesh import connections, server
from pullprint.mesh.client import PeerRefused
from pullprint.wire.mesh import BODY_LIMIT, Ballots, Commit, News

COMMIT = Commit(job=JOB, generation=1, ballot=1, order="an order")


async def test_each_message_reaches_its_handler_with_who_sent_it(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    await anna.client.tell(bert.node, "/mesh/v1/news", news())
    await anna.client.ask(bert.node, "/mesh/v1/commits", COMMIT, Ballots)
    assert bert.handlers.said == [(anna.node, news()), (anna.node, COMMIT)]
    assert await anna.client.roster(bert.node) == bert.peers.token


async def test_what_a_handler_raises_is_what_the_caller_reads(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    bert.handlers.fault = NotFound(what="job")
    with pytest.raises(PeerRefused) as refused:
        await anna.client.tell(bert.node, "/mesh/v1/news", news())
    assert (refused.value.status, refused.value.code) == (404, "not-found")


async def test_an_unexpected_error_says_nothing_of_itself(
    pair: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    anna, bert = pair
    bert.handlers.fault = RuntimeError("the title of a document")
    with caplog.at_level(logging.DEBUG), pytest.raises(PeerRefused) as refused:
        await anna.client.tell(bert.node, "/mesh/v1/news", news())
    assert (refused.value.status, refused.value.code) == (500, "unexpected")
    assert "title" not in refused.value.sentence and "title" not in caplog.text and "RuntimeError" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/mesh/v1/news", b"", 400),
        ("POST", "/mesh/v1/news", b"[" * 100_000, 400),
        ("POST", "/mesh/v1/news", b"\xff\xfe", 400),
        ("POST", "/mesh/v1/commits", b'{"job":"../../etc/passwd"}', 400),
        ("POST", "/mesh/v1/nothing", b"{}", 404),
        ("DELETE", "/mesh/v1/news", b"", 404),
        ("GET", "/", b"", 404),
        ("GET", "/mesh/v1/copies/..%2f..%2fetc%2fpasswd", b"", 404),
        ("GET", f"/mesh/v1/copies/{JOB}%0a", b"", 404),
        ("GET", f"/mesh/v1/copies/{JOB}?from=-1", b"", 400),
        ("GET", f"/mesh/v1/copies/{JOB}?from=1e9", b"", 400),
        ("PUT", f"/mesh/v1/copies/{JOB}?from=99999999999999999999", b"", 400),
        ("PUT", f"/mesh/v1/copies/{JOB}", b"data", 404),
    ],
)
async def test_nonsense_is_refused(pair: tuple[Node, Node], method: str, path: str, body: bytes, status: int) -> None:
    anna, bert = pair
    reader, writer = await raw(anna, bert)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(5):
        assert f" {status} ".encode() in await reader.readline()
    writer.transport.abort()
    assert not bert.handlers.said


async def test_a_gigabyte_of_question_is_not_read(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    for head in (f"Content-Length: {1 << 30}", "Transfer-Encoding: chunked"):
        reader, writer = await raw(anna, bert)
        writer.write(f"POST /mesh/v1/news HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        for _ in range(BODY_LIMIT // (1 << 16) + 1 if "chunked" in head else 0):
            writer.write(b"10000\r\n" + b"x" * (1 << 16) + b"\r\n")
        async with asyncio.timeout(5):
            assert b" 413 " in await reader.readline()
        writer.transport.abort()


async def test_a_compressed_question_is_refused(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    reader, writer = await raw(anna, bert)
    writer.write(
        b"POST /mesh/v1/news HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
    )
    assert b" 400 " in await reader.readline()
    writer.transport.abort()


async def test_a_question_that_drips_is_given_up(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_TIME", 0.2)
    anna, bert = pair
    reader, writer = await raw(anna, bert)
    writer.write(b"POST /mesh/v1/news HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(5):
        assert b" 400 " in await reader.readline()
    writer.transport.abort()


@pytest.mark.parametrize("said", [b"", b"GET /mesh/v1/hello HTT", b"GET /mesh/v1/hello HTTP/1.1\r\nX: y"])
async def test_half_a_head_is_not_waited_for(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(connections, "SWEEP", 0.05)
    monkeypatch.setattr(connections, "FIRST_TIME", 0.3)
    anna, bert = pair
    reader, writer = await raw(anna, bert)
    writer.write(said)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.transport.abort()


async def test_half_a_second_head_is_not_waited_for(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP", 0.05)
    monkeypatch.setattr(connections, "IDLE_TIME", 0.3)
    anna, bert = pair
    reader, writer = await raw(anna, bert)
    await get(reader, writer, "/mesh/v1/hello")
    writer.write(b"GET /mesh/v1/hello HTTP/1.1\r\nX: ")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.transport.abort()


async def test_a_handshake_that_does_not_go_on_is_given_up(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_TIME", 0.2)
    _, bert = pair
    reader, writer = await asyncio.open_connection("127.0.0.1", bert.port)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.transport.abort()


async def test_strangers_that_fill_the_door_keep_no_peer_out(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    strangers = [await asyncio.open_connection("127.0.0.1", bert.port) for _ in range(3 * connections.HANDSHAKES)]
    async with asyncio.timeout(3):
        await anna.client.hello(bert.node)
        for reader, _ in strangers[: connections.HANDSHAKES]:  # those that came first have gone
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
    for _, writer in strangers:
        writer.transport.abort()


async def test_strangers_that_speak_no_tls_stop_nothing(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000, b"\x00" * 10):
        _, writer = await asyncio.open_connection("127.0.0.1", bert.port)
        writer.write(said)
        writer.transport.close()
    await anna.client.hello(bert.node)


async def test_one_peer_has_only_so_many_connections_and_the_idle_ones_go_first(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    opened = []
    for _ in range(connections.PER_PEER + 4):
        reader, writer = await raw(anna, bert)
        await get(reader, writer, "/mesh/v1/hello")
        opened.append((reader, writer))
    assert bert.server._connections is not None and bert.server._connections.count() == connections.PER_PEER
    async with asyncio.timeout(5):
        for reader, _ in opened[:4]:
            assert await reader.read() == b""
    assert b"200 OK" in await get(*opened[-1], "/mesh/v1/hello")
    for _, writer in opened:
        writer.transport.abort()


async def test_a_peer_whose_connections_are_all_busy_gets_no_more_and_others_do(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PER_PEER", 2)
    async with site.node("anna") as anna, site.node("bert") as bert, site.node("carla") as carla:
        await site.introduce()
        go_on, said = asyncio.Event(), bert.handlers.said

        async def slow(peer: object, message: News) -> None:
            said.append(("", message))
            await go_on.wait()

        bert.handlers.news = slow  # type: ignore[method-assign]
        busy = [asyncio.create_task(anna.client.tell(bert.node, "/mesh/v1/news", news())) for _ in range(2)]
        while len(said) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
            reader, writer = await raw(anna, bert)
            try:
                await get(reader, writer, "/mesh/v1/hello")
            finally:
                writer.transport.abort()
        await carla.client.hello(bert.node)
        go_on.set()
        await asyncio.gather(*busy)


async def test_a_handshake_byte_by_byte_is_given_up(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_TIME", 0.3)
    _, bert = pair
    reader, writer = await asyncio.open_connection("127.0.0.1", bert.port)

    async def drip() -> None:
        for byte in b"\x16\x03\x01\x02\x00" + b"\x01" * 500:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    dripping.cancel()
    writer.transport.abort()


async def test_an_old_connection_is_not_used_for_ever(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "AGE", 0.1)
    anna, bert = pair
    reader, writer = await raw(anna, bert)
    await get(reader, writer, "/mesh/v1/hello")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.transport.abort()


def test_a_port_that_is_taken_is_named() -> None:
    with server.bind("::", 0) as sock:
        sock.listen()
        with pytest.raises(ConfigError, match=str(sock.getsockname()[1])):
            server.bind("::", sock.getsockname()[1])
        assert sock.family == (socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)


async def test_a_server_stops_while_a_request_is_under_way(site: Site) -> None:
    async with site.node("anna") as anna:
        async with site.node("bert") as bert:
            await site.introduce()
            began = asyncio.Event()

            async def stuck(peer: object, message: News) -> None:
                began.set()
                await asyncio.sleep(3_600)

            bert.handlers.news = stuck  # type: ignore[method-assign]
            telling = asyncio.create_task(anna.client.tell(bert.node, "/mesh/v1/news", news()))
            await began.wait()
        with pytest.raises(Exception, match="answer"):
            await telling
