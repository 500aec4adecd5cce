"""Holders that are lost are replaced: one of those that are left is ordered to make a new generation.

A job's holder is lost when its node was shut out, or has been silent for longer than `Settings.replace_after`; a job is
short when its site has a node that could hold it, too. Whoever is ordered asks the other holders; that there are never
two generations in force is the votes' matter, and an order that comes to nothing is followed by one with a higher
number. What has become of it, the cloud learns from the report with the new key table.

Every instance looks; the job's row, which is locked first, sees to it that only one of them acts.
"""

import logging
import secrets
from collections.abc import Sequence

from sqlalchemy import bindparam, exists, func, insert, or_, select, update

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.cloud import inbox, jobs, orders
from pullprint.cloud.nodes import AWAKE
from pullprint.cloud.orders import IsHere, NoKey
from pullprint.cloud.rosters import role_of
from pullprint.cloud.store import AnyRow, Store, Transaction
from pullprint.cloud.tables import holder, job, node, replacement
from pullprint.model.placement import HOLDERS, Candidate, Role, rank
from pullprint.model.states import State
from pullprint.model.votes import quorum
from pullprint.wire.holders import CANDIDATES_LIMIT, LIFETIME, HoldersOrder, sign_holders_order
from pullprint.wire.mesh import FIRST_TABLE
from pullprint.wire.node import HoldersItem

LOOK_EVERY = 15.0
"""Seconds between two looks."""
SHORT_EVERY = 4
"""Of so many looks, one is for jobs that are short of copies, too."""
AGAIN = 120.0
"""Seconds until a job whose order came to nothing gets the next one."""
AT_ONCE = 100
"""Jobs in one look."""
UNDER_WAY = 20
"""Jobs of a site that are given new holders at a time: on Monday morning not every host is back at once."""
LONGEST_GRACE = 120.0
"""Seconds after the start of this process, at most, in which nodes may come back before any is taken to be lost."""
LEFT = 300.0
"""Seconds that a job must still have to live."""

_log = logging.getLogger(__name__)

_its_holder, _its_node, _other = holder.alias(), node.alias(), node.alias()
_here = (_its_holder.c.organisation == job.c.organisation, _its_holder.c.job == job.c.id)
_COUNT = select(func.count()).select_from(_its_holder).where(*_here).correlate(job).scalar_subquery()
_AWAKE = (
    select(func.count())
    .select_from(_its_holder.join(_its_node, _its_node.c.id == _its_holder.c.node))
    .where(*_here, _its_node.c.revoked.is_(None), _its_node.c.seen >= bindparam("awake"))
    .correlate(job)
    .scalar_subquery()
)
_ANOTHER = exists().where(
    _other.c.organisation == job.c.organisation, _other.c.site == job.c.site, _other.c.revoked.is_(None),
    _other.c.seen >= bindparam("awake"), _other.c.role != Role.CLIENT.value, _other.c.endpoints != "[]",
    _other.c.room >= job.c.size,
    _other.c.id.not_in(select(_its_holder.c.node).where(*_here).correlate(job)),
)  # fmt: skip
_JOBS = (
    select(job.c.organisation, job.c.id, replacement.c.ordered)
    .outerjoin(
        replacement, (replacement.c.organisation == job.c.organisation) & (replacement.c.job == job.c.id)
    )
    .where(
        job.c.ended.is_(None), job.c.state == State.HELD.value, job.c.cancelling.is_(None),
        job.c.generation >= FIRST_TABLE, job.c.expires > bindparam("left"),
        or_(
            replacement.c.ordered.is_(None), replacement.c.base < job.c.generation,
            replacement.c.ordered <= bindparam("tried"),
        ),
        _AWAKE * 2 > _COUNT,
    )
    .order_by(replacement.c.ordered.nulls_first())
    .limit(AT_ONCE)
)  # fmt: skip
_gone = or_(node.c.revoked.is_not(None), node.c.seen < bindparam("away"))
# From the nodes on, of which few are away while others of their site are awake.
_LOST = (
    _JOBS.join(holder, (holder.c.organisation == job.c.organisation) & (holder.c.job == job.c.id))
    .join(node, node.c.id == holder.c.node)
    .where(_gone, or_(node.c.revoked.is_not(None), _ANOTHER))
    .distinct()
)
_SHORT = _JOBS.where(_COUNT < HOLDERS, _ANOTHER)


async def watch(store: Store, clock: Clock, is_here: IsHere, replace_after: float) -> None:
    """Look after holders until cancelled."""
    await clock.sleep(min(replace_after, LONGEST_GRACE))
    looks = 0
    while True:
        try:
            for row in await store.read(due, replace_after, short=looks % SHORT_EVERY == 0):
                await store.run(order, row.organisation, row.id, is_here, replace_after)
        except PullprintError as error:
            _log.warning("replacing holders: %s", error.sentence)
        except Exception:  # noqa: BLE001  (the root of a task: it goes on)
            _log.exception("replacing holders failed")
        looks += 1
        await clock.sleep(LOOK_EVERY)


def due(t: Transaction, replace_after: float, *, short: bool) -> Sequence[AnyRow]:
    """Jobs that should have other holders, and could; *short*: also those that have too few. The longest untried
    first."""
    values = {
        "away": t.now - replace_after, "awake": t.now - AWAKE, "tried": t.now - AGAIN, "left": int(t.now + LEFT)
    }  # fmt: skip
    found = list(t.all(_LOST, values))
    if short and len(found) < AT_ONCE:
        known = {(row.organisation, row.id) for row in found}
        found += [row for row in t.all(_SHORT, values) if (row.organisation, row.id) not in known]
    return found[:AT_ONCE]


