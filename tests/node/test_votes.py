"""Three hosts hold a job and any of them may be asked to print it: it is printed once, or somebody is asked."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.node.host import Organisation
from tests.node.neighbours import Away, Neighbour, Wire
from tests.rig.printers import RawPrinter

from pullprint.base.errors import NotAllowed, PullprintError
from pullprint.model.states import State
from pullprint.model.votes import Attempt, Vote
from pullprint.node.voter import StillAtWork
from pullprint.vault.index import Index, OtherGeneration
from pullprint.vault.record import Record
from pullprint.wire.jws import StatementRefused
from pullprint.wire.mesh import Commit, News, Prepare
from pullprint.wire.node import OrderItem
from pullprint.wire.order import Order, sign_order

DOCUMENT = b"a line for the printer\n" * 10_000
PREPARES, COMMITS = "/mesh/v1/votes", "/mesh/v1/commits"


class Office:
    """Three hosts, a job that they hold, and a printer that counts."""

    def __init__(self, root: Path, printer: RawPrinter) -> None:
        self.wire, self.printer = Wire(), printer
        self.organisation = Organisation()
        printers = {"Sink": printer.uri}
        self.hosts = [Neighbour(root / name, self.organisation, printers, self.wire) for name in ("ada", "bob", "cy")]

    async def job(self) -> Record:
        first, *others = self.hosts
        return await first.place(*(await first.seal(DOCUMENT)), *others)

    async def record(self, host: Neighbour, job: Record) -> Record:
        return await host.record(job.id)

    async def states(self, job: Record) -> list[State]:
        return [(await host.record(job.id)).state for host in self.hosts]

    async def until(self, host: Neighbour, job: Record, state: State) -> None:
        async with asyncio.timeout(10):
            while (await host.record(job.id)).state is not state:
                ticket = host.holder.changes.ticket
                await host.holder.changes.wait(ticket, 0.05)

    async def reports(self, host: Neighbour) -> list[str]:
        return [report for _, report in await host.holder.read(Index.outbox, 1_000)]


@pytest.fixture
async def office(root: Path, sink: RawPrinter) -> AsyncIterator[Office]:
    office = Office(root, sink)
    for host in office.hosts:
        await host.start()
    yield office
    office.wire.cut.clear()
    for host in office.hosts:
        await host.stop()


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_every_holder_prints_it_after_one_round_trip_and_all_copies_are_shredded(
    office: Office, number: int
) -> None:
    job = await office.job()
    releaser = office.hosts[number]
    await releaser.releaser.execute(releaser.order_for(job, "Sink"))
    assert office.printer.received == [DOCUMENT]
    asked = {(sender, path) for sender, _, path in office.wire.heard if path != "/mesh/v1/news"}
    assert asked == {(releaser.identity.node, COMMITS)}, "the first ballot needs no PREPARE"
    for host in office.hosts:
        await office.until(host, job, State.DONE)
        async with asyncio.timeout(5):
            while host.holder.path(job.id).exists():
                await asyncio.sleep(0.01)
    assert "printed-elsewhere" in await office.hosts[number - 1].events(job.id)


async def test_who_voted_stands_in_the_trace(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    office.wire.cut = {frozenset((ada.identity.node, cy.identity.node))}
    await ada.releaser.execute(ada.order_for(job, "Sink"))
    steps = [traced.step for traced in await ada.holder.read(Index.trace, job.id)]
    assert [step.detail["votes"] for step in steps if step.event == "committed"] == ["bob"]
    assert "voted" in await bob.events(job.id) and "voted" not in await cy.events(job.id)


async def test_without_a_second_vote_nothing_is_printed(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    office.wire.down = {bob.identity.node, cy.identity.node}
    for ballot in (1, 2):
        await ada.releaser.execute(ada.order_for(job, "Sink", ballot=ballot))
        assert (await ada.record(job.id)).state is State.HELD
        assert office.printer.received == []
    record = await ada.record(job.id)
    assert "bob, cy did not answer" in record.sentence
    assert any('"elsewhere":true' in report for report in await office.reports(ada)), "another one may be luckier"
    office.wire.down = set()
    await bob.releaser.execute(bob.order_for(job, "Sink", ballot=3))
    assert office.printer.received == [DOCUMENT]


async def test_after_an_attempt_that_sent_nothing_the_next_one_prints(office: Office) -> None:
    job = await office.job()
    ada, _bob, cy = office.hosts
    office.printer.stop()
    await ada.releaser.execute(ada.order_for(job, "Sink"))
    assert (await ada.record(job.id)).state is State.HELD
    office.printer.start()
    await cy.releaser.execute(cy.order_for(job, "Sink", ballot=2))
    assert office.printer.received == [DOCUMENT]
    assert (cy.identity.node, PREPARES) in {(sender, path) for sender, _, path in office.wire.heard}


async def test_it_opens_with_a_voters_part_where_the_cloud_gives_none(office: Office) -> None:
    job = await office.job()
    bob = office.hosts[1]
    await bob.releaser.execute(bob.order_for(job, "Sink", with_part=False))
    assert office.printer.received == [DOCUMENT]


async def test_a_releaser_that_stops_before_anybody_voted_is_replaced_and_prints_nothing_later(office: Office) -> None:
    job = await office.job()
    ada, bob, _cy = office.hosts
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def stops(sender: str, _: str, path: str) -> None:
        if (sender, path) == (ada.identity.node, COMMITS):
            asleep.set()
            await wake.wait()
        elif ada.identity.node in (sender, _) and asleep.is_set() and not wake.is_set():
            raise Away

    office.wire.fault = stops
    sleeping = asyncio.create_task(ada.releaser.execute(ada.order_for(job, "Sink")))
    await asleep.wait()
    await bob.releaser.execute(bob.order_for(job, "Sink", ballot=2))
    assert office.printer.received == [DOCUMENT]
    wake.set()
    await sleeping
    assert office.printer.received == [DOCUMENT], "its votes went to another"
    for host in office.hosts:
        await office.until(host, job, State.DONE)


async def test_a_releaser_that_stops_after_the_vote_is_not_replaced_by_itself(office: Office) -> None:
    job = await office.job()
    ada, _bob, cy = office.hosts
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def stops(sender: str, receiver: str, path: str) -> None:
        if path == COMMITS + "!" and receiver == ada.identity.node:
            asleep.set()
            await wake.wait()
        elif ada.identity.node in (sender, receiver) and asleep.is_set() and not wake.is_set():
            raise Away

    office.wire.fault = stops
    sleeping = asyncio.create_task(ada.releaser.execute(ada.order_for(job, "Sink")))
    await asleep.wait()
    await cy.releaser.execute(cy.order_for(job, "Sink", ballot=2))
    assert office.printer.received == []
    record = await cy.record(job.id)
    assert record.state is State.UNCERTAIN and "ada was at it" in record.sentence
    wake.set()
    await sleeping
    assert office.printer.received == [DOCUMENT]
    await office.until(cy, job, State.DONE)


async def test_the_owner_alone_has_a_doubtful_one_printed_again(office: Office) -> None:
    job = await office.job()
    ada, bob, _cy = office.hosts
    await bob.holder.read(Index.cast, job.id, lambda _: Vote(1, (Attempt(1, "x", ada.identity.node),)))
    office.wire.down = {ada.identity.node}
    await bob.releaser.execute(bob.order_for(job, "Sink", ballot=2))
    assert office.printer.received == [] and (await bob.record(job.id)).state is State.UNCERTAIN
    await bob.releaser.execute(bob.order_for(job, "Sink", ballot=3, forces=(1,)))
    assert office.printer.received == [DOCUMENT]


async def test_a_releaser_that_is_back_frees_what_it_had_not_sent(office: Office) -> None:
    job = await office.job()
    ada, _bob, cy = office.hosts
    asleep = asyncio.Event()

    async def stops(sender: str, receiver: str, path: str) -> None:
        if path == COMMITS + "!" and receiver == ada.identity.node:
            asleep.set()
            await asyncio.Event().wait()

    office.wire.fault = stops
    dying = asyncio.create_task(ada.releaser.execute(ada.order_for(job, "Sink")))
    await asleep.wait()
    office.wire.down = {ada.identity.node}
    await cy.releaser.execute(cy.order_for(job, "Sink", ballot=2))
    assert (await cy.record(job.id)).state is State.UNCERTAIN
    dying.cancel()  # what follows is what a restart does
    await asyncio.wait([dying])
    office.wire.down = set()
    await office.until(cy, job, State.HELD)
    await cy.releaser.execute(cy.order_for(job, "Sink", ballot=3))
    assert office.printer.received == [DOCUMENT]


async def test_a_voter_that_lost_its_record_has_no_vote_and_stops_nobody(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    await ada.holder.admit_old_copy()
    await ada.releaser.execute(ada.order_for(job, "Sink"))
    assert (await ada.record(job.id)).state is State.HELD and office.printer.received == []
    assert any('"elsewhere":true' in report for report in await office.reports(ada))
    office.wire.down = {cy.identity.node}
    await bob.releaser.execute(bob.order_for(job, "Sink", ballot=2))
    assert office.printer.received == [], "one vote is no quorum"
    office.wire.down = set()
    await bob.releaser.execute(bob.order_for(job, "Sink", ballot=3))
    assert office.printer.received == [DOCUMENT]


@pytest.mark.parametrize("seed", range(40))
async def test_two_orders_at_once_print_once_whatever_the_wire_does(office: Office, seed: int) -> None:
    """Orders for two holders, in two ballots or in the same one, over a wire that delays, cuts and loses answers."""
    chance = random.Random(seed)
    job = await office.job()

    async def weather(sender: str, receiver: str, path: str) -> None:
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01, 0.05)))
        if chance.random() < 0.2 and not path.startswith("/mesh/v1/news"):
            raise Away

    office.wire.fault = weather
    first, second = chance.sample(office.hosts, 2)
    ballots = chance.choice(((1, 2), (2, 1), (1, 1), (2, 2), (3, 2)))
    orders = [host.order_for(job, "Sink", ballot=ballot) for host, ballot in zip((first, second), ballots, strict=True)]

    async def later(host: Neighbour, order: OrderItem) -> None:
        await asyncio.sleep(chance.choice((0, 0.005, 0.02)))
        await host.releaser.execute(order)

    await asyncio.gather(*(later(host, order) for host, order in zip((first, second), orders, strict=True)))
    assert len(office.printer.received) <= 1
    office.wire.fault = quiet
    states = await office.states(job)
    if office.printer.received:
        for host in office.hosts:
            if (await host.record(job.id)).state is not State.UNCERTAIN:
                await office.until(host, job, State.DONE)
    else:
        assert State.DONE not in states and set(states) <= {State.HELD, State.UNCERTAIN}
        assert all(host.holder.path(job.id).exists() for host in office.hosts)


async def quiet(_: str, __: str, ___: str) -> None:
    pass


async def test_a_voter_believes_no_peer_but_the_order(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    node, key = ada.identity.node, ada.keyring.current(ada.clock.now())
    good = ada.order_for(job, "Sink")
    other = ada.order_for(job, "Sink", job="0" * 32).order
    late = ada.order_for(job, "Sink", iat=1_000, exp=1_060).order
    now = int(ada.clock.now())
    forged = sign_order(
        Order(jti="x", iss="acme", aud=node, iat=now, exp=now + 60, job=job.id, printer="sink", ticket=job.ticket,
              ballot=1, by="eve"),
        Ed25519PrivateKey.generate().private_bytes_raw(),
    )  # fmt: skip
    for order in (other, late, forged, cy.order_for(job, "Sink").order, "nonsense"):
        with pytest.raises(StatementRefused):
            await bob.voter.prepare(node, Prepare(job=job.id, generation=2, ballot=1, order=order, key=key))
        with pytest.raises(StatementRefused):
            await bob.voter.commit(node, Commit(job=job.id, generation=2, ballot=1, order=order))
    for generation in (1, 3):
        with pytest.raises(OtherGeneration):
            await bob.voter.commit(node, Commit(job=job.id, generation=generation, ballot=1, order=good.order))
    with pytest.raises(NotAllowed):
        await bob.voter.commit("f" * 32, Commit(job=job.id, generation=2, ballot=1, order=good.order))
    with pytest.raises(PullprintError):
        await bob.voter.commit(node, Commit(job="f" * 32, generation=2, ballot=1, order=good.order))
    assert (await bob.record(job.id)).vote == Vote()


async def test_a_voter_destroys_nothing_on_a_peers_bare_word(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    token = ada.order_for(job, "Sink", jti="o").order
    expired = ada.order_for(job, "Sink", jti="o", iat=1_000, exp=1_060).order
    lies = [
        (ada.identity.node, {"order": "nonsense"}),
        (cy.identity.node, {}),
        ("f" * 32, {}),
        (ada.identity.node, {"order": ada.order_for(job, "Sink", jti="o", job="0" * 32).order}),
        (ada.identity.node, {"generation": 3}),
    ]
    for sender, changes in lies:
        said = {"job": job.id, "generation": 2, "kind": "printed", "ballot": 1, "order": token, **changes}
        with pytest.raises(PullprintError):
            await bob.voter.news(sender, News.model_validate(said))
    assert (await bob.record(job.id)).state is State.HELD and bob.holder.path(job.id).exists()
    said = News(job=job.id, generation=2, kind="printed", ballot=1, order=expired)
    await bob.voter.news(ada.identity.node, said)
    assert (await bob.record(job.id)).state is State.DONE, "news may come late"


async def test_nobody_frees_anothers_attempt(office: Office) -> None:
    job = await office.job()
    ada, bob, cy = office.hosts
    committed = Vote(1, (Attempt(1, "o", ada.identity.node),))
    await bob.holder.read(Index.cast, job.id, lambda _: committed)
    order = ada.order_for(job, "Sink", jti="o").order
    lie = News(job=job.id, generation=2, kind="nothing-sent", ballot=1, order=order)
    with pytest.raises(PullprintError):
        await bob.voter.news(cy.identity.node, lie)
    assert (await bob.record(job.id)).vote == committed


async def test_a_host_that_has_not_compared_its_disk_with_the_cloud_does_not_vote(office: Office) -> None:
    job = await office.job()
    ada, bob, _ = office.hosts
    bob.holder.vouched = False
    asked = Commit(job=job.id, generation=2, ballot=1, order=ada.order_for(job, "Sink").order)
    with pytest.raises(StillAtWork):
        await bob.voter.commit(ada.identity.node, asked)
    bob.holder.vouched = True
    assert not (await bob.voter.commit(ada.identity.node, asked)).refused


async def test_a_voter_tells_the_cloud_of_its_own_attempts_only(office: Office) -> None:
    """That somebody else's order sent nothing is not in its record, whatever it promised."""
    job = await office.job()
    ada, bob, _ = office.hosts
    order = ada.order_for(job, "Sink", jti="o")
    committed = Vote(1, (Attempt(1, "o", ada.identity.node),))
    await bob.holder.read(Index.cast, job.id, lambda _: committed)
    office.wire.down = {ada.identity.node}
    await bob.releaser.execute(bob.order_for(job, "Sink", ballot=2, jti="p"))
    assert (await bob.record(job.id)).state is State.UNCERTAIN
    await bob.holder.read(Index.cast, job.id, lambda vote: Vote(5, vote.attempts))
    before = len(await office.reports(bob))
    said = News(job=job.id, generation=2, kind="nothing-sent", ballot=1, order=order.order)
    await bob.voter.news(ada.identity.node, said)
    assert (await bob.record(job.id)).state is State.HELD
    told = [json.loads(report) for report in (await office.reports(bob))[before:]]
    assert [(one["order"], one["ballot"]) for one in told if one["kind"] == "state"] == [("p", 2)]
