"""Orders that come to nothing at one holder are given to the next.

`release.due` says when an order is to be looked at. Every instance looks; the job's row, which is locked first, and the
order's own row, which is read after that, see to it that only one of them acts. That two holders never print the same
job is the votes' matter: an order that is taken over too early costs time, and no paper. Where the first holder had
begun to send, the next one finds that out from the other voters, asks the printer, and leaves the rest to the owner.
"""

import logging
from collections.abc import Sequence

from sqlalchemy import bindparam, select, update

from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError
from pullprint.cloud import inbox, jobs, orders
from pullprint.cloud.bus import Bus, orders_topic
from pullprint.cloud.orders import LOST, SILENT, TAKE_OVER, TAKEN_OVER, IsHere
from pullprint.cloud.store import AnyRow, Store, Transaction
from pullprint.cloud.tables import job, node, release
from pullprint.cloud.tally import Tally
from pullprint.model.states import State
from pullprint.wire.order import LIFETIME

LOOK_EVERY = 1.0
"""Seconds between two looks at what is due."""
AT_ONCE = 100
"""Orders in one look."""
PATIENCE = 2 * LIFETIME
"""Seconds since its owner asked for a job after which nobody takes it over any more: paper that comes out late lies
there for everybody to read."""

_BEGUN = (State.COMMITTED, State.SENDING)

_log = logging.getLogger(__name__)

_DUE = (
    select(release.c.organisation, release.c.job, release.c.id)
    .where(release.c.due <= bindparam("now"))
    .order_by(release.c.due)
    .limit(AT_ONCE)
)
_THIS = select(release).where(release.c.organisation == bindparam("of"), release.c.id == bindparam("order"))


async def watch(store: Store, bus: Bus, clock: Clock, is_here: IsHere, tally: Tally) -> None:
    """Look after orders until cancelled."""
    with bus.listen(orders_topic()) as waiter:
        while True:
            try:
                for row in await store.read(due):
                    if await store.run(look_after, row.organisation, row.job, row.id, is_here):
                        tally.taken_over += 1
                        tally.issued += 1
            except PullprintError as error:
                _log.warning("looking after orders: %s", error.sentence)
            except Exception:  # noqa: BLE001  (the root of a task: it goes on)
                _log.exception("looking after orders failed")
            # Not less than this, also when the bus is closed and everybody is woken.
            await waiter.wait(LOOK_EVERY) if not waiter.closed else await clock.sleep(LOOK_EVERY)


def due(t: Transaction) -> list[AnyRow]:
    """Which orders are to be looked at."""
    return list(t.all(_DUE, {"now": t.now}))


def look_after(t: Transaction, organisation_id: str, job_id: str, order_id: str, is_here: IsHere) -> bool:
    """Do for one order what has to be done now; whether another holder was given it."""
    rows = orders.holders_of(t, organisation_id, job_id)
    order = t.one(_THIS, {"of": organisation_id, "order": order_id})
    if order is None or order.due is None or order.due > t.now:
        return False  # another instance was first
    if not rows or rows[0].ballot != order.ballot or rows[0].ended is not None or rows[0].cancelling is not None:
        _set(t, order, due=None)
        return False
    elsewhere = order.outcome == "nothing-sent"
    if not elsewhere and (wait := _wait(t, order, rows[0].state, is_here)) is not None:
        _set(t, order, due=wait or None)
        return False
    in_time = t.now <= order.wished + PATIENCE or rows[0].state in _BEGUN
    if in_time and rows[0].expires > t.now and _take_over(t, order, rows, is_here):
        return True
    _give_up(t, order, rows[0], elsewhere=elsewhere)
    return False


def _wait(t: Transaction, order: AnyRow, state: str, is_here: IsHere) -> float | None:
    """Until when the order's releaser is to be left alone; 0: for good; None: no longer."""
    if order.outcome != "":
        return 0.0
    if order.acknowledged is None:
        if state in (State.HELD, State.UNCERTAIN):
            return None
        return t.now + TAKE_OVER if t.now < order.expires else 0.0  # an earlier attempt, which was late, is under way
    if state not in (State.HELD, State.UNCERTAIN, State.PREPARED, *_BEGUN):
        return 0.0
    if state in (State.HELD, State.UNCERTAIN) and t.now > order.expires:
        return 0.0
    patience = LOST if state in _BEGUN else SILENT
    if state in _BEGUN and is_here(order.node):
        return t.now + patience
    seen: float = t.run(select(node.c.seen).where(node.c.id == order.node)).scalar_one()
    return seen + patience if seen + patience > t.now else None


def _take_over(t: Transaction, order: AnyRow, rows: Sequence[AnyRow], is_here: IsHere) -> bool:
    try:
        done = orders.take_over(t, order, rows, is_here)
    except (NotFound, orders.NoKey) as error:
        _log.warning("order %s cannot be taken over: %s", order.id, error.sentence)
        return False
    if not done:
        return False
    if order.inbox_seq is not None:
        inbox.take_back(t, order.node, order.inbox_seq)
    _set(t, order, due=None, outcome=order.outcome or TAKEN_OVER)
    if rows[0].state == State.PREPARED:
        # Nothing is decided, and the one that had prepared it is silent. Should it speak again, it is heard again.
        _update_job(t, order, state=State.HELD.value)
    return True


def _give_up(t: Transaction, order: AnyRow, row: AnyRow, *, elsewhere: bool) -> None:
    """Nobody is left. What the last holder said stands; if none said anything, that is said when the time is over."""
    if elsewhere:
        _update_job(t, order, trouble=row.state == State.HELD)
    elif t.now < order.expires:
        # It may answer yet, or another holder may connect.
        _set(t, order, due=min(t.now + TAKE_OVER, order.expires))
        return
    elif row.state == State.PREPARED and t.now <= order.wished + PATIENCE:
        _set(t, order, due=t.now + TAKE_OVER)
        return
    elif row.state == State.HELD:
        sentence = "No host that holds it has answered. It is still held; wake one of them up, then print it again."
        _update_job(t, order, trouble=True, sentence=sentence)
    _set(t, order, due=None)
    jobs.changed(t, row.organisation, row.owner)


def _set(t: Transaction, order: AnyRow, **values: object) -> None:
    this = (release.c.organisation == order.organisation, release.c.id == order.id)
    t.run(update(release).where(*this).values(values))


def _update_job(t: Transaction, order: AnyRow, **values: object) -> None:
    t.run(update(job).where(job.c.organisation == order.organisation, job.c.id == order.job).values(values))
