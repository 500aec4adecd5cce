"""Disks forget: a copy that is not what it was is found and replaced, and what comes in its place is no better trusted."""

import asyncio
import errno
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from tests.node.host import Organisation
from tests.node.meshed import Meshed, Office, opened
from tests.node.neighbours import Neighbour, Wire
from tests.rig.documents import pdf
from tests.rig.printers import RawPrinter

from pullprint.base.clock import ManualClock
from pullprint.mesh.client import PeerAway
from pullprint.model.states import Event, State
from pullprint.node import scrub as scrub_room
from pullprint.node.metrics import Counts, Moment, exposition
from pullprint.node.overview import Census
from pullprint.node.scrub import RATE, ROUND, Scrub
from pullprint.vault.header import HEADER_LIMIT
from pullprint.vault.index import Index
from pullprint.vault.opening import OpenJob
from pullprint.vault.record import Record, Step

DOCUMENT = b"a line for the printer\n" * 10_000


@pytest.fixture
def office(root: Path, quiet: None) -> Office:
    return Office(root)


@asynccontextmanager
async def placed(office: Office, *documents: bytes) -> AsyncIterator[tuple[list[Meshed], list[str]]]:
    """Three hosts that hold jobs with *documents*."""
    async with office.of("reception", "workshop", "archive") as hosts:
        jobs = [(await hosts[0].hold(document)).id for document in documents or (pdf(),)]
        for job in jobs:
            for host in hosts[1:]:
                await host.held(job)
            await hosts[0].until(lambda record: len(record.holders) == 3, job)
        yield hosts, jobs


async def told(host: Meshed | Neighbour, job: str, *events: str) -> list[Step]:
    """The steps of *job* with one of *events*, as soon as the last of these is among them."""
    async with asyncio.timeout(20):
        while True:
            ticket = host.holder.changes.ticket
            steps = [traced.step for traced in await host.holder.read(Index.trace, job)]
            if any(step.event == events[-1] for step in steps):
                return [step for step in steps if step.event in events]
            await host.holder.changes.wait(ticket)


