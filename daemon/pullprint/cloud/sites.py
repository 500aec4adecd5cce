"""Sites, and the signed configuration that their nodes obey."""

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update

from pullprint.base.errors import BadRequest, NotFound
from pullprint.cloud import inbox, keys, organisations
from pullprint.cloud.bus import count_change
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import account, node, organisation, printer, site, user_account
from pullprint.model import owner
from pullprint.wire.node import PartyKey, Printer, SiteConfig, sign_config

HOLD_MINIMUM = 60
HOLD_LIMIT = 30 * 86_400
ACCOUNTS_LIMIT = 10_000
"""Local accounts of one node in its configuration (`wire.node.SiteConfig`): the latest ones."""
NETWORKS_LIMIT = 64

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class SiteLine:
    """A site, in a list."""

    organisation: str
    id: str
    networks: tuple[str, ...]
    owner_rule: str
    hold: int
    """Seconds."""


def add(t: Transaction, organisation_id: str, slug: str, networks: Sequence[str], owner_rule: str, hold: int) -> None:
    """A new site. Raises BadRequest, RuleRefused, NotFound, AlreadyThere."""
    organisations.check_exists(t, organisation_id)
    organisations.check_slug("a site's short name", slug)
    if not networks or len(networks) > NETWORKS_LIMIT:
        raise BadRequest(reason=f"a site has 1 to {NETWORKS_LIMIT} networks, such as 192.0.2.0/24")
    if not HOLD_MINIMUM <= hold <= HOLD_LIMIT:
        raise BadRequest(reason="jobs are held for at least one minute and at most 30 days")
    values = {
        "organisation": organisation_id,
        "id": slug,
        "networks": json.dumps([str(check_network(text)) for text in networks]),
        "owner_rule": owner.check_rule(owner_rule) if owner_rule else "",
        "hold": hold,
        "created": t.now,
    }
    if not t.add(site, values):
        raise organisations.AlreadyThere(what="site", name=slug)


def lines(t: Transaction, organisation_id: str) -> list[SiteLine]:
    """An organisation's sites, by short name. Raises NotFound."""
    organisations.check_exists(t, organisation_id)
    rows = t.all(select(site).where(site.c.organisation == organisation_id).order_by(site.c.id))
    return [SiteLine(r.organisation, r.id, tuple(json.loads(r.networks)), r.owner_rule, r.hold) for r in rows]


def networks_of(t: Transaction, organisation_id: str, site_id: str) -> list[Network]:
    """Where the site's printers may be. Raises NotFound."""
    row = t.one(select(site.c.networks).where(site.c.organisation == organisation_id, site.c.id == site_id))
    if row is None:
        raise NotFound(what=f"site as {site_id} in {organisation_id}")
    return [ipaddress.ip_network(text) for text in json.loads(row.networks)]


def check_network(text: str) -> Network:
    """The network that *text* names. Raises BadRequest."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise BadRequest(reason=f"{text} is not a network such as 192.0.2.0/24 or 2001:db8::/64") from error


def lock(t: Transaction, organisation_id: str, site_id: str) -> None:
    """Whoever changes nodes and then calls `changed` locks the site first, so that two do not wait for each other."""
    this = (site.c.organisation == organisation_id, site.c.id == site_id)
    t.run(select(site.c.id).where(*this).with_for_update(key_share=True))


def changed(t: Transaction, organisation_id: str, site_id: str | None = None) -> None:
    """The configuration of a site (or of all) is a new one: raise its revision and tell the nodes."""
    sites = update(site).where(site.c.organisation == organisation_id).values(revision=site.c.revision + 1)
    nodes = select(node.c.id).where(node.c.organisation == organisation_id, node.c.revoked.is_(None))
    if site_id is not None:
        sites = sites.where(site.c.id == site_id)
        nodes = nodes.where(node.c.site == site_id)
    t.run(sites)
    for node_id in t.run(nodes.order_by(node.c.id)).scalars().all():
        inbox.put_config(t, node_id)
    count_change(t, organisation_id)


def changed_for(t: Transaction, node_id: str) -> None:
    """The configuration of one node is a new one; the rest of its site is not told, because theirs says the same."""
    row = t.one(select(node.c.organisation, node.c.site).where(node.c.id == node_id))
    assert row is not None
    of_node = (site.c.organisation == row.organisation, site.c.id == row.site)
    t.run(update(site).where(*of_node).values(revision=site.c.revision + 1))
    inbox.put_config(t, node_id)


def signed_config(t: Transaction, node_id: str, public_url: str) -> str:
    """The configuration for a node, as JWS; hosts that are not managed are told of no users. Raises NotFound."""
    row = t.one(
        select(node.c.managed, node.c.organisation, site, organisation.c.order_key)
        .join(site, (site.c.organisation == node.c.organisation) & (site.c.id == node.c.site))
        .join(organisation, organisation.c.id == node.c.organisation)
        .where(node.c.id == node_id)
    )
    if row is None:
        raise NotFound(what="node")
    users = select(user_account.c.name).where(user_account.c.organisation == row.organisation).order_by("name")
    printers = select(printer.c.id, printer.c.name, printer.c.place, printer.c.uri)
    printers = printers.where(printer.c.organisation == row.organisation, printer.c.site == row.id)
    accounts = select(account.c.name, account.c.user).where(account.c.node == node_id)
    accounts = accounts.order_by(account.c.created.desc()).limit(ACCOUNTS_LIMIT)
    key = keys.newest(t, row.organisation)
    config = SiteConfig(
        revision=row.revision,
        organisation=row.organisation,
        site=row.id,
        node=node_id,
        networks=tuple(json.loads(row.networks)),
        owner_rule=row.owner_rule if row.managed else "",
        users=tuple(t.run(users).scalars()) if row.managed else (),
        printers=tuple(
            Printer(id=p.id, name=p.name, place=p.place, uri=p.uri) for p in t.all(printers.order_by(printer.c.name))
        ),
        cloud_key=PartyKey(key=key.id, public=key.public, expires=int(key.expires)),
        hold=row.hold,
        public_url=public_url,
        accounts={a.name: a.user for a in t.all(accounts)},
    )
    return sign_config(config, row.order_key)
