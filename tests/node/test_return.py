"""A host that was away keeps no copy of what was printed, deleted or expired meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.node.host import Organisation
from tests.node.neighbours import Neighbour, Wire
from tests.rig.printers import RawPrinter

from pullprint.model.states import State
from pullprint.node.channel import Channel
from pullprint.vault.index import Index
from pullprint.vault.record import Record
from pullprint.wire import node as wire_node

DOCUMENT = b"a line for the printer\n" * 10_000


class Office:
    """Three hosts, the last of which can be switched off."""

    def __init__(self, root: Path, printer: RawPrinter) -> None:
        self.wire, self.organisation, self.printers = Wire(), Organisation(), {"Sink": printer.uri}
        self._root = root
        self.ada, self.bob, self.cy = (self._host(name) for name in ("ada", "bob", "cy"))

    def _host(self, name: str) -> Neighbour:
        return Neighbour(self._root / name, self.organisation, self.printers, self.wire)

    async def job(self) -> Record:
        job = await self.ada.place(*(await self.ada.seal(DOCUMENT)), self.bob, self.cy)
        for host in (self.ada, self.bob, self.cy):
            host.holder.keys_path(job.id).write_bytes(b"{}")
        return job

    async def switch_off(self) -> None:
        self.wire.down.add(self.cy.identity.node)
        await self.cy.stop()

    async def switch_on(self) -> None:
        self.cy = self._host("cy")
        await self.cy.start()
        self.wire.down.clear()


@pytest.fixture
async def office(root: Path, sink: RawPrinter) -> AsyncIterator[Office]:
    office = Office(root, sink)
    for host in (office.ada, office.bob, office.cy):
        await host.start()
    yield office
    for host in (office.ada, office.bob, office.cy):
        await host.stop()


def files(host: Neighbour, job: Record) -> list[Path]:
    return list(host.holder.directory.glob(f"*{job.id}*"))


async def test_without_the_cloud_it_hears_from_who_printed_even_if_that_one_was_restarted(
    office: Office, sink: RawPrinter
) -> None:
    job, other = await office.job(), await office.job()
    await office.switch_off()
    await office.ada.releaser.execute(office.ada.order_for(job, "Sink"))
    assert sink.received == [DOCUMENT]
    cy = office.cy.identity.node
    async with asyncio.timeout(10):
        while await office.ada.holder.read(Index.news_waiting) != {cy: 1}:  # the other one has heard
            await asyncio.sleep(0.01)
    await office.ada.stop()
    office.ada = office._host("ada")
    await office.ada.start()
    assert await office.ada.holder.read(Index.news_waiting) == {cy: 1}
    await office.switch_on()
    assert (await office.cy.record(job.id)).state is State.HELD and len(files(office.cy, job)) == 2
    async with asyncio.timeout(10):
        while (await office.cy.record(job.id)).state is not State.DONE or files(office.cy, job):
            await asyncio.sleep(0.01)
    assert await office.cy.holder.read(Index.key_table, job.id) == "", "its key part went, too"
    assert len(files(office.cy, other)) == 2


class Cloud:
    """Enough of a cloud for one connect."""

    host = "cloud.example.com"

    def __init__(self, host: Neighbour, over: Record) -> None:
        self._host = host
        self._over = over
        self.said: list[str] = []

    async def get(self, path: str, answer: type[Any], *_: Any) -> Any:
        config = self._host.organisation.config(self._host.identity.node, self._host.printers)
        return wire_node.SignedConfig(config=config, now=time.time(), roster="")

    async def post(self, path: str, message: wire_node.Holdings, answer: type[Any], *_: Any) -> Any:
        self.said += [each.job for each in message.jobs]
        return wire_node.Differences(report=(), cancelled=(self._over.id,), now=time.time())


async def test_from_the_cloud_it_hears_of_whatever_ended_as_soon_as_it_connects(office: Office) -> None:
    job, other = await office.job(), await office.job()
    await office.switch_off()
    await office.switch_on()
    host = office.cy
    cloud = Cloud(host, job)
    uploads: Any = None
    channel = Channel(cloud, host.site, host.holder, host.releaser, uploads, host.clock)  # type: ignore[arg-type]
    await channel._connect()
    assert sorted(cloud.said) == sorted((job.id, other.id))
    assert (await host.record(job.id)).state is State.CANCELLED and files(host, job) == []
    assert await host.holder.read(Index.key_table, job.id) == ""
    assert (await host.record(other.id)).state is State.HELD and len(files(host, other)) == 2