def flip(path: Path, at: int) -> None:
    """Flip a bit of the byte at *at*, which counts from the end when it is negative."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def extend(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_bytes(b"in it")


def make_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "payload": (lambda path: flip(path, -20), "bytes"),
    "header": (lambda path: flip(path, 40), "bytes"),
    "magic": (lambda path: flip(path, 0), "bytes"),
    "truncated": (truncate, "length"),
    "empty": (lambda path: os.truncate(path, 0), "length"),
    "extended": (extend, "length"),
    "missing": (Path.unlink, "missing"),
    "directory": (make_directory, "unreadable"),
    "link": (make_link, "unreadable"),
    "pipe": (make_pipe, "unreadable"),
}


@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_damaged_copy_is_set_aside_and_replaced_whatever_happened_to_it(office: Office, kind: str) -> None:
    damage, reason = DAMAGES[kind]
    async with placed(office, DOCUMENT) as (hosts, (job,)):
        _origin, damaged, other = hosts
        path = damaged.holder.path(job)
        good = path.read_bytes()
        damage(path)
        damaged.mesh.scrub.doubt(job)
        found, repaired = await told(damaged, job, "damaged", "repaired")
        assert found.detail == {"reason": reason}
        assert repaired.text == "A damaged copy was replaced with that of reception."
        assert path.read_bytes() == good and path.stat().st_mode & 0o777 == 0o600
        aside = path.with_suffix(".damaged")
        assert os.path.lexists(aside) == (kind != "missing")
        assert not list(damaged.holder.directory.glob(".*"))
        assert (await damaged.record(job)).state is State.HELD
        assert await opened(damaged, job, damaged, other) == DOCUMENT


async def test_a_copy_that_the_disk_does_not_give_is_replaced_and_a_lack_of_descriptors_is_no_damage(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with placed(office) as (hosts, (job,)):
        host = hosts[2]
        inode = host.holder.path(job).stat().st_ino
        failures = [errno.EMFILE, errno.EIO]
        real = scrub_room._Reading.next

        def fails(reading: scrub_room._Reading) -> int:
            if failures:
                raise OSError(failures.pop(0), "cannot")
            return real(reading)

        monkeypatch.setattr(scrub_room._Reading, "next", fails)
        monkeypatch.setattr(scrub_room, "RETRY", 0.05)
        host.mesh.scrub.doubt(job)
        found, _ = await told(host, job, "damaged", "repaired")
        assert found.detail == {"reason": "unreadable"} and not failures
        assert host.holder.path(job).stat().st_ino != inode


@pytest.mark.parametrize("lie", ["damaged", "short", "another job's", "gone", "hangs"])
async def test_what_a_peer_sends_is_not_believed_and_the_next_one_is_asked(
    office: Office, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with placed(office, pdf(), pdf()) as (hosts, (job, another)):
        liar, damaged, _ = hosts
        good = damaged.holder.path(job).read_bytes()
        theirs = liar.holder.path(job)
        match lie:
            case "damaged":
                flip(theirs, -20)
            case "short":
                truncate(theirs)
            case "another job's":
                shutil.copy(liar.holder.path(another), theirs)
                assert theirs.stat().st_size == len(good)
            case "gone":
                theirs.unlink()
            case "hangs":
                monkeypatch.setattr("pullprint.mesh.client.QUEUE_TIME", 0.3)

                async def hang(*_: object) -> tuple[Path, int]:
                    await asyncio.sleep(3)
                    raise AssertionError

                monkeypatch.setattr(liar.mesh.copies, "open_copy", hang)
        flip(damaged.holder.path(job), -1)
        damaged.mesh.scrub.doubt(job)
        (repaired,) = await told(damaged, job, "repaired")
        assert repaired.text == "A damaged copy was replaced with that of archive."
        assert damaged.holder.path(job).read_bytes() == good


async def test_while_nobody_can_help_the_job_stays_held_and_later_it_is_repaired(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub_room, "RETRY", 0.05)
    monkeypatch.setattr(scrub_room, "LONGEST_RETRY", 0.1)
    async with placed(office) as (hosts, (job,)):
        origin, damaged, other = hosts
        good = origin.holder.path(job).read_bytes()
        for host in (origin, other):
            host.holder.path(job).rename(host.root / "away")
        flip(damaged.holder.path(job), 300)
        asked, tries = asyncio.Event(), 0
        real = damaged.mesh.scrub._fetched

        async def counted(*args: object) -> bool:
            nonlocal tries
            tries += 1
            if tries > 6:
                asked.set()
            return await real(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(damaged.mesh.scrub, "_fetched", counted)
        damaged.mesh.scrub.doubt(job)
        async with asyncio.timeout(20):
            await asked.wait()
        assert (await damaged.record(job)).state is State.HELD
        (other.root / "away").rename(other.holder.path(job))
        assert [step.event for step in await told(damaged, job, "damaged", "repaired")] == ["damaged", "repaired"]
        assert damaged.holder.path(job).read_bytes() == good


@pytest.mark.parametrize("fetched", [True, False])
async def test_a_job_that_ends_while_it_is_repaired_leaves_nothing_on_the_disk(
    office: Office, fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the good copy gets its name, and right after."""
    async with placed(office) as (hosts, (job,)):
        host = hosts[1]
        paused, resume = asyncio.Event(), asyncio.Event()
        real = host.mesh.scrub._record

        async def record(job: str) -> Record | None:
            # Asked for before and after the rename; each time it is just too early to know.
            putting = (host.holder.directory / f".{job}.copy").exists()
            if not paused.is_set() and (putting if fetched else host.holder.path(job).exists()):
                paused.set()
                await resume.wait()
            return await real(job)

        host.holder.path(job).unlink()
        monkeypatch.setattr(host.mesh.scrub, "_record", record)
        host.mesh.scrub.doubt(job)
        async with asyncio.timeout(20):
            await paused.wait()
        names = {path.name for path in host.holder.directory.iterdir()}
        assert (job in names) is not fetched
        if fetched:
            await host.holder.end(job, Event.CANCEL, Step("cancelled", "Deleted."))
        else:  # it looked for the file just before that was there
            await host.holder.change(Index.move, job, Event.CANCEL, Step("cancelled", "Deleted."))
        resume.set()
        async with asyncio.timeout(20):
            while list(host.holder.directory.glob(f"*{job}*")):
                await asyncio.sleep(0.01)
        assert "repaired" not in await host.events(job)


