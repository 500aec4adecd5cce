"""What a node tells of its site: hosts, copies, and numbers for Prometheus."""

import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client.parser import text_string_to_metric_families
from tests.node.host import ORGANISATION, SITE, Host, Organisation
from tests.unit.making import record

from pullprint.base.clock import SystemClock
from pullprint.mesh.peers import Peers
from pullprint.model.placement import Role
from pullprint.model.states import State
from pullprint.model.votes import Attempt, Vote
from pullprint.node import metrics
from pullprint.node.metrics import Counts, Moment
from pullprint.node.overview import Census, Overview, groups_of
from pullprint.vault.index import Index
from pullprint.vault.record import Record, Step
from pullprint.wire.mesh import Hello, Peer, Roster, sign_roster
from pullprint.wire.signature import node_id

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABELS = r'\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"(?:,[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*")*,?\}'
VALUE = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|Inf|NaN)"
LINE = re.compile(
    rf"# (?:HELP {NAME} [^\n]*|TYPE {NAME} (?:counter|gauge|histogram|summary|untyped))|{NAME}(?:{LABELS})? {VALUE}"
)
"""One line of the text format 0.0.4."""


def peer(name: str, role: Role = Role.NORMAL) -> Peer:
    """A node of the site."""
    identity = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return Peer(node=node_id(identity), name=name, identity=identity, role=role, endpoints=("192.0.2.7:9264",))


class Office:
    """A node of a site with *others*, and what is held by it."""

    def __init__(self, folder: Path, others: Sequence[Peer], role: Role = Role.NORMAL) -> None:
        self.organisation = Organisation()
        self.host = Host(folder, self.organisation, {})
        self.peers = Peers(folder, self.host.identity.node, SystemClock())
        self.others = others
        self.overview = Overview(
            self.host.holder, self.host.site, "reception", lambda: self.peers, role, lambda: 5 << 30
        )

    async def open(self, *revoked: Peer) -> None:
        """Join, and take the roster."""
        await self.host.join()
        roster = Roster(organisation=ORGANISATION, site=SITE, revision=len(revoked) + 1, peers=tuple(self.others),
                        revoked=tuple(each.node for each in revoked))  # fmt: skip
        token = sign_roster(roster, self.organisation.key)
        await self.peers.accept(token, self.organisation.pin, ORGANISATION, SITE)

    async def hold(self, number: int, *holders: Peer, **changes: object) -> Record:
        """A row of the index, at this node and *holders*."""
        own = (self.host.identity.node, *(each.node for each in holders)) if holders else ()
        row = replace(record(), id=f"{number:032x}", job_uuid=f"uuid-{number}", holders=own, generation=2 if own else 1)
        row = replace(row, **changes)  # type: ignore[arg-type]
        return await self.host.holder.change(Index.add, row, [Step("stored", "Stored.")])


@asynccontextmanager
async def office(
    folder: Path, *others: Peer, role: Role = Role.NORMAL, revoked: Sequence[Peer] = ()
) -> AsyncIterator[Office]:
    """One that is open."""
    made = Office(folder, others, role)
    await made.host.holder.start(3_600)
    await made.open(*revoked)
    try:
        yield made
    finally:
        made.host.holder.close()


async def test_a_node_alone_wants_no_copies(root: Path) -> None:
    async with office(root) as alone:
        await alone.hold(1)
        view = await alone.overview.mesh(jobs=False)
        assert (view.placed, view.short, view.jobs) == (1, 0, ())
        (here,) = view.nodes
        assert (here.here, here.awake, here.name, here.held, here.room) == (True, True, "reception", 1, 5 << 30)


async def test_jobs_lack_copies_until_as_many_hold_them_as_the_site_can_have(root: Path) -> None:
    one, two, three = peer("one"), peer("two"), peer("three")
    async with office(root, one, two, three, peer("laptop", Role.CLIENT)) as site:
        await site.hold(1)
        await site.hold(2, one)
        await site.hold(3, one, two)
        await site.hold(4, two, three)
        await site.hold(5, state=State.DONE)
        view = await site.overview.mesh(jobs=False)
        assert (view.placed, view.short) == (2, 2)
        assert [node.name for node in view.nodes] == ["reception", "one", "two", "three", "laptop"]


async def test_one_other_host_is_as_many_copies_as_two_hosts_can_have(root: Path) -> None:
    one = peer("one")
    async with office(root, one, peer("laptop", Role.CLIENT)) as site:
        await site.hold(1, one)
        assert (await site.overview.census()).short == 0


async def test_the_copy_of_a_host_that_was_shut_out_counts_no_more(root: Path) -> None:
    one, two = peer("one"), peer("two")
    async with office(root, one, two, peer("three"), revoked=[two]) as site:
        await site.hold(1, one, two)
        assert (await site.overview.census()).short == 1


