"""Organisations and their keys: the order key that nodes pin, and the CA that their certificates come from."""

import re
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import func, select

from pullprint.base.errors import BadRequest, NotFound, PullprintError
from pullprint.base.text import printable
from pullprint.cloud import keys, tls
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import node, organisation, user_account

SLUG = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
NAME_LIMIT = 255


class AlreadyThere(PullprintError):
    """There is a {what} named {name} already. Nothing was changed; choose another name, or remove that one first."""

    code = "already-there"
    http_status = 409


@dataclass(frozen=True, slots=True)
class OrganisationLine:
    """An organisation, in a list."""

    id: str
    name: str
    users: int
    nodes: int


def add(t: Transaction, slug: str, name: str) -> None:
    """A new organisation with fresh keys. Raises BadRequest, AlreadyThere."""
    check_slug("an organisation's short name", slug)
    title = check_name("an organisation's name", name)
    authority = tls.new_authority(f"{title} ({slug})", t.now)
    values = {
        "id": slug,
        "name": title,
        "order_key": Ed25519PrivateKey.generate().private_bytes_raw(),
        "ca_key": authority.key,
        "ca_certificate": authority.certificate,
        "created": t.now,
    }
    if not t.add(organisation, values):
        raise AlreadyThere(what="organisation", name=slug)
    keys.current(t, slug)


def check_exists(t: Transaction, slug: str) -> None:
    """Raises NotFound."""
    if t.one(select(organisation.c.id).where(organisation.c.id == slug)) is None:
        raise NotFound(what=f"organisation as {slug}")


def lines(t: Transaction) -> list[OrganisationLine]:
    """All organisations, by short name."""
    users = select(func.count()).where(user_account.c.organisation == organisation.c.id).scalar_subquery()
    nodes = select(func.count()).where(node.c.organisation == organisation.c.id).scalar_subquery()
    rows = t.all(select(organisation.c.id, organisation.c.name, users, nodes).order_by(organisation.c.id))
    return [OrganisationLine(*row) for row in rows]


def order_key(t: Transaction, slug: str) -> bytes:
    """The raw Ed25519 private key that signs an organisation's orders and configurations. Raises NotFound."""
    row = t.one(select(organisation.c.order_key).where(organisation.c.id == slug))
    if row is None:
        raise NotFound(what="organisation")
    return bytes(row.order_key)


def identities(t: Transaction) -> list[str]:
    """The short names of all organisations."""
    return list(t.run(select(organisation.c.id)).scalars())


def check_slug(what: str, slug: str) -> str:
    """*slug* if it may be an id. Raises BadRequest."""
    if not SLUG.fullmatch(slug):
        raise BadRequest(reason=f"{what} has up to 64 lower-case letters, digits and hyphens, such as north-wing")
    return slug


def check_name(what: str, name: str) -> str:
    """*name*, if people can read it. Raises BadRequest."""
    cleaned = printable(name, NAME_LIMIT).strip()
    if not cleaned or "\ufffd" in cleaned or len(name) > NAME_LIMIT:
        raise BadRequest(reason=f"{what} has 1 to {NAME_LIMIT} characters that can be shown")
    return cleaned
