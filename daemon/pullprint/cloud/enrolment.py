"""How a host becomes a node: a join code, once, within minutes.

Codes are kept as hashes. The same key with the same code is answered again as long as the code lasts, because an
answer can be lost on its way; nobody else gets anything from a used code.
"""

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, insert, select, update

from pullprint.base.errors import BadRequest, NotFound, PullprintError
from pullprint.base.text import printable
from pullprint.cloud import organisations, sites, tls
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import join_code, node, organisation, site
from pullprint.model.owner import new_code, tidy_code
from pullprint.wire import OLDEST, PROTOCOL, check_protocol, signature
from pullprint.wire.node import Certificate, CertificateAsk, Enrolment, Welcome

MINUTES_LIMIT = 24 * 60


class CodeRefused(PullprintError):
    """The join code is wrong, used or too old. Nothing was changed; ask your administrator for a new one."""

    code = "code-refused"
    http_status = 403


class NodeRefused(PullprintError):
    """This host cannot join: {reason}. Jobs held on it are safe."""

    code = "node-refused"
    http_status = 403


def new_join_code(t: Transaction, organisation_id: str, site_id: str, minutes: int, *, managed: bool) -> str:
    """A code with which one host may join the site. Raises BadRequest, NotFound."""
    if not 1 <= minutes <= MINUTES_LIMIT:
        raise BadRequest(reason="a join code lasts for at least one minute and at most a day")
    organisations.check_exists(t, organisation_id)
    if t.one(select(site.c.id).where(site.c.organisation == organisation_id, site.c.id == site_id)) is None:
        raise NotFound(what=f"site as {site_id} in {organisation_id}")
    code = new_code()
    values = {
        "code_hash": _hash(code),
        "organisation": organisation_id,
        "site": site_id,
        "managed": managed,
        "created": t.now,
        "expires": t.now + minutes * 60,
    }
    t.run(insert(join_code), values)
    return code


def enrol(t: Transaction, request: Enrolment) -> Welcome:
    """Make (or answer again) the node that *request* describes, whose signature has been checked.

    Raises CodeRefused, NodeRefused, BadRequest, ProtocolRefused.
    """
    check_protocol(request.protocol, OLDEST, PROTOCOL)
    node_id = signature.node_id(request.identity)
    code = t.one(select(join_code).where(join_code.c.code_hash == _hash(tidy_code(request.code))).with_for_update())
    if code is None or code.expires <= t.now or code.node not in ("", node_id):
        raise CodeRefused
    if len(request.key.public) != 32:
        raise BadRequest(reason="the node's key is not an X25519 key")
    known = t.one(select(node.c.organisation, node.c.site, node.c.revoked).where(node.c.id == node_id))
    if known is not None and known.revoked is not None:
        raise NodeRefused(reason="it was shut out by an administrator, and must make itself new keys")
    if known is not None and (known.organisation, known.site) != (code.organisation, code.site):
        raise NodeRefused(reason="its key belongs to another organisation or site, and it must make itself new ones")
    owner = t.one(select(organisation).where(organisation.c.id == code.organisation))
    assert owner is not None
    values = {
        "name": printable(request.name, 255),
        "managed": code.managed,
        "key_id": request.key.key,
        "key_public": request.key.public,
        "key_expires": request.key.expires,
        "version": printable(request.version, 255),
        "seen": t.now,
    }
    certificate = tls.certify_node(tls.Pair(owner.ca_certificate, owner.ca_key), request.csr, node_id, t.now)
    sites.lock(t, code.organisation, code.site)
    if known is None:
        sites.changed(t, code.organisation, code.site)  # to its peers; it asks for its own configuration anyway
        fixed = {"id": node_id, "organisation": code.organisation, "site": code.site, "identity": request.identity}
        t.run(insert(node), {**fixed, **values, "joined": t.now})
    else:
        t.run(update(node).where(node.c.id == node_id).values(values))
    t.run(update(join_code).where(join_code.c.code_hash == code.code_hash).values(node=node_id))
    return Welcome(
        node=node_id,
        organisation=code.organisation,
        site=code.site,
        order_pin=Ed25519PrivateKey.from_private_bytes(owner.order_key).public_key().public_bytes_raw(),
        certificate=certificate,
        authority=owner.ca_certificate,
    )


def renew_certificate(t: Transaction, sender: Node, request: CertificateAsk) -> Certificate:
    """Another certificate for a node of the mesh; its name is the node's id, as ever. Raises BadRequest."""
    ca = t.one(
        select(organisation.c.ca_certificate, organisation.c.ca_key).where(organisation.c.id == sender.organisation)
    )
    assert ca is not None
    pair = tls.Pair(ca.ca_certificate, ca.ca_key)
    return Certificate(certificate=tls.certify_node(pair, request.csr, sender.id, t.now), authority=pair.certificate)


def forget_codes(t: Transaction) -> None:
    """Drop codes that have expired."""
    t.run(delete(join_code).where(join_code.c.expires < t.now))


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()
