"""Who gets in: join codes, and certificates for whom we say."""

import asyncio

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import update
from tests.cloud.office import NodeClient, Office

from pullprint.cloud import nodes
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import node as node_table
from pullprint.wire.jws import StatementRefused
from pullprint.wire.node import verify_config


async def test_certificate_names_the_node_and_not_what_its_request_claims(office: Office) -> None:
    node = NodeClient(office)
    welcome = (await node.enrol(office.join_code())).body
    certificate = x509.load_pem_x509_certificate(welcome["certificate"].encode())
    authority = x509.load_pem_x509_certificate(welcome["authority"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [node.id]
    assert [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [node.id]
    certificate.verify_directly_issued_by(authority)
    assert isinstance(authority.public_key(), ec.EllipticCurvePublicKey)
    assert welcome["node"] == node.id and welcome["site"] == "hq"


async def test_code_works_once_and_answers_its_own_node_again(office: Office) -> None:
    code = office.join_code()
    first, thief = NodeClient(office), NodeClient(office)
    assert (await first.enrol(code.lower().replace("-", " "))).status == 200
    again = await first.enrol(code)
    assert (again.status, again.body["node"]) == (200, first.id)
    refused = await thief.enrol(code)
    assert (refused.status, refused.code) == (403, "code-refused")
    office.clock.shift = 31 * 60
    assert (await first.enrol(code)).code == "code-refused"


async def test_one_code_used_by_two_at_once_makes_one_node(office: Office) -> None:
    code = office.join_code()
    answers = await asyncio.gather(*(NodeClient(office).enrol(code) for _ in range(6)))
    assert sorted(a.status for a in answers) == [200, 403, 403, 403, 403, 403]


async def test_wrong_code_expired_code_and_stolen_identity_are_refused(office: Office) -> None:
    assert (await NodeClient(office).enrol("AAAA-AAAA")).code == "code-refused"
    assert (await NodeClient(office).enrol("x")).code == "code-refused"
    code = office.join_code()
    office.clock.shift = 31 * 60
    assert (await NodeClient(office).enrol(code)).code == "code-refused"
    office.clock.shift = 0
    victim, thief = NodeClient(office), NodeClient(office)
    thief.identity = victim.identity
    assert (await thief.enrol(code)).code == "signature-refused"
    thief.id = victim.id
    assert (await thief.enrol(code)).code == "signature-refused"


async def test_request_with_a_forged_csr_is_refused_and_leaves_the_code_unused(office: Office) -> None:
    code, node = office.join_code(), NodeClient(office)
    good = node.enrolment(code)
    lines = good["csr"].splitlines()
    for csr in ("", "nonsense", "\n".join([*lines[:-2], lines[-2][:-8] + "AAAAAAA=", lines[-1]])):
        answer = await node.call("POST", "/node/v1/enrol", {**good, "csr": csr})
        assert answer.status == 400
    assert (await node.enrol(code)).status == 200


async def test_guessing_join_codes_is_throttled(office: Office) -> None:
    statuses = [(await NodeClient(office).enrol("AAAA-AAAA")).status for _ in range(32)]
    assert statuses[:30] == [403] * 30 and statuses[30:] == [429, 429]


async def test_node_cannot_move_to_another_organisation_with_its_key(office: Office) -> None:
    node = await office.join()
    assert (await node.enrol(office.join_code("globex"))).code == "node-refused"
    assert (await node.enrol(office.join_code())).status == 200


async def test_a_name_means_the_host_that_is_not_shut_out_yet(office: Office) -> None:
    old, new = await office.join(), await office.join()
    office.store.transact(_rename, [old.id, new.id], "laptop")
    with pytest.raises(nodes.SeveralNodes, match=new.id[:8]):
        office.store.transact(nodes.revoke, "acme", "laptop")
    office.store.transact(nodes.revoke, "acme", old.id[:10])
    assert office.store.transact(nodes.revoke, "acme", "laptop").id == new.id
    assert all(line.revoked for line in office.store.transact(nodes.lines, "acme") if line.name == "laptop")


def _rename(t: Transaction, ids: list[str], name: str) -> None:
    t.run(update(node_table).where(node_table.c.id.in_(ids)).values(name=name))


async def test_revoked_node_is_refused_everywhere_and_cannot_come_back(office: Office) -> None:
    node = await office.join()
    parked = asyncio.create_task(node.call("GET", "/node/v1/inbox", query="since=0"))
    await asyncio.sleep(0.3)
    office.store.transact(nodes.revoke, "acme", node.name)
    for method, path in (
        ("GET", "/node/v1/config"),
        ("GET", "/node/v1/inbox"),
        ("POST", "/node/v1/events"),
        ("POST", "/node/v1/reconcile"),
        ("POST", "/node/v1/releases"),
    ):
        assert (await node.call(method, path)).code == "signature-refused"
    assert (await node.enrol(office.join_code())).code == "node-refused"
    async with asyncio.timeout(5):
        assert (await parked).code == "signature-refused"


async def test_config_is_signed_for_one_node_and_tells_unmanaged_hosts_of_no_users(office: Office) -> None:
    node, guest = await office.join(), await office.join(managed=False)
    assert node.config is not None and guest.config is not None
    assert node.config.users == ("ada@example.com",)
    assert node.config.owner_rule == "{user}@example.com"
    assert [printer.name for printer in node.config.printers] == ["Foyer"]
    assert node.config.public_url == "https://print.example.com"
    assert (guest.config.users, guest.config.owner_rule) == ((), "")
    token = (await node.call("GET", "/node/v1/config")).body["config"]
    with pytest.raises(StatementRefused):
        verify_config(token, node.pin, guest.id)
