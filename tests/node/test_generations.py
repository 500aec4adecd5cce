"""A holder is lost and another comes in: the job is printed once all the same, whoever stops, and whenever."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.node.host import Organisation
from tests.node.neighbours import Away
from tests.node.successors import Died, Fate, Successor, SuccessorWire
from tests.rig.printers import RawPrinter

from pullprint.base.errors import NotFound, PullprintError
from pullprint.model.states import State
from pullprint.model.votes import Attempt, Vote, commit
from pullprint.node.generation_author import CLOSE
from pullprint.node.quorum import HoldersChanging
from pullprint.node.voter import StillAtWork
from pullprint.vault import keys
from pullprint.vault.generation import in_generation
from pullprint.vault.header import SealDamaged
from pullprint.vault.index import Index, OtherGeneration
from pullprint.vault.opening import read_header
from pullprint.vault.parts import open_part
from pullprint.vault.record import Record
from pullprint.wire.holders import Close, Opening, check_links, read_acceptance, sign_acceptance
from pullprint.wire.jws import StatementRefused
from pullprint.wire.mesh import Commit, KeyTable, read_table, sign_table

DOCUMENT = b"a line for the printer\n" * 10_000


class Office:
    """Four hosts, of which three hold a job, and a printer that counts."""

    def __init__(self, root: Path, printer: RawPrinter) -> None:
        self.wire, self.printer = SuccessorWire(), printer
        self.organisation = Organisation()
        printers = {"Sink": printer.uri}
        names = ("ada", "bob", "cy", "dan", "eve")
        self.hosts = [Successor(root / name, self.organisation, printers, self.wire) for name in names]

    async def job(self, holders: int = 3) -> Record:
        first, *others = self.hosts[:holders]
        return await first.place(*(await first.seal(DOCUMENT)), *others)

    async def latest(self, job: str) -> Record:
        """What the host with the latest generation knows, which holds it."""
        found = [record for host in self.hosts if (record := await host.about(job)) and record.own_key]
        return max(found, key=lambda record: record.generation)

    async def until(self, host: Successor, job: str, generation: int) -> Record:
        async with asyncio.timeout(20):
            while (record := await host.about(job)) is None or record.generation < generation:
                await asyncio.sleep(0.02)
        return record

    async def check(self, job: str) -> None:
        """In no generation are there two key tables."""
        tables: dict[int, set[str]] = {}
        for host in self.hosts:
            record, token = await host.holder.read(lambda index: (index._find(job), index.key_table(job)))
            if record is not None and record.generation > 1 and token:  # none is kept when it has ended
                tables.setdefault(record.generation, set()).add(token)
        assert all(len(tokens) == 1 for tokens in tables.values()), "two key tables in one generation"


@pytest.fixture
async def office(root: Path, sink: RawPrinter) -> AsyncIterator[Office]:
    office = Office(root, sink)
    for host in office.hosts:
        await host.start()
    yield office
    office.wire.cut.clear()
    for host in office.hosts:
        await host.stop()


async def quiet(_: str, __: str, ___: str) -> None:
    pass


async def test_holder_that_is_lost_is_replaced_and_its_successor_prints(office: Office) -> None:
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    office.wire.down = {cy.node}
    await ada.replace(job, 1, (cy,), (dan,))
    for host in (ada, bob, dan):
        record = await office.until(host, job.id, 3)
        assert record.holders == (ada.node, bob.node, dan.node) and record.vote == Vote()
        assert host.holder.path(job.id).read_bytes() == ada.holder.path(job.id).read_bytes()
        assert "holders" in await host.events(job.id)
    assert not dan.arrived(job.id).exists()
    office.wire.down = {cy.node, ada.node}
    now = await dan.record(job.id)
    await dan.releaser.execute(dan.order_for(now, "Sink"))
    assert office.printer.received == [DOCUMENT]


async def test_old_holder_that_comes_back_votes_no_more_and_shreds_its_copy(office: Office) -> None:
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    office.wire.down = {cy.node}
    await ada.replace(job, 1, (cy,), (dan,))
    await office.until(dan, job.id, 3)
    old = cy.order_for(job, "Sink")
    office.wire.down = set()
    office.wire.cut = {frozenset((ada.node, cy.node)), frozenset((dan.node, cy.node))}
    # It has not heard yet, and what it asks for in the old generation nobody gives.
    await cy.releaser.execute(old)
    assert office.printer.received == [] and (await cy.record(job.id)).state is State.HELD
    assert (await cy.record(job.id)).sentence == HoldersChanging().sentence
    office.wire.cut = set()
    record = await office.until(cy, job.id, 3)
    async with asyncio.timeout(5):
        while cy.holder.path(job.id).exists() or cy.holder.keys_path(job.id).exists():
            await asyncio.sleep(0.02)
    assert record.own_key == "" and record.holders == (ada.node, bob.node, dan.node)
    token = bob.order_for(await bob.record(job.id), "Sink").order
    with pytest.raises(OtherGeneration):
        await cy.voter.commit(bob.node, Commit(job=job.id, generation=2, ballot=1, order=token))
    assert "left" in await cy.events(job.id)


async def test_host_that_left_may_come_in_again(office: Office) -> None:
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    office.wire.down = {cy.node}
    await ada.replace(job, 1, (cy,), (dan,))
    await office.until(dan, job.id, 3)
    office.wire.down = set()
    await office.until(cy, job.id, 3)
    while cy.holder.path(job.id).exists():
        await asyncio.sleep(0.02)
    office.wire.down = {dan.node}
    await bob.replace(await bob.record(job.id), 2, (dan,), (cy,))
    record = await office.until(cy, job.id, 4)
    assert set(record.holders) == {ada.node, bob.node, cy.node} and cy.holder.path(job.id).exists()
    await cy.releaser.execute(cy.order_for(record, "Sink"))
    assert office.printer.received == [DOCUMENT]


async def test_job_that_is_short_of_copies_gets_its_third(office: Office) -> None:
    job = await office.job(holders=2)
    ada, bob, cy, *_ = office.hosts
    await bob.replace(job, 1, (), (cy,))
    for host in (ada, bob, cy):
        assert (await office.until(host, job.id, 3)).holders == (ada.node, bob.node, cy.node)
    office.wire.down = {ada.node}
    await cy.releaser.execute(cy.order_for(await cy.record(job.id), "Sink"))
    assert office.printer.received == [DOCUMENT]


async def test_without_anybody_to_come_in_nothing_is_closed_unless_somebody_was_shut_out(office: Office) -> None:
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    office.wire.down = {cy.node, dan.node}
    await ada.replace(job, 1, (cy,), (dan,))
    assert (await ada.record(job.id)).vote == Vote() == (await bob.record(job.id)).vote
    assert "not-replaced" in await ada.events(job.id)
    await ada.replace(job, 2, (cy,), (dan,), urgent=True)
    for host in (ada, bob):
        assert (await office.until(host, job.id, 3)).holders == (ada.node, bob.node)


async def lost_word(office: Office) -> Record:
    """bob has closed, and what it says of that is lost."""
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    office.wire.down = {cy.node}

    async def mute(sender: str, _: str, path: str) -> None:
        if sender == bob.node and path == CLOSE + "!":
            raise Away

    office.wire.fault = mute
    await ada.replace(job, 1, (cy,), (dan,))
    office.wire.fault, office.wire.down = quiet, set()
    assert (await bob.record(job.id)).vote.closed == 1 and (await ada.record(job.id)).vote == Vote()
    return job


async def test_holder_that_closed_stays_closed_and_the_others_print_without_it(office: Office) -> None:
    job = await lost_word(office)
    ada, bob, cy, *_ = office.hosts
    await bob.releaser.execute(bob.order_for(job, "Sink"))
    assert office.printer.received == []
    assert (await bob.record(job.id)).sentence == HoldersChanging().sentence
    office.wire.down = {cy.node}
    await ada.releaser.execute(ada.order_for(job, "Sink", ballot=2))
    assert office.printer.received == []
    assert (await ada.record(job.id)).sentence == HoldersChanging().sentence
    for host in (ada, bob):
        reports = [report for _, report in await host.holder.read(Index.outbox, 1_000)]
        assert not any('"elsewhere":true' in report for report in reports), "another host would hear the same"
    office.wire.down = set()
    await ada.releaser.execute(ada.order_for(job, "Sink", ballot=3))
    assert office.printer.received == [DOCUMENT]


async def test_host_that_waits_for_long_says_so(office: Office) -> None:
    job = await lost_word(office)
    bob = office.hosts[1]
    await bob.generations.say_still_closed()
    assert "still-closed" not in await bob.events(job.id)
    later = bob.clock.now() + 601
    bob.generations._clock = type("Later", (), {"now": lambda _: later})()
    for _ in range(2):
        await bob.generations.say_still_closed()
    assert (await bob.events(job.id)).count("still-closed") == 1


async def test_what_one_author_left_the_next_one_finishes(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await office.job()
    ada, bob, cy, dan, eve = office.hosts
    office.wire.down = {cy.node}
    fate = Fate(monkeypatch)
    fate.left = 5  # its own and the other's close, then what it proposes, then its own word and the other's
    with pytest.raises(Died):
        while True:
            await ada.replace(job, 1, (cy,), (dan,))
            fate.left = 1
    assert fate.seen[-1] in ("accepted", "proposed", "decided")
    fate.left = -1
    accepted = (await ada.record(job.id)).vote.accepted
    assert accepted is not None
    await ada.restart()
    await bob.replace(job, 2, (cy,), (eve,))
    for host in (ada, bob, dan):
        record = await office.until(host, job.id, 3)
        assert record.holders == (ada.node, bob.node, dan.node), "what may have been decided, and not eve"
        assert await host.holder.read(Index.key_table, job.id) == accepted.proposal.table


async def test_attempt_that_may_have_printed_is_in_doubt_in_the_next_generation(office: Office) -> None:
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    # cy printed with bob's vote, and is gone.
    for host in (bob, cy):
        await host.holder.read(Index.cast, job.id, lambda vote: commit(vote, 1, "o", cy.node))
    office.wire.down = {cy.node}
    await ada.replace(job, 1, (cy,), (dan,))
    record = await office.until(dan, job.id, 3)
    assert record.vote == Vote(1, (Attempt(1, "o", cy.node, carried=True),))
    await dan.releaser.execute(dan.order_for(record, "Sink", ballot=2))
    assert office.printer.received == [] and (await dan.record(job.id)).state is State.UNCERTAIN
    await dan.releaser.execute(dan.order_for(record, "Sink", ballot=3, forces=(1,)))
    assert office.printer.received == [DOCUMENT], "its owner has looked"


async def test_releaser_that_is_back_proves_in_the_next_generation_that_it_sent_nothing(office: Office) -> None:
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    order = cy.order_for(job, "Sink")

    async def dies(sender: str, receiver: str, path: str) -> None:
        if cy.node in (sender, receiver) and path.endswith("commits!"):
            office.wire.down.add(cy.node)
            raise Away

    office.wire.fault = dies
    await cy.releaser.execute(order)  # the others voted, and it never knew
    assert office.printer.received == []
    office.wire.fault = quiet
    await ada.replace(job, 1, (cy,), (dan,))
    await office.until(dan, job.id, 3)
    assert any(a.carried for a in (await dan.record(job.id)).vote.attempts)
    office.wire.down = set()
    await office.until(cy, job.id, 3)
    async with asyncio.timeout(20):
        for host in (ada, bob):
            while not all(attempt.nothing_sent for attempt in (await host.record(job.id)).vote.attempts):
                await asyncio.sleep(0.05)
    await ada.releaser.execute(ada.order_for(await ada.record(job.id), "Sink", ballot=2))
    assert office.printer.received == [DOCUMENT]


async def test_host_at_work_on_the_job_does_not_close_it(office: Office) -> None:
    job = await office.job()
    ada, bob, _cy, dan, _eve = office.hosts
    for host in (ada, bob):
        host.holder.busy.add(job.id)
    await ada.replace(job, 1, (bob,), (dan,))
    assert (await ada.record(job.id)).vote == Vote()
    item = ada.holders_item(job, 2, (bob,), (dan,))
    with pytest.raises(PullprintError):
        await bob.generations.close(ada.node, Close(job=job.id, generation=2, number=2, order=item.order))
    assert (await bob.record(job.id)).vote == Vote()
    for host in (ada, bob):
        host.holder.busy.clear()


async def test_release_that_has_begun_does_not_find_another_generation_under_its_feet(office: Office) -> None:
    record, good = await proof(office)
    ada, _bob, cy, dan, _eve = office.hosts
    again = (await cy.record(record.id)).generation
    cy.holder.busy.add(record.id)
    office.wire.down = set()
    with pytest.raises(StillAtWork):
        await cy.generations.open(ada.node, good)
    await dan.holder.read(lambda index: index._db.execute("DELETE FROM job WHERE id = ?", (record.id,)))
    dan.holder.busy.add(record.id)
    with pytest.raises(StillAtWork):
        await dan.generations.open(ada.node, good)
    assert (await cy.record(record.id)).generation == again == 2 and await dan.about(record.id) is None
    cy.holder.busy.clear()
    async with asyncio.timeout(10):
        while cy.holder.path(record.id).exists():
            await asyncio.sleep(0.02)


async def test_vote_that_was_asked_for_in_one_generation_does_not_count_in_the_next(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its check and its write a voter gets a new record."""
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    order = cy.order_for(job, "Sink")
    checked, opened = asyncio.Event(), asyncio.Event()
    voter: Any = bob.voter
    cast = voter._cast

    async def slow(*args: Any) -> Any:
        checked.set()
        await opened.wait()
        return await cast(*args)

    monkeypatch.setattr(voter, "_cast", slow)
    asking = asyncio.create_task(
        bob.voter.commit(cy.node, Commit(job=job.id, generation=2, ballot=1, order=order.order))
    )
    await checked.wait()
    office.wire.down = {cy.node}
    await ada.replace(job, 1, (cy,), (dan,))
    await office.until(bob, job.id, 3)
    opened.set()
    with pytest.raises(OtherGeneration):
        await asking
    assert (await bob.record(job.id)).vote == Vote()


