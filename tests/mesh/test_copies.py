"""A sealed file between two nodes: whole, resumed, too long, too short, too slow, too many at once."""

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path

import pytest
from tests.mesh.site import JOB, Node, Site
from tests.mesh.test_identity import raw

from pullprint.base.clock import ManualClock
from pullprint.base.errors import NotFound
from pullprint.mesh import client, server
from pullprint.mesh.client import PeerAway, PeerRefused
from pullprint.mesh.handlers import Incoming, Interrupted
from pullprint.mesh.rate import BURST, Rate
from pullprint.mesh.turns import TransfersBusy, Turns
from pullprint.wire.mesh import Accepted, Offer, Peer, Received

SIZE = 3_000_001
DATA = os.urandom(SIZE)
COPY = f"/mesh/v1/copies/{JOB}"


async def offered(anna: Node, bert: Node, size: int = SIZE) -> Accepted:
    (anna.directory / "sealed").write_bytes(DATA)
    offer = Offer(size=size, digest=bytes(32), expires=2_000_000_000)
    return await anna.client.ask(bert.node, COPY, offer, Accepted)


def sealed(node: Node) -> Path:
    return node.directory / "sealed"


async def test_a_copy_arrives_as_it_left(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    assert (await offered(anna, bert)).have == 0
    received = await anna.client.send_copy(bert.node, JOB, sealed(anna), 0, SIZE)
    assert (received.size, received.digest) == (SIZE, hashlib.sha256(DATA).digest())
    assert (bert.directory / JOB).read_bytes() == DATA
    assert (await anna.client.send_copy(bert.node, JOB, sealed(anna), SIZE, SIZE)).size == SIZE  # nothing is left


async def test_a_copy_that_breaks_off_goes_on_where_it_stopped(site: Site) -> None:
    async with site.node("anna", rate=1 << 20) as anna, site.node("bert") as bert:
        await site.introduce()
        await offered(anna, bert)
        interrupted: asyncio.Future[Interrupted] = asyncio.get_running_loop().create_future()
        began = asyncio.Event()
        receive = bert.handlers.receive

        async def watched(peer: Peer, job: str, offset: int, pieces: Incoming) -> Received:
            began.set()
            try:
                return await receive(peer, job, offset, pieces)
            except Interrupted as error:
                interrupted.set_result(error)
                raise

        bert.handlers.receive = watched  # type: ignore[method-assign]
        sending = asyncio.create_task(anna.client.send_copy(bert.node, JOB, sealed(anna), 0, SIZE))
        await began.wait()
        await asyncio.sleep(0.3)  # some of it has come
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        assert "broke" in (await interrupted).sentence
        have = (await offered(anna, bert)).have
        assert 0 < have < SIZE
        anna.rate.bytes_per_second = 0
        received = await anna.client.send_copy(bert.node, JOB, sealed(anna), have, SIZE)
        assert received.digest == hashlib.sha256(DATA).digest()


async def test_more_than_was_offered_is_refused_before_it_is_read(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    await offered(anna, bert, SIZE - 1)
    with pytest.raises(PeerRefused) as refused:
        await anna.client.send_copy(bert.node, JOB, sealed(anna), 0, SIZE)
    assert refused.value.code == "too-large" and not (bert.directory / JOB).exists()
    await anna.client.hello(bert.node)


async def test_a_file_that_is_shorter_than_it_should_be_is_this_hosts_fault(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    await offered(anna, bert, SIZE + 5)
    with pytest.raises(OSError, match="shorter") as fault:
        await anna.client.send_copy(bert.node, JOB, sealed(anna), 0, SIZE + 5)
    assert not isinstance(fault.value, ConnectionError)
    with pytest.raises(FileNotFoundError):
        await anna.client.send_copy(bert.node, JOB, anna.directory / "gone", 0, SIZE)
    assert not anna.peers.state(bert.node).trouble
    await anna.client.hello(bert.node)


async def test_a_sender_that_sends_more_than_it_says_gets_no_further(pair: tuple[Node, Node]) -> None:
    """What follows the announced length would be the next request, and is none."""
    anna, bert = pair
    await offered(anna, bert, 10)
    reader, writer = await raw(anna, bert)
    writer.write(f"PUT {COPY} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n".encode() + b"x" * 10)
    assert b" 200 " in await reader.readline()
    writer.write(b"x" * 100_000)
    async with asyncio.timeout(5):
        assert b" 400 " in await reader.read()
    writer.transport.abort()
    assert (bert.directory / JOB).stat().st_size == 10


async def test_a_copy_of_unknown_length_is_refused(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    await offered(anna, bert)
    reader, writer = await raw(anna, bert)
    writer.write(
        f"PUT {COPY} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode()
    )
    assert b" 400 " in await reader.readline()
    writer.transport.abort()


async def test_a_sender_that_falls_silent_is_given_up(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    anna, bert = pair
    monkeypatch.setattr(server, "IDLE", 0.2)
    await offered(anna, bert)
    reader, writer = await raw(anna, bert)
    writer.write(f"PUT {COPY} HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\nsome".encode())
    async with asyncio.timeout(5):
        assert b"too slowly" in await reader.read()
    assert (bert.directory / JOB).read_bytes() == b"some"
    writer.transport.abort()


async def test_a_sender_that_drips_is_given_up(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    anna, bert = pair
    monkeypatch.setattr(server, "GRACE", 0.3)
    monkeypatch.setattr(server, "SLOWEST", 1 << 30)
    await offered(anna, bert)
    reader, writer = await raw(anna, bert)
    writer.write(f"PUT {COPY} HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n".encode())

    async def drip() -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(5):
        assert b"too slowly" in await reader.read()
    dripping.cancel()
    writer.transport.abort()


async def test_a_receiver_that_stops_reading_is_given_up(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, bert = pair
    monkeypatch.setattr(client, "STALL", 0.3)
    await offered(anna, bert)
    stuck = asyncio.Event()

    async def receive(peer: Peer, job: str, offset: int, pieces: Incoming) -> Received:
        await stuck.wait()
        raise NotFound(what="job")

    bert.handlers.receive = receive  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        with pytest.raises(PeerAway, match="silent"):
            await anna.client.send_copy(bert.node, JOB, sealed(anna), 0, SIZE)
    stuck.set()


async def test_a_damaged_copy_is_fetched_from_a_peer(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    (bert.directory / JOB).write_bytes(DATA)
    for offset in (0, 1, SIZE - 1, SIZE):
        got = bytearray()

        async def sink(piece: bytes, got: bytearray = got) -> None:
            got += piece

        await anna.client.fetch_copy(bert.node, JOB, offset, SIZE, sink)
        assert bytes(got) == DATA[offset:]


async def test_what_is_fetched_has_the_length_that_it_should_have(pair: tuple[Node, Node]) -> None:
    anna, bert = pair

    async def sink(_: bytes) -> None:
        pytest.fail("nothing may come")

    with pytest.raises(PeerRefused) as refused:
        await anna.client.fetch_copy(bert.node, JOB, 0, SIZE, sink)
    assert refused.value.code == "not-found"
    (bert.directory / JOB).write_bytes(DATA)
    for size in (SIZE - 1, SIZE + 1):
        with pytest.raises(PeerAway, match="length"):
            await anna.client.fetch_copy(bert.node, JOB, 0, size, sink)
    with pytest.raises(PeerRefused):
        await anna.client.fetch_copy(bert.node, JOB, SIZE + 1, SIZE + 1, sink)


async def test_a_full_disk_while_fetching_is_not_the_peers_fault(pair: tuple[Node, Node]) -> None:
    anna, bert = pair
    (bert.directory / JOB).write_bytes(DATA)

    async def sink(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await anna.client.fetch_copy(bert.node, JOB, 0, SIZE, sink)
    assert not anna.peers.state(bert.node).trouble


async def test_a_file_that_shrinks_while_it_is_sent_breaks_off(
    pair: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    anna, bert = pair

    async def open_copy(peer: Peer, job: str) -> tuple[Path, int]:
        return bert.directory / JOB, SIZE + 10

    bert.handlers.open_copy = open_copy  # type: ignore[method-assign]
    (bert.directory / JOB).write_bytes(DATA)

    async def sink(_: bytes) -> None: ...

    with pytest.raises(PeerAway):
        await anna.client.fetch_copy(bert.node, JOB, 0, SIZE + 10, sink)
    assert "Traceback" not in caplog.text


async def test_four_copies_come_in_at_a_time_and_two_of_one_peer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        site.node("anna") as anna,
        site.node("bert") as bert,
        site.node("carla") as carla,
        site.node("dora") as dora,
    ):
        await site.introduce()
        running, most = 0, 0
        full = asyncio.Event()
        go_on = asyncio.Event()

        async def receive(peer: Peer, job: str, offset: int, pieces: Incoming) -> Received:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 4:
                full.set()
            await go_on.wait()
            running -= 1
            return Received(size=0, digest=bytes(32))

        anna.handlers.receive = receive  # type: ignore[method-assign]
        senders = (bert, carla, dora)
        for node in senders:
            sealed(node).write_bytes(b"x" * 100)
        async with asyncio.TaskGroup() as group:
            for node in senders:
                for _ in range(3):
                    group.create_task(node.client.send_copy(anna.node, JOB, sealed(node), 0, 100))
            await full.wait()
            go_on.set()
        assert most == 4


async def test_who_waits_too_long_for_a_turn_is_told() -> None:
    turns = Turns(2, 1, patience=0.01)
    async with turns.turn("a"):
        with pytest.raises(TransfersBusy):  # it has its share
            async with turns.turn("a"):
                pass
        async with turns.turn("b"):
            with pytest.raises(TransfersBusy):  # all are taken
                async with turns.turn("c"):
                    pass
    assert not turns._own and not turns._present
    async with turns.turn("a"), turns.turn("c"):
        pass


async def test_transfers_share_one_rate() -> None:
    clock = ManualClock()
    rate = Rate(clock, 1_000)
    begin = clock.monotonic()
    for _ in range(10):
        await rate.take(1_000)
    assert clock.monotonic() - begin == pytest.approx(10 - BURST)
    rate.bytes_per_second = 0
    await rate.take(1 << 40)
    assert clock.monotonic() - begin == pytest.approx(10 - BURST)
