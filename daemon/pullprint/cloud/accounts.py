"""Local accounts of nodes that users said are theirs. The node is told in its signed configuration."""

import hashlib

from sqlalchemy import delete, select, update

from pullprint.base.errors import NotFound
from pullprint.cloud import sites
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import account, node
from pullprint.wire.api import SessionView


def bind(t: Transaction, node_id: str, name: str, organisation_id: str, user: str) -> None:
    """This account is that user from now on, whoever it was before."""
    this = (account.c.node == node_id, account.c.name == name)
    values = {"organisation": organisation_id, "user": user, "created": t.now}
    if not t.add(account, {"node": node_id, "name": name, **values}):
        t.run(update(account).where(*this).values(values))
    sites.changed_for(t, node_id)


def release(t: Transaction, organisation_id: str, user: str, account_id: str) -> None:
    """The account with this id (`listing`) is the user's no more; its host is told. Raises NotFound."""
    for row in _of(t, organisation_id, user):
        if _id(row) == account_id:
            t.run(delete(account).where(account.c.node == row.node, account.c.name == row.name))
            sites.changed_for(t, row.node)
            return
    raise NotFound(what="session")


def listing(t: Transaction, organisation_id: str, user: str) -> list[SessionView]:
    """A user's accounts on hosts that are not shut out; each counts as used when it was bound."""
    return [_view(row) for row in _of(t, organisation_id, user)]


def is_bound(t: Transaction, node_id: str, name: str, user: str) -> bool:
    """Whether this account of the node is that user."""
    query = select(account.c.name).where(account.c.node == node_id, account.c.name == name, account.c.user == user)
    return t.one(query) is not None


def has_user(t: Transaction, node_id: str, user: str) -> bool:
    """Whether any account of the node is that user."""
    return t.one(select(account.c.name).where(account.c.node == node_id, account.c.user == user).limit(1)) is not None


def _of(t: Transaction, organisation_id: str, user: str) -> list[AnyRow]:
    query = (
        select(account.c.node, account.c.name, account.c.created, node.c.name.label("host"))
        .join(node, node.c.id == account.c.node)
        .where(account.c.organisation == organisation_id, account.c.user == user, node.c.revoked.is_(None))
        .order_by(account.c.created.desc(), account.c.node, account.c.name)
    )
    return list(t.all(query))


def _view(row: AnyRow) -> SessionView:
    bound = int(row.created)
    return SessionView(id=_id(row), kind="account", name=f"{row.name} on {row.host}", created=bound, used=bound)


def _id(row: AnyRow) -> str:
    return hashlib.sha256(f"{row.node}/{row.name}".encode()).hexdigest()[:16]