async def test_a_laptop_holds_nothing_once_three_others_do(root: Path) -> None:
    others = [peer(name) for name in ("one", "two", "three")]
    async with office(root, *others, role=Role.CLIENT) as site:
        await site.hold(1, others[0], others[1])
        held = await site.hold(2, holders=tuple(each.node for each in others), generation=2)
        census = await site.overview.census()
        assert (census.placed, census.short) == (2, 0)
        assert site.overview.copies(held).names == ("one", "two", "three")


async def test_hosts_are_told_as_they_were_last_seen(root: Path) -> None:
    one, two = peer("one", Role.SUPER), peer("two")
    async with office(root, one, two) as site:
        hello = Hello(node=one.node, version="0.2.0", roster=1, room=7, load=3)
        site.peers.heard(one.node, 0.004, hello)
        site.peers.missed(two.node, "Nothing listens there.")
        held = await site.hold(1, one, two)
        await site.host.holder.read(_news, two.node)
        _, first, second = (await site.overview.mesh(jobs=False)).nodes
        assert (first.awake, first.lag, first.room, first.held, first.version) == (True, 0.004, 7, 3, "0.2.0")
        assert (first.role, first.trouble, first.owed, first.endpoint) == ("super", "", 0, "192.0.2.7:9264")
        assert (second.awake, second.lag, second.trouble, second.owed) == (False, None, "Nothing listens there.", 1)
        copies = site.overview.copies(held)
        assert (copies.names, copies.awake) == (("reception", "one", "two"), 2)


def _news(index: Index, node: str) -> None:
    with index._transaction():
        index._db.execute("INSERT INTO news (peer, message) VALUES (?, '{}')", (node,))


async def test_each_job_tells_its_votes_with_names(root: Path) -> None:
    one = peer("one")
    async with office(root, one) as site:
        gone = "9" * 32
        vote = Vote(3, (Attempt(2, "a", one.node, nothing_sent=True), Attempt(3, "b", gone), Attempt(4, "c")))
        await site.hold(1, one, vote=vote)
        (job,) = (await site.overview.mesh(jobs=True)).jobs
        assert job.attempts == ("2 by one: nothing sent", "3 by 99999999", "4")
        assert (job.promised, job.generation, job.holders) == (3, 2, (site.host.identity.node, one.node))


async def test_ten_thousand_jobs_are_counted_in_one_short_answer(root: Path) -> None:
    one, two = peer("one"), peer("two")
    async with office(root, one, two) as site:
        await site.hold(1, one, two)
        await site.host.holder.read(_multiply, 10_000)
        groups = await site.host.holder.read(groups_of)
        assert [group.jobs for group in groups] == [10_000]
        assert (await site.overview.census()).placed == 10_000


def _multiply(index: Index, count: int) -> None:
    db: sqlite3.Connection = index._db
    columns = [row[1] for row in db.execute("PRAGMA table_info(job)")]
    rest = ", ".join(columns[2:])
    db.execute(
        f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
        f"INSERT INTO job SELECT 'x' || i, 'u' || i, {rest} FROM job, n"
    )


def test_every_line_is_of_the_format_and_the_parser_reads_back_what_was_counted() -> None:
    counts = Counts()
    counts.vote("promised")
    counts.vote("committed")
    counts.transfer("sent", 1_000, done=True)
    counts.transfer("received", 10, done=False)
    for seconds in (0.004, 0.012, 0.012, 99.0):
        counts.release(seconds)
    moment = Moment(Census({"held": 5, 'odd"\n\\state': 1}, 3, 2, 5_000), peers=3, awake=2, news=4, unreported=1)
    text = metrics.exposition(moment, counts).decode()
    assert text.endswith("\n")
    assert [line for line in text.splitlines() if not LINE.fullmatch(line)] == []
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["pullprint_jobs", ("state", "held")] == 5
    assert samples["pullprint_jobs", ("state", 'odd"\n\\state')] == 1
    assert samples["pullprint_jobs_short",] == 2 and samples["pullprint_peers_awake",] == 2
    assert samples["pullprint_news_waiting",] == 4 and samples["pullprint_events_unreported",] == 1
    assert samples["pullprint_votes_total", ("answer", "promised")] == 1
    assert samples["pullprint_votes_total", ("answer", "refused")] == 0
    assert samples["pullprint_transfers_total", ("direction", "sent"), ("end", "done")] == 1
    assert samples["pullprint_transfer_bytes_total", ("direction", "received")] == 10
    assert samples["pullprint_release_seconds_bucket", ("le", "0.005")] == 1
    assert samples["pullprint_release_seconds_bucket", ("le", "0.02")] == 3
    assert samples["pullprint_release_seconds_bucket", ("le", "30.0")] == 3
    assert (
        samples["pullprint_release_seconds_bucket", ("le", "+Inf")] == samples["pullprint_release_seconds_count",] == 4
    )
    assert samples["process_resident_memory_bytes",] > 1_000_000
