"""Hosts sleep, and the cloud votes for them: what is left prints, once, and whoever wakes up knows of it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.host import Organisation
from tests.node.neighbours import Away, Wire
from tests.node.sleepers import LEND, VOTES, Night, Sleepy
from tests.rig.printers import RawPrinter

from pullprint.model.states import ENDED, State
from pullprint.model.votes import Attempt, Vote
from pullprint.node import sleep
from pullprint.node.quorum import HEDGE, PATIENCE
from pullprint.vault.index import Index
from pullprint.vault.record import Record
from pullprint.wire.loans import Loan, Loans
from pullprint.wire.mesh import Commit, vote_to_wire
from pullprint.wire.node import OrderItem

DOCUMENT = b"a line for the printer\n" * 10_000
COMMITS = "/mesh/v1/commits"


class Office:
    """Three hosts, a job that they hold, a printer that counts, and the cloud."""

    def __init__(self, root: Path, printer: RawPrinter) -> None:
        self.wire, self.printer = Wire(), printer
        self.organisation = Organisation()
        self.night = Night(root, self.organisation)
        printers = {"Sink": printer.uri}
        self.hosts = [
            Sleepy(root / name, self.organisation, printers, self.wire, self.night) for name in ("ada", "bob", "cy")
        ]

    async def job(self) -> Record:
        first, *others = self.hosts
        placed = await first.place(*(await first.seal(DOCUMENT)), *others)
        self.night.add_job(placed)
        return placed

    async def until(self, host: Sleepy, job: Record, state: State) -> None:
        async with asyncio.timeout(10):
            while (await host.record(job.id)).state is not state:
                ticket = host.holder.changes.ticket
                await host.holder.changes.wait(ticket, 0.05)

    async def vote(self, host: Sleepy, job: Record) -> Vote:
        return (await host.record(job.id)).vote


@pytest.fixture
async def office(root: Path, sink: RawPrinter) -> AsyncIterator[Office]:
    office = Office(root, sink)
    for host in office.hosts:
        await host.start()
    yield office
    office.wire.cut.clear()
    office.wire.down.clear()
    for host in office.hosts:
        await host.stop()
    office.night.store.close_now()


async def quiet(*_: str) -> None:
    pass


async def test_with_origin_and_another_asleep_the_third_prints_and_the_sleepers_learn_of_it(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    await ada.doze()
    await bob.doze()
    assert (await office.vote(ada, job)).lent and (await office.vote(bob, job)).lent
    await cy.releaser.execute(cy.order_for(job, "Sink"))
    assert office.printer.received == [DOCUMENT]
    assert [path for _, path in office.night.heard].count(VOTES) >= 1
    texts = office.night.steps(job)
    assert any(text.endswith("which is asleep, so that cy may print it.") for text in texts), texts
    await ada.rise()
    await bob.rise()
    for host in office.hosts:
        await office.until(host, job, State.DONE)


async def test_sleepers_vote_is_used_from_the_second_ballot_on_too(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    office.printer.stop()
    await bob.releaser.execute(bob.order_for(job, "Sink"))
    office.printer.start()
    await ada.doze()
    await bob.doze()
    await cy.releaser.execute(cy.order_for(job, "Sink", ballot=2))
    assert office.printer.received == [DOCUMENT]
    texts = office.night.steps(job)
    assert any(text.startswith("Promised the vote of") for text in texts), texts


async def test_without_the_cloud_nothing_is_lent_and_the_host_votes_on(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    office.night.away = {host.node for host in office.hosts}
    view = await ada.sleeper.sleep()
    assert (view.lent, view.own) == (0, 1)

    async def breaks(_: str, __: str) -> None:
        raise Away

    office.night.away, office.night.fault = set(), breaks
    assert (await ada.sleeper.sleep()).lent == 0
    office.wire.down = {cy.node}
    await bob.releaser.execute(bob.order_for(job, "Sink"))
    assert office.printer.received == [DOCUMENT]


async def test_first_release_after_a_sleep_needs_one_round_trip(office: Office) -> None:
    job = await office.job()
    ada = office.hosts[0]
    await ada.doze()
    await ada.rise()
    assert await office.vote(ada, job) == Vote(loan=1)
    await ada.releaser.execute(ada.order_for(job, "Sink"))
    assert office.printer.received == [DOCUMENT]
    assert {path for sender, _, path in office.wire.heard if sender == ada.node} - {"/mesh/v1/news"} == {COMMITS}


async def test_order_for_a_host_that_lent_its_vote_shows_that_it_is_awake(office: Office) -> None:
    job = await office.job()
    ada, bob, _cy = office.hosts
    await ada.sleeper.sleep()
    await ada.releaser.execute(ada.order_for(job, "Sink"))
    assert office.printer.received == [DOCUMENT]
    other = await office.job()
    await bob.sleeper.sleep()
    office.night.away = {bob.node}
    await bob.releaser.execute(bob.order_for(other, "Sink"))
    record = await bob.record(other.id)
    assert (record.state, len(office.printer.received)) == (State.HELD, 1) and "still with the cloud" in record.sentence
    reports = [report for _, report in await bob.holder.read(Index.outbox, 1_000)]
    assert any('"elsewhere":true' in report for report in reports)


async def test_voter_that_says_that_it_lent_its_vote_is_asked_for_at_the_cloud(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    await ada.sleeper.sleep()
    await bob.sleeper.sleep()
    await cy.releaser.execute(cy.order_for(job, "Sink"))
    assert office.printer.received == [DOCUMENT]


async def test_voter_that_hangs_does_not_hold_up_the_cloud(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    await ada.sleeper.sleep()
    await bob.sleeper.sleep()

    async def hangs(_: str, __: str, path: str) -> None:
        if path == COMMITS:
            await asyncio.sleep(PATIENCE)
            raise Away

    office.wire.fault = hangs
    begin = time.monotonic()
    await cy.releaser.execute(cy.order_for(job, "Sink"))
    assert office.printer.received == [DOCUMENT] and time.monotonic() - begin < HEDGE + 1.0


async def test_host_that_wakes_in_the_middle_of_a_release_does_not_vote_a_second_time(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    await ada.doze()
    await bob.doze()
    voted, go_on = asyncio.Event(), asyncio.Event()

    async def stops(_: str, path: str) -> None:
        if path == VOTES + "!":
            voted.set()
            await go_on.wait()

    office.night.fault = stops
    order = cy.order_for(job, "Sink")
    releasing = asyncio.create_task(cy.releaser.execute(order))
    await voted.wait()
    office.wire.down.clear()
    office.wire.cut = {frozenset((cy.node, host.node)) for host in (ada, bob)}
    await ada.sleeper.wake()
    await bob.sleeper.wake()
    votes = [await office.vote(host, job) for host in (ada, bob)]
    assert any(vote.attempts and vote.attempts[0].releaser == cy.node for vote in votes), "it knows what it voted for"
    await ada.releaser.execute(ada.order_for(job, "Sink", ballot=2))
    assert office.printer.received == []
    assert (await ada.record(job.id)).state is State.UNCERTAIN
    go_on.set()
    await releasing
    assert office.printer.received == [DOCUMENT]
    office.wire.cut.clear()
    for host in office.hosts:
        await office.until(host, job, State.DONE)


async def test_host_that_wakes_before_the_cloud_votes_has_its_vote(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    await ada.doze()
    await bob.doze()
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def stops(_: str, path: str) -> None:
        if path == VOTES:
            asked.set()
            await go_on.wait()

    office.night.fault = stops
    releasing = asyncio.create_task(cy.releaser.execute(cy.order_for(job, "Sink")))
    await asked.wait()
    await ada.rise()
    await bob.rise()
    go_on.set()
    await releasing
    assert office.printer.received == [] and (await cy.record(job.id)).state is State.HELD
    await ada.releaser.execute(ada.order_for(job, "Sink", ballot=2))
    assert office.printer.received == [DOCUMENT]


@pytest.mark.parametrize("lost", [LEND, LEND + "!"])
async def test_message_of_a_loan_that_is_lost_leaves_the_vote_with_one_of_both(office: Office, lost: str) -> None:
    job = await office.job()
    ada = office.hosts[0]

    async def loses(_: str, path: str) -> None:
        if path == lost:
            raise Away

    office.night.fault = loses
    await ada.sleeper.sleep()
    assert not (await office.vote(ada, job)).lent, "it asked for its return at once"
    row = office.night.loan_of(ada.node, job)
    assert row.over and row.number == 1

    async def answers_once(node: str, path: str) -> None:
        if path == LEND:
            office.night.fault = breaks
        if path == lost:
            raise Away

    async def breaks(_: str, __: str) -> None:
        raise Away

    office.night.fault = answers_once
    await ada.sleeper.sleep()
    vote = await office.vote(ada, job)
    assert vote.lent and vote.loan == 2, "nobody knows who has it"
    # Again asleep, it tells of the same loan.
    office.night.fault = quiet
    await ada.sleeper.sleep()
    assert (await office.vote(ada, job)).loan == 2 and not office.night.loan_of(ada.node, job).over
    await ada.sleeper.wake()
    assert await office.vote(ada, job) == Vote(loan=2)


async def test_message_of_a_loan_that_comes_after_its_return_is_refused(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    await ada.doze()
    lent = next(sent for sent in office.night.sent if sent[1] == LEND)
    again = await office.night.take(*lent)
    assert len(again.loans) == 1, "repeated, it changes nothing"  # type: ignore[attr-defined]
    await ada.rise()
    late = await office.night.take(*lent)
    assert late.loans == () and office.night.loan_of(ada.node, job).over  # type: ignore[attr-defined]
    # Both never vote: what the cloud had is not the cloud's any more.
    order = cy.order_for(job, "Sink")
    message = Commit(job=job.id, generation=2, ballot=1, order=order.order)
    with pytest.raises(Exception, match="not lent"):
        await cy.sleeper.vote_for(ada.node, message)
    answer = await ada.voter.commit(cy.node, message)
    assert not answer.refused
    # And the other way round: what is lent does not vote.
    await bob.sleeper.sleep()
    assert (await bob.voter.commit(cy.node, message)).refused == "lent"
    assert not (await cy.sleeper.vote_for(bob.node, message)).refused


async def test_return_that_overtakes_its_loan_ends_it(office: Office) -> None:
    job = await office.job()
    ada = office.hosts[0]
    held = asyncio.Event()

    async def overtaken(_: str, path: str) -> None:
        if path == LEND and not held.is_set():
            held.set()
            raise Away

    office.night.fault = overtaken
    await ada.sleeper.sleep()
    record = await ada.record(job.id)
    assert not record.vote.lent
    loan = Loan(**dict(sleep._name(record)), vote=vote_to_wire(record.vote))
    late = await office.night.take(ada.node, LEND, Loans(loans=(loan,)))
    assert late.loans == ()  # type: ignore[attr-defined]


async def test_what_is_busy_lost_or_held_alone_is_not_lent(office: Office) -> None:
    job, busy, lost = await office.job(), await office.job(), await office.job()
    ada = office.hosts[0]
    alone, _ = await ada.seal(DOCUMENT)
    ada.holder.busy.add(busy.id)
    await ada.holder.read(Index.cast, lost.id, lambda vote: replace(vote, lost=True))
    view = await ada.sleeper.sleep()
    assert (view.lent, view.own) == (1, 2)
    assert (await office.vote(ada, job)).lent
    assert [(await office.vote(ada, one)).lent for one in (busy, lost, alone)] == [False] * 3
    ada.holder.busy.clear()


async def test_job_that_the_cloud_does_not_know_so_is_kept(office: Office) -> None:
    first, *others = office.hosts
    placed = await first.place(*(await first.seal(DOCUMENT)), *others)
    await first.sleeper.sleep()
    vote = await office.vote(first, placed)
    assert vote.lent, "nothing could be noted there that refuses a late message"
    office.night.add_job(placed)
    await first.sleeper.wake()
    assert await office.vote(first, placed) == Vote(loan=1)


async def test_forced_order_counts_with_the_sleepers_votes(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    doubtful = Vote(1, (Attempt(1, "x", ada.node),))
    for host in (ada, bob):
        await host.holder.read(Index.cast, job.id, lambda _: doubtful)
    await ada.doze()
    await bob.doze()
    await cy.releaser.execute(cy.order_for(job, "Sink", ballot=2))
    assert office.printer.received == [] and (await cy.record(job.id)).state is State.UNCERTAIN
    await cy.releaser.execute(cy.order_for(job, "Sink", ballot=3, forces=(1,)))
    assert office.printer.received == [DOCUMENT]


async def test_host_that_was_told_of_nothing_takes_its_votes_back_by_itself(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await office.job()
    ada = office.hosts[0]
    monkeypatch.setattr(sleep, "POLL", 0.02)
    await ada.sleeper.sleep()
    ada.sleeper = sleep.Sleeper(ada.holder, ada.clock, ada.sleeper._cloud)  # as after a start
    office.night.away = {ada.node}
    running = asyncio.create_task(ada.sleeper.run())
    try:
        await asyncio.sleep(0.1)
        assert (await office.vote(ada, job)).lent
        office.night.away = set()
        async with asyncio.timeout(5):
            while (await office.vote(ada, job)).lent:
                await asyncio.sleep(0.02)
        # Told to sleep after it had long been awake it stays asleep.
        monkeypatch.setattr(sleep, "GAP", 0.2)
        await asyncio.sleep(0.5)
        await ada.sleeper.sleep()
        await asyncio.sleep(0.05)
        assert (await office.vote(ada, job)).lent
        await ada.sleeper.wake()
        monkeypatch.setattr(sleep, "GAP", 5.0)
        # Told to sleep it stays asleep, also when its connection was renewed just then.
        await ada.sleeper.sleep()
        office.night.away = {ada.node}
        await asyncio.sleep(0.1)
        office.night.away = set()
        await asyncio.sleep(0.1)
        assert (await office.vote(ada, job)).lent
        # A new connection later than that shows that it has been away, and is back.
        monkeypatch.setattr(sleep, "SETTLE", 0.0)
        office.night.away = {ada.node}
        await asyncio.sleep(0.1)
        office.night.away = set()
        async with asyncio.timeout(5):
            while (await office.vote(ada, job)).lent:
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_thousand_jobs_are_lent_in_three_seconds(office: Office) -> None:
    ada = office.hosts[0]
    model = await office.job()
    for n in range(999):
        name = f"{n:032x}"
        copy = replace(await ada.record(model.id), id=name, job_uuid=name)
        await ada.holder.read(Index.add, copy, [])
        office.night.add_job(copy)
    begin = time.monotonic()
    view = await ada.sleeper.sleep()
    took = time.monotonic() - begin
    assert view.lent == 1_000
    begin = time.monotonic()
    assert (await ada.sleeper.wake()).lent == 0
    print(f"lent in {took:.2f} s, back in {time.monotonic() - begin:.2f} s")
    assert took < 3 and time.monotonic() - begin < 3


@pytest.mark.parametrize("seed", range(40))
async def test_whoever_sleeps_and_wakes_while_two_orders_are_under_way_it_prints_once(
    office: Office, seed: int
) -> None:
    """Two orders, hosts that doze and rise, and wires that delay and lose messages, answers and loans alike."""
    chance = random.Random(seed)
    job = await office.job()

    async def weather(*where: str) -> None:
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01, 0.03)))
        if chance.random() < 0.15 and not where[-1].startswith("/mesh/v1/news"):
            raise Away

    for host in chance.sample(office.hosts, chance.choice((0, 1, 2))):
        await host.doze()
    office.wire.fault = office.night.fault = weather
    first, second = chance.sample(office.hosts, 2)
    ballots = chance.choice(((1, 2), (2, 1), (1, 1), (2, 2), (3, 2)))
    orders = [host.order_for(job, "Sink", ballot=ballot) for host, ballot in zip((first, second), ballots, strict=True)]

    async def later(host: Sleepy, order: OrderItem) -> None:
        await asyncio.sleep(chance.choice((0, 0.005, 0.02)))
        await host.releaser.execute(order)

    async def nights(host: Sleepy) -> None:
        for _ in range(3):
            await asyncio.sleep(chance.choice((0, 0.01, 0.03)))
            await chance.choice((host.doze, host.rise, host.sleeper.sleep))()

    async def echoes() -> None:
        """Requests that come once more, late."""
        for _ in range(6):
            await asyncio.sleep(0.02)
            if office.night.sent:
                try:
                    await office.night.take(*chance.choice(office.night.sent))
                except Exception as error:
                    assert getattr(error, "code", ""), error

    await asyncio.gather(
        *(later(host, order) for host, order in zip((first, second), orders, strict=True)),
        *(nights(host) for host in office.hosts),
        echoes(),
    )
    assert len(office.printer.received) <= 1
    # At the end everybody is awake: nothing stays lent, and nobody prints it a second time.
    office.wire.fault = office.night.fault = quiet
    for host in office.hosts:
        await host.rise()
    for ballot, host in enumerate(office.hosts, 4):
        record = await host.record(job.id)
        assert record.state in ENDED or not record.vote.lent
        if record.state is State.HELD:
            await host.releaser.execute(host.order_for(job, "Sink", ballot=ballot))
    assert len(office.printer.received) <= 1
