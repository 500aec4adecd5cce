"""Only a good order, used once, prints; whatever else comes leaves the job held."""

import asyncio
import base64
import json
import os
import resource
import signal

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.node.host import Host
from tests.rig.documents import marker, pdf
from tests.rig.printers import RawPrinter

from pullprint.model.states import State
from pullprint.node import release
from pullprint.printers.outcome import Phase, Progress
from pullprint.vault.index import Index
from pullprint.vault.record import Record
from pullprint.wire.jws import StatementRefused
from pullprint.wire.node import OrderItem
from pullprint.wire.order import Order, sign_order

RAW = {"content_type": "application/octet-stream"}
DOCUMENT = b"a line for the printer\n" * 10_000


async def held(host: Host) -> Record:
    return await host.hold(DOCUMENT, **RAW)


async def assert_still_held(host: Host, record: Record, sink: RawPrinter) -> None:
    assert (await host.record(record.id)).state is State.HELD
    assert host.holder.path(record.id).exists()
    assert sink.received == []


async def test_a_good_order_prints_and_shreds(host: Host, sink: RawPrinter) -> None:
    record = await held(host)
    await host.releaser.execute(host.order(record, "Sink"))
    assert sink.received == [DOCUMENT]
    assert (await host.record(record.id)).state is State.DONE
    assert not host.holder.path(record.id).exists()
    assert [e for e in await host.events(record.id) if e != "facts"] == [
        "stored", "held", "prepared", "committed", "sending", "printed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "evil"},
        {"aud": "0" * 32},
        {"iat": 1_000, "exp": 1_060},
        {"exp": 1 << 39},
        {"iat": 1 << 39, "exp": (1 << 39) + 60},
    ],
    ids=["foreign", "for-another-node", "expired", "everlasting", "from-the-future"],
)
async def test_an_order_that_is_not_for_us_and_now_does_nothing(host: Host, sink: RawPrinter, changes: dict) -> None:
    record = await held(host)
    with pytest.raises(StatementRefused):
        await host.releaser.execute(host.order(record, "Sink", **changes))
    await assert_still_held(host, record, sink)


async def test_an_order_by_another_key_does_nothing(host: Host, sink: RawPrinter) -> None:
    record = await held(host)
    good = host.order(record, "Sink")
    payload = json.loads(base64.urlsafe_b64decode(good.order.split(".")[1] + "=="))
    forged = sign_order(Order(**payload), Ed25519PrivateKey.generate().private_bytes_raw())
    with pytest.raises(StatementRefused):
        await host.releaser.execute(OrderItem(order=forged, part=good.part, part_key=good.part_key))
    await assert_still_held(host, record, sink)


async def test_a_backend_that_was_loaded_for_the_order_is_the_one_that_prints(host: Host, sink: RawPrinter) -> None:
    record = await held(host)
    prepared = await host.releaser.prepare(record, "sink", {})
    assert prepared is not None and prepared.backend is not None
    await asyncio.sleep(0.1)
    assert prepared.backend.exit is None and sink.connections == 0, "it waits without a byte, and without a printer"
    await host.releaser.execute(host.order(record, "Sink"), prepared)
    assert sink.received == [DOCUMENT]
    assert prepared.backend.exit == 0


async def test_one_backend_is_loaded_for_a_printer_however_many_ask(host: Host, sink: RawPrinter) -> None:
    records = [await held(host) for _ in range(5)]
    found = await asyncio.gather(*(host.releaser.prepare(record, "sink", {}) for record in records))
    loaded = [prepared for prepared in found if prepared]
    assert len(loaded) == 1
    loaded[0].close()
    again = await host.releaser.prepare(records[0], "sink", {})
    assert again is not None
    again.close()


@pytest.mark.parametrize("ballot", [1, 2], ids=["another-ticket", "another-attempt"])
async def test_a_backend_that_was_loaded_for_something_else_is_not_used(
    host: Host, sink: RawPrinter, ballot: int
) -> None:
    record = await held(host)
    prepared = await host.releaser.prepare(record, "sink", {"copies": "2"} if ballot == 1 else {})
    assert prepared is not None and prepared.backend is not None
    await host.releaser.execute(host.order(record, "Sink", ballot=ballot), prepared)
    assert sink.received == [DOCUMENT]
    assert prepared.backend.exit == -signal.SIGKILL


async def test_a_loaded_backend_ends_with_an_order_that_is_refused(host: Host, sink: RawPrinter) -> None:
    record = await held(host)
    prepared = await host.releaser.prepare(record, "sink", {})
    assert prepared is not None and prepared.backend is not None
    with pytest.raises(StatementRefused):
        await host.releaser.execute(host.order(record, "Sink", iss="evil"), prepared)
    assert prepared.backend.exit == -signal.SIGKILL
    await assert_still_held(host, record, sink)