@pytest.mark.parametrize("step", range(1, 13))
async def test_author_that_stops_anywhere_is_followed_by_another(
    office: Office, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    job = await office.job()
    ada, bob, cy, dan, eve = office.hosts
    office.wire.down = {cy.node}
    fate = Fate(monkeypatch)
    fate.left = step
    try:
        await ada.replace(job, 1, (cy,), (dan,))
    except Died:
        office.wire.down.add(ada.node)
    await asyncio.sleep(0.05)
    fate.left = -1
    await ada.quiet()
    await office.check(job.id)
    for host in office.hosts:
        if host is not cy and host.node in office.wire.down:
            await host.restart()
    await ada.restart()
    number = 1
    async with asyncio.timeout(20):
        while True:
            record = await office.latest(job.id)
            if record.generation > 2 and cy.node not in record.holders:
                break
            number += 1
            assert number < 6
            await bob.replace(await bob.record(job.id), number, (cy,), (eve,))
    record = await office.latest(job.id)
    holders = [host for host in office.hosts if host.node in record.holders]
    for host in holders:
        await office.until(host, job.id, record.generation)
    await office.check(job.id)
    last = holders[-1]
    await last.releaser.execute(last.order_for(await last.record(job.id), "Sink", ballot=number + 1))
    assert office.printer.received == [DOCUMENT], (await last.record(job.id)).sentence


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "40"))))
async def test_authors_that_compete_and_a_release_under_way_print_once(
    office: Office, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Orders for two or three authors, with and without a crash, and one or two releases, over a wire that loses."""
    chance = random.Random(seed)
    job = await office.job()
    hosts = office.hosts
    holders, spare = hosts[:3], hosts[3:]
    fate = Fate(monkeypatch)
    if chance.random() < 0.3:
        fate.left = chance.randrange(1, 16)
    elif chance.random() < 0.6:
        fate.at, fate.left = chance.choice(("decided", "accepted", "generation-opened", "generation-opened")), 1

    async def weather(_: str, __: str, path: str) -> None:
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.005, 0.02)))
        if chance.random() < 0.15 and "news" not in path:
            raise Away

    office.wire.fault = weather
    ballot = 0

    async def change(author: Successor, number: int) -> None:
        await asyncio.sleep(chance.choice((0, 0, 0.01, 0.03)))
        about = await author.record(job.id)
        gone = chance.choice([host for host in holders if host is not author])
        if chance.random() < 0.5:
            office.wire.down.add(gone.node)
        try:
            if about.own_key and about.generation > 1:
                await author.replace(about, number, (gone,), tuple(chance.sample(spare, 2)))
        except Died:
            office.wire.down.add(author.node)

    async def print_it(host: Successor, number: int) -> None:
        await asyncio.sleep(chance.choice((0, 0.005, 0.02, 0.05)))
        about = await host.record(job.id)
        if about.own_key:
            await host.releaser.execute(host.order_for(about, "Sink", ballot=number))

    authors = chance.sample(holders, chance.choice((2, 2, 3)))
    for round_ in range(chance.choice((1, 2, 3))):
        tasks = [change(author, 1 + index + 3 * round_) for index, author in enumerate(authors)]
        for releaser in chance.sample(holders, chance.choice((1, 2))):
            ballot += 1
            tasks.append(print_it(releaser, ballot))
        await asyncio.gather(*tasks)
        await office.check(job.id)
    assert len(office.printer.received) <= 1
    # Calm, and everybody is there again.
    fate.left = -1
    office.wire.fault = quiet
    office.wire.down = set()
    for host in hosts:
        await host.restart()
    known = [record for host in hosts if (record := await host.about(job.id))]
    if any(record.state is State.DONE for record in known):
        assert office.printer.received == [DOCUMENT]
        return
    number = 100
    async with asyncio.timeout(30):
        while True:
            record = await office.latest(job.id)
            able = [host for host in hosts if host.node in record.holders]
            seen = {host.node: await host.about(job.id) for host in able}
            behind = [host for host in able if not (at := seen[host.node]) or at.generation < record.generation]
            closed = any(at.vote.closed for at in seen.values() if at and at.generation == record.generation)
            if not behind and not closed:
                break
            author = chance.choice([host for host in able if host not in behind])
            number += 1
            gone = next(host for host in able if host is not author)
            await author.replace(await author.record(job.id), number, (gone,), tuple(hosts), wanted=1)
            await asyncio.sleep(0.1)
    await office.check(job.id)
    printer = next(host for host in hosts if host.node in record.holders)
    for _ in range(2):
        ballot += 1
        about = await printer.record(job.id)
        await printer.releaser.execute(printer.order_for(about, "Sink", ballot=ballot))
    assert len(office.printer.received) <= 1
    print(f"seed {seed}: {len(office.printer.received)} prints, generation {(await office.latest(job.id)).generation}")
    if not office.printer.received:
        assert (await printer.record(job.id)).state is State.UNCERTAIN, "held, or somebody is asked"


async def parts_of(host: Successor, job: str, table: KeyTable, keyring: dict[str, bytes] | None = None) -> bytes:
    slot = next(slot for slot in table.slots if slot.party == host.node)
    return open_part(
        slot.sealed, host.keyring.private(slot.key), job=job, party=host.node, key=slot.key,
        generation=table.generation,
    )  # fmt: skip


async def test_part_of_a_holder_that_was_shut_out_opens_the_new_generation_with_nobodys(office: Office) -> None:
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    old = read_table(await cy.holder.read(Index.key_table, job.id))
    office.wire.down = {cy.node}
    await ada.replace(job, 1, (cy,), (dan,), urgent=True)
    await office.until(dan, job.id, 3)
    new = read_table(await dan.holder.read(Index.key_table, job.id))
    thief = await parts_of(cy, job.id, old)
    sealed = read_header(ada.holder.path(job.id))
    current, before = in_generation(sealed, new), in_generation(sealed, old)
    slots = {slot.party: number for number, slot in enumerate(current.slots)}
    assert cy.node not in slots
    for other in (ada, bob, dan):
        part = await parts_of(other, job.id, new)
        for stolen in range(len(slots)):
            if stolen != slots[other.node]:
                with pytest.raises(SealDamaged):
                    keys.unwrap(current, {slots[other.node]: part, stolen: thief}, sealed)
    # What no new generation takes back: the old table with any two of its own parts. See docs/mesh.md.
    numbers = {slot.party: number for number, slot in enumerate(before.slots)}
    again = await parts_of(bob, job.id, old)
    assert keys.unwrap(before, {numbers[cy.node]: thief, numbers[bob.node]: again}, sealed)
    for one, two in combinations((ada, bob, dan), 2):
        found = {slots[h.node]: await parts_of(h, job.id, new) for h in (one, two)}
        assert keys.unwrap(current, found, sealed)


async def proof(office: Office) -> tuple[Record, Opening]:
    job = await office.job()
    ada, _bob, cy, dan, _eve = office.hosts
    office.wire.down = {cy.node}
    await ada.replace(job, 1, (cy,), (dan,))
    record = await office.until(dan, job.id, 3)
    opening = await dan.generations.opening(record)
    assert opening is not None
    return record, opening


async def test_nobody_believes_a_generation_that_no_majority_accepted(office: Office) -> None:
    record, good = await proof(office)
    ada, bob, cy, dan, eve = office.hosts
    check_links(good.links(), ada.node)
    first, second = good.acceptances
    table = read_table(good.table)
    stranger = Ed25519PrivateKey.generate()

    def signed_by(token: str, key: Ed25519PrivateKey, **changes: Any) -> str:
        said = read_acceptance(token).model_copy(update={"voter": key.public_key().public_bytes_raw(), **changes})
        return sign_acceptance(said, key.private_bytes_raw())

    other = sign_table(
        table.model_copy(update={"author": stranger.public_key().public_bytes_raw()}), stranger.private_bytes_raw()
    )
    foreign = sign_table(
        table.model_copy(update={"holders": (eve.node,), "author": bob.identity.public}),
        bob.identity.key.private_bytes_raw(),
    )
    lies: list[dict[str, Any]] = [
        {"acceptances": ()},
        {"acceptances": (first,)},
        {"acceptances": (first, first)},
        {"acceptances": (first, signed_by(second, stranger))},
        {"acceptances": (first, signed_by(second, dan.identity.key))},
        {"acceptances": (first, signed_by(second, bob.identity.key, number=7))},
        {"acceptances": (first, signed_by(second, bob.identity.key, base=3))},
        {"acceptances": (first, signed_by(second, bob.identity.key, start=bytes(32)))},
        {"acceptances": (first, second[:-8] + "AAAAAAAA")},
        {"earlier": ()},
        {"earlier": good.earlier * 2},
        {"table": other},
        {"table": foreign},
        {"table": good.earlier[0].table},
        {"start": {"promised": 9}},
    ]
    office.wire.down = set()
    for lie in lies:
        told = Opening.model_validate({**good.model_dump(), **lie})
        for host in (cy, eve):
            with pytest.raises(PullprintError):
                await host.generations.open(ada.node, told)
    with pytest.raises(StatementRefused):
        check_links(good.links(), bob.node)
    assert await eve.about(record.id) is None
    with pytest.raises(NotFound):
        await eve.generations.open(ada.node, good)


async def test_nobody_closes_without_an_order_that_names_who_asks(office: Office) -> None:
    job = await office.job()
    ada, bob, cy, dan, _eve = office.hosts
    good = ada.holders_item(job, 1, (cy,), (dan,)).order
    now = int(ada.clock.now())
    for sender, order, changes in (
        (cy.node, good, {}),
        (dan.node, good, {}),
        (ada.node, good, {"number": 2}),
        (ada.node, good, {"generation": 3}),
        (ada.node, ada.holders_item(job, 1, iat=now - 700, exp=now - 100).order, {}),
        (ada.node, ada.holders_item(job, 1, exp=now + 6_000).order, {}),
        (ada.node, ada.holders_item(job, 1, job="0" * 32).order, {}),
        (ada.node, ada.order_for(job, "Sink").order, {}),
        (ada.node, "nonsense", {}),
    ):
        asked = {"job": job.id, "generation": 2, "number": 1, "order": order, **changes}
        with pytest.raises(PullprintError):
            await bob.generations.close(sender, Close.model_validate(asked))
    assert (await bob.record(job.id)).vote == Vote()


async def test_host_that_may_have_lost_its_vote_gets_none_when_it_is_told_again(office: Office) -> None:
    """It voted in the new generation, and has the disk of yesterday."""
    record, good = await proof(office)
    ada, _bob, _cy, dan, eve = office.hosts
    again = good.model_copy(update={"again": True})
    await dan.holder.read(lambda index: index._db.execute("DELETE FROM job WHERE id = ?", (record.id,)))
    await dan.generations.open(ada.node, again)
    assert (await dan.record(record.id)).vote.lost
    assert eve.node not in read_table(good.table).holders


async def test_file_beside_the_copy_proves_the_generation(office: Office) -> None:
    record, _ = await proof(office)
    dan = office.hosts[3]
    links = await dan.generations.links(record)
    assert [read_table(link.table).generation for link in links] == [2, 3]
    dan.holder.keys_path(record.id).unlink()
    with pytest.raises(PullprintError):
        await dan.generations.links(record)


async def test_index_that_is_lost_is_rebuilt_in_the_generation_that_is_in_force_and_without_a_vote(
    office: Office,
) -> None:
    record, _ = await proof(office)
    dan = office.hosts[3]
    await dan.quiet()
    for task in dan._tasks:
        task.cancel()
    await asyncio.wait(dan._tasks)
    dan.holder.close()
    (dan.settings.state_dir / "index.sqlite").unlink()
    office.hosts[3] = again = Successor(dan.root, office.organisation, dan.printers, office.wire)
    await again.start()
    found = await again.record(record.id)
    assert (found.generation, found.holders, found.vote.lost) == (3, record.holders, True)