async def test_what_was_set_aside_goes_after_a_day_or_with_its_job_and_a_foreign_one_stays(office: Office) -> None:
    async with placed(office, pdf(), pdf()) as (hosts, jobs):
        host = hosts[1]
        for job in jobs:
            flip(host.holder.path(job), -1)
            host.mesh.scrub.doubt(job)
            await told(host, job, "repaired")
        unknown = host.holder.directory / ("f" * 32 + ".damaged")
        unknown.write_bytes(b"found without a row")
        os.utime(unknown, (1_000, 1_000))
        clock = ManualClock(host.clock.now() + 3_600)
        later = Scrub(host.holder, host.mesh.name, clock)
        await later._tidy()
        kept = [host.holder.path(job).with_suffix(".damaged") for job in jobs]
        assert all(path.exists() for path in kept)
        await host.holder.end(jobs[0], Event.CANCEL, Step("cancelled", "Deleted."))
        await later._tidy()
        assert [path.exists() for path in kept] == [False, True]
        clock.advance(86_400)
        await later._tidy()
        assert not any(path.exists() for path in kept) and unknown.exists()


# On one host, with peers whose answers are the test's own.


class Shelf:
    """Gives the files of other hosts, as they are."""

    def __init__(self, hosts: dict[str, Neighbour]) -> None:
        self.hosts = hosts
        self.asked: list[str] = []

    async def fetch_copy(
        self, node: str, job: str, offset: int, size: int, sink: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self.asked.append(node)
        try:
            data = self.hosts[node].holder.path(job).read_bytes()
        except FileNotFoundError as error:
            raise PeerAway(name=node, reason="no") from error
        for at in range(0, len(data), 100_000):
            await sink(data[at : at + 100_000])


@pytest.fixture
async def neighbours(root: Path, sink: RawPrinter) -> AsyncIterator[list[Neighbour]]:
    wire, organisation = Wire(), Organisation()
    hosts = [Neighbour(root / name, organisation, {"Sink": sink.uri}, wire) for name in ("ada", "bob", "cy")]
    for host in hosts:
        await host.start()
    yield hosts
    for host in hosts:
        await host.stop()


async def job_of(hosts: list[Neighbour], document: bytes = DOCUMENT) -> Record:
    first, *others = hosts
    return await first.place(*(await first.seal(document)), *others)


def scrub_of(host: Neighbour, clock: ManualClock | None = None, random: Random | None = None) -> Scrub:
    return Scrub(host.holder, lambda node: host.wire.hosts[node].name, clock or host.clock, random=random)


@asynccontextmanager
async def scrubbing(scrub: Scrub, client: Shelf) -> AsyncIterator[None]:
    task = asyncio.create_task(scrub.run(client))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("damage", [lambda path: flip(path, -1), lambda path: flip(path, 40), Path.unlink])
async def test_a_release_that_meets_a_damaged_copy_is_left_to_another_holder_and_the_copy_is_repaired(
    neighbours: list[Neighbour], sink: RawPrinter, damage: Callable[[Path], None]
) -> None:
    ada, bob, _ = neighbours
    job = await job_of(neighbours)
    good = ada.holder.path(job.id).read_bytes()
    scrub = scrub_of(ada)
    ada.releaser.damaged = scrub.doubt
    async with scrubbing(scrub, Shelf(ada.wire.hosts)):
        await asyncio.sleep(0)
        damage(ada.holder.path(job.id))
        await ada.releaser.execute(ada.order_for(job, "Sink"))
        assert sink.received == [] and (await ada.record(job.id)).state is State.HELD
        reports = [report for _, report in await ada.holder.read(Index.outbox, 1_000)]
        assert any('"elsewhere":true' in report for report in reports), "the cloud asks another holder"
        await told(ada, job.id, "damaged", "repaired")
        assert ada.holder.path(job.id).read_bytes() == good
    await bob.releaser.execute(bob.order_for(job, "Sink", ballot=2))
    assert sink.received == [DOCUMENT]


async def test_a_disk_that_fails_in_the_middle_of_a_release_leaves_it_uncertain_and_the_copy_is_looked_at(
    neighbours: list[Neighbour], monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = neighbours[0]
    job = await job_of(neighbours, DOCUMENT * 20)
    doubted: list[str] = []
    ada.releaser.damaged = doubted.append
    real = OpenJob.chunks

    def fails(document: OpenJob) -> Iterator[memoryview]:
        yield from itertools.islice(real(document), 32)
        raise OSError(errno.EIO, "cannot")

    monkeypatch.setattr(OpenJob, "chunks", fails)
    await ada.releaser.execute(ada.order_for(job, "Sink"))
    assert doubted == [job.id] and (await ada.record(job.id)).state is State.UNCERTAIN


async def test_reading_keeps_to_its_rate_and_stops_for_a_release(
    neighbours: list[Neighbour], monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = neighbours[0]
    job = await job_of(neighbours, os.urandom(40 << 20))
    clock = ManualClock()
    scrub = scrub_of(ada, clock)
    begin, size = clock.monotonic(), ada.holder.path(job.id).stat().st_size
    assert await scrub._look(job.id) is scrub_room._Found.SOUND
    assert clock.monotonic() - begin > size / RATE - 0.5
    assert scrub._counts.scrubbed == size
    ada.holder.busy.add(job.id)
    assert await scrub._look(job.id) is scrub_room._Found.BUSY and scrub._counts.scrubbed == size
    ada.holder.busy.clear()
    real = clock.sleep

    async def released(seconds: float) -> None:
        ada.holder.busy.add(job.id)
        await real(seconds)

    monkeypatch.setattr(clock, "sleep", released)
    assert await scrub._look(job.id) is scrub_room._Found.BUSY
    assert scrub._counts.scrubbed < 2 * size


async def test_each_copy_is_read_about_once_a_week_and_none_twice_in_a_row(
    neighbours: list[Neighbour], monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = neighbours[0]
    jobs = [(await job_of(neighbours, b"x")).id for _ in range(7)]
    clock = ManualClock()
    read: list[tuple[str, float]] = []
    enough = asyncio.Event()
    scrub = scrub_of(ada, clock, random=Random(7))
    real = scrub._look

    async def look(job: str) -> scrub_room._Found:
        read.append((job, clock.monotonic()))
        if len(read) >= 21:
            enough.set()
        return await real(job)

    monkeypatch.setattr(scrub, "_look", look)
    begin = clock.monotonic()
    async with scrubbing(scrub, Shelf({})), asyncio.timeout(30):
        await enough.wait()
    order = [job for job, _ in read[:21]]
    assert set(order[:7]) == set(jobs) and order == order[:7] * 3
    assert 20 / 7 * ROUND < read[20][1] - begin < 3.1 * ROUND
    pauses = [b - a for (_, a), (_, b) in itertools.pairwise(read)]
    assert min(pauses) > ROUND / 7 * 0.99 and max(pauses) < ROUND / 7 * 1.02


async def test_a_copy_that_is_missing_at_the_start_is_fetched_at_once(neighbours: list[Neighbour]) -> None:
    ada, bob, _ = neighbours
    job = await job_of(neighbours)
    ada.holder.path(job.id).unlink()
    bob.holder.path(job.id).unlink()
    shelf = Shelf(ada.wire.hosts)
    async with scrubbing(scrub_of(ada), shelf):
        (repaired,) = await told(ada, job.id, "repaired")
    assert repaired.text.endswith("that of cy.") and shelf.asked == [host.identity.node for host in neighbours[1:]]


async def test_a_peer_that_sends_more_than_the_copy_has_fills_no_disk(neighbours: list[Neighbour]) -> None:
    ada, bob, _ = neighbours
    job = await job_of(neighbours)
    with bob.holder.path(job.id).open("ab") as file:
        file.write(bytes(50 << 20))
    most = 0

    class Watching(Shelf):
        async def fetch_copy(
            self, node: str, job: str, offset: int, size: int, sink: Callable[[bytes], Awaitable[None]]
        ) -> None:
            async def seen(piece: bytes) -> None:
                nonlocal most
                try:
                    await sink(piece)
                finally:
                    most = max(most, (ada.holder.directory / f".{job}.copy").stat().st_size)

            await super().fetch_copy(node, job, offset, size, seen)

    ada.holder.path(job.id).unlink()
    async with scrubbing(scrub_of(ada), Watching(ada.wire.hosts)):
        (repaired,) = await told(ada, job.id, "repaired")
    assert repaired.text.endswith("that of cy.") and most <= job.size + HEADER_LIMIT


async def test_a_full_disk_costs_the_damaged_copy_and_nothing_else(
    neighbours: list[Neighbour], monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = neighbours[0]
    job = await job_of(neighbours)
    flip(ada.holder.path(job.id), -1)
    full = True
    real = scrub_room._Target._write

    def write(target: scrub_room._Target, piece: bytes) -> None:
        nonlocal full
        if full:
            full = False
            raise OSError(errno.ENOSPC, "full")
        real(target, piece)

    monkeypatch.setattr(scrub_room._Target, "_write", write)
    monkeypatch.setattr(scrub_room, "RETRY", 0.05)
    scrub = scrub_of(ada)
    scrub.doubt(job.id)
    async with scrubbing(scrub, Shelf(ada.wire.hosts)):
        assert len(await told(ada, job.id, "damaged", "repaired")) == 2
    assert not full and not ada.holder.path(job.id).with_suffix(".damaged").exists()


async def test_of_the_only_copy_header_and_length_are_checked_and_its_owner_is_told_once(
    neighbours: list[Neighbour],
) -> None:
    ada = neighbours[0]
    scrub = scrub_of(ada)
    for damage, reason in (
        (truncate, "length"), (lambda path: flip(path, 200), "header"), (Path.unlink, "missing"),
    ):  # fmt: skip
        record, _ = await ada.seal(DOCUMENT)
        assert await scrub._look(record.id) is scrub_room._Found.SOUND and "damaged" not in await ada.events(record.id)
        damage(ada.holder.path(record.id))
        for _ in range(2):
            assert await scrub._look(record.id) is scrub_room._Found.SOUND
        (step,) = await told(ada, record.id, "damaged")
        assert step.detail == {"reason": reason} and (await ada.record(record.id)).sentence == step.text
        assert not ada.holder.path(record.id).with_suffix(".damaged").exists()


async def test_what_was_read_and_repaired_is_counted(neighbours: list[Neighbour]) -> None:
    ada = neighbours[0]
    job = await job_of(neighbours)
    flip(ada.holder.path(job.id), -1)
    counts = Counts()
    scrub = Scrub(ada.holder, str, ada.clock, counts)
    scrub.doubt(job.id)
    async with scrubbing(scrub, Shelf(ada.wire.hosts)):
        await told(ada, job.id, "repaired")
    assert (counts.damaged, counts.repaired, counts.scrubbed) == (1, 1, ada.holder.path(job.id).stat().st_size)
    lines = exposition(Moment(Census({}, 0, 0, 0), 0, 0, 0, 0), counts).decode().splitlines()
    assert "pullprint_copies_damaged_total 1.0" in lines and "pullprint_copies_repaired_total 1.0" in lines
    assert f"pullprint_scrubbed_bytes_total {float(counts.scrubbed)}" in lines