async def test_an_order_that_is_repeated_prints_once(host: Host, sink: RawPrinter) -> None:
    record = await held(host)
    item = host.order(record, "Sink")
    await asyncio.gather(*(host.releaser.execute(item) for _ in range(4)))
    await host.releaser.execute(item)
    assert sink.received == [DOCUMENT]


async def test_an_order_that_was_refused_cannot_be_used_later(host: Host, sink: RawPrinter) -> None:
    record = await held(host)
    host_printers = host.organisation.config(host.identity.node, {}, revision=2)
    item = host.order(record, "Sink")
    await host.site.accept(host_printers)
    await host.releaser.execute(item)
    assert "no such printer" in (await host.record(record.id)).sentence
    await host.site.accept(host.organisation.config(host.identity.node, {"Sink": sink.uri}, revision=3))
    await host.releaser.execute(item)
    await assert_still_held(host, record, sink)
    await host.releaser.execute(host.order(record, "Sink", ballot=2))
    assert sink.received == [DOCUMENT]


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "http://127.0.0.1/",
        "ipp://user:secret@127.0.0.1/ipp/print",
        "socket://192.0.2.1:9100",
        "socket://[2001:db8::1]:9100",
        "socket://2130706433:9100",
        "ipp://127.0.0.1:631/ipp/print?contimeout=99999",
        "lpd://127.0.0.1/q%0aevil",
        "usb://Maker/Model",
        "socket://127.0.0.1:9100/\nx",
    ],
)
async def test_a_forbidden_printer_address_is_refused_before_anything_is_sent(
    host: Host, sink: RawPrinter, uri: str
) -> None:
    record = await held(host)
    await host.site.accept(host.organisation.config(host.identity.node, {"Sink": uri}, revision=2))
    await host.releaser.execute(host.order(record, "Sink"))
    assert (await host.events(record.id))[-1] == "refused"
    assert "secret" not in (await host.record(record.id)).sentence
    await assert_still_held(host, record, sink)


async def test_a_key_part_that_is_not_the_clouds_opens_nothing(host: Host, sink: RawPrinter) -> None:
    record, other = await held(host), await held(host)
    item, foreign = host.order(record, "Sink"), host.order(other, "Sink")
    await host.releaser.execute(OrderItem(order=item.order, part=foreign.part, part_key=item.part_key))
    await assert_still_held(host, record, sink)
    item = host.order(record, "Sink", ballot=2)
    await host.releaser.execute(OrderItem(order=item.order, part=os.urandom(80), part_key=item.part_key))
    await assert_still_held(host, record, sink)
    await host.releaser.execute(host.order(record, "Sink", ballot=3))
    assert sink.received == [DOCUMENT]


@pytest.mark.parametrize("where", ["header", "first", "last", "cut", "longer"])
async def test_a_damaged_file_prints_not_one_byte(host: Host, sink: RawPrinter, where: str) -> None:
    record = await held(host)
    path = host.holder.path(record.id)
    data = bytearray(path.read_bytes())
    match where:
        case "header":
            data[100] ^= 1
        case "first":
            data[5_000] ^= 1
        case "last":
            data[-1] ^= 1
        case "cut":
            del data[-1_000:]
        case "longer":
            data += b"x"
    path.write_bytes(data)
    await host.releaser.execute(host.order(record, "Sink"))
    after = await host.record(record.id)
    assert after.state is State.HELD and "damaged" in after.sentence
    assert sink.received == [], "a byte was sent"


async def test_two_files_that_changed_places_print_nothing(host: Host, sink: RawPrinter) -> None:
    first, second = await held(host), await held(host)
    one, two = host.holder.path(first.id), host.holder.path(second.id)
    saved = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(saved)
    await host.releaser.execute(host.order(first, "Sink"))
    await assert_still_held(host, first, sink)


