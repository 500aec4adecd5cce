"""Jobs as their owners see them, and what owners do with them besides printing."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from pullprint.base.errors import BadRequest, NotFound
from pullprint.cloud import inbox, nodes
from pullprint.cloud.bus import jobs_topic
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import holder, job, node, release, trace, user_account
from pullprint.model.facts import Facts
from pullprint.model.job import JOB_ID
from pullprint.model.owner import tidy_code
from pullprint.model.states import ENDED, State, WrongState
from pullprint.model.ticket import Ticket
from pullprint.wire.api import History, JobList
from pullprint.wire.node import CLOUD, CancelItem, OwnerItem, SettleItem
from pullprint.wire.types import ticket_to_dict
from pullprint.wire.views import JobView, StepView

_END_OF_TIME = float(1 << 40)
_CURSOR_LIMIT = 64
LATELY = 86_400
"""Seconds for which an ended job is still listed."""
LIST_LIMIT = 1_000
HISTORY_PAGE = 50
TRACE_LIMIT = 2_000
BUSY = frozenset({State.PREPARED, State.COMMITTED, State.SENDING})
"""States in which a job is at the printer; its node alone says how that ends."""

_OF_USER = (  # whether there is a picture, but not every picture
    select(
        *(column for column in job.c if column is not job.c.picture),
        job.c.picture.is_not(None).label("has_picture"),
        node.c.name.label("node_name"),
    )
    .join(node, node.c.id == job.c.node)
    .where(job.c.organisation == bindparam("of"), job.c.owner == bindparam("user"))
)
_HISTORY = (
    _OF_USER.where(job.c.ended.is_not(None))
    .where(
        (job.c.ended < bindparam("before")) | ((job.c.ended == bindparam("before")) & (job.c.id > bindparam("after")))
    )
    .order_by(job.c.ended.desc(), job.c.id)
    .limit(HISTORY_PAGE)
)
_VIEW = _OF_USER.where(job.c.id == bindparam("job"))
_IDS_AT_ONCE = 500
"""In one statement; SQLite has a limit."""
_HOLDERS = (
    select(holder.c.job, node.c.id, node.c.name, node.c.seen, node.c.revoked)
    .join(node, node.c.id == holder.c.node)
    .where(holder.c.organisation == bindparam("of"), holder.c.job.in_(bindparam("jobs", expanding=True)))
    .where(node.c.revoked.is_(None))
)
_UNDER_WAY = select(release.c.id).where(
    release.c.organisation == bindparam("of"),
    release.c.job == bindparam("job"),
    release.c.outcome == "",
    release.c.expires > bindparam("now"),
)
_NEXT_STEP = (
    update(job)
    .where(job.c.organisation == bindparam("of"), job.c.id == bindparam("job"))
    .values(steps=job.c.steps + 1)
    .returning(job.c.steps)
)
_INSERT_STEP = insert(trace)
_NEXT_VERSION = (
    update(user_account)
    .where(user_account.c.organisation == bindparam("of"), user_account.c.name == bindparam("user"))
    .values(jobs_version=user_account.c.jobs_version + 1)
)


class BeingPrinted(WrongState):
    """This job is being printed already. Nothing was changed; wait until it is out, or look at its trace."""

    code = "being-printed"


class ClaimRefused(NotFound):
    """No job waits for this code, or somebody has claimed it. Type the code as the job's sender was shown it."""

    code = "claim-refused"


def version(t: Transaction, organisation_id: str, user: str) -> int:
    """The version of a user's list; it is raised with every change."""
    query = select(user_account.c.jobs_version).where(
        user_account.c.organisation == organisation_id, user_account.c.name == user
    )
    return int(t.run(query).scalar_one())


def listing(t: Transaction, organisation_id: str, user: str) -> JobList:
    """A user's jobs, newest first."""
    query = (
        _OF_USER.where(job.c.ended.is_(None) | (job.c.ended > t.now - LATELY))
        .order_by(job.c.created.desc(), job.c.id)
        .limit(LIST_LIMIT)
    )
    number = version(t, organisation_id, user)
    rows = t.all(query, {"of": organisation_id, "user": user})
    doubts = {row.id: doubtful(t, organisation_id, row.id) for row in rows if row.state == State.UNCERTAIN}
    copies = _copies(t, organisation_id, rows)
    return JobList(version=number, jobs=tuple(_view(row, doubts.get(row.id, ()), copies.get(row.id)) for row in rows))


def history(t: Transaction, organisation_id: str, user: str, cursor: str) -> History:
    """A user's jobs that ended, latest first, from *cursor* on (the `History.next` of the page before, or empty).

    Raises BadRequest.
    """
    before, after = _place(cursor) if cursor else (float("inf"), "")
    rows = t.all(_HISTORY, {"of": organisation_id, "user": user, "before": min(before, _END_OF_TIME), "after": after})
    more = len(rows) == HISTORY_PAGE
    copies = _copies(t, organisation_id, rows)
    views = tuple(_view(row, (), copies.get(row.id)) for row in rows)
    return History(jobs=views, next=f"{rows[-1].ended!r}-{rows[-1].id}" if more else "")


