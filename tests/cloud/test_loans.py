"""Votes that nodes lend to the cloud: who may, what it does with them, and that never both vote."""

import asyncio
from typing import Any

from sqlalchemy import select, update
from tests.cloud.office import Answer, NodeClient, Office
from tests.cloud.test_mesh import three
from tests.cloud.test_orders import ask

from pullprint.cloud.tables import job, loan, trace

FRESH: dict[str, Any] = {"promised": 0, "attempts": [], "lost": False}


def named(held: str, number: int = 1, generation: int = 2) -> dict[str, Any]:
    return {"job": held, "generation": generation, "number": number}


async def lend(one: NodeClient, *loans: dict[str, Any], **vote: Any) -> list[str]:
    """Which of the jobs the cloud has the vote on now."""
    sent = {"loans": [{**each, "vote": {**FRESH, **vote}} for each in loans]}
    answer = await one.call("POST", "/node/v1/loans", sent)
    assert answer.status == 200, answer
    return [each["job"] for each in answer.body["loans"]]


async def back(one: NodeClient, *loans: dict[str, Any]) -> list[Any]:
    """The votes that it gives back."""
    answer = await one.call("POST", "/node/v1/loans/return", {"loans": list(loans)})
    assert answer.status == 200, answer
    return [each["vote"] for each in answer.body["loans"]]


async def vote(one: NodeClient, voter: NodeClient, order: str, held: str, **changes: Any) -> Answer:
    commit = {"job": held, "generation": 2, "ballot": 1, "order": order, **changes}
    return await one.call("POST", "/node/v1/loans/votes", {"voter": voter.id, "commit": commit})


async def ordered(office: Office, one: NodeClient, held: str) -> str:
    status, item = await ask(one, held, office.printer)
    assert status == 200, item
    return str(item["order"])


def steps(office: Office, held: str) -> list[str]:
    query = select(trace.c.text).where(trace.c.job == held, trace.c.source == "cloud").order_by(trace.c.seq)
    return list(office.store.transact(lambda t: t.run(query).scalars().all()))


