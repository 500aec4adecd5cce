"""What the cloud is to a mesh: who belongs to it, who holds what, and whose word counts."""

import asyncio
import secrets
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select, update
from tests.cloud.office import NodeClient, Office, parts_bytes
from tests.cloud.test_orders import ask, release

from pullprint.cloud import nodes, reports, rosters
from pullprint.cloud.tables import holder, inbox, job, node, trace
from pullprint.cloud.tables import release as release_table
from pullprint.model.placement import Role
from pullprint.vault import parts
from pullprint.wire.mesh import KeySlot

HERE = ("127.0.0.1:9264", "[::1]:9264")


async def three(office: Office) -> tuple[NodeClient, NodeClient, NodeClient]:
    """Three hosts of a site, in a mesh."""
    joined = [await office.join(name=name) for name in ("desk-1", "desk-2", "desk-3")]
    for one in joined:
        await one.reconcile(endpoints=HERE, room=1 << 30)
    return joined[0], joined[1], joined[2]


def holders_of(office: Office, job_id: str) -> set[str]:
    return set(office.store.transact(lambda t: t.run(select(holder.c.node).where(holder.c.job == job_id)).scalars()))


def row_of(office: Office, job_id: str) -> Any:
    return office.store.transact(lambda t: t.one(select(job).where(job.c.id == job_id)))


async def view(office: Office, job_id: str) -> dict[str, Any]:
    return dict((await office.ask("GET", f"/api/v1/jobs/{job_id}", token=await office.sign_in())).body)


async def test_roster_is_signed_and_names_the_nodes_of_the_site_alone(office: Office) -> None:
    first, second = await office.join(name="one"), await office.join(name="two")
    await office.join("globex", name="theirs")
    await first.reconcile(role="super", endpoints=HERE)
    before = await second.fetch_roster()
    assert {(peer.name, peer.role, peer.endpoints) for peer in before.peers} == {
        ("one", Role.SUPER, HERE),
        ("two", Role.NORMAL, ()),
    }
    assert {peer.node: peer.identity for peer in before.peers} == {n.id: n.identity for n in (first, second)}
    await first.reconcile(role="super", endpoints=HERE)
    assert (await second.fetch_roster()).revision == before.revision, "nothing has changed"
    await first.reconcile(role="emperor", endpoints=[*HERE, "printer.example.com:80", "0.0.0.0:1", "127.0.0.1:0", "x"])
    after = await second.fetch_roster()
    one = next(peer for peer in after.peers if peer.node == first.id)
    assert (one.role, one.endpoints) == (Role.NORMAL, HERE) and after.revision > before.revision


async def test_peers_are_told_at_once_of_a_new_node_and_of_one_that_is_shut_out(office: Office) -> None:
    first = await office.join()
    parked = asyncio.create_task(first.poll_for("config"))
    second = await office.join()
    await parked
    known = await first.fetch_roster()
    assert {peer.node for peer in known.peers} == {first.id, second.id}
    parked = asyncio.create_task(first.poll_for("config"))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(5):
        await asyncio.to_thread(office.store.transact, nodes.revoke, "acme", second.id)
        await parked
        roster = await first.fetch_roster()
    assert roster.revoked == (second.id,) and [peer.node for peer in roster.peers] == [first.id]
    assert roster.revision > known.revision
    assert (await second.call("GET", "/node/v1/config")).code == "signature-refused"


async def test_two_that_change_at_once_do_not_wait_for_each_other(office: Office) -> None:
    hosts = await three(office)
    for port in range(5):
        await asyncio.gather(*(host.reconcile(endpoints=[f"127.0.0.1:{9_000 + port}"]) for host in hosts))
    roster = await hosts[0].fetch_roster()
    assert {peer.endpoints for peer in roster.peers} == {("127.0.0.1:9004",)}


