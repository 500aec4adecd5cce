"""New holders over the real mesh: TLS, transfers and files are those of a daemon; only the cloud is the test's own."""

import asyncio
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.node.host import ORGANISATION
from tests.node.meshed import Meshed, Office, opened
from tests.rig.documents import pdf

from pullprint.model.states import Event, State
from pullprint.vault import parts
from pullprint.vault.index import Index
from pullprint.vault.record import Record, Step
from pullprint.wire.holders import HoldersOrder, sign_holders_order
from pullprint.wire.mesh import read_table
from pullprint.wire.node import CLOUD, HoldersItem


@pytest.fixture
def office(root: Path, quiet: None) -> Office:
    return Office(root)


def item_for(office: Office, host: Meshed, record: Record, number: int, **changes: Any) -> HoldersItem:
    """What the cloud would send *host*."""
    now = int(host.clock.now())
    claims: dict[str, Any] = {
        "jti": uuid.uuid4().hex, "iss": ORGANISATION, "aud": host.node, "iat": now, "exp": now + 600,
        "job": record.id, "base": record.generation, "number": number, "wanted": 1, **changes,
    }  # fmt: skip
    order = HoldersOrder(**claims)
    part = parts.open_part(
        record.cloud_slot, office.organisation.private, job=record.id, party=CLOUD, key=record.cloud_key,
        generation=record.generation,
    )  # fmt: skip
    ours = host.keyring.current(now)
    sealed = parts.seal_for_release(part, ours.public, job=record.id, order=order.jti, key=ours.key)
    return HoldersItem(order=sign_holders_order(order, office.organisation.key), part=sealed, part_key=ours.key)


async def test_lost_holder_is_replaced_and_shreds_its_copy_when_it_is_back(office: Office) -> None:
    document = pdf() + b"x" * 300_000
    async with AsyncExitStack() as stack:
        names = ("reception", "workshop", "archive")
        origin, second = [await stack.enter_async_context(office.host(name)) for name in names[:2]]
        async with office.host("archive") as third:
            await office.introduce()
            job = (await origin.hold(document)).id
            record = await origin.until(lambda record: len(record.holders) == 3, job)
            for host in (second, third):
                await host.held(job)
            gone, entry = third.node, await third.entry()
        late = await stack.enter_async_context(office.host("cellar"))
        await office.introduce(entry)
        await second.mesh.change_holders(
            item_for(office, second, await second.record(job), 1, out=(gone,), candidates=(late.node,))
        )
        await late.held(job)
        for host in (origin, second, late):
            now = await host.until(lambda record: record.generation == 3, job)
            assert set(now.holders) == {origin.node, second.node, late.node}
            assert host.holder.path(job).read_bytes() == origin.holder.path(job).read_bytes()
        assert await opened(late, job, late, office) == await opened(origin, job, second, late) == document
        assert not late.mesh.copies._coming
        back = await stack.enter_async_context(office.host("archive"))
        assert back.node == gone and back.holder.path(job).exists()
        await office.introduce()
        async with asyncio.timeout(30):
            while back.holder.path(job).exists():
                await asyncio.sleep(0.05)
        left = await back.until(lambda record: record.own_key == "", job)
        assert left.generation == 3 and not back.holder.keys_path(job).exists()
        with pytest.raises(StopIteration):
            table = read_table(await back.holder.read(Index.key_table, job))
            next(slot for slot in table.slots if slot.party == back.node)
        assert record.generation == 2


async def test_host_that_left_comes_in_again_with_a_fresh_copy(office: Office) -> None:
    async with office.of("reception", "workshop", "archive", "cellar") as hosts:
        origin = hosts[0]
        job = (await origin.hold(pdf())).id
        record = await origin.until(lambda record: len(record.holders) == 3, job)
        by_node = {host.node: host for host in hosts}
        holders = [by_node[node] for node in record.holders]
        (spare,) = [host for host in hosts if host.node not in record.holders]
        for host in holders:
            await host.held(job)
        out = next(host for host in holders if host is not origin)
        await origin.mesh.change_holders(
            item_for(office, origin, record, 1, out=(out.node,), candidates=(spare.node,), urgent=True)
        )
        await out.until(lambda record: record.generation == 3, job)
        async with asyncio.timeout(10):
            while out.holder.path(job).exists():
                await asyncio.sleep(0.02)
        now = await origin.record(job)
        await origin.mesh.change_holders(
            item_for(office, origin, now, 2, out=(spare.node,), candidates=(out.node,), urgent=True)
        )
        again = await out.until(lambda record: record.generation == 4, job)
        assert out.node in again.holders and out.holder.path(job).exists()
        assert await opened(out, job, out, office)


async def test_job_that_has_ended_gets_no_new_holders(office: Office) -> None:
    async with office.of("reception", "workshop", "archive", "cellar") as hosts:
        origin = hosts[0]
        job = (await origin.hold(pdf())).id
        record = await origin.until(lambda record: len(record.holders) == 3, job)
        order = item_for(office, origin, record, 1, candidates=tuple(host.node for host in hosts))
        await origin.holder.end(job, Event.CANCEL, Step("cancelled", "Deleted."))
        await origin.mesh.change_holders(order)
        await origin.mesh.change_holders(order.model_copy(update={"order": "nonsense"}))
        assert (await origin.record(job)).state is State.CANCELLED
