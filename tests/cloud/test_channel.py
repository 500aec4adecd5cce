"""The node channel under replay, forgery, repetition and loss."""

import asyncio
import json
import statistics
import time

import pytest
from sqlalchemy import func, select
from tests.cloud.office import NodeClient, Office

from pullprint.cloud import housekeeping, jobs, sites
from pullprint.cloud.tables import inbox, job, nonce, trace


async def test_replayed_request_is_refused_as_long_as_it_would_be_good_and_after(office: Office) -> None:
    node = await office.join()
    body = json.dumps(node.events()).encode()
    headers = node.signed("POST", "/node/v1/events", body)
    assert (await node.send("POST", "/node/v1/events", body, "", headers)).status == 200
    office.clock.shift = 290
    office.store.transact(housekeeping.forget)
    again = await node.send("POST", "/node/v1/events", body, "", headers)
    assert (again.status, again.code) == (401, "signature-refused")
    office.clock.shift = 602
    office.store.transact(housekeeping.forget)
    assert office.store.transact(lambda t: t.run(select(func.count()).select_from(nonce)).scalar()) == 0
    assert (await node.send("POST", "/node/v1/events", body, "", headers)).code == "signature-refused"


async def test_replayed_many_times_at_once_is_taken_once(office: Office) -> None:
    node = await office.join()
    headers = node.signed("GET", "/node/v1/config")
    answers = await asyncio.gather(*(node.send("GET", "/node/v1/config", b"", "", headers) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 7


async def test_signature_covers_method_path_query_and_body_and_ends(office: Office) -> None:
    node = await office.join()
    path, body = "/node/v1/events", json.dumps(node.events()).encode()
    signed = node.signed("POST", path, body)
    forged = [
        await node.send("POST", "/node/v1/reconcile", body, "", signed),
        await node.send("POST", path, body, "x=1", node.signed("POST", path, body)),
        await node.send("POST", path, body + b" ", "", node.signed("POST", path, body)),
        await node.send("GET", "/node/v1/inbox", b"", "since=9", node.signed("GET", "/node/v1/inbox", b"", "since=0")),
        await node.send("POST", path, body, "", {**signed, "Signature": "pullprint=:" + "A" * 86 + "==:"}),
        await node.send("POST", path, body, "", {**signed, "Signature": ""}),
        await node.send("POST", path, body, "", node.signed("POST", path, body, now=office.clock.now() - 301)),
        await node.send("POST", path, body, "", node.signed("POST", path, body, now=office.clock.now() + 302)),
    ]
    assert [answer.code for answer in forged] == ["signature-refused"] * len(forged)
    assert (await node.send("POST", path, body, "", signed)).status == 200


async def test_stranger_with_a_good_signature_of_its_own_is_refused(office: Office) -> None:
    node, stranger = await office.join(), NodeClient(office)
    assert (await stranger.call("GET", "/node/v1/config")).code == "signature-refused"
    stranger.id = node.id
    assert (await stranger.call("GET", "/node/v1/config")).code == "signature-refused"


async def test_inbox_wakes_at_once_and_keeps_items_until_they_are_acknowledged(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    times = []
    for _ in range(8):
        held = await node.hold()
        parked = asyncio.create_task(node.poll_for("cancel"))
        await asyncio.sleep(0.1)
        begin = time.perf_counter()
        assert (await office.ask("DELETE", f"/api/v1/jobs/{held}", token=token)).status == 202
        assert (await parked)["job"] == held
        times.append(time.perf_counter() - begin)
    assert statistics.median(times) < 0.25, times
    last, node.since = node.since, node.since - 1
    repeated = await node.poll()
    assert [item["seq"] for item in repeated] == [last]
    extra = asyncio.create_task(node.poll())
    await asyncio.sleep(0.2)
    assert office.store.transact(lambda t: t.all(select(inbox))) == []
    await node.hold()
    await office.ask("DELETE", f"/api/v1/jobs/{await node.hold()}", token=token)
    assert [item["kind"] for item in await extra] == ["cancel"]


async def test_two_hundred_parked_polls_wake_quickly(office: Office) -> None:
    nodes = [await office.join() for _ in range(2)]
    await nodes[0].poll()  # that the other one has joined
    polls = [
        asyncio.create_task(nodes[i % 2].call("GET", "/node/v1/inbox", query=f"since={nodes[i % 2].since}"))
        for i in range(200)
    ]
    await asyncio.sleep(2.5)
    assert not any(poll.done() for poll in polls)
    begin = time.perf_counter()
    office.store.transact(sites.changed, "acme")
    answers = await asyncio.wait_for(asyncio.gather(*polls), 10)
    assert {answer.body["items"][0]["kind"] for answer in answers} == {"config"}
    assert time.perf_counter() - begin < 5


async def test_events_are_applied_once_in_order_whatever_is_repeated(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    report = node.job_report()
    held = report["job"]
    first = node.events(
        report, {"kind": "trace", "job": held, "seq": 1, "at": 1.0, "event": "stored", "text": "Stored."}
    )
    second = node.events({"kind": "state", "job": held, "state": "sending", "sentence": "Now."})
    path = "/node/v1/events"
    assert (await node.call("POST", path, first)).body == {"n": 2}
    assert (await node.call("POST", path, second)).body == {"n": 3}
    assert (await node.call("POST", path, first)).body == {"n": 3}
    both = {"epoch": node.epoch, "events": first["events"] + second["events"]}
    assert (await node.call("POST", path, both)).body == {"n": 3}
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body["state"] == "sending"
    backwards = {"epoch": node.epoch, "events": second["events"] + first["events"]}
    assert (await node.call("POST", path, backwards)).status == 400
    # A gap: the cloud was restored from a backup, and what is missing was acknowledged before.
    node.n = 10
    await node.report_state(held, "held")
    assert (await node.call("POST", path, {**second, "epoch": node.epoch})).body == {"n": 11}
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body["state"] == "held"
    # A rebuilt index counts from 1 again.
    node.epoch, node.n = "another", 0
    await node.report_state(held, "uncertain")
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body["state"] == "uncertain"


async def test_same_events_many_times_at_once_are_applied_once(office: Office) -> None:
    node = await office.join()
    report = node.job_report()
    steps = [
        {"kind": "trace", "job": report["job"], "seq": n, "at": 1.0, "event": "e", "text": "t"} for n in range(1, 20)
    ]
    batch = node.events(report, *steps)
    answers = await asyncio.gather(*(node.call("POST", "/node/v1/events", batch) for _ in range(5)))
    assert [answer.body for answer in answers] == [{"n": 20}] * 5
    assert office.store.transact(lambda t: t.run(select(func.count()).select_from(trace)).scalar()) == 19


async def test_node_cannot_report_on_the_jobs_of_another(office: Office) -> None:
    node, other, foreign = await office.join(), await office.join(), await office.join("globex")
    held, token = await node.hold(), await office.sign_in()
    for thief in (other, foreign):
        await thief.report({"kind": "state", "job": held, "state": "done", "sentence": "x"})
        await thief.report({"kind": "trace", "job": held, "seq": 1, "at": 1.0, "event": "e", "text": "t"})
    await other.report({**other.job_report(), "job": held, "title": "Mine now"})
    view = (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body
    assert (view["state"], view["title"]) == ("held", "Payslip")
    assert (await office.ask("GET", f"/api/v1/jobs/{held}/trace", token=token)).body == []
    # The same id in another organisation is another job.
    await foreign.report({**foreign.job_report(), "job": held, "owner": "gus@example.com", "title": "Theirs"})
    assert (await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body["title"] == "Payslip"


async def test_events_that_make_no_sense_are_passed_over_and_stop_nothing(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    good = node.job_report()
    await node.report(
        {**node.job_report(), "state": "levitating"},
        {"kind": "state", "job": "0" * 32, "state": "done", "sentence": ""},
        {**good, "title": "a\u202eb\x00c\n" + "d" * 200},
        {"kind": "state", "job": good["job"], "state": "levitating", "sentence": ""},
        {
            "kind": "trace",
            "job": good["job"],
            "seq": 1,
            "at": -1e300,
            "event": "e\n",
            "text": "\x1b[31m",
            "detail": {"\x00": "\x07"},
        },
        {"kind": "trace", "job": good["job"], "seq": 1, "at": 1.0, "event": "twice", "text": "t"},
    )
    views = (await office.ask("GET", "/api/v1/jobs", token=token)).body["jobs"]
    assert [view["title"][:6] for view in views] == ["a\ufffdb\ufffdc "]
    steps = (await office.ask("GET", f"/api/v1/jobs/{good['job']}/trace", token=token)).body
    assert [(step["event"], step["text"]) for step in steps] == [("e ", "\ufffd[31m")]


async def test_reconcile_tells_what_to_report_and_what_was_cancelled(office: Office) -> None:
    node, token = await office.join(), await office.sign_in()
    kept, cancelled, gone, moved = [await node.hold() for _ in range(4)]
    await office.ask("DELETE", f"/api/v1/jobs/{cancelled}", token=token)
    unknown = "f" * 32
    held = {kept: "held", cancelled: "held", moved: "uncertain", unknown: "held"}
    holdings = {
        "epoch": node.epoch,
        "version": "1",
        "key": json.loads(node.party_key.model_dump_json()),
        "last_event": 1_000,
        "jobs": [{"job": name, "state": state} for name, state in held.items()],
    }
    answer = (await node.call("POST", "/node/v1/reconcile", holdings)).body
    view = (await office.ask("GET", f"/api/v1/jobs/{gone}", token=token)).body
    assert view["state"] == "held", "a list may be older than a job, or a job's end be on its way"
    office.clock.shift = 61
    answer = (await node.call("POST", "/node/v1/reconcile", holdings)).body
    assert sorted(answer["report"]) == sorted([moved, unknown])
    assert answer["cancelled"] == [cancelled]
    assert abs(answer["now"] - office.clock.now()) < 5
    view = (await office.ask("GET", f"/api/v1/jobs/{gone}", token=token)).body
    assert (view["state"], view["sentence"]) == ("expired", "Its host does not hold it any more.")
    old_copy = (await node.call("POST", "/node/v1/reconcile", {**holdings, "last_event": 1})).body
    assert old_copy["restored"] and old_copy["cancelled"] == [], "the cloud has heard of more than one event"
    # What the node had still to say of it counts.
    await node.report_state(gone, "done")
    assert (await office.ask("GET", f"/api/v1/jobs/{gone}", token=token)).body["state"] == "done"


async def test_part_of_a_job_that_has_ended_is_forgotten(office: Office) -> None:
    node = await office.join()
    held = await node.hold()
    for state in ("sending", "done"):
        await node.report_state(held, state)
    slots = office.store.transact(lambda t: t.all(select(job.c.cloud_slot, job.c.claim_hash)))
    assert [tuple(row) for row in slots] == [(b"", None)]


@pytest.mark.parametrize("managed", [True, False])
async def test_owner_counts_when_a_managed_host_names_a_user_and_else_the_job_is_unclaimed(
    office: Office, managed: bool
) -> None:
    node, token = await office.join(managed=managed), await office.sign_in()
    mine, nobodys = node.job_report("Ada@example.com"), node.job_report("eve@example.com")
    await node.report(mine, nobodys)
    owners = {row.id: row.owner for row in office.store.transact(lambda t: t.all(select(job.c.id, job.c.owner)))}
    assert owners == {mine["job"]: "ada@example.com" if managed else "", nobodys["job"]: ""}
    listed = (await office.ask("GET", "/api/v1/jobs", token=token)).body["jobs"]
    assert [view["id"] for view in listed] == ([mine["job"]] if managed else [])
    assert office.store.transact(jobs.version, "acme", "ada@example.com") == (2 if managed else 1)
