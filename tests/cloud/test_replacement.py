"""A holder that is lost is replaced: ordered once at a time, by whoever is left, and not all at once."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, update
from tests.cloud.office import NodeClient, Office, parts_bytes
from tests.cloud.test_mesh import HERE, holders_of, row_of
from tests.cloud.test_orders import release

from pullprint.cloud import nodes, replacement
from pullprint.cloud.tables import inbox, job, node
from pullprint.cloud.tables import replacement as orders_table
from pullprint.vault import parts
from pullprint.wire.holders import HoldersOrder, verify_holders_order

AFTER = 600.0


def is_here(_: str) -> bool:
    return False


async def four(office: Office, count: int = 4) -> list[NodeClient]:
    joined = [await office.join(name=f"desk-{n}") for n in range(1, count + 1)]
    for one in joined:
        await one.reconcile(endpoints=HERE, room=1 << 30)
    return joined


def silent(office: Office, *gone: NodeClient, seconds: float = AFTER + 1) -> None:
    """They were last seen so long ago."""
    ids = [one.id for one in gone]
    office.store.transact(lambda t: t.run(update(node).where(node.c.id.in_(ids)).values(seen=t.now - seconds)))


def look(office: Office, *, short: bool = False) -> list[HoldersOrder]:
    """What an instance does every few seconds."""
    rows = office.store.transact(replacement.due, AFTER, short=short)
    made = [office.store.transact(replacement.order, row.organisation, row.id, is_here, AFTER) for row in rows]
    return [order for order in made if order is not None]


def awake(office: Office, *ones: NodeClient, seconds: float = 0.0) -> None:
    """Time goes on, and they are there."""
    office.clock.shift += seconds
    ids = [one.id for one in ones]
    office.store.transact(lambda t: t.run(update(node).where(node.c.id.in_(ids)).values(seen=t.now)))


def items(office: Office, one: NodeClient) -> Sequence[Any]:
    return office.store.transact(
        lambda t: t.all(select(inbox).where(inbox.c.node == one.id, inbox.c.kind == "holders"))
    )


async def test_holder_that_is_silent_for_long_is_replaced_by_who_is_left(office: Office) -> None:
    first, second, third, fourth = await four(office)
    held = await first.place(second, third)
    assert look(office, short=True) == []
    silent(office, third, seconds=AFTER - 10)
    assert look(office) == []
    silent(office, third)
    (order,) = look(office)
    assert order == HoldersOrder(
        jti=order.jti, iss="acme", aud=first.id, iat=order.iat, exp=order.iat + 600, job=held, base=2,
        number=order.number, out=(third.id,), candidates=(fourth.id,), wanted=1,
    )  # fmt: skip
    item = await first.poll_for("holders")
    said = verify_holders_order(item["order"], first.pin, first.id, "acme", office.clock.now())
    assert said == order
    sealed = parts_bytes(item["part"])
    part = parts.open_for_release(sealed, first.private, job=held, order=order.jti, key=item["part_key"])
    assert part == first.parts[f"{held}/2"]
    steps = (await office.ask("GET", f"/api/v1/jobs/{held}/trace", token=await office.sign_in())).body
    assert steps[-1]["text"] == "desk-1 is to find another holder instead of desk-3."


async def test_one_order_at_a_time_and_the_next_one_has_a_higher_number(office: Office) -> None:
    first, second, third, fourth = await four(office)
    await first.place(second, third)
    silent(office, third)
    (one,) = look(office)
    assert look(office) == []
    awake(office, first, second, fourth, seconds=119)
    assert look(office) == []
    awake(office, first, second, fourth, seconds=2)
    (two,) = look(office)
    assert two.number > one.number and two.base == 2
    # A database that was restored knows of neither, and goes on above them.
    office.store.transact(lambda t: t.run(orders_table.delete()))
    awake(office, first, second, fourth, seconds=300)
    (three,) = look(office)
    assert three.number > two.number


async def test_new_generation_that_is_reported_by_any_of_its_holders_ends_it(office: Office) -> None:
    first, second, third, fourth = await four(office)
    report = first.job_report()
    table = first.table(report["job"], (first, second, third))
    await first.report(report, {**report, "generation": 2, "table": table})
    held = report["job"]
    silent(office, third)
    assert len(look(office)) == 1
    later = first.table(held, (first, second, fourth), generation=3)
    await fourth.report({**report, "generation": 3, "table": later})
    assert holders_of(office, held) == {first.id, second.id, fourth.id}
    assert row_of(office, held).generation == 3
    awake(office, first, second, fourth, seconds=500)
    assert look(office, short=True) == []


async def test_holder_that_was_shut_out_is_replaced_at_once_even_by_nobody(office: Office) -> None:
    first, second, third = await four(office, 3)
    held = await first.place(second, third)
    office.store.transact(nodes.revoke, "acme", third.id)
    (order,) = look(office)
    assert (order.job, order.out, order.candidates, order.wanted, order.urgent) == (held, (third.id,), (), 0, True)


async def test_nobody_is_ordered_without_a_majority_or_a_successor(office: Office) -> None:
    first, second, third, fourth = await four(office)
    await first.place(second, third)
    silent(office, second, third)
    assert look(office) == []
    silent(office, first, second, third, fourth)
    assert look(office) == []
    awake(office, first, second)
    assert look(office) == [], "nobody who is awake could come in"
    await fourth.reconcile(endpoints=HERE, room=10)
    assert look(office) == [], "it has no room"
    await fourth.reconcile(endpoints=HERE, room=1 << 30, role="client")
    assert look(office) == []
    await fourth.reconcile(endpoints=HERE, room=1 << 30)
    (order,) = look(office)
    assert order.aud in (first.id, second.id)


async def test_job_that_is_short_of_copies_gets_more_when_another_node_turns_up(office: Office) -> None:
    first, second = await four(office, 2)
    held = await first.place(second)
    assert look(office, short=True) == []
    third = await office.join(name="desk-9")
    await third.reconcile(endpoints=HERE, room=1 << 30)
    assert look(office) == []
    (order,) = look(office, short=True)
    assert (order.job, order.out, order.candidates, order.wanted) == (held, (), (third.id,), 1)


async def test_job_of_one_holder_that_was_never_placed_is_left_to_its_origin(office: Office) -> None:
    first, *_ = await four(office)
    await first.hold()
    assert look(office, short=True) == []


async def test_job_that_is_being_released_or_ends_soon_is_left_alone(office: Office) -> None:
    first, second, third, fourth = await four(office)
    token = await office.sign_in()
    asked = await first.place(second, third)
    ending = await first.place(second, third)
    over = await first.place(second, third)
    deleted = await first.place(second, third)
    uncertain = await first.place(second, third)
    assert (await release(office, token, asked))[0] == 202
    office.store.transact(lambda t: t.run(update(job).where(job.c.id == ending).values(expires=t.now + 100)))
    await first.report_state(over, "expired")
    await first.report_state(uncertain, "uncertain")
    assert (await office.ask("DELETE", f"/api/v1/jobs/{deleted}", token=token)).status in (202, 204)
    silent(office, third)
    assert look(office, short=True) == []
    assert fourth is not None


async def test_on_monday_morning_not_everything_moves_at_once(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third, fourth = await four(office)
    for _ in range(7):
        await first.place(second, third)
    monkeypatch.setattr(replacement, "UNDER_WAY", 3)
    silent(office, third)
    assert len(look(office)) == 3
    assert look(office) == []
    earlier = {row.job for row in office.store.transact(lambda t: t.all(select(orders_table)))}
    awake(office, first, second, fourth, seconds=121)
    later = [order.job for order in look(office)]
    assert len(later) == 3 and not earlier & set(later), "those that had no turn yet come first"
    # What came to an end makes room for the next.
    over = update(job).where(job.c.id.in_(later[:2])).values(ended=1.0)
    office.store.transact(lambda t: t.run(over))
    assert len(look(office)) == 2


async def test_instances_that_look_at_once_order_once(office: Office) -> None:
    first, second, third, _fourth = await four(office)
    held = await first.place(second, third)
    silent(office, third)

    def one(_: int) -> HoldersOrder | None:
        return office.store.transact(replacement.order, "acme", held, is_here, AFTER)

    with ThreadPoolExecutor(4) as pool:
        loop = asyncio.get_running_loop()
        made = await asyncio.gather(*(loop.run_in_executor(pool, one, n) for n in range(4)))
    assert len([order for order in made if order is not None]) == 1
    assert len(items(office, first)) == 1


async def test_node_with_a_poll_parked_here_is_not_lost(office: Office) -> None:
    first, second, third, _fourth = await four(office)
    held = await first.place(second, third)
    silent(office, third)
    made = office.store.transact(replacement.order, "acme", held, lambda node_id: node_id == third.id, AFTER)
    assert made is None


async def test_other_organisations_nodes_are_no_candidates(office: Office) -> None:
    first, second, third = await four(office, 3)
    await first.place(second, third)
    theirs = await office.join("globex", name="theirs")
    await theirs.reconcile(endpoints=HERE, room=1 << 30)
    silent(office, third)
    assert look(office) == []
