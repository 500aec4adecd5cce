"""A mesh in one process: hosts that vote for each other over a wire which the test breaks as it likes.

Sealed files, indexes, votes and printers are real; only TLS and the network are not there.
"""

import asyncio
import io
import shutil
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.node.host import ORGANISATION, SITE, USER, Host, Organisation

from pullprint.base.errors import PullprintError
from pullprint.model.job import Context, new_job_id
from pullprint.model.ticket import Ticket
from pullprint.model.votes import Vote
from pullprint.node.holder import record_of
from pullprint.node.news import Messenger
from pullprint.node.quorum import Quorum
from pullprint.node.voter import Voter
from pullprint.vault import parts
from pullprint.vault.generation import in_generation, make_table, measure
from pullprint.vault.index import Index
from pullprint.vault.opening import read_header
from pullprint.vault.record import Record, Step
from pullprint.vault.sealing import Party, seal
from pullprint.wire.mesh import Commit, News, Prepare, read_table
from pullprint.wire.node import CLOUD, OrderItem
from pullprint.wire.order import Order, sign_order
from pullprint.wire.types import Message


class Away(PullprintError):
    """It is away."""

    code = "peer-away"


Fault = Callable[[str, str, str], Awaitable[None]]
"""Called with sender, receiver and path, before a message and again (with the path and a ``!``) before its answer;
raises `Away`, or takes its time."""


async def _no_fault(_: str, __: str, ___: str) -> None:
    pass


@dataclass
class Wire:
    """Carries messages between the hosts, as bytes."""

    hosts: dict[str, "Neighbour"] = field(default_factory=dict)
    cut: set[frozenset[str]] = field(default_factory=set)
    """Pairs that do not hear each other."""
    down: set[str] = field(default_factory=set)
    fault: Fault = _no_fault
    heard: list[tuple[str, str, str]] = field(default_factory=list)

    async def carry(self, sender: str, receiver: str, path: str, message: Message) -> Message | None:
        """What *receiver* answers. Raises Away, and what it refuses with."""
        await self._reach(sender, receiver, path)
        host = self.hosts[receiver]
        self.heard.append((sender, receiver, path))
        raw = message.model_dump_json()
        answer: Message | None = None
        match message:
            case Prepare():
                answer = await host.voter.prepare(sender, Prepare.model_validate_json(raw))
            case Commit():
                answer = await host.voter.commit(sender, Commit.model_validate_json(raw))
            case News():
                await host.voter.news(sender, News.model_validate_json(raw))
        await self._reach(receiver, sender, path + "!")
        return answer

    async def _reach(self, sender: str, receiver: str, path: str) -> None:
        await self.fault(sender, receiver, path)
        if frozenset((sender, receiver)) in self.cut or {sender, receiver} & self.down:
            raise Away


class _Line:
    """One host's end of the wire: what `mesh.client` is to it otherwise."""

    def __init__(self, wire: Wire, own: str) -> None:
        self._wire = wire
        self._own = own

    async def ask(self, node: str, path: str, message: Message, answer: type[Any], timeout: float = 3.0) -> Any:
        said = await self._wire.carry(self._own, node, path, message)
        assert said is not None
        return answer.model_validate_json(said.model_dump_json())

    async def tell(self, node: str, path: str, message: Message) -> None:
        await self._wire.carry(self._own, node, path, message)


