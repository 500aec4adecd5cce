"""Release orders: once, for the owner, for a printer of the site, with a key part that opens."""

import asyncio

import pytest
from tests.cloud.office import NodeClient, Office

from pullprint.vault import parts
from pullprint.wire.order import OrderRefused, verify_order


async def release(office: Office, token: str, job: str, printer: str = "Foyer", **more: object) -> tuple[int, dict]:
    answer = await office.ask("POST", f"/api/v1/jobs/{job}/release", {"printer": printer, **more}, token)
    return answer.status, answer.body


async def ask(
    node: NodeClient, job: str, printer: str, by: str = "ada@example.com", **more: object
) -> tuple[int, dict]:
    answer = await node.call("POST", "/node/v1/releases", {"job": job, "printer": printer, "by": by, **more})
    return answer.status, answer.body


async def test_order_reaches_the_holder_with_a_part_that_only_it_can_open(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    status, view = await release(office, token, held, "foyer", changes={"copies": "2", "sides": "two-sided-long-edge"})
    assert (status, view["state"], view["sentence"]) == (202, "held", "On its way to Foyer.")
    item = await node.poll_for("order")
    order, part = node.open(item)
    assert part == node.parts[held]
    assert (order.job, order.printer, order.ballot, order.forces) == (held, office.printer, 1, ())
    assert (order.ticket.copies, order.ticket.get("sides")) == (2, "two-sided-long-edge")
    assert order.exp - order.iat == 60 and order.by == "ada@example.com"
    with pytest.raises(OrderRefused):
        verify_order(item["order"], node.pin, "0" * 32, "acme", office.clock.now())
    private, _ = parts.new_key()
    node.private = private
    with pytest.raises(parts.PartRefused):
        node.open(item)
    trace = (await office.ask("GET", f"/api/v1/jobs/{held}/trace", token=token)).body
    assert [step["text"] for step in trace] == ["Released by ada@example.com for Foyer."]


async def test_released_by_two_browsers_at_once_gives_one_order(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    answers = await asyncio.gather(*(release(office, token, held) for _ in range(6)), ask(node, held, office.printer))
    assert sorted(status for status, _ in answers)[1:] == [409] * 6
    assert {body["code"] for status, body in answers if status == 409} == {"being-printed"}


async def test_ballots_rise_and_an_order_that_nobody_used_frees_the_job_when_it_has_expired(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    assert (await release(office, token, held))[0] == 202
    assert (await release(office, token, held))[0] == 409
    office.clock.shift = 61
    assert (await node.call("GET", "/node/v1/config")).status == 200
    assert (await release(office, token, held))[0] == 202
    items = [item for item in await node.poll() if item["kind"] == "order"]
    assert [node.open(item)[0].ballot for item in items] == [2], "the expired order must not be delivered any more"


async def test_proof_that_nothing_was_sent_frees_the_job_at_once(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    await release(office, token, held)
    order, _ = node.open(await node.poll_for("order"))
    for state in ("committed", "sending"):
        await node.report_state(held, state, order=order.jti, ballot=1)
        assert (await release(office, token, held))[1]["code"] == "being-printed"
    await node.report_state(held, "held", order=order.jti, ballot=1, nothing_sent=True)
    assert (await release(office, token, held))[0] == 202
    assert node.open(await node.poll_for("order"))[0].ballot == 2


async def test_uncertain_job_prints_again_only_under_an_order_that_names_the_doubtful_attempt(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    await release(office, token, held)
    await node.report_state(held, "held", ballot=1, nothing_sent=True)
    await release(office, token, held)
    await node.report_state(held, "uncertain", ballot=2)
    view = (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body
    assert view["doubtful"] == [2], "the first attempt is proven to have sent nothing"
    status, refused = await release(office, token, held)
    assert (status, refused["code"]) == (409, "in-doubt")
    assert (await ask(node, held, office.printer))[1]["code"] == "in-doubt"
    assert (await ask(node, held, office.printer, forces=[1]))[1]["code"] == "in-doubt"
    assert (await ask(node, held, office.printer, forces=[1, 2]))[1]["code"] == "bad-request"
    assert (await release(office, token, held, again=True))[0] == 202
    orders = [node.open(i)[0] for i in await node.poll() if i["kind"] == "order"]
    assert (orders[-1].ballot, orders[-1].forces) == (3, (2,))


async def test_an_attempt_that_its_owner_was_not_asked_about_is_not_printed_again(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    await node.report_state(held, "uncertain", ballot=4, order="elsewhere")
    assert (await release(office, token, held, again=False, doubtful=[]))[1]["code"] == "in-doubt"
    assert (await release(office, token, held, again=True, doubtful=[3]))[1]["code"] == "in-doubt"
    assert (await release(office, token, held, again=True, doubtful=[3, 4]))[0] == 202


async def test_a_job_in_doubt_of_which_no_attempt_is_known_is_asked_about_all_the_same(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    await node.report_state(held, "uncertain")
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body["doubtful"] == []
    assert (await release(office, token, held))[1]["code"] == "in-doubt"
    assert (await release(office, token, held, again=True, doubtful=[]))[0] == 202


async def test_attempt_without_the_cloud_can_be_named_too(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    await node.report_state(held, "uncertain", ballot=4, order="lan-order")
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body["doubtful"] == [4]
    status, item = await ask(node, held, office.printer, forces=[4])
    assert status == 200 and node.open(item)[0].ballot == 5


async def test_owner_says_that_it_came_out(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    settle = f"/api/v1/jobs/{held}/settle"
    assert (await office.ask("POST", settle, {}, token)).code == "wrong-state"
    await node.report_state(held, "uncertain", ballot=1)
    assert (await office.ask("POST", settle, {}, token)).status == 200
    assert (await node.poll_for("settle"))["job"] == held


@pytest.mark.parametrize("state", ["receiving", "prepared", "committed", "sending", "done", "cancelled", "expired"])
async def test_no_order_for_a_job_that_is_not_held(office: Office, state: str) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold(state=state)
    assert (await release(office, token, held))[0] == 409
    assert (await ask(node, held, office.printer))[0] == 409


async def test_no_order_for_expired_deleted_or_foreign_jobs_unknown_printers_and_bad_tickets(office: Office) -> None:
    node, token, gus = await office.join(), await office.sign_in(), await office.sign_in("gus@example.com")
    held, late, deleted = await node.hold(), await node.hold(expires=int(office.clock.now()) - 1), await node.hold()
    elsewhere = office.add_printer("globex", "Their printer")
    assert (await office.ask("DELETE", f"/api/v1/jobs/{deleted}", token=token)).status == 202
    assert (await release(office, token, late))[1]["code"] == "wrong-state"
    assert (await release(office, token, deleted))[1]["code"] == "wrong-state"
    assert (await release(office, gus, held))[1]["code"] == "not-found"
    for printer in ("nope", elsewhere, "Their printer"):
        assert (await release(office, token, held, printer))[1]["code"] == "not-found"
    for changes in ({"copies": "0"}, {"copies": "x"}, {"sides": "a\nb"}, {"": "x"}):
        assert (await release(office, token, held, changes=changes))[1]["code"] == "ticket-refused"
    assert (await release(office, token, held))[0] == 202
    assert (await office.ask("DELETE", f"/api/v1/jobs/{held}", token=token)).code == "being-printed"


async def test_holder_that_is_asleep_is_named(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    held = await node.hold()
    office.clock.shift = 180
    status, body = await release(office, token, held)
    assert (status, body["code"]) == (409, "holder-away") and node.name in body["sentence"]


async def test_node_asks_only_for_jobs_that_it_holds_in_the_name_of_their_owner(office: Office) -> None:
    node, other, guest = await office.join(), await office.join(), await office.join(managed=False)
    held, unclaimed = await node.hold(), await node.hold(owner="")
    assert (await ask(other, held, office.printer))[1]["code"] == "not-found"
    assert (await ask(node, held, office.printer, by="bob@example.com"))[1]["code"] == "not-allowed"
    assert (await ask(node, unclaimed, office.printer, by="x"))[1]["code"] == "not-allowed"
    status, item = await ask(node, held, office.printer)
    assert status == 200 and node.open(item)[1] == node.parts[held]
    theirs = await guest.hold(claim_code="7KQ2-M9XD")
    await office.ask("POST", "/api/v1/claim", {"code": "7KQ2-M9XD"}, await office.sign_in())
    assert (await ask(guest, theirs, office.printer))[1]["code"] == "not-allowed"


async def test_direct_job_goes_to_its_own_printer_only(office: Office) -> None:
    node, attic = await office.join(), office.add_printer("acme", "Attic")
    held = await node.hold(direct_printer="Foyer")
    assert (await ask(node, held, attic))[1]["code"] == "not-allowed"
    assert (await ask(node, held, office.printer))[0] == 200


async def test_part_that_was_sealed_to_something_else_gives_a_sentence_and_no_order(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    for changes in ({"cloud_slot": "AAAA"}, {"cloud_key": "cloud-lost"}, {"generation": 2}):
        held = await node.hold(**changes)
        assert (await release(office, token, held))[1]["code"] == "no-key"
        assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body["sentence"] == "Held."
