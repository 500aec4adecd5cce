"""Nodes: who they are, how a request proves to come from one, and how one is shut out."""

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, func, select, update

from pullprint.base.errors import NotFound, PullprintError
from pullprint.cloud import organisations, sites
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import inbox, node, nonce
from pullprint.wire import signature
from pullprint.wire.node import PARK, PartyKey
from pullprint.wire.signature import Claim, SignatureRefused
from pullprint.wire.versions import beside

AWAKE = 1.2 * PARK
"""Seconds since a node was last seen within which it is awake: a poll is shorter."""

_FIND = select(
    node.c.id, node.c.organisation, node.c.site, node.c.name, node.c.managed, node.c.identity, node.c.revoked
).where(node.c.id == bindparam("node"))
_SEEN = update(node).where(node.c.id == bindparam("to")).values(seen=bindparam("now"))


class SeveralNodes(PullprintError):
    """{which} could be any of these hosts: {ids}. Nothing was changed; say which, by the beginning of its id."""

    code = "several-nodes"


@dataclass(frozen=True, slots=True)
class Node:
    """A node that has proven itself."""

    id: str
    organisation: str
    site: str
    name: str
    managed: bool


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node, in an admin's list."""

    id: str
    site: str
    name: str
    managed: bool
    role: str
    """A word of `model.placement.Role`."""
    awake: bool
    version: str
    """What it ran when it last connected."""
    behind: str
    """How that stands to what this cloud runs; see `wire.versions.beside`."""
    joined: float
    seen: float
    revoked: float | None


@dataclass(frozen=True, slots=True)
class Request:
    """What a signature covers."""

    method: str
    path: str
    query: str
    body: bytes
    digest: str
    """The Content-Digest header."""


def authenticate(t: Transaction, claim: Claim, request: Request) -> Node:
    """The node whose request this is; its nonce is used up. Raises SignatureRefused."""
    row = t.one(_FIND, {"node": claim.node})
    if row is None:
        raise SignatureRefused(reason="the cloud does not know it")
    if row.revoked is not None:
        raise SignatureRefused(reason="it was shut out by an administrator")
    _verify(t, claim, bytes(row.identity), request)
    t.run(_SEEN, {"to": claim.node, "now": t.now})
    return Node(row.id, row.organisation, row.site, row.name, row.managed)


def authenticate_new(t: Transaction, claim: Claim, identity: bytes, request: Request) -> None:
    """Check that whoever enrols has the key *identity*. Raises SignatureRefused."""
    if len(identity) != 32:
        raise SignatureRefused(reason="its key is not an Ed25519 key")
    _verify(t, claim, identity, request)


def is_known(t: Transaction, node_id: str) -> bool:
    """Whether a request that says it is from *node_id* is worth reading at length."""
    return t.one(select(node.c.id).where(node.c.id == node_id, node.c.revoked.is_(None))) is not None


def note_key(t: Transaction, node_id: str, key: PartyKey, version: str) -> None:
    """The node says to which key its parts are sealed, and which software it runs."""
    t.run(
        update(node)
        .where(node.c.id == node_id)
        .values(key_id=key.key, key_public=key.public, key_expires=key.expires, version=version)
    )


def lines(t: Transaction, organisation_id: str) -> list[NodeLine]:
    """An organisation's nodes. Raises NotFound."""
    organisations.check_exists(t, organisation_id)
    query = select(
        node.c.id,
        node.c.site,
        node.c.name,
        node.c.managed,
        node.c.role,
        node.c.version,
        node.c.joined,
        node.c.seen,
        node.c.revoked,
    ).where(node.c.organisation == organisation_id)
    rows = t.all(query.order_by(node.c.site, node.c.name, node.c.id))
    return [NodeLine(**row._mapping, behind=beside(row.version), awake=is_awake(t, row)) for row in rows]


def is_awake(t: Transaction, row: AnyRow) -> bool:
    """Whether the node, whose ``seen`` and ``revoked`` *row* has, is there."""
    return row.revoked is None and bool(row.seen >= t.now - AWAKE)


def connected(t: Transaction) -> tuple[int, int]:
    """How many nodes there are that are not shut out, and how many of them are connected."""
    there = select(func.count(), func.count().filter(node.c.seen > t.now - 2 * PARK)).where(node.c.revoked.is_(None))
    row = t.one(there)
    assert row is not None
    return row[0], row[1]


def revoke(t: Transaction, organisation_id: str, which: str) -> NodeLine:
    """Shut out the node with this id, beginning of an id, or name; one that is shut out already only if no other is
    meant. Its peers are told at once. Raises NotFound, SeveralNodes."""
    found = [line for line in lines(t, organisation_id) if line.name == which or line.id.startswith(which)]
    found = [line for line in found if not line.revoked] or found[:1]
    if not found:
        raise NotFound(what=f"node as {which}")
    if len(found) > 1:
        raise SeveralNodes(which=which, ids=", ".join(line.id[:8] for line in found))
    sites.lock(t, organisation_id, found[0].site)
    t.run(update(node).where(node.c.id == found[0].id, node.c.revoked.is_(None)).values(revoked=t.now))
    t.run(delete(inbox).where(inbox.c.node == found[0].id))
    sites.changed(t, organisation_id, found[0].site)
    return found[0]


def forget_nonces(t: Transaction) -> None:
    """Drop nonces whose requests are too old to be sent again."""
    # A request may be dated WINDOW ahead, and is good until WINDOW after that.
    t.run(delete(nonce).where(nonce.c.used < t.now - 2 * signature.WINDOW - 1))


def _verify(t: Transaction, claim: Claim, public: bytes, request: Request) -> None:
    signature.verify(claim, public, request.method, request.path, request.query, request.body, request.digest, t.now)
    values = {"node": claim.node, "nonce": claim.nonce, "used": t.now}
    if not t.add(nonce, values):
        raise SignatureRefused(reason="the same request was sent before")