def _place(cursor: str) -> tuple[float, str]:
    ended, _, job_id = cursor.rpartition("-")
    try:
        before = float(ended)
    except ValueError:
        before = math.nan
    if len(cursor) > _CURSOR_LIMIT or not math.isfinite(before) or not JOB_ID.fullmatch(job_id):
        raise BadRequest(reason="before is not where a page of the history ended")
    return before, job_id


def view(t: Transaction, organisation_id: str, user: str, job_id: str) -> JobView:
    """One of a user's jobs. Raises NotFound."""
    row = t.one(_VIEW, {"of": organisation_id, "user": user, "job": job_id})
    if row is None:
        raise NotFound(what="job")
    doubts = doubtful(t, organisation_id, job_id) if row.state == State.UNCERTAIN else ()
    return _view(row, doubts, _copies(t, organisation_id, [row]).get(row.id))


def steps(t: Transaction, organisation_id: str, user: str, job_id: str) -> list[StepView]:
    """A job's trace, in the order of time. Raises NotFound."""
    view(t, organisation_id, user, job_id)
    rows = t.all(
        select(trace)
        .where(trace.c.organisation == organisation_id, trace.c.job == job_id)
        .order_by(trace.c.at, trace.c.source, trace.c.seq)
        .limit(TRACE_LIMIT)
    )
    return [StepView(at=r.at, host=r.host, event=r.event, text=r.text, detail=json.loads(r.detail)) for r in rows]


def cancel(t: Transaction, organisation_id: str, user: str, job_id: str) -> JobView:
    """The owner deletes the job: its holders are told; asking twice is once. Raises NotFound, WrongState."""
    row = locked(t, organisation_id, user, job_id)
    if row.ended is None and row.cancelling is None:
        if row.state in BUSY or under_way(t, organisation_id, job_id):
            raise BeingPrinted
        t.run(_this(organisation_id, job_id).values(cancelling=t.now, picture=None))
        for node_id in holders(t, organisation_id, job_id):
            inbox.put(t, node_id, CancelItem(seq=0, job=job_id, by=user))
        add_step(t, organisation_id, job_id, "cancel", f"Deleted by {user}.")
        changed(t, organisation_id, user)
    elif row.state == State.DONE:
        raise WrongState(state=row.state)
    return view(t, organisation_id, user, job_id)


def settle(t: Transaction, organisation_id: str, user: str, job_id: str) -> JobView:
    """The owner says that an uncertain job came out. Raises NotFound, WrongState."""
    row = locked(t, organisation_id, user, job_id)
    if row.state != State.UNCERTAIN:
        raise WrongState(state=row.state)
    if under_way(t, organisation_id, job_id):
        raise BeingPrinted
    for node_id in holders(t, organisation_id, job_id):
        inbox.put(t, node_id, SettleItem(seq=0, job=job_id, by=user))
    add_step(t, organisation_id, job_id, "settle", f"{user} says that it came out.")
    changed(t, organisation_id, user)
    return view(t, organisation_id, user, job_id)


def claim(t: Transaction, organisation_id: str, user: str, code: str) -> JobView:
    """The job without an owner whose submitter was shown *code* becomes the user's. Raises ClaimRefused."""
    tidy = tidy_code(code)
    rows = t.all(
        select(job.c.id)
        .where(job.c.organisation == organisation_id, job.c.claim_hash == claim_hash(tidy))
        .where(job.c.owner == "", job.c.ended.is_(None), job.c.cancelling.is_(None))
        .with_for_update()
    )
    # Two jobs with one code are a matter of 2^-40, or of a node that wants to be given somebody else's job.
    if not tidy or len(rows) != 1:
        raise ClaimRefused
    job_id = rows[0].id
    t.run(_this(organisation_id, job_id).values(owner=user, claim_hash=None))
    for node_id in holders(t, organisation_id, job_id):
        inbox.put(t, node_id, OwnerItem(seq=0, job=job_id, owner=user))
    add_step(t, organisation_id, job_id, "claim", f"Claimed by {user}.")
    changed(t, organisation_id, user)
    return view(t, organisation_id, user, job_id)


def locked(t: Transaction, organisation_id: str, user: str, job_id: str) -> AnyRow:
    """The row of one of a user's jobs, nobody else's to change until the commit. Raises NotFound."""
    row = t.one(
        select(job)
        .where(job.c.organisation == organisation_id, job.c.id == job_id, job.c.owner == user)
        .with_for_update()
    )
    if row is None or not user:
        raise NotFound(what="job")
    return row


