"""Key tables, as nodes report them: who holds a job, and the cloud's own part in each generation.

The cloud opens no part but its own, and that only for an order; here it checks who says what.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from pullprint.cloud import jobs
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import holder, job, node
from pullprint.vault.parts import SLOT_SIZE
from pullprint.wire.jws import StatementRefused
from pullprint.wire.mesh import KeySlot, KeyTable, read_table
from pullprint.wire.node import CLOUD
from pullprint.wire.signature import node_id

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checked:
    """A table that may count."""

    table: KeyTable
    author: Node
    slot: KeySlot
    """The cloud's."""


def check(t: Transaction, sender: Node, job_id: str, token: str, known: AnyRow | None) -> Checked | None:
    """The table in *token*, which *sender* reports of a job of which *known* is known (see `reports`); None, with a
    line in the log, when it cannot be believed."""
    try:
        table = read_table(token)
    except StatementRefused as error:
        _log.warning("node %s reports a key table of job %s: %s", sender.id, job_id, error)
        return None
    people = _nodes(t, sender, {node_id(table.author), *table.holders})
    author = people.get(node_id(table.author))
    slots = [slot for slot in table.slots if slot.party == CLOUD]
    reason = ""
    if table.job != job_id:
        reason = "it is another job's"
    elif author is None:
        reason = "who made it is no node of the site"
    elif len(set(table.holders)) != len(table.holders) or not set(table.holders) <= set(people):
        reason = "not all holders are nodes of the site"
    elif len(slots) != 1 or len(slots[0].sealed) != SLOT_SIZE:
        reason = "the cloud has no part in it"
    elif sender.id not in (author.id, *table.holders) and not (known and (known.holds or known.node == sender.id)):
        reason = "it is none of this node's business"
    elif known and not _may_make(t, sender, author.id, table.generation, job_id, known):
        reason = "who made it may not"
    if reason or author is None:
        _log.warning("node %s reports a key table of job %s: %s", sender.id, job_id, reason)
        return None
    return Checked(table, author, slots[0])


def install(t: Transaction, sender: Node, checked: Checked, known: AnyRow) -> None:
    """Take over what a table says, if it is news: of a generation, the first one counts."""
    table = checked.table
    if table.generation < known.generation:
        return
    if table.generation > known.generation:
        values = {
            "generation": table.generation,
            "cloud_key": checked.slot.key,
            "cloud_slot": b"" if known.ended is not None else checked.slot.sealed,
        }
        t.run(update(job).where(job.c.organisation == sender.organisation, job.c.id == table.job).values(values))
        old = delete(holder).where(holder.c.organisation == sender.organisation, holder.c.job == table.job)
        t.run(old.where(holder.c.node.not_in(table.holders)))
        add_holders(t, sender.organisation, table.job, table.holders)
    elif sender.id in table.holders and not known.holds:
        add_holders(t, sender.organisation, table.job, (sender.id,))
    else:
        return
    jobs.changed(t, sender.organisation, known.owner)


def add_holders(t: Transaction, organisation_id: str, job_id: str, node_ids: Collection[str]) -> None:
    """These nodes hold the job, and vote on it."""
    for one in node_ids:
        t.add(holder, {"organisation": organisation_id, "job": job_id, "node": one, "voter": True})


def _may_make(t: Transaction, sender: Node, author: str, generation: int, job_id: str, known: AnyRow) -> bool:
    """The second generation is the origin's to make, a later one a holder's; of whom the cloud may have missed some."""
    if author == known.node:
        return True
    if generation > known.generation + 1 > 2:
        return bool(known.holds or known.node == sender.id)
    if generation == 2:
        return False
    here = (holder.c.organisation == sender.organisation, holder.c.job == job_id, holder.c.node == author)
    return generation <= known.generation or t.one(select(holder.c.node).where(*here)) is not None


def _nodes(t: Transaction, sender: Node, ids: Collection[str]) -> dict[str, Node]:
    """Those of *ids* that are of the sender's site; also ones that were shut out meanwhile."""
    shown = select(node.c.id, node.c.organisation, node.c.site, node.c.name, node.c.managed)
    here = shown.where(node.c.organisation == sender.organisation, node.c.site == sender.site, node.c.id.in_(ids))
    return {row.id: Node(*row) for row in t.all(here)}
