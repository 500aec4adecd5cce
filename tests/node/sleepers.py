"""Hosts that go to sleep, in one process: `neighbours`, and a cloud of which nothing is real but its loans.

These are the cloud's own functions on a real database; what lies between them and the hosts, the test breaks as it
likes.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update
from tests.node.host import ORGANISATION, SITE, Organisation
from tests.node.neighbours import Away, Neighbour, Wire

from pullprint.base.clock import SystemClock
from pullprint.cloud import loans, organisations, sites
from pullprint.cloud.migrations import upgrade
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import Store
from pullprint.cloud.tables import holder, job, loan, node, organisation, trace
from pullprint.node.sleep import Sleeper
from pullprint.vault.record import Record
from pullprint.wire.loans import Loans, LoansTaken, ProxyVote
from pullprint.wire.types import Message

LEND, RETURN, VOTES = "/node/v1/loans", "/node/v1/loans/return", "/node/v1/loans/votes"

Fault = Callable[[str, str], Awaitable[None]]
"""Called with a node and a path, before a request and again (with the path and a ``!``) before its answer; raises
`Away`, or takes its time."""


async def _no_fault(_: str, __: str) -> None:
    pass


class Night:
    """The cloud, while hosts sleep."""

    def __init__(self, root: Path, keys: Organisation) -> None:
        self.store = Store(f"sqlite:///{root / 'cloud' / 'cloud.sqlite'}", SystemClock())
        upgrade(self.store.engine)
        self.store.transact(organisations.add, ORGANISATION, "Acme")
        self.store.transact(sites.add, ORGANISATION, SITE, ["127.0.0.0/8"], "{user}@example.com", 86_400)
        mine = update(organisation).where(organisation.c.id == ORGANISATION)
        self.store.transact(lambda t: t.run(mine.values(order_key=keys.key)))
        self.away: set[str] = set()
        """Nodes that do not reach it."""
        self.fault: Fault = _no_fault
        self.heard: list[tuple[str, str]] = []
        self.sent: list[tuple[str, str, Message]] = []
        """Every request, to be repeated."""
        self.names: dict[str, str] = {}

    def add_node(self, id: str, name: str) -> None:
        self.names[id] = name
        now = time.time()
        values: dict[str, Any] = {
            "id": id, "organisation": ORGANISATION, "site": SITE, "name": name, "identity": bytes(32),
            "managed": True, "key_id": "k", "key_public": bytes(32), "key_expires": now, "version": "1",
            "joined": now, "seen": now,
        }  # fmt: skip
        self.store.transact(lambda t: t.run(insert(node).values(values)))

    def add_job(self, record: Record) -> None:
        """It was told of *record*, in its generation."""
        now = time.time()
        values: dict[str, Any] = {
            "organisation": ORGANISATION, "id": record.id, "site": SITE, "node": record.holders[0],
            "job_uuid": record.job_uuid, "cups_job_id": 1, "queue": "q", "owner": "", "submitter": "", "host": "",
            "title": "", "content_type": "", "size": 1, "ticket": "{}", "facts": "", "state": "held", "sentence": "",
            "created": now, "expires": now + 3_600, "direct_printer": "", "generation": record.generation,
            "cloud_key": "", "cloud_slot": b"",
        }  # fmt: skip
        rows = [{"organisation": ORGANISATION, "job": record.id, "node": one, "voter": True} for one in record.holders]
        self.store.transact(lambda t: (t.run(insert(job).values(values)), t.run(insert(holder), rows)))

    def loan_of(self, id: str, record: Record) -> Any:
        return self.store.transact(lambda t: t.one(select(loan).where(loan.c.job == record.id, loan.c.node == id)))

    def steps(self, record: Record) -> list[str]:
        query = select(trace.c.text).where(trace.c.job == record.id).order_by(trace.c.seq)
        return list(self.store.transact(lambda t: t.run(query).scalars().all()))

    async def take(self, sender: str, path: str, message: Message) -> Message:
        """What it answers *sender*. Raises Away, and what it refuses with."""
        await self._reach(sender, path)
        self.heard.append((sender, path))
        self.sent.append((sender, path, message))
        who = Node(sender, ORGANISATION, SITE, self.names[sender], managed=True)
        raw = message.model_dump_json()
        answer: Message
        if path == LEND:
            answer = await self.store.run(loans.take, who, Loans.model_validate_json(raw))
        elif path == RETURN:
            answer = await self.store.run(loans.give, who, LoansTaken.model_validate_json(raw))
        else:
            assert path == VOTES
            answer = await self.store.run(loans.vote, who, ProxyVote.model_validate_json(raw))
        await self._reach(sender, path + "!")
        return answer

    async def _reach(self, sender: str, path: str) -> None:
        await self.fault(sender, path)
        if sender in self.away:
            raise Away


class _Line:
    """One host's end: what `node.client` is to it otherwise."""

    def __init__(self, night: Night, own: str) -> None:
        self._night = night
        self._own = own

    async def post(self, path: str, message: Message, answer: type[Any], timeout: float = 20.0) -> Any:
        said = await self._night.take(self._own, path, message)
        return answer.model_validate_json(said.model_dump_json())


class Sleepy(Neighbour):
    """A host with neighbours that goes to sleep."""

    def __init__(
        self, root: Path, organisation: Organisation, printers: dict[str, str], wire: Wire, night: Night
    ) -> None:
        super().__init__(root, organisation, printers, wire)
        self.night, line = night, _Line(night, self.identity.node)
        night.add_node(self.identity.node, self.name)
        self.sleeper = Sleeper(self.holder, self.clock, lambda: line if self.node not in night.away else None)
        assert self.releaser.quorum is not None
        self.releaser.quorum.proxy = self.sleeper.vote_for
        self.releaser.reclaim = self.sleeper.reclaim

    @property
    def node(self) -> str:
        return self.identity.node

    async def doze(self) -> None:
        """Lend, and be gone."""
        await self.sleeper.sleep()
        self.wire.down.add(self.node)

    async def rise(self) -> None:
        """Be back, and take back."""
        self.wire.down.discard(self.node)
        await self.sleeper.wake()
