"""A job gets to other hosts without anybody there or on the way being able to read it, whatever these do."""

import asyncio
import itertools
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.node.meshed import Meshed, Office, opened
from tests.rig.documents import pdf

from pullprint.base.errors import PullprintError
from pullprint.mesh.handlers import Incoming
from pullprint.model.states import Event, State
from pullprint.vault.header import SealDamaged
from pullprint.vault.index import Index
from pullprint.vault.record import Step
from pullprint.wire.mesh import Peer, Received, read_table
from pullprint.wire.signature import node_id

MARKER = b"this is the marker of the plain document"


@pytest.fixture
def office(root: Path, quiet: None) -> Office:
    return Office(root)


def two_more(record: object) -> bool:
    return len(getattr(record, "holders", ())) == 3


@asynccontextmanager
async def silent() -> AsyncIterator[Peer]:
    """A peer that takes connections, and never says anything."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    identity = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        yield Peer(node=node_id(identity), name="silent", identity=identity, endpoints=(endpoint,))


async def test_any_two_parties_open_a_placed_job_and_none_alone(office: Office) -> None:
    document = pdf() + MARKER * 5_000
    async with office.of("reception", "workshop", "archive") as hosts:
        origin = hosts[0]
        job = (await origin.hold(document)).id
        record = await origin.until(two_more, job)
        assert record.generation == 2 and set(record.holders) == {host.node for host in hosts}
        for host in hosts[1:]:
            copy = await host.held(job)
            assert copy.replica and copy.state is State.HELD and copy.holders == record.holders
            assert copy.title == record.title and copy.expires == record.expires and copy.owner == record.owner
            assert host.holder.path(job).read_bytes() == origin.holder.path(job).read_bytes()
        parties: list[Meshed | Office] = [*hosts, office]
        for host in hosts:
            for pair in itertools.combinations(parties, 2):
                assert await opened(host, job, *pair) == document
            for party in parties:
                with pytest.raises(SealDamaged):
                    await opened(host, job, party)
        for folder in (host.settings.state_dir for host in hosts):
            for path in folder.rglob("*"):
                assert not path.is_file() or MARKER not in path.read_bytes(), path
        traced = [each.step for each in await origin.holder.read(Index.trace, job)]
        (step,) = [step for step in traced if step.event == "copied"]
        assert step.text in ("Copies at workshop and archive.", "Copies at archive and workshop.")
        assert "JobReport" not in await hosts[1].events(job)


async def test_a_dead_peer_is_passed_over_in_less_than_4_seconds_and_costs_other_jobs_nothing(office: Office) -> None:
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(office.host(name)) for name in ("reception", "workshop", "archive")]
        dead = await stack.enter_async_context(silent())
        await office.introduce(dead)
        origin = hosts[0]
        await asyncio.sleep(0.2)
        origin.placement._listed = (origin.clock.monotonic(), 1 << 30, (dead.node, *(h.node for h in hosts[1:])))
        begin = time.monotonic()
        first = (await origin.hold(pdf())).id
        await origin.until(two_more, first)
        assert time.monotonic() - begin < 4.0
        begin = time.monotonic()
        for _ in range(3):
            job = (await origin.hold(pdf())).id
            await origin.until(two_more, job)
        assert time.monotonic() - begin < 2.0


async def test_a_peer_that_stops_in_the_middle_of_a_copy_is_passed_over(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office.of("reception", "workshop", "archive", "cellar") as hosts:
        origin, stuck = hosts[0], hosts[1]

        async def hang(*_: object) -> object:
            return await asyncio.Event().wait()

        monkeypatch.setattr(stuck.mesh.copies, "receive", hang)
        origin.placement._listed = (origin.clock.monotonic(), 1 << 30, tuple(host.node for host in hosts[1:]))
        begin = time.monotonic()
        job = (await origin.hold(os.urandom(20 << 20))).id
        record = await origin.until(two_more, job, 30)
        assert stuck.node not in record.holders
        assert time.monotonic() - begin < 9.0


async def test_a_peer_whose_disk_is_full_is_not_asked_for_more(office: Office) -> None:
    async with office.of("reception", "workshop", "archive", "cellar") as hosts:
        origin, full = hosts[0], hosts[1]
        object.__setattr__(full.settings, "disk_reserve_mib", 1 << 40)
        origin.placement._listed = (origin.clock.monotonic(), 1 << 30, tuple(host.node for host in hosts[1:]))
        job = (await origin.hold(pdf())).id
        record = await origin.until(two_more, job)
        assert full.node not in record.holders
        assert list(full.holder.directory.iterdir()) == []


async def test_a_disk_that_fills_up_while_a_copy_comes_keeps_nothing_of_it(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office.of("reception", "workshop", "archive", "cellar") as hosts:
        origin, full = hosts[0], hosts[1]
        write = os.pwrite

        def no_space(fd: int, data: bytes, offset: int) -> int:
            if str(full.holder.directory) in os.readlink(f"/proc/self/fd/{fd}") and offset > 2 << 20:
                raise OSError(28, "No space left on device")
            return write(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", no_space)
        origin.placement._listed = (origin.clock.monotonic(), 1 << 30, tuple(host.node for host in hosts[1:]))
        job = (await origin.hold(os.urandom(8 << 20))).id
        record = await origin.until(two_more, job)
        assert full.node not in record.holders
        assert list(full.holder.directory.iterdir()) == []


async def test_one_peer_is_better_than_none_and_nobody_is_said_once(office: Office) -> None:
    async with office.of("reception", "laptop") as hosts:
        origin, other = hosts
        object.__setattr__(other.settings, "role", "client")
        job = (await origin.hold(pdf())).id
        async with asyncio.timeout(10):
            while "short" not in await origin.events(job):
                await origin.holder.changes.wait(origin.holder.changes.ticket, 0.1)
        object.__setattr__(other.settings, "role", "normal")
        origin.placement.transfers._failed.clear()
        record = await origin.until(lambda record: bool(record.holders), job)
        assert record.holders == (origin.node, other.node)
        events = await origin.events(job)
        assert events.count("short") == 1 and events[-1] in ("copied", "facts")


async def test_alone_at_its_site_nothing_is_said_and_no_key_is_kept(office: Office) -> None:
    async with office.of("reception") as (origin,):
        job = (await origin.hold(pdf())).id
        assert origin.placement._jobs == {}
        assert "short" not in await origin.events(job)


async def test_a_client_gives_its_own_copy_away_once_three_others_have_theirs(office: Office) -> None:
    async with AsyncExitStack() as stack:
        laptop = await stack.enter_async_context(office.host("laptop", role="client"))
        others = [await stack.enter_async_context(office.host(name)) for name in ("reception", "workshop", "archive")]
        await office.introduce()
        job = (await laptop.hold(pdf())).id
        record = await laptop.until(lambda record: bool(record.holders), job)
        assert set(record.holders) == {host.node for host in others}
        for host in others:
            await host.held(job)
        async with asyncio.timeout(10):
            while laptop.holder.path(job).exists():
                await asyncio.sleep(0.02)
        kept = await laptop.record(job)
        assert kept.state is State.HELD and kept.own_key == "" and not kept.replica
        assert not laptop.holder.keys_path(job).exists()
        parties: list[Meshed | Office] = [*others, office]
        for pair in itertools.combinations(parties, 2):
            assert await opened(others[0], job, *pair)
    async with office.host("laptop", role="client") as laptop:
        assert [each.id for each in await laptop.holder.read(Index.jobs)] == [job], "its owner does not find it"


async def test_a_client_with_two_others_stays_a_holder(office: Office) -> None:
    async with AsyncExitStack() as stack:
        laptop = await stack.enter_async_context(office.host("laptop", role="client"))
        for name in ("reception", "workshop"):
            await stack.enter_async_context(office.host(name))
        await office.introduce()
        job = (await laptop.hold(pdf())).id
        record = await laptop.until(two_more, job)
        assert laptop.node in record.holders


async def test_after_a_restart_before_the_decision_the_clouds_part_opens_the_key(office: Office) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        hosts[0].placement.place = lambda *_: None  # type: ignore[method-assign]  # it dies right after its answer
        job = (await hosts[0].hold(pdf())).id
    office.away = False
    async with office.of("reception", "workshop", "archive") as hosts:
        await hosts[0].until(two_more, job)
        assert "reception /node/v1/parts" in office.asked
        for host in hosts[1:]:
            await host.held(job)
        assert await opened(hosts[1], job, hosts[1], hosts[2])


async def test_after_a_restart_behind_the_decision_the_holders_are_told_again(office: Office) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        for host in hosts[1:]:
            host.mesh.copies.install = _refuse  # type: ignore[method-assign,assignment]
        job = (await hosts[0].hold(pdf())).id
        await hosts[0].until(two_more, job)
    async with office.of("reception", "workshop", "archive") as hosts:
        for host in hosts[1:]:
            await host.held(job)
        assert await opened(hosts[1], job, hosts[1], hosts[2])
    # And once more: that they are told a second time changes nothing.
    async with office.of("reception", "workshop", "archive") as hosts:
        async with asyncio.timeout(10):
            while hosts[0].placement.telling.waiting:
                await hosts[0].placement.changed.wait(hosts[0].placement.changed.ticket, 0.1)
        assert (await hosts[1].record(job)).generation == 2


async def _refuse(*_: object) -> None:
    raise PullprintError


async def test_a_holder_whose_copy_was_removed_before_it_heard_gets_it_again(office: Office) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        for host in hosts[1:]:
            host.mesh.copies.install = _refuse  # type: ignore[method-assign,assignment]
        job = (await hosts[0].hold(pdf())).id
        await hosts[0].until(two_more, job)
    for name in ("workshop", "archive"):
        (office.root / name / "state" / "jobs" / f".{job}.copy").unlink()
    async with office.of("reception", "workshop", "archive") as hosts:
        for host in hosts[1:]:
            assert (await host.held(job)).vote.lost, "nobody can tell this from a disk that was wiped"


async def test_a_host_that_was_wiped_holds_again_and_has_no_vote(office: Office) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        job = (await hosts[0].hold(pdf())).id
        for host in hosts[1:]:
            await host.held(job)
    state = office.root / "workshop" / "state"
    for path in (*state.glob("index.sqlite*"), *(state / "jobs").iterdir()):
        path.unlink()
    async with office.of("reception", "workshop", "archive") as hosts:
        assert (await hosts[1].held(job)).vote.lost
        assert not (await hosts[2].held(job)).vote.lost


async def test_an_index_that_was_lost_is_rebuilt_with_holders_and_generation(office: Office) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        record = await hosts[0].hold(pdf(), user="mallory")
        job = record.id
        before = await hosts[0].until(two_more, job)
        copy = await hosts[1].held(job)
    for name in ("reception", "workshop"):
        for path in (office.root / name / "state").glob("index.sqlite*"):
            path.unlink()
    async with office.of("reception", "workshop", "archive") as hosts:
        origin, other = await hosts[0].record(job), await hosts[1].record(job)
        assert origin.vote.lost and other.vote.lost
        assert (origin.generation, origin.holders, origin.replica) == (2, before.holders, False)
        assert (other.generation, other.holders, other.replica) == (2, before.holders, True)
        assert (other.claim_code, other.expires) == (copy.claim_code, copy.expires)
        assert await opened(hosts[1], job, hosts[0], hosts[1])
        outbox = await hosts[1].holder.read(Index.outbox, 100)
        assert not [report for _, report in outbox if '"kind":"job"' in report], (
            "a replica is told of as if it were ours"
        )


async def test_a_job_that_ends_meanwhile_is_not_placed_and_its_key_is_forgotten(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        origin = hosts[0]
        coming = asyncio.Event()

        async def hang(*_: object) -> object:
            coming.set()
            return await asyncio.Event().wait()

        for host in hosts[1:]:
            monkeypatch.setattr(host.mesh.copies, "receive", hang)
        job = (await origin.hold(os.urandom(1 << 20))).id
        async with asyncio.timeout(5):
            await coming.wait()
        await origin.holder.end(job, Event.CANCEL, Step("cancelled", "Deleted."))
        async with asyncio.timeout(1):
            while origin.placement._jobs:
                await asyncio.sleep(0.01)
        assert not origin.holder.keys_path(job).exists()


async def test_a_job_that_is_being_released_is_placed_afterwards(office: Office) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        origin = hosts[0]
        origin.holder.busy.add("x")
        place = origin.placement.place

        def busy(record: object, key: bytes) -> None:
            origin.holder.busy.add(record.id)  # type: ignore[attr-defined]
            place(record, key)  # type: ignore[arg-type]

        origin.placement.place = busy  # type: ignore[method-assign,assignment]
        job = (await origin.hold(pdf())).id
        await asyncio.sleep(0.5)
        assert (await origin.record(job)).generation == 1
        origin.holder.busy.discard(job)
        await origin.until(two_more, job)


async def test_with_min_copies_the_answer_means_that_others_hold_it(office: Office) -> None:
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(office.host("reception", min_copies=3))
        others = [await stack.enter_async_context(office.host(name)) for name in ("workshop", "archive")]
        await office.introduce()
        answer = await origin.submit(pdf())
        word, job, _ = answer.split(" ", 2)
        assert word == "stored"
        for host in others:
            assert job in [record.id for record in await host.holder.read(Index.jobs)], "it was not there yet"


async def test_with_min_copies_and_nobody_there_cups_asks_again_and_the_job_is_held_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pullprint.node.intake.COPIES_TIME", 0.5)
    uuid = "00000000-0000-4000-8000-000000000009"
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(office.host("reception", min_copies=2))
        await office.introduce()
        for _ in range(2):
            answer = await origin.submit(pdf(), job_uuid=uuid)
            assert answer.startswith("later ") and "2 hosts" in answer
        assert len(await origin.holder.read(Index.jobs)) == 1
        office.away = False
        monkeypatch.setattr("pullprint.node.intake.COPIES_TIME", 10)
        await stack.enter_async_context(office.host("workshop"))
        await office.introduce()
        answer = await origin.submit(pdf(), job_uuid=uuid)
        assert answer.startswith("stored ")
    async with office.of("reception", "workshop", min_copies=2) as (origin, _):
        assert (await origin.submit(pdf(), job_uuid=uuid)).startswith("stored "), "not after a restart"


async def test_by_default_the_answer_waits_for_nobody(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        origin = hosts[0]
        asked: list[str] = []
        client = origin.placement._client
        assert client is not None
        ask = client.ask

        async def slow(node: str, path: str, *more: object, **others: object) -> object:
            if "/copies/" in path:
                asked.append(path)
            return await ask(node, path, *more, **others)  # type: ignore[arg-type]

        monkeypatch.setattr(client, "ask", slow)
        answering = asyncio.create_task(origin.submit(pdf()))
        job = (await answering).split()[1]
        await origin.until(two_more, job)
        assert asked


async def test_the_cloud_ranks_and_is_asked_once_for_a_burst(office: Office) -> None:
    office.away = False
    async with office.of("reception", "workshop", "archive") as hosts:
        jobs = [await hosts[0].hold(pdf()) for _ in range(5)]
        for record in jobs:
            await hosts[0].until(two_more, record.id)
        assert len([path for path in office.asked if "candidates" in path]) == 1


async def test_a_revoked_host_gets_nothing(office: Office) -> None:
    async with office.of("reception", "workshop", "archive", "cellar") as hosts:
        thief = hosts[1]
        await office.introduce(revoked=(thief.node,))
        job = (await hosts[0].hold(pdf())).id
        record = await hosts[0].until(two_more, job)
        assert thief.node not in record.holders


async def test_what_is_sealed_for_each_holder_is_in_the_table_and_it_is_the_origins(office: Office) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        job = (await hosts[0].hold(pdf())).id
        await hosts[0].until(two_more, job)
        table = read_table(await hosts[0].holder.read(Index.key_table, job))
        assert table.author == hosts[0].identity.public and len(table.wraps) == 6
        reports = await hosts[0].holder.read(Index.outbox, 100)
        assert any('"table":"ey' in report and '"generation":2' in report for _, report in reports)


async def test_a_key_that_is_not_used_in_time_is_forgotten_and_only_so_many_are_kept(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pullprint.node.placement.KEYS", 1)
    monkeypatch.setattr("pullprint.node.placement.KEY_TIME", 1.0)
    async with office.of("reception", "laptop") as (origin, other):
        object.__setattr__(other.settings, "role", "client")
        first, second = (await origin.hold(pdf())).id, (await origin.hold(pdf())).id
        keys = {job: waiting.key is not None for job, waiting in origin.placement._jobs.items()}
        assert keys == {first: True, second: False}
        async with asyncio.timeout(5):
            while any(waiting.key for waiting in origin.placement._jobs.values()):
                await asyncio.sleep(0.05)
        object.__setattr__(other.settings, "role", "normal")
        origin.placement.transfers._failed.clear()
        office.away = False
        for job in (first, second):
            await origin.until(lambda record: bool(record.holders), job)
        assert office.asked.count("reception /node/v1/parts") == 2


@asynccontextmanager
async def cut_once(endpoint: str, after: int) -> AsyncIterator[str]:
    """An address that leads to *endpoint*; the first connection on which so many bytes have gone there is cut."""
    host, _, port = endpoint.rpartition(":")
    cut = False
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cut
        there, back = await asyncio.open_connection(host, int(port))

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counts: bool) -> None:
            nonlocal cut
            gone = 0
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
                gone += len(data)
                if counts and not cut and gone > after:
                    cut = True
                    break

        flows = [
            asyncio.create_task(carry(reader, back, counts=True)),
            asyncio.create_task(carry(there, writer, counts=False)),
        ]
        tasks.update(flows)
        await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, back):
            each.transport.abort()
        await asyncio.wait(flows)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert cut, "nothing was cut"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.05)


async def test_a_connection_that_breaks_in_the_middle_is_taken_up_where_it_was(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office.of("reception", "workshop", "archive") as hosts:
        origin, other = hosts[0], hosts[1]
        receive = other.mesh.copies.receive
        offsets: list[int] = []

        async def noting(peer: Peer, job: str, offset: int, pieces: Incoming) -> Received:
            offsets.append(offset)
            return await receive(peer, job, offset, pieces)

        monkeypatch.setattr(other.mesh.copies, "receive", noting)
        (endpoint,) = await other.mesh.endpoints()
        async with cut_once(endpoint, 8 << 20) as detour:
            there = await other.entry(endpoints=(detour,))
            office.hosts.remove(other)
            await office.introduce(there)
            await other.mesh.accept(origin.mesh.peers.token)
            office.hosts.append(other)
            # Connections from before lead there directly.
            known = origin.mesh.peers._known[other.node]
            known.worked, known.hints = "", []
            job = (await origin.hold(os.urandom(12 << 20))).id
            record = await origin.until(two_more, job)
            assert other.node in record.holders
            assert len(offsets) == 2 and offsets[1] > 3 << 20
            await other.held(job)
        assert other.holder.path(job).read_bytes() == origin.holder.path(job).read_bytes()