async def test_addresses_of_a_node_are_addresses() -> None:
    told = ["127.0.0.1:9264", "[fe80::1]:1", "[::]:9264", "1.2.3:80", "1.2.3.4:99999", "[1.2.3.4]:80", "ff02::1:80"]
    assert rosters.addresses(told) == ["127.0.0.1:9264", "[fe80::1]:1", "[1.2.3.4]:80"]
    assert len(rosters.addresses(f"10.0.0.{n}:1" for n in range(20))) == 8


async def test_candidates_are_awake_have_room_and_are_somebody_else(office: Office) -> None:
    first, second, third = await three(office)
    asleep, silent, full, laptop, shut = [await office.join() for _ in range(5)]
    for one in (asleep, full, laptop, shut):
        role = "client" if one is laptop else "super" if one is asleep else "normal"
        await one.reconcile(endpoints=HERE, room=10 if one is full else 1 << 30, role=role)
    await (await office.join("globex")).reconcile(endpoints=HERE, room=1 << 30)
    office.store.transact(nodes.revoke, "acme", shut.id)
    office.store.transact(lambda t: t.run(update(node).where(node.c.id == asleep.id).values(seen=t.now - 100)))
    await second.hold()
    answer = await first.call("GET", "/node/v1/candidates", query="size=1000")
    assert answer.body == {"nodes": [third.id, second.id, asleep.id]}, "super, but asleep"
    assert silent.id not in answer.body["nodes"]
    assert (await first.call("GET", "/node/v1/candidates", query="size=9999999999")).body == {"nodes": []}
    assert (await first.call("GET", "/node/v1/candidates", query="size=-1")).status == 400


