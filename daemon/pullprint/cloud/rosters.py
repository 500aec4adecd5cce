"""Who belongs to a site's mesh: the signed roster, and what nodes say of how their peers reach them."""

import ipaddress
import json
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import bindparam, func, select, update

from pullprint.base.errors import NotFound
from pullprint.cloud import sites
from pullprint.cloud.nodes import AWAKE, Node
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import holder, job, node, organisation, site
from pullprint.model.placement import Candidate, Role, rank
from pullprint.wire.mesh import ENDPOINTS_LIMIT, PEERS_LIMIT, Endpoint, Peer, Roster, sign_roster
from pullprint.wire.node import Candidates, Holdings

CANDIDATES = 64
"""In one answer."""

_REVISION = (
    select(site.c.revision, organisation.c.order_key)
    .join(organisation, organisation.c.id == site.c.organisation)
    .where(site.c.organisation == bindparam("of"), site.c.id == bindparam("site"))
)

_endpoint: TypeAdapter[str] = TypeAdapter(Endpoint)


Kept = dict[tuple[str, str], tuple[int, bytes, str]]
"""By organisation and site: a revision, the key that it is signed with, and the roster, which all of a site ask for at
once. Whatever changes in a roster raises the site's revision."""


def signed(t: Transaction, organisation_id: str, site_id: str, kept: Kept) -> str:
    """The roster of a site, as JWS: its nodes, and those that were shut out last; *kept* is looked at first, and has it
    then. Raises NotFound."""
    row = t.one(_REVISION, {"of": organisation_id, "site": site_id})
    if row is None:
        raise NotFound(what="site")
    key, (revision, order_key) = (organisation_id, site_id), (row.revision, bytes(row.order_key))
    found = kept.get(key)
    if found is None or found[:2] != (revision, order_key):
        found = kept[key] = revision, order_key, _signed(t, organisation_id, site_id, revision, order_key)
    return found[2]


def _signed(t: Transaction, organisation_id: str, site_id: str, revision: int, order_key: bytes) -> str:
    here = (node.c.organisation == organisation_id, node.c.site == site_id)
    shown = (node.c.id, node.c.name, node.c.identity, node.c.role, node.c.endpoints)
    peers = t.all(select(*shown).where(*here, node.c.revoked.is_(None)).order_by(node.c.seen.desc()).limit(PEERS_LIMIT))
    revoked = select(node.c.id).where(*here, node.c.revoked.is_not(None)).order_by(node.c.revoked.desc())
    roster = Roster(
        organisation=organisation_id,
        site=site_id,
        revision=revision,
        peers=tuple(
            Peer(
                node=row.id,
                name=row.name,
                identity=bytes(row.identity),
                role=role_of(row.role),
                endpoints=tuple(json.loads(row.endpoints)),
            )
            for row in sorted(peers, key=lambda row: str(row.id))
        ),
        revoked=tuple(sorted(t.run(revoked.limit(PEERS_LIMIT)).scalars())),
    )
    return sign_roster(roster, order_key)


def note(t: Transaction, sender: Node, holdings: Holdings) -> None:
    """Keep what a node says of its mesh; where its peers have to know, all of the site are told."""
    said = {
        "role": role_of(holdings.role).value,
        "endpoints": json.dumps(addresses(holdings.endpoints)),
    }
    this = update(node).where(node.c.id == sender.id)
    known = t.one(select(node.c.role, node.c.endpoints, node.c.room).where(node.c.id == sender.id))
    assert known is not None
    if (known.role, known.endpoints) != (said["role"], said["endpoints"]):
        sites.lock(t, sender.organisation, sender.site)
        t.run(this.values(room=holdings.room, **said))
        sites.changed(t, sender.organisation, sender.site)
    elif known.room != holdings.room:
        t.run(this.values(room=holdings.room))


def candidates(t: Transaction, sender: Node, size: int) -> Candidates:
    """Which other nodes of the sender's site would hold a job of *size* bytes, best first."""
    held = (
        select(func.count())
        .select_from(holder.join(job, (job.c.organisation == holder.c.organisation) & (job.c.id == holder.c.job)))
        .where(holder.c.node == node.c.id, job.c.ended.is_(None))
        .scalar_subquery()
    )
    rows = t.all(
        select(node.c.id, node.c.role, node.c.seen, node.c.room, held.label("load"))
        .where(node.c.organisation == sender.organisation, node.c.site == sender.site, node.c.revoked.is_(None))
        .where(node.c.id != sender.id, node.c.endpoints != "[]", node.c.room >= size)
    )
    known = (Candidate(row.id, role_of(row.role), row.seen >= t.now - AWAKE, row.room, row.load) for row in rows)
    return Candidates(nodes=tuple(rank(known, size)[:CANDIDATES]))


def role_of(word: str) -> Role:
    """The role that *word* names; one that is not known here is a normal one."""
    return Role(word) if word in Role.__members__.values() else Role.NORMAL


def addresses(said: Iterable[str]) -> list[str]:
    """What of *said* is an address and a port that another host could call."""
    return [text for text in dict.fromkeys(said) if _is_address(text)][:ENDPOINTS_LIMIT]


def _is_address(text: str) -> bool:
    try:
        host, _, port = _endpoint.validate_python(text).rpartition(":")
        address = ipaddress.ip_address(host.strip("[]"))
    except (ValidationError, ValueError):
        return False
    return 0 < int(port) < 1 << 16 and not address.is_unspecified and not address.is_multicast
