"""An order that comes to nothing at one holder goes to the next: once, and not after its owner has left."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select, update
from tests.cloud.office import NodeClient, Office
from tests.cloud.test_mesh import row_of, three, view
from tests.cloud.test_orders import ask, release

from pullprint.cloud import orders, takeover
from pullprint.cloud.orders import SILENT, TAKE_OVER
from pullprint.cloud.tables import inbox, job, node
from pullprint.cloud.tables import release as release_table
from pullprint.wire.order import Order

STILL = 1.5
"""Seconds in which the server looks at least once."""


def releases(office: Office, job_id: str) -> list[Any]:
    query = select(release_table).where(release_table.c.job == job_id).order_by(release_table.c.ballot)
    return list(office.store.transact(lambda t: t.all(query)))


def waiting(office: Office, one: NodeClient) -> int:
    return len(
        office.store.transact(lambda t: t.all(select(inbox).where(inbox.c.node == one.id, inbox.c.kind == "order")))
    )


async def until(office: Office, job_id: str, state: dict[str, Any]) -> None:
    async with asyncio.timeout(10):
        while {name: getattr(row_of(office, job_id), name) for name in state} != state:
            await asyncio.sleep(0.05)


async def order_of(one: NodeClient) -> Order:
    return one.open(await one.poll_for("order"))[0]


@asynccontextmanager
async def released(office: Office) -> AsyncIterator[tuple[str, NodeClient, NodeClient, NodeClient]]:
    """A job of three holders, whose order is in the inbox of the first."""
    first, second, third = await three(office)
    held, token = await first.place(second, third), await office.sign_in()
    assert (await release(office, token, held, changes={"copies": "3"}))[0] == 202
    assert [row.node for row in releases(office, held)] == [first.id], "its origin, of those that are there"
    yield held, first, second, third


async def test_holder_that_is_not_heard_of_is_replaced_by_the_next(office: Office) -> None:
    async with released(office) as (held, first, second, third):
        assert waiting(office, first) == 1
        parked = asyncio.create_task(order_of(second))
        await asyncio.sleep(0.3)
        office.clock.shift = TAKE_OVER + 0.1
        order = await parked
        assert (order.job, order.ballot, order.by, order.ticket.copies) == (held, 2, "ada@example.com", 3)
        shown = await view(office, held)
        assert (shown["state"], shown["trouble"]) == ("held", False)
        assert shown["sentence"] == "desk-2 takes over from desk-1: on its way to Foyer."
        steps = (await office.ask("GET", f"/api/v1/jobs/{held}/trace", token=await office.sign_in())).body
        assert [(step["event"], step["text"]) for step in steps][1:] == [
            ("take-over", "desk-2 takes over from desk-1.")
        ]
        assert waiting(office, first) == 0, "it was not fetched, and never will be"
        assert releases(office, held)[0].outcome == "taken-over"
        # The second is silent as well: there is a third, and nobody after it.
        office.clock.shift += TAKE_OVER + 0.1
        assert (await order_of(third)).ballot == 3
        office.clock.shift += TAKE_OVER + 0.1
        await asyncio.sleep(STILL)
        assert len(releases(office, held)) == 3
        office.clock.shift += 61
        await until(office, held, {"trouble": True})
        assert "wake one of them up" in (await view(office, held))["sentence"]
        assert (await view(office, held))["state"] == "held"


async def test_holder_that_was_heard_in_time_keeps_its_order(office: Office) -> None:
    async with released(office) as (held, first, _, _):
        await first.report({"kind": "trace", "job": held, "seq": 1, "at": 1.0, "event": "checked", "text": "Checked."})
        office.clock.shift = TAKE_OVER + 1
        await first.call("GET", "/node/v1/config")
        await asyncio.sleep(STILL)
        await first.report_state(held, "prepared", ballot=1)
        await first.report_state(held, "sending", ballot=1)
        office.clock.shift = 50
        await asyncio.sleep(STILL)
        assert len(releases(office, held)) == 1, "a job at the printer is taken over by nobody"


async def test_order_for_a_job_of_one_holder_waits_for_it(office: Office) -> None:
    only, token = await office.join(), await office.sign_in()
    held = await only.hold()
    await release(office, token, held)
    office.clock.shift = 2 * TAKE_OVER
    await asyncio.sleep(STILL)
    assert (await order_of(only)).ballot == 1 and not (await view(office, held))["trouble"]


async def test_holder_that_cannot_reach_the_printer_leaves_it_to_one_that_can(office: Office) -> None:
    async with released(office) as (held, first, second, third):
        assert (await order_of(first)).ballot == 1
        cannot = {"nothing_sent": True, "elsewhere": True, "sentence": "The printer cannot be reached from here."}
        await second.call("GET", "/node/v1/config")
        async with asyncio.timeout(3):
            await first.report_state(held, "held", ballot=1, **cannot)
            order = await order_of(second)
        assert order.ballot == 2 and not row_of(office, held).trouble
        # Late news of the first attempt does not speak over the second.
        await first.report_state(held, "held", ballot=1, **cannot)
        assert row_of(office, held).sentence.startswith("desk-2 takes over")
        await second.report_state(held, "held", ballot=2, **cannot)
        assert (await order_of(third)).ballot == 3
        await third.report_state(held, "held", ballot=3, **{**cannot, "sentence": "It is off, as seen from desk-3."})
        await until(office, held, {"trouble": True, "sentence": "It is off, as seen from desk-3."})
        assert [row.outcome for row in releases(office, held)] == ["nothing-sent"] * 3
        assert (await release(office, await office.sign_in(), held))[0] == 202, "the owner may try again at once"


async def test_trouble_that_is_not_the_holders_own_is_told_to_the_owner_and_not_passed_on(office: Office) -> None:
    async with released(office) as (held, first, _, _):
        await first.report_state(held, "held", ballot=1, nothing_sent=True, sentence="It is out of paper.")
        await asyncio.sleep(STILL)
        assert row_of(office, held).trouble and len(releases(office, held)) == 1


async def test_releaser_that_dies_when_it_has_prepared_is_replaced(office: Office) -> None:
    async with released(office) as (held, first, second, _):
        await first.report_state(held, "prepared", ballot=1)
        office.clock.shift = SILENT - 3
        await asyncio.sleep(STILL)
        assert len(releases(office, held)) == 1
        office.clock.shift = SILENT + 1
        assert (await order_of(second)).ballot == 2
        assert row_of(office, held).state == "held"
        # It was not dead, only slow, and the votes let it: what it says of its own attempt counts as long as the
        # second has not said anything.
        await first.report_state(held, "sending", ballot=1)
        assert row_of(office, held).state == "sending"
        await second.report_state(held, "held", ballot=2, nothing_sent=True)
        await first.report_state(held, "done", ballot=1)
        assert row_of(office, held).state == "done"


async def test_releaser_that_asked_by_itself_and_died_is_replaced(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(second, third, direct_printer="Foyer")
    assert (await ask(first, held, office.printer))[0] == 200
    office.clock.shift = SILENT - 2
    await asyncio.sleep(STILL)
    assert len(releases(office, held)) == 1
    office.clock.shift = SILENT + 1
    await asyncio.sleep(STILL)
    assert releases(office, held)[-1].node != first.id
    assert len(releases(office, held)) == 2


async def test_what_its_owner_forced_is_forced_once(office: Office) -> None:
    """The next holder inherits it only where it is proven that nothing came of it."""
    first, second, third = await three(office)
    held, token = await first.place(second, third), await office.sign_in()
    await first.report_state(held, "uncertain", ballot=1)
    assert (await release(office, token, held, again=True, doubtful=[1]))[0] == 202
    order = await order_of(first)
    assert (order.ballot, order.forces) == (2, (1,))
    cannot = {"nothing_sent": True, "elsewhere": True, "sentence": "Not from here."}
    await first.report_state(held, "uncertain", ballot=2, order=order.jti, **cannot)
    await _until(lambda: releases(office, held)[-1].ballot == 3)
    assert releases(office, held)[-1].forces == "[1]"
    office.clock.shift = TAKE_OVER + 0.1
    await _until(lambda: releases(office, held)[-1].ballot == 4)
    assert releases(office, held)[-1].forces == "[]", "the second one is silent, and may have printed"
    assert row_of(office, held).state == "uncertain"


async def _until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not there():
            await asyncio.sleep(0.05)


async def test_nobody_takes_over_what_was_deleted_or_asked_for_long_ago(office: Office) -> None:
    async with released(office) as (held, _, _, _):
        office.store.transact(lambda t: t.run(update(job).values(cancelling=t.now)))
        office.clock.shift = TAKE_OVER + 1
        await asyncio.sleep(STILL)
        assert len(releases(office, held)) == 1
        office.store.transact(lambda t: t.run(update(job).values(cancelling=None)))
        office.store.transact(lambda t: t.run(update(release_table).values(due=t.now, expires=t.now - 1)))
        office.clock.shift = takeover.PATIENCE + 1
        await asyncio.sleep(STILL)
        assert len(releases(office, held)) == 1


async def test_holders_that_are_away_or_shut_out_are_not_asked(office: Office) -> None:
    async with released(office) as (held, first, second, third):
        office.store.transact(lambda t: t.run(update(node).where(node.c.id == second.id).values(revoked=t.now)))
        office.store.transact(
            lambda t: t.run(update(node).where(node.c.id == third.id).values(seen=t.now - orders.AWAY_AFTER - 9))
        )
        office.clock.shift = TAKE_OVER + 0.1
        await asyncio.sleep(STILL)
        assert [row.node for row in releases(office, held)] == [first.id]
        await third.call("GET", "/node/v1/config")
        office.clock.shift += TAKE_OVER + 0.1
        assert (await order_of(third)).ballot == 2, "it came back in time"


async def test_several_instances_that_look_at_once_issue_one_order(office: Office) -> None:
    async with released(office) as (held, _, _, _):
        order = releases(office, held)[0].id
        office.store.transact(lambda t: t.run(update(release_table).values(due=t.now)))

        def look(_: int) -> bool:
            return office.store.transact(takeover.look_after, "acme", held, order, orders.nobody_is_here)

        with ThreadPoolExecutor(6) as pool:
            acted = await asyncio.get_running_loop().run_in_executor(None, lambda: list(pool.map(look, range(6))))
        assert sum(acted) <= 1, "the server itself may have been first"
        assert len(releases(office, held)) == 2


async def test_unknown_attempt_of_the_same_ballot_changes_nothing_of_the_order(office: Office) -> None:
    async with released(office) as (held, first, second, _):
        order = await order_of(first)
        await second.report_state(held, "held", ballot=1, order="f" * 32, nothing_sent=True)
        assert releases(office, held)[0].outcome == ""
        await first.report_state(held, "committed", ballot=1, order=order.jti)
        await first.report_state(held, "done", ballot=1, order=order.jti)
        assert releases(office, held)[0].outcome == "done"
