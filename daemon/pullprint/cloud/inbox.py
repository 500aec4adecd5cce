"""What a node is told: numbered items, kept until it acknowledges them.

Numbers come from the node's own row, whose lock is held until the commit: a number that is visible has no smaller
one that is still to come.
"""

from collections.abc import Sequence

from pydantic import TypeAdapter
from sqlalchemy import bindparam, delete, insert, select, update

from pullprint.cloud.bus import node_topic
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import inbox, node
from pullprint.wire.node import (
    CancelItem,
    ConfigItem,
    HoldersItem,
    Item,
    OrderItem,
    OwnerItem,
    PictureItem,
    SettleItem,
    UploadItem,
)
from pullprint.wire.signature import SignatureRefused

ITEMS_LIMIT = 100
"""In one answer; the next poll, which returns at once, has the rest."""

_item: TypeAdapter[Item] = TypeAdapter(Item)

_WAITING = (
    select(node.c.revoked, node.c.inbox_seq, inbox.c.seq, inbox.c.item)
    .outerjoin(
        inbox,
        (inbox.c.node == node.c.id)
        & (inbox.c.seq > bindparam("since"))
        & (inbox.c.expires.is_(None) | (inbox.c.expires > bindparam("now"))),
    )
    .where(node.c.id == bindparam("node"))
    .order_by(inbox.c.seq)
    .limit(ITEMS_LIMIT)
)
_NEXT_SEQ = (
    update(node).where(node.c.id == bindparam("to")).values(inbox_seq=node.c.inbox_seq + 1).returning(node.c.inbox_seq)
)
_INSERT = insert(inbox)


def put(
    t: Transaction,
    node_id: str,
    item: OrderItem | HoldersItem | CancelItem | OwnerItem | SettleItem | PictureItem | UploadItem,
    expires: float | None = None,
) -> int:
    """Add *item*, whose seq is set here; it is dropped unread when it *expires*. Wakes the node. The seq."""
    return _put(t, node_id, item, expires)


def take_back(t: Transaction, node_id: str, seq: int) -> None:
    """Drop an item, if the node has not acknowledged it yet."""
    t.run(delete(inbox).where(inbox.c.node == node_id, inbox.c.seq == seq))


def put_config(t: Transaction, node_id: str) -> None:
    """Say that the configuration changed; once is enough for a node that has not read it yet."""
    t.run(delete(inbox).where(inbox.c.node == node_id, inbox.c.kind == "config"))
    _put(t, node_id, ConfigItem(seq=0), None)


def look(t: Transaction, node_id: str, since: int) -> Sequence[Item] | None:
    """As `waiting`; None when `collect` is needed, because *since* acknowledges something."""
    rows = _rows(t, node_id, 0)
    if since > rows[0].inbox_seq or (rows[0].seq is not None and rows[0].seq <= since):
        return None
    return _items(rows)


def collect(t: Transaction, node_id: str, since: int) -> Sequence[Item]:
    """Acknowledge everything up to *since*; what comes after it, oldest first."""
    row = t.one(select(node.c.inbox_seq).where(node.c.id == node_id))
    if row is None:
        return ()
    if since > row.inbox_seq:
        # The cloud was restored from a backup: new numbers must lie above those that the node knows. Items that
        # were numbered again since the restore are told by reconcile, which follows a reconnect.
        t.run(update(node).where(node.c.id == node_id).values(inbox_seq=since))
    t.run(delete(inbox).where(inbox.c.node == node_id, inbox.c.seq <= since))
    return waiting(t, node_id, since)


def waiting(t: Transaction, node_id: str, since: int) -> Sequence[Item]:
    """What comes after *since*, oldest first. Raises SignatureRefused for a node that was shut out meanwhile."""
    return _items(_rows(t, node_id, since))


def _rows(t: Transaction, node_id: str, since: int) -> Sequence[AnyRow]:
    """At least one, whose seq is None when nothing waits."""
    rows = t.all(_WAITING, {"node": node_id, "since": since, "now": t.now})
    if not rows or rows[0].revoked is not None:
        raise SignatureRefused(reason="it was shut out by an administrator")
    return rows


def _items(rows: Sequence[AnyRow]) -> list[Item]:
    return [_item.validate_json(row.item).model_copy(update={"seq": row.seq}) for row in rows if row.seq is not None]


def forget_expired(t: Transaction) -> None:
    """Drop orders that nobody fetched in time."""
    t.run(delete(inbox).where(inbox.c.expires <= t.now))


def _put(
    t: Transaction,
    node_id: str,
    item: OrderItem | HoldersItem | CancelItem | OwnerItem | SettleItem | PictureItem | UploadItem | ConfigItem,
    expires: float | None,
) -> int:
    seq: int = t.run(_NEXT_SEQ, {"to": node_id}).scalar_one()
    t.run(
        _INSERT,
        {"node": node_id, "seq": seq, "kind": item.kind, "item": item.model_dump_json(), "expires": expires},
    )
    t.wake(node_topic(node_id))
    return seq