async def test_job_that_was_placed_is_shown_with_its_copies_and_released_with_its_new_part(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(third, second)
    assert holders_of(office, held) == {first.id, second.id, third.id}
    shown = await view(office, held)
    assert (shown["copies"], shown["awake"], shown["holders"]) == (3, 3, ["desk-1", "desk-2", "desk-3"])
    office.store.transact(lambda t: t.run(update(node).where(node.c.id == second.id).values(seen=t.now - 100)))
    token = await office.sign_in()
    listed = (await office.ask("GET", "/api/v1/jobs", token=token)).body["jobs"]
    assert [(one["copies"], one["awake"]) for one in listed] == [(3, 2)]
    status, item = await ask(third, held, office.printer)
    assert status == 200
    order, part = third.open(item)
    assert (order.aud, part) == (third.id, first.parts[f"{held}/2"])
    await third.report_state(held, "done", ballot=1, order=order.jti)
    ended = (await office.ask("GET", "/api/v1/history", token=token)).body["jobs"]
    assert [(one["copies"], one["holders"][0]) for one in ended] == [(0, "desk-1")]


async def test_key_table_is_believed_only_of_those_who_may_make_it(office: Office) -> None:
    first, second, third = await three(office)
    foreign, stranger = await office.join("globex"), NodeClient(office)
    stranger.config = first.config
    held = await first.hold()
    other = await first.hold()
    report = first.job_report()
    again = {**report, "job": held, "generation": 2}
    part = KeySlot(party="cloud", key="k", sealed=bytes(parts.SLOT_SIZE))
    bad = {
        "not a token": "x.y.z",
        "another job": first.table(other, (first, second)),
        "a holder that is not of the site": first.table(held, (first, foreign)),
        "a holder twice": first.table(held, (first, first)),
        "by a stranger": stranger.table(held, (first, second)),
        "by one who is not the origin": second.table(held, (first, second)),
        "without the cloud": first.table(held, (first, second), slots=(part.model_copy(update={"party": second.id}),)),
        "a part of the wrong length": first.table(
            held, (first, second), slots=(part.model_copy(update={"sealed": b"x"}),)
        ),
    }
    for what, table in bad.items():
        await first.report({**again, "table": table})
        await second.report({**again, "table": table, "title": "Mine"})
        assert (holders_of(office, held), row_of(office, held).generation) == ({first.id}, 1), what
    await third.report({**again, "table": first.table(held, (first, second))})
    assert holders_of(office, held) == {first.id}, "it is none of the third's business"
    assert (await view(office, held))["title"] == "Payslip"
    await second.report({**again, "table": first.table(held, (first, second)), "title": "Mine", "owner": "bob@x"})
    assert holders_of(office, held) == {first.id, second.id}
    assert (row_of(office, held).title, row_of(office, held).owner) == ("Payslip", "ada@example.com")
    assert (await ask(first, held, office.printer))[0] == 200


async def test_of_two_tables_the_later_generation_counts_and_an_old_one_changes_nothing(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(second)
    again = {**first.job_report(), "job": held}
    later = second.table(held, (second, third), generation=3)
    await third.report({**again, "generation": 3, "table": later})
    assert (holders_of(office, held), row_of(office, held).generation) == ({second.id, third.id}, 3)
    await first.report({**again, "generation": 2, "table": first.table(held, (first, second))})
    await first.report({**again, "generation": 1})
    assert (holders_of(office, held), row_of(office, held).generation) == ({second.id, third.id}, 3)
    await third.report({**again, "generation": 4, "table": first.table(held, (first,), generation=4)})
    assert row_of(office, held).generation == 4, "its origin may"
    status, _ = await ask(second, held, office.printer)
    assert status == 404, "it is no holder any more"


async def test_job_whose_origin_the_cloud_never_heard_of_it_from_is_known_by_a_holder(office: Office) -> None:
    first, second, third = await three(office)
    report = first.job_report()
    held = report["job"]
    await second.report({**report, "generation": 2, "table": first.table(held, (first, second, third))})
    row = row_of(office, held)
    assert (row.node, row.owner, row.generation) == (first.id, "ada@example.com", 2)
    assert holders_of(office, held) == {first.id, second.id, third.id}
    await first.report(report)
    assert row_of(office, held).generation == 2
    guest = await office.join(managed=False)
    theirs = first.job_report()
    table = first.table(theirs["job"], (first, guest))
    await guest.report({**theirs, "generation": 2, "table": table})
    assert row_of(office, theirs["job"]).owner == "", "a host that is not managed says whose its own accounts' jobs are"


async def test_both_report_a_new_job_at_once(office: Office) -> None:
    first, second, third = await three(office)
    for _ in range(5):
        report = first.job_report()
        held = report["job"]
        placed = {**report, "generation": 2, "table": first.table(held, (first, second, third))}
        await asyncio.gather(first.report(report, placed), second.report(placed), third.report(placed))
        assert (holders_of(office, held), row_of(office, held).generation) == ({first.id, second.id, third.id}, 2)
        assert row_of(office, held).node == first.id


async def test_traces_and_states_of_all_holders_count_and_of_nobody_else(office: Office) -> None:
    first, second, third = await three(office)
    held, step = await first.place(second), {"kind": "trace", "seq": 1, "at": 1.0, "event": "e", "text": "t"}
    for one in (first, second, third):
        await one.report({**step, "job": held})
    sources = office.store.transact(lambda t: t.run(select(trace.c.source).where(trace.c.job == held)).scalars().all())
    assert set(sources) == {first.id, second.id}
    await third.report_state(held, "done", ballot=1)
    assert row_of(office, held).state == "held"
    await second.report_state(held, "sending", ballot=3)
    await first.report_state(held, "committed", ballot=2)
    await first.report_state(held, "held")
    await first.report({**first.job_report(), "job": held, "generation": 2, "ballot": 3})
    assert (row_of(office, held).state, row_of(office, held).state_ballot) == ("sending", 3)
    await first.report_state(held, "held", ballot=2, nothing_sent=True)
    await second.report_state(held, "uncertain", ballot=3)
    assert (await view(office, held))["doubtful"] == [3], "of the second it is proven"
    await first.report_state(held, "done", ballot=2)
    assert row_of(office, held).state == "done", "an end counts from whomever it comes"


async def test_any_holder_says_that_a_deleted_job_is_deleted(office: Office) -> None:
    first, second, _ = await three(office)
    held, token = await first.place(second), await office.sign_in()
    assert (await office.ask("DELETE", f"/api/v1/jobs/{held}", token=token)).status == 202
    assert (await first.poll_for("cancel"))["job"] == (await second.poll_for("cancel"))["job"] == held
    await second.report_state(held, "cancelled")
    assert (row_of(office, held).state, row_of(office, held).cloud_slot) == ("cancelled", b"")


async def test_what_is_deleted_in_a_terminal_is_deleted_at_every_holder(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(second)
    await first.report_state(held, "cancelled")
    assert (await second.poll_for("cancel"))["job"] == held
    await second.report_state(held, "cancelled")
    await third.report_state(await third.place(first), "expired")
    kinds = office.store.transact(lambda t: t.run(select(inbox.c.node).where(inbox.c.kind == "cancel")).scalars().all())
    assert set(kinds) <= {second.id}, "nobody is told what it said itself, and an expiry everybody sees by itself"


async def test_holder_that_lacks_a_job_is_one_no_more_and_the_job_is_gone_with_the_last(office: Office) -> None:
    first, second, _ = await three(office)
    held = await first.place(second)
    generations = {held: 2}
    await second.reconcile()
    office.clock.shift = reports.MISSING_FOR + 1
    await first.reconcile({held: "held"}, generations=generations)
    assert (await second.reconcile())["cancelled"] == []
    assert holders_of(office, held) == {first.id} and row_of(office, held).state == "held"
    steps = (await office.ask("GET", f"/api/v1/jobs/{held}/trace", token=await office.sign_in())).body
    assert [step["text"] for step in steps] == ["desk-2 does not hold it any more."]
    # It was there all the same: it is asked what it knows, and holds it again.
    assert (await second.reconcile({held: "held"}, generations=generations))["report"] == [held]
    table = first.table(held, (first, second))
    await second.report({**first.job_report(), "job": held, "generation": 2, "table": table})
    assert holders_of(office, held) == {first.id, second.id}
    for one in (first, second):
        await one.reconcile()
    office.clock.shift += reports.MISSING_FOR + 1
    await first.reconcile()
    assert row_of(office, held).ended is None
    await second.reconcile()
    assert row_of(office, held).state == "expired"


async def test_copy_of_an_old_generation_is_left_alone_while_its_job_lives(office: Office) -> None:
    first, second, third = await three(office)
    held = await first.place(second)
    new = secrets.token_hex(16)
    lists = {held: "held", new: "held"}
    assert await third.reconcile(lists) | {"now": 0, "version": ""} == {
        "report": [new], "cancelled": [], "restored": False, "now": 0, "version": "",
    }  # fmt: skip
    assert (await third.reconcile(lists, generations={held: 3}))["report"] == [held, new]
    await first.report_state(held, "done", ballot=1)
    assert (await third.reconcile(lists))["cancelled"] == [held]
    assert (await second.reconcile({held: "held"}, generations={held: 2}))["cancelled"] == [held]


async def test_part_for_placement_goes_to_a_holder_of_a_held_job_only(office: Office) -> None:
    first, second, _ = await three(office)
    held, token = await first.hold(), await office.sign_in()
    answer = await first.call("POST", "/node/v1/parts", {"job": held, "generation": 1})
    assert answer.status == 200 and answer.body["order"] == "placement-1"
    sealed = parts_bytes(answer.body["part"])
    opened = parts.open_for_release(sealed, first.private, job=held, order="placement-1", key="day-1")
    assert opened == first.parts[held]
    with pytest.raises(parts.PartRefused):
        parts.open_for_release(sealed, first.private, job=held, order="placement-2", key="day-1")
    steps = (await office.ask("GET", f"/api/v1/jobs/{held}/trace", token=token)).body
    assert [step["event"] for step in steps] == ["placement-part"]
    assert (await second.call("POST", "/node/v1/parts", {"job": held, "generation": 1})).code == "not-found"
    assert (await first.call("POST", "/node/v1/parts", {"job": held, "generation": 2})).code == "bad-request"
    for state in ("sending", "uncertain", "done"):
        await first.report_state(held, state, ballot=1)
        assert (await first.call("POST", "/node/v1/parts", {"job": held, "generation": 1})).code == "wrong-state"
    deleted = await first.hold()
    await office.ask("DELETE", f"/api/v1/jobs/{deleted}", token=token)
    assert (await first.call("POST", "/node/v1/parts", {"job": deleted, "generation": 1})).code == "wrong-state"


async def test_certificate_is_renewed_under_the_nodes_own_id_for_three_months(office: Office) -> None:
    first = await office.join()
    answer = await first.call("POST", "/node/v1/certificate", {"csr": first.enrolment("x")["csr"]})
    assert answer.status == 200
    made = x509.load_pem_x509_certificate(answer.body["certificate"].encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [first.id]
    assert 89 < (made.not_valid_after_utc - made.not_valid_before_utc).days < 92
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.body["authority"].encode()))
    weak = ec.generate_private_key(ec.SECP384R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(weak, hashes.SHA256())
    refused = await first.call(
        "POST", "/node/v1/certificate", {"csr": csr.public_bytes(serialization.Encoding.PEM).decode()}
    )
    assert refused.code == "bad-request"


async def test_order_goes_to_a_super_node_that_is_there_then_to_the_origin(office: Office) -> None:
    first, second, third = await three(office)
    await third.reconcile(endpoints=HERE, role="super")
    token = await office.sign_in()

    async def goes_to(seen: dict[str, float]) -> str:
        held = await first.place(second, third)
        for name, ago in seen.items():
            row = {"one": first, "two": second, "three": third}[name]
            values = {"seen": office.clock.now() - ago}
            office.store.transact(
                lambda t, row=row, values=values: t.run(update(node).where(node.c.id == row.id).values(values))
            )
        assert (await release(office, token, held))[0] == 202
        return str(
            office.store.transact(
                lambda t: t.run(select(release_table.c.node).where(release_table.c.job == held)).scalar()
            )
        )

    assert await goes_to({"one": 0, "two": 0, "three": 0}) == third.id
    assert await goes_to({"one": 0, "two": 0, "three": 30}) == first.id
    assert await goes_to({"one": 30, "two": 20, "three": 40}) == second.id
    await third.poll()
    parked = asyncio.create_task(third.poll_for("order"))
    await asyncio.sleep(0.3)
    assert await goes_to({"one": 30, "two": 20, "three": 40}) == third.id, "its poll is parked"
    await parked


async def test_everything_at_once_makes_nobody_wait_for_each_other(office: Office) -> None:
    """Each of these takes rows of jobs, nodes and users that the others want, too."""
    hosts, token = await three(office), await office.sign_in()
    held = [await hosts[n % 3].place(hosts[(n + 1) % 3], hosts[(n + 2) % 3]) for n in range(6)]
    listed, generations = dict.fromkeys(held, "held"), dict.fromkeys(held, 2)

    async def work(host: NodeClient, backwards: bool) -> None:
        for n in range(4):
            mine = sorted(held, reverse=backwards)
            await host.report(
                *({"kind": "trace", "job": j, "seq": n, "at": 1.0, "event": "e", "text": "t"} for j in mine),
                *({"kind": "state", "job": j, "state": "held", "sentence": "x", "ballot": n} for j in mine),
            )
            endpoints = [f"127.0.0.1:{9_000 + n}"]
            await host.reconcile(listed, generations=generations, endpoints=endpoints, room=1 << 30)

    async def releases() -> None:
        for n in range(4):
            for job_id in held:
                status, _ = await release(office, token, job_id)
                assert status in (202, 409)
            await office.ask("DELETE", f"/api/v1/jobs/{held[n]}", token=token)

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(host, host is hosts[1]) for host in hosts), releases())