async def test_cloud_votes_for_a_node_that_sleeps_until_it_wakes(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(second, third)
    order = await ordered(office, third, held)
    assert (await vote(third, first, order, held)).code == "not-lent"
    assert await lend(first, named(held)) == [held]
    assert await lend(first, named(held)) == [held], "repeated"
    for _ in range(2):
        answer = await vote(third, first, order, held)
        assert (answer.status, answer.body["refused"], answer.body["part"]) == (200, "", None)
        assert [one["releaser"] for one in answer.body["vote"]["attempts"]] == [third.id]
    assert steps(office, held)[-1] == "Voted for desk-1, which is asleep, so that desk-3 may print it."
    assert sum("which is asleep" in text for text in steps(office, held)) == 1, "repeated, it is told once"
    for _ in range(2):
        (returned,) = await back(first, named(held))
        assert [one["releaser"] for one in returned["attempts"]] == [third.id]
    assert (await vote(third, first, order, held)).code == "not-lent"
    assert await lend(first, named(held)) == [], "its message came late"
    assert await lend(first, named(held, 2), attempts=returned["attempts"], promised=1) == [held]
    assert (await vote(third, first, order, held)).body["refused"] == ""


async def test_it_promises_too_and_refuses_what_is_outdated(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(second, third)
    await third.report_state(held, "held", ballot=4)
    order = await ordered(office, third, held)
    await lend(first, named(held), promised=2)
    key = {"key": "day-1", "public": third.party_key.model_dump(mode="json")["public"], "expires": 1 << 32}
    prepare = {"job": held, "generation": 2, "ballot": 5, "order": order, "key": key}
    answer = await third.call("POST", "/node/v1/loans/votes", {"voter": first.id, "prepare": prepare})
    assert (answer.status, answer.body["vote"]["promised"], answer.body["part"]) == (200, 5, None), answer
    assert steps(office, held)[-1] == "Promised the vote of desk-1, which is asleep, to desk-3."
    answer = await third.call("POST", "/node/v1/loans/votes", {"voter": first.id, "prepare": prepare})
    assert answer.body["refused"] == "outdated"
    assert (await vote(third, first, order, held, ballot=5)).body["refused"] == ""


async def test_loan_that_comes_after_its_return_is_refused(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(second, third)
    assert await back(first, named(held)) == [None]
    assert await lend(first, named(held)) == []
    assert await back(first, named(held)) == [None]
    assert await lend(first, named(held, 2)) == [held]
    assert await back(first, named(held)) == [], "an old question says nothing of the new loan"
    assert await back(first, named(held, 3)) == []
    assert await back(first, named(held, 2)) == [FRESH]


async def test_only_voters_of_the_generation_lend_and_only_what_is_whole(office: Office) -> None:
    first, second, third = await three(office)
    held, alone = await first.place(second), await first.hold()
    theirs = await office.join("globex")
    bad: list[tuple[NodeClient, dict[str, Any], dict[str, Any]]] = [
        (third, named(held), {}),
        (theirs, named(held), {}),
        (first, named(held, generation=3), {}),
        (first, named("f" * 32), {}),
        (first, named(alone), {}),
        (first, named(held), {"lost": True}),
    ]
    for one, what, changes in bad:
        assert await lend(one, what, **changes) == []
    assert await back(first, named("f" * 32)) == [], "of what is not known nothing could be noted"
    assert await back(theirs, named(held)) == []
    assert await lend(second, named(held)) == [held]
    await first.report_state(held, "done")
    assert await lend(first, named(held)) == [], "it has ended"
    assert await back(second, named(held)) == [FRESH]
    too_many = {"loans": [{**named(held), "vote": FRESH}] * 1_001}
    assert (await first.call("POST", "/node/v1/loans", too_many)).status == 400
    assert (await first.call("POST", "/node/v1/loans/votes", {"voter": second.id})).status == 400


async def test_nobody_gets_a_vote_without_an_order_of_its_own(office: Office) -> None:
    first, second, third = await three(office)
    held, other = await first.place(second, third), await first.place(second, third)
    order, elsewhere = await ordered(office, third, held), await ordered(office, third, other)
    await lend(first, named(held), named(other))
    await lend(third, named(held))
    theirs, outsider = await office.join("globex"), await office.join(name="desk-4")
    refusals: list[tuple[NodeClient, NodeClient, str, dict[str, Any], str]] = [
        (third, first, elsewhere, {}, "order-refused"),
        (second, first, order, {}, "order-refused"),
        (third, first, "nonsense", {}, "statement-refused"),
        (third, first, order, {"ballot": 2}, "order-refused"),
        (third, first, order, {"generation": 3}, "not-allowed"),
        (third, second, order, {}, "not-lent"),
        (third, third, order, {}, "not-lent"),
        (theirs, first, order, {}, "not-found"),
        (outsider, first, order, {}, "not-found"),
        (third, first, order, {"job": "f" * 32}, "not-found"),
    ]
    for one, voter, token, changes, code in refusals:
        answer = await vote(one, voter, token, held, **changes)
        assert answer.status >= 400 and answer.code == code, (code, answer)
    office.clock.shift = 61
    assert (await vote(third, first, order, held)).code == "order-refused"
    office.clock.shift = 0
    office.store.transact(lambda t: t.run(update(job).where(job.c.id == held).values(cancelling=t.now)))
    assert (await vote(third, first, order, held)).code == "not-allowed"
    assert not any("asleep" in text for text in steps(office, held))


async def test_node_that_lost_its_records_has_no_loans(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(second, third)
    order = await ordered(office, third, held)
    await lend(first, named(held))
    first.n = 0
    assert (await first.reconcile({held: "held"}, generations={held: 2}))["restored"] is True
    assert (await vote(third, first, order, held)).code == "not-lent"
    await lend(second, named(held))
    second.epoch = "new"
    await second.reconcile({held: "held"}, generations={held: 2})
    assert (await vote(third, second, order, held)).code == "not-lent"


async def test_vote_and_return_at_once_are_told_one_after_the_other(office: Office) -> None:
    first, second, third = await three(office)
    for _ in range(8):
        held = await first.place(second, third)
        order = await ordered(office, third, held)
        await lend(first, named(held))
        voted, returned = await asyncio.gather(vote(third, first, order, held), back(first, named(held)))
        assert (voted.status == 200) == bool(returned[0]["attempts"])


async def test_many_that_lend_and_wake_at_once_do_not_wait_for_each_other(office: Office) -> None:
    first, second, third = await three(office)
    held = [await first.place(second, third) for _ in range(12)]
    for number in range(1, 4):
        names = [named(one, number) for one in held]
        taken = await asyncio.gather(lend(first, *names), lend(second, *reversed(names)), lend(third, *names))
        assert [len(some) for some in taken] == [12, 12, 12]
        given = await asyncio.gather(back(first, *names), back(second, *reversed(names)), back(third, *names))
        assert [len(some) for some in given] == [12, 12, 12]


async def test_loans_go_with_their_job(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(second, third)
    await lend(first, named(held))
    office.store.transact(lambda t: t.run(job.delete().where(job.c.id == held)))
    assert office.store.transact(lambda t: t.all(select(loan))) == []