def holders(t: Transaction, organisation_id: str, job_id: str) -> list[str]:
    """The nodes that hold a job and may be spoken to."""
    query = (
        select(holder.c.node)
        .join(node, node.c.id == holder.c.node)
        .where(holder.c.organisation == organisation_id, holder.c.job == job_id, node.c.revoked.is_(None))
        .order_by(holder.c.node)  # always in this order, so that two transactions do not wait for each other
    )
    return list(t.run(query).scalars())


def under_way(t: Transaction, organisation_id: str, job_id: str) -> bool:
    """Whether an order for the job is out and may still be used."""
    return t.one(_UNDER_WAY, {"of": organisation_id, "job": job_id, "now": t.now}) is not None


def doubtful(t: Transaction, organisation_id: str, job_id: str) -> tuple[int, ...]:
    """The ballots of an uncertain job that are not proven to have sent nothing.

    Where the cloud knows of none, its holder has lost its record of them: then it is whatever came before.
    """
    query = select(release.c.ballot).where(
        release.c.organisation == organisation_id, release.c.job == job_id, release.c.outcome != "nothing-sent"
    )
    found = tuple(t.run(query.order_by(release.c.ballot)).scalars())
    latest = select(job.c.ballot).where(job.c.organisation == organisation_id, job.c.id == job_id, job.c.ballot > 0)
    return found or tuple(t.run(latest).scalars())


def add_step(t: Transaction, organisation_id: str, job_id: str, event: str, text: str, **detail: str) -> None:
    """A step of the trace that the cloud itself has taken."""
    seq = t.run(_NEXT_STEP, {"of": organisation_id, "job": job_id}).scalar_one()
    values = {
        "organisation": organisation_id,
        "job": job_id,
        "source": CLOUD,
        "seq": seq,
        "at": t.now,
        "host": CLOUD,
        "event": event,
        "text": text,
        "detail": json.dumps(detail),
    }
    t.run(_INSERT_STEP, values)


def changed(t: Transaction, organisation_id: str, user: str) -> None:
    """The user's list is a new one: raise its version and wake who waits for it; nothing for jobs without an owner."""
    if user:
        t.run(_NEXT_VERSION, {"of": organisation_id, "user": user})
        t.wake(jobs_topic(organisation_id, user))


def claim_hash(code: str) -> bytes:
    """What is kept of a claim code."""
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()


def ticket_from_text(text: str) -> Ticket:
    """A stored ticket."""
    values = json.loads(text)
    return Ticket(copies=values["copies"], options=tuple((name, value) for name, value in values["options"]))


def ticket_to_text(ticket: Ticket) -> str:
    """A ticket to store."""
    return json.dumps(ticket_to_dict(ticket))


def has_ended(state: str) -> bool:
    """Whether nothing follows *state*."""
    return state in ENDED


def _this(organisation_id: str, job_id: str) -> Any:
    return update(job).where(job.c.organisation == organisation_id, job.c.id == job_id)


@dataclass(slots=True)
class _Copies:
    """Who has a job."""

    names: list[str] = field(default_factory=list)
    awake: int = 0


def _copies(t: Transaction, organisation_id: str, rows: Sequence[AnyRow]) -> dict[str, _Copies]:
    """The holders of these jobs that are not shut out: the host that each came from first, then by name."""
    origin = {row.id: row.node for row in rows}
    found: dict[str, _Copies] = {}
    ids = list(origin)
    for begin in range(0, len(ids), _IDS_AT_ONCE):
        held = t.all(_HOLDERS, {"of": organisation_id, "jobs": ids[begin : begin + _IDS_AT_ONCE]})
        for row in sorted(held, key=lambda row: (row.id != origin[row.job], row.name, row.id)):
            copies = found.setdefault(row.job, _Copies())
            copies.names.append(row.name)
            copies.awake += nodes.is_awake(t, row)
    return found


def _view(row: AnyRow, doubts: tuple[int, ...], copies: _Copies | None) -> JobView:
    there = copies or _Copies()
    deleting = row.cancelling is not None and row.ended is None
    return JobView(
        id=row.id,
        title=row.title,
        owner=row.owner,
        submitter=row.submitter,
        host=row.host,
        queue=row.queue,
        node=row.node_name,
        state=row.state,
        sentence="It will be deleted as soon as its host hears of it." if deleting else row.sentence,
        content_type=row.content_type,
        size=row.size,
        ticket=ticket_from_text(row.ticket),
        facts=Facts.from_dict(json.loads(row.facts)) if row.facts else None,
        created=int(row.created),
        expires=int(row.expires),
        direct_printer=row.direct_printer,
        doubtful=doubts,
        site=row.site,
        trouble=row.trouble,
        printer=row.printer_name,
        printed=row.pages,
        picture=bool(row.has_picture),
        ended=None if row.ended is None else int(row.ended),
        copies=len(there.names) if row.ended is None else 0,
        awake=there.awake if row.ended is None else 0,
        holders=tuple(there.names),
    )
