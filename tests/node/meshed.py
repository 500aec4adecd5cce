"""Hosts of one site in this process, with real TLS between them; the cloud is the test's own, and may be away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.mesh.site import issue
from tests.node.host import ORGANISATION, SITE, Host, Organisation, running

from pullprint.cloud import tls as ca
from pullprint.node.client import CloudRefused
from pullprint.node.intake import Intake
from pullprint.node.mesh import Mesh
from pullprint.node.placement import Placement
from pullprint.node.site import Membership
from pullprint.node.transfer import Transfers
from pullprint.vault import parts
from pullprint.vault.generation import in_generation
from pullprint.vault.header import Header
from pullprint.vault.index import Index
from pullprint.vault.opening import OpenJob
from pullprint.vault.record import Record
from pullprint.wire.mesh import Peer, Roster, read_table, sign_roster
from pullprint.wire.node import CLOUD, Candidates, PartAsk, PartItem


class Meshed(Host):
    """A host with its mesh."""

    def __init__(self, root: Path, office: "Office", **settings: Any) -> None:
        root.mkdir(exist_ok=True)
        given = {"mesh_listen": "127.0.0.1:0", "intake_socket": root / "intake.sock", **settings}
        super().__init__(root, office.organisation, {}, **given)
        object.__setattr__(self.settings, "name", root.name)
        self.office = office
        self.placement = Placement(
            self.settings, self.holder, self.site, self.identity, self.clock, Transfers(2, self.clock)
        )
        self.mesh = Mesh(self.settings, self.holder, self.site, self.identity, self.placement, self.clock)
        self.placement.cloud = lambda: office.cloud(self)
        counter = self.intake._counter
        self.intake = Intake(
            self.settings, self.holder, self.site, self.identity, counter, self.clock, self.placement
        )  # fmt: skip

    @property
    def node(self) -> str:
        return self.identity.node

    async def join(self, **config: Any) -> None:
        key = self.settings.state_dir / "keys" / "mesh.pem"
        certificate, private = issue(self.office.authority, [self.node])
        if not key.exists():
            key.write_text(private)
            (self.root / "certificate.pem").write_text(certificate)
        membership = Membership(
            cloud="https://127.0.0.1:1", cloud_authority="", node=self.node, organisation=ORGANISATION, site=SITE,
            order_pin=self.organisation.pin.hex(), certificate=(self.root / "certificate.pem").read_text(),
            authority=self.office.authority.certificate,
        )  # fmt: skip
        await self.site.join(membership)
        await self.site.accept(self.organisation.config(self.node, self.printers, **config))

    async def entry(self, **changes: Any) -> Peer:
        values: dict[str, Any] = {
            "node": self.node, "name": self.settings.name, "identity": self.identity.public,
            "role": self.settings.role, "endpoints": await self.mesh.endpoints(),
        }  # fmt: skip
        return Peer(**{**values, **changes})

    async def until(self, what: Callable[[Record], bool], job: str, seconds: float = 20.0) -> Record:
        """The record of *job* as soon as it is so."""
        async with asyncio.timeout(seconds):
            while True:
                ticket = self.holder.changes.ticket
                record = await self.record(job)
                if what(record):
                    return record
                await self.holder.changes.wait(ticket)

    async def held(self, job: str, seconds: float = 20.0) -> Record:
        """The record of *job* as soon as this host holds it."""
        async with asyncio.timeout(seconds):
            while True:
                ticket = self.holder.changes.ticket
                for record in await self.holder.read(Index.jobs):
                    if record.id == job:
                        return record
                await self.holder.changes.wait(ticket)

    async def part(self, header: Header) -> bytes:
        _, slot = header.slot(self.node)
        return parts.open_part(
            slot.sealed, self.keyring.private(slot.key), job=header.job, party=self.node, key=slot.key,
            generation=header.generation,
        )  # fmt: skip


@dataclass
class Office:
    """The organisation's side."""

    root: Path
    organisation: Organisation = field(default_factory=Organisation)
    authority: ca.Pair = field(default_factory=lambda: ca.new_authority("Acme", time.time()))
    hosts: list[Meshed] = field(default_factory=list)
    revision: int = 0
    away: bool = True
    """Whether hosts cannot reach the cloud."""
    asked: list[str] = field(default_factory=list)
    """Paths, with the node that asked."""

    def cloud(self, host: Meshed) -> Any:
        return None if self.away else StandIn(self, host)

    async def introduce(self, *others: Peer, revoked: tuple[str, ...] = ()) -> None:
        """Everyone knows everyone, and *others*."""
        self.revision += 1
        entries = tuple([await host.entry() for host in self.hosts if host.node not in revoked])
        roster = Roster(
            organisation=ORGANISATION, site=SITE, revision=self.revision, peers=entries + others, revoked=revoked
        )
        token = sign_roster(roster, self.organisation.key)
        for host in self.hosts:
            await host.mesh.accept(token)

    @asynccontextmanager
    async def host(self, name: str, **settings: Any) -> AsyncIterator[Meshed]:
        """A host, running; one of the same name has the same disk."""
        host = Meshed(self.root / name, self, **settings)
        await host.join()
        (host.root / "intake.sock").unlink(missing_ok=True)
        async with running(host):
            await host.mesh.open()
            task = asyncio.create_task(host.mesh.run(), name=f"mesh of {name}")
            self.hosts.append(host)
            try:
                async with asyncio.timeout(10):
                    while not await host.mesh.endpoints():
                        await asyncio.sleep(0.01)
                yield host
            finally:
                self.hosts.remove(host)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled() and (error := task.exception()):
                    raise error

    @asynccontextmanager
    async def of(self, *names: str, **settings: Any) -> AsyncIterator[list[Meshed]]:
        """Hosts that know each other."""
        async with AsyncExitStack() as stack:
            hosts = [await stack.enter_async_context(self.host(name, **settings)) for name in names]
            await self.introduce()
            yield hosts

    def part(self, header: Header) -> bytes:
        """The cloud's."""
        _, slot = header.slot(CLOUD)
        return parts.open_part(
            slot.sealed, self.organisation.private, job=header.job, party=CLOUD, key=slot.key,
            generation=header.generation,
        )  # fmt: skip