def order(
    t: Transaction, organisation_id: str, job_id: str, is_here: IsHere, replace_after: float
) -> HoldersOrder | None:
    """Order other holders for a job, if that is still due and can be done now."""
    rows = orders.holders_of(t, organisation_id, job_id)  # locks the job
    if not rows or not _may_change(t, rows[0]) or not (last := _turn(t, rows[0])):
        return None
    gone = [row for row in rows if _is_gone(t, row, is_here, replace_after)]
    left = [row for row in rows if row not in gone]
    awake = [row for row in left if is_here(row.holder) or row.node_seen >= t.now - AWAKE]
    wanted = max(0, HOLDERS - len(left))
    if len(awake) < quorum(len(rows)) or not (gone or wanted):
        return None
    urgent = any(row.node_revoked is not None for row in gone)
    candidates = _candidates(t, rows)[:CANDIDATES_LIMIT] if wanted else []
    author = orders.best(t, awake, is_here)
    if author is None or not (candidates or urgent):
        return None
    made = HoldersOrder(
        jti=secrets.token_hex(16),
        iss=organisation_id,
        aud=author.holder,
        iat=int(t.now),
        exp=int(t.now) + LIFETIME,
        job=job_id,
        base=author.generation,
        number=last,
        out=tuple(row.holder for row in gone),
        candidates=tuple(candidates),
        wanted=wanted if candidates else 0,
        urgent=urgent,
    )
    try:
        part = orders.handed_over(author, made.jti)
    except NoKey as error:
        _log.warning("job %s gets no other holders: %s", job_id, error.sentence)
        _note(t, author, made)
        return None
    item = HoldersItem(order=sign_holders_order(made, author.order_key), part=part, part_key=author.key_id)
    inbox.put(t, author.holder, item, expires=t.now + AGAIN)
    _note(t, author, made)
    names = ", ".join(sorted(row.node_name for row in gone))
    text = f"{author.node_name} is to find another holder instead of {names}." if gone else ""
    text = text or f"{author.node_name} is to find another holder."
    jobs.add_step(t, organisation_id, job_id, "replace", text, number=str(made.number))
    return made


def _may_change(t: Transaction, row: AnyRow) -> bool:
    if row.state != State.HELD or row.ended is not None or row.cancelling is not None:
        return False
    if row.generation < FIRST_TABLE or row.expires <= t.now + LEFT:
        return False
    return not jobs.under_way(t, row.organisation, row.id)


def _turn(t: Transaction, row: AnyRow) -> int:
    """The number of the next order; 0 if it is not the job's turn.

    It counts the seconds of the job's life, so that a database that was restored from a backup goes on above what was
    used.
    """
    this = (replacement.c.organisation == row.organisation, replacement.c.job == row.id)
    last = t.one(select(replacement).where(*this))
    if last is not None and last.base >= row.generation and last.ordered > t.now - AGAIN:
        return 0
    busy = select(func.count()).select_from(replacement).where(
        replacement.c.organisation == row.organisation, replacement.c.site == row.site,
        replacement.c.ordered > t.now - AGAIN, replacement.c.job != row.id,
    )  # fmt: skip
    # Those that came to an end count no more.
    ended = replacement.join(job, (job.c.organisation == replacement.c.organisation) & (job.c.id == replacement.c.job))
    done = select(func.count()).select_from(ended).where(
        replacement.c.organisation == row.organisation, replacement.c.site == row.site,
        replacement.c.ordered > t.now - AGAIN, replacement.c.job != row.id,
        or_(job.c.generation > replacement.c.base, job.c.ended.is_not(None)),
    )  # fmt: skip
    if t.run(busy).scalar_one() - t.run(done).scalar_one() >= UNDER_WAY:
        return 0
    created: float = t.run(
        select(job.c.created).where(job.c.organisation == row.organisation, job.c.id == row.id)
    ).scalar_one()
    return max(1, (last.number if last is not None else 0) + 1, int(t.now - created))


def _is_gone(t: Transaction, row: AnyRow, is_here: IsHere, replace_after: float) -> bool:
    if row.node_revoked is not None:
        return True
    return bool(row.node_seen < t.now - replace_after) and not is_here(row.holder)


def _candidates(t: Transaction, rows: Sequence[AnyRow]) -> list[str]:
    """Who could hold the job, too, and is awake; best first."""
    row = rows[0]
    size: int = t.run(select(job.c.size).where(job.c.organisation == row.organisation, job.c.id == row.id)).scalar_one()
    found = t.all(
        select(node.c.id, node.c.role, node.c.seen, node.c.room).where(
            node.c.organisation == row.organisation, node.c.site == row.site, node.c.revoked.is_(None),
            node.c.endpoints != "[]", node.c.room >= size, node.c.seen >= t.now - AWAKE,
        )
    )  # fmt: skip
    known = (Candidate(one.id, role_of(one.role), awake=True, room=one.room, load=0) for one in found)
    return rank(known, size, without={each.holder for each in rows})


def _note(t: Transaction, row: AnyRow, made: HoldersOrder) -> None:
    values = {"site": row.site, "node": made.aud, "base": made.base, "number": made.number, "ordered": t.now}
    this = (replacement.c.organisation == row.organisation, replacement.c.job == row.id)
    if t.run(update(replacement).where(*this).values(values)).rowcount == 0:
        t.run(insert(replacement).values(organisation=row.organisation, job=row.id, **values))