async def test_nothing_is_sent_when_the_vote_cannot_be_written_down(host: Host, sink: RawPrinter) -> None:
    record = await held(host)
    async with asyncio.timeout(30):
        while (await host.record(record.id)).facts is None:
            await asyncio.sleep(0.05)
    size = (host.settings.state_dir / "index.sqlite-wal").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        await host.releaser.execute(host.order(record, "Sink"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await host.holder.keep_house(None)
    await assert_still_held(host, record, sink)
    await host.releaser.execute(host.order(record, "Sink", ballot=2))
    assert sink.received == [DOCUMENT]


async def test_the_nodes_secrets_alone_open_no_job(host: Host) -> None:
    from pullprint.vault.header import SealDamaged
    from pullprint.vault.opening import OpenJob
    from pullprint.vault.parts import open_part

    word = marker()
    record = await host.hold(pdf(marker=word))

    def ours(header):  # type: ignore[no-untyped-def]
        _, slot = header.slot(host.identity.node)
        private = host.keyring.private(slot.key)
        return {
            slot.party: open_part(
                slot.sealed, private, job=header.job, party=slot.party, key=slot.key, generation=header.generation
            )
        }

    with pytest.raises(SealDamaged):
        OpenJob(host.holder.path(record.id), record.id, ours)
    everything = b"".join(path.read_bytes() for path in host.settings.state_dir.rglob("*") if path.is_file())
    assert word.encode() not in everything


async def test_an_expired_job_ends_and_its_file_goes(host: Host, sink: RawPrinter) -> None:
    await host.site.accept(host.organisation.config(host.identity.node, {"Sink": sink.uri}, revision=2, hold=60))
    record = await held(host)
    await host.holder.keep_house(None)
    assert host.holder.path(record.id).exists(), "without the cloud's clock nothing expires"
    await host.holder.keep_house(host.clock.now() + 3_600)
    assert not host.holder.path(record.id).exists()
    with pytest.raises(StatementRefused):
        await host.releaser.execute(host.order(record, "Sink", iss="x"))
    await host.releaser.execute(host.order(record, "Sink"))
    assert sink.received == []
    assert await host.holder.read(Index.jobs) == []


async def test_an_order_that_waited_too_long_for_its_turn_prints_nothing(host: Host, sink: RawPrinter) -> None:
    record = await held(host)
    now = int(host.clock.now())
    turn = host.releaser.printer_state("sink").turn
    await turn.acquire()
    waiting = asyncio.create_task(host.releaser.execute(host.order(record, "Sink", iat=now, exp=now + 1)))
    await asyncio.sleep(2.2)
    turn.release()
    await waiting
    await assert_still_held(host, record, sink)
    await host.releaser.execute(host.order(record, "Sink", ballot=2))
    assert sink.received == [DOCUMENT]


async def test_a_daemon_that_is_stopping_begins_nothing(host: Host, sink: RawPrinter) -> None:
    record = await held(host)
    host.releaser.closing = True
    await host.releaser.execute(host.order(record, "Sink"))
    await assert_still_held(host, record, sink)


async def test_a_rebuild_that_was_interrupted_voids_the_votes_of_the_rest_too(host: Host) -> None:
    records = [await held(host) for _ in range(3)]
    await host.holder.read(lambda index: index._db.executescript(
        "DELETE FROM job; DELETE FROM outbox; INSERT INTO meta VALUES ('rebuilding', '1');"
    ))  # fmt: skip
    await host.holder.change(lambda index: index.add(records[0], []))
    await host.holder.start(3_600)
    after = [await host.record(record.id) for record in records]
    assert [record.vote.lost for record in after] == [False, True, True], "the first one stands for what was taken in"
    assert not await host.holder.read(Index.rebuilding)


async def test_an_order_that_waits_too_long_for_its_printer_says_so_and_does_nothing(
    host: Host, sink: RawPrinter
) -> None:
    record = await held(host)
    now = int(host.clock.now())
    async with host.releaser.printer_state("sink").turn:
        order = host.order(record, "Sink", iat=now - 59, exp=now + 1)
        waiting = asyncio.create_task(host.releaser.execute(order))
        async with asyncio.timeout(5):
            while "Waits until Sink" not in (await host.record(record.id)).sentence:
                await asyncio.sleep(0.01)
            await waiting
    assert "still printing other documents" in (await host.record(record.id)).sentence
    await assert_still_held(host, record, sink)
    await host.releaser.execute(host.order(record, "Sink", ballot=2))
    assert sink.received == [DOCUMENT], "the printer is free again"


async def test_pages_that_are_out_are_told_once_each_and_not_in_the_trace(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "PROGRESS_EVERY", 0.05)
    record = await held(host)

    async def told(pages: int) -> None:
        async with asyncio.timeout(10):
            while f"out so far: {pages}." not in (await host.record(record.id)).sentence:
                await asyncio.sleep(0.01)

    async with release._Teller(host.holder, record.id, "Foyer") as teller:
        teller.tell(Progress(Phase.CONNECTING, waiting=True))
        teller.tell(Progress(Phase.PRINTING, pages_completed=0))
        teller.tell(Progress(Phase.PRINTING, pages_completed=1))
        await told(1)
        for pages in (1, 1, 2, 3):
            teller.tell(Progress(Phase.PRINTING, pages_completed=pages))
        await told(3)
    events = await host.events(record.id)
    assert [event for event in events if event not in ("stored", "held", "facts")] == ["connecting", "printing"]
    reports = [json.loads(report) for _, report in await host.holder.read(Index.outbox, 100)]
    pages = [report["pages"] for report in reports if report["kind"] == "state" and report["pages"]]
    assert pages == [1, 3]