class Neighbour(Host):
    """A host with neighbours."""

    def __init__(self, root: Path, organisation: Organisation, printers: dict[str, str], wire: Wire) -> None:
        root.mkdir(exist_ok=True)
        super().__init__(root, organisation, printers)
        self.name = root.name
        self.wire = wire
        wire.hosts[self.identity.node] = self

        def names(node: str) -> str:
            return wire.hosts[node].name if node in wire.hosts else "another host"

        line = _Line(wire, self.identity.node)
        self.voter = Voter(self.holder, self.site, self.identity, self.clock, names)
        self.releaser.quorum = Quorum(line, self.identity.node, names)
        self.messenger = Messenger(self.holder, line, lambda node: node in wire.hosts, self.clock)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Come up, as after a restart."""
        await self.join()
        await self.holder.start(3_600)
        self._tasks = [asyncio.create_task(self.messenger.run(), name="messenger")]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        assert self.releaser.quorum is not None
        await self.releaser.quorum.close()
        self.holder.close()

    async def seal(self, document: bytes, content_type: str = "application/octet-stream") -> tuple[Record, bytes]:
        """A job held here in its first generation, and its data key."""
        job, now = new_job_id(), int(self.clock.now())
        context = Context(
            organisation=ORGANISATION, site=SITE, origin_node=self.identity.node, queue="pullprint", owner=USER,
            submitter="alice", job_uuid=str(uuid.uuid4()), title="Report", content_type=content_type, ticket=Ticket(),
            direct_printer="", created=now,
        )  # fmt: skip
        own, cloud = self.keyring.current(now), self.organisation.party
        sealed = seal(
            io.BytesIO(document).readinto, self.holder.path(job), job=job, context=context,
            parties=[Party(self.identity.node, own.key, own.public), Party(CLOUD, cloud.key, cloud.public)],
            identity=self.identity.key, limit=1 << 30,
        )  # fmt: skip
        record = record_of(sealed.header, self.identity.node, expires=now + 3_600, vote=Vote())
        return await self.holder.change(Index.add, record, [Step("stored", "Received.")]), sealed.data_key

    async def place(self, record: Record, data_key: bytes, *others: "Neighbour") -> Record:
        """The second generation of *record*: here and at *others*, all at once and without a fault."""
        path, now = self.holder.path(record.id), self.clock.now()
        size, digest = measure(path)
        holders = []
        for host in (self, *others):
            key = host.keyring.current(now)
            holders.append(Party(host.identity.node, key.key, key.public))
            if host is not self:
                shutil.copy(path, host.holder.path(record.id))
        cloud = self.organisation.party
        header = await asyncio.to_thread(read_header, path)
        token = make_table(
            header, data_key, holders, Party(CLOUD, cloud.key, cloud.public), generation=2, size=size, digest=digest,
            identity=self.identity.key,
        )  # fmt: skip
        table = read_table(token)
        placed = None
        for host in (self, *others):
            copy = record_of(in_generation(header, table), host.identity.node, expires=record.expires, vote=Vote())
            copy = replace(copy, holders=table.holders, replica=host is not self)
            if host is self:
                placed = await host.holder.change(Index.regenerate, copy, token, Step("copied", "Copies made."))
            else:
                await host.holder.change(Index.install, copy, token)
        assert placed is not None
        return placed

    def order_for(
        self, record: Record, printer: str, ballot: int = 1, *, with_part: bool = True, **changes: Any
    ) -> OrderItem:
        """What the cloud would send this host for *record*, with its part of the generation that *record* is of."""
        now = int(self.clock.now())
        claims: dict[str, Any] = {
            "jti": uuid.uuid4().hex, "iss": ORGANISATION, "aud": self.identity.node, "iat": now, "exp": now + 60,
            "job": record.id, "printer": printer.lower(), "ticket": record.ticket, "ballot": ballot, "by": USER,
        }  # fmt: skip
        order = Order(**{**claims, **changes})
        ours = self.keyring.current(now)
        sealed = b""
        if with_part:
            part = parts.open_part(
                record.cloud_slot, self.organisation.private, job=record.id, party=CLOUD,
                key=self.organisation.party.key, generation=record.generation,
            )  # fmt: skip
            sealed = parts.seal_for_release(part, ours.public, job=record.id, order=order.jti, key=ours.key)
        return OrderItem(order=sign_order(order, self.organisation.key), part=sealed, part_key=ours.key)