@dataclass
class StandIn:
    """The cloud, as one host sees it."""

    office: Office
    host: Meshed

    async def get(self, path: str, answer: Any, query: str = "", timeout: float = 20.0) -> Any:
        self.office.asked.append(f"{self.host.settings.name} {path}?{query}")
        others = tuple(host.node for host in self.office.hosts if host is not self.host)
        return Candidates(nodes=others)

    async def post(self, path: str, message: Any, answer: Any, timeout: float = 20.0) -> Any:
        self.office.asked.append(f"{self.host.settings.name} {path}")
        assert isinstance(message, PartAsk)
        record = await self.host.record(message.job)
        if record.generation != message.generation:
            raise CloudRefused(409, "other-generation", "No.")
        part = parts.open_part(
            record.cloud_slot, self.office.organisation.private, job=record.id, party=CLOUD, key=record.cloud_key,
            generation=record.generation,
        )  # fmt: skip
        ours = self.host.keyring.current(self.host.clock.now())
        order = f"placement-{message.generation}"
        sealed = parts.seal_for_release(part, ours.public, job=record.id, order=order, key=ours.key)
        return PartItem(order=order, part=sealed, part_key=ours.key)


async def opened(host: Meshed, job: str, *parties: Meshed | Office) -> bytes:
    """The document, from the copy of *host* with the parts of *parties*. Raises SealDamaged."""
    table = read_table(await host.holder.read(Index.key_table, job))
    current: list[Header] = []

    def own(header: Header) -> Mapping[str, bytes]:
        current.append(header)
        return found

    found: dict[str, bytes] = {}
    from pullprint.vault.opening import read_header

    header = in_generation(read_header(host.holder.path(job)), table)
    for party in parties:
        if isinstance(party, Office):
            found[CLOUD] = party.part(header)
        else:
            found[party.node] = await party.part(header)
    with OpenJob(host.holder.path(job), job, own, table) as document:
        return b"".join(bytes(chunk) for chunk in document.chunks())
