"""What nodes report: each event once and in order. Of a job's attempt whoever releases it is the authority, of all else
the node that it came from.

A report that makes no sense (a job of another node, a state or a kind that nobody knows) is noted in the log and passed
over: refusing it would stop everything that the node has to say after it.
"""

import json
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from pullprint import __version__
from pullprint.base.errors import BadRequest
from pullprint.base.text import printable
from pullprint.cloud import accounts, inbox, jobs, key_tables, loans, nodes, users
from pullprint.cloud.bus import orders_topic
from pullprint.cloud.key_tables import Checked
from pullprint.cloud.nodes import Node
from pullprint.cloud.orders import LOST, SILENT
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import holder, job, node, party_key, release, trace
from pullprint.model.states import State
from pullprint.vault.parts import PartRefused, unwrap_picture
from pullprint.wire import OLDEST, PROTOCOL, check_protocol
from pullprint.wire.node import (
    CancelItem,
    Differences,
    Events,
    Holding,
    Holdings,
    JobReport,
    PictureReport,
    Report,
    StateReport,
    TraceReport,
    UnknownReport,
)

MISSING_FOR = 60
"""Seconds between the first list without a job and the one that makes it gone: a list is made a moment before it is
sent, and what it lacks may just have been stored, or its end be still in the outbox."""

PICTURE_LIMIT = 32 << 10
"""Bytes of a sealed picture."""

_STATES = frozenset(State)
_NOT_UNDER_WAY = frozenset({State.HELD, State.UNCERTAIN})
_NAME = 255
_TEXT = 1_000
_TIME_LIMIT = 1 << 40
_IDS_AT_ONCE = 500
"""In one statement; SQLite has a limit."""
_ORDER_ID = re.compile("[0-9a-f]{32}")

_log = logging.getLogger(__name__)
_FORGOTTEN = State.UNCERTAIN.value
"""Outcome of orders that a node had before it lost its record of them."""

_KNOWN = (
    select(
        job.c.id, job.c.node, job.c.site, job.c.owner, job.c.state, job.c.state_ballot, job.c.ended, job.c.cancelling,
        job.c.ballot, job.c.generation, holder.c.node.is_not(None).label("holds"), holder.c.missing,
    )
    .outerjoin(
        holder,
        (holder.c.organisation == job.c.organisation)
        & (holder.c.job == job.c.id)
        & (holder.c.node == bindparam("sender")),
    )
    .where(job.c.organisation == bindparam("of"))
)  # fmt: skip
_ONE_KNOWN = _KNOWN.where(job.c.id == bindparam("job"))
_SOME_KNOWN = _KNOWN.where(job.c.id.in_(bindparam("jobs", expanding=True)))
_HELD = _KNOWN.where(holder.c.node.is_not(None), job.c.ended.is_(None))
# Always in this order, so that two nodes that report on the same jobs do not wait for each other; and before nodes.
_LOCK = (
    select(job.c.id)
    .where(job.c.organisation == bindparam("of"), job.c.id.in_(bindparam("jobs", expanding=True)))
    .order_by(job.c.id)
    .with_for_update(key_share=True)
)


def take(t: Transaction, sender: Node, events: Events) -> int:
    """Apply what is new in *events*; the number up to which everything is stored. Raises BadRequest.

    A node numbers its events in order and repeats them until they are acknowledged, so a gap means that the
    missing ones were acknowledged to a cloud that has since been restored from a backup. They are not waited for.
    """
    if any(later.n <= earlier.n for earlier, later in zip(events.events, events.events[1:], strict=False)) or (
        events.events and events.events[0].n < 1
    ):
        raise BadRequest(reason="events are not in order")
    _lock(t, sender, {event.report.job for event in events.events if not isinstance(event.report, UnknownReport)})
    # Not FOR UPDATE: another holder's report refers to this node, and would wait for it.
    row = t.one(select(node.c.epoch, node.c.last_event).where(node.c.id == sender.id).with_for_update(key_share=True))
    assert row is not None
    last = row.last_event if row.epoch == events.epoch else 0
    new = [event for event in events.events if event.n > last]
    _heard(t, sender, {event.report.job for event in new if not isinstance(event.report, UnknownReport)})
    for event in new:
        _apply(t, sender, event.report)
        last = event.n
    t.run(update(node).where(node.c.id == sender.id).values(epoch=events.epoch, last_event=last))
    return last


def reconcile(t: Transaction, sender: Node, holdings: Holdings) -> Differences:
    """Compare what a node holds with what is known of it. Raises BadRequest, ProtocolRefused."""
    check_protocol(holdings.protocol, OLDEST, PROTOCOL)
    if len(holdings.key.public) != 32:
        raise BadRequest(reason="the node's key is not an X25519 key")
    heard = t.one(select(node.c.epoch, node.c.last_event).where(node.c.id == sender.id))
    assert heard is not None
    if heard.epoch == holdings.epoch and holdings.last_event < heard.last_event:
        _log.warning("node %s came back with an old copy of its disk", sender.id)
        loans.end_all(t, sender)
        return Differences(report=(), cancelled=(), restored=True, now=t.now, version=__version__)
    of_sender = {"of": sender.organisation, "sender": sender.id}
    _lock(t, sender, (row.id for row in t.all(_HELD, of_sender)))
    mine = {row.id: row for row in t.all(_HELD, of_sender)}
    held = {holding.job: holding for holding in holdings.jobs}
    others = _some_known(t, sender, [job_id for job_id in held if job_id not in mine])
    if heard.epoch != holdings.epoch:
        # It knows nothing of the orders that it was given before, and refuses them: their time need not be waited for.
        t.run(update(release).where(release.c.node == sender.id, release.c.outcome == "").values(outcome=_FORGOTTEN))
        t.run(update(node).where(node.c.id == sender.id).values(epoch=holdings.epoch, last_event=0))
        loans.end_all(t, sender)
    nodes.note_key(t, sender.id, holdings.key, printable(holdings.version, _NAME))
    for row in mine.values():
        if row.id not in held:
            _missing(t, sender, row)
        elif row.missing is not None:
            _note_missing(t, sender, row.id, None)
    known = {**others, **mine}
    over = {row.id for row in known.values() if row.id in held and _is_over(row, held[row.id])}
    unknown = [job_id for job_id, holding in held.items() if job_id not in over and _is_news(sender, known, holding)]
    return Differences(report=tuple(unknown), cancelled=tuple(sorted(over)), now=t.now, version=__version__)


def _is_over(row: AnyRow, holding: Holding) -> bool:
    """Whether the node is to shred it. While the job lives, a copy of an old generation may be all that is left."""
    current = row.holds or holding.generation >= row.generation
    return row.ended is not None or (row.cancelling is not None and current)


def _is_news(sender: Node, known: dict[str, AnyRow], holding: Holding) -> bool:
    """Whether the node knows more of the job than the cloud does."""
    row = known.get(holding.job)
    if row is None or holding.generation > row.generation:
        return True
    if not row.holds:
        return bool(holding.generation == row.generation)
    return bool(row.node == sender.id and row.state != holding.state)


def _some_known(t: Transaction, sender: Node, ids: Sequence[str]) -> dict[str, AnyRow]:
    found: dict[str, AnyRow] = {}
    for begin in range(0, len(ids), _IDS_AT_ONCE):
        some = {"of": sender.organisation, "sender": sender.id, "jobs": ids[begin : begin + _IDS_AT_ONCE]}
        found |= {row.id: row for row in t.all(_SOME_KNOWN, some) if row.site == sender.site}
    return found


def _lock(t: Transaction, sender: Node, jobs_of_it: Iterable[str]) -> None:
    ids = sorted(jobs_of_it)
    for begin in range(0, len(ids), _IDS_AT_ONCE):
        t.run(_LOCK, {"of": sender.organisation, "jobs": ids[begin : begin + _IDS_AT_ONCE]})


def _heard(t: Transaction, sender: Node, ids: Iterable[str]) -> None:
    """The node speaks of these jobs: it has the orders that it was given for them, or will have them at once."""
    this = (release.c.organisation == sender.organisation, release.c.job.in_(sorted(ids)))
    waiting = update(release).where(*this, release.c.node == sender.id, release.c.acknowledged.is_(None))
    t.run(waiting.where(release.c.outcome == "").values(acknowledged=t.now, due=t.now + SILENT))


def _apply(t: Transaction, sender: Node, report: Report) -> None:
    if isinstance(report, UnknownReport):
        _log.info("node %s reports something of the kind %s, which is not known here", sender.id, report.kind)
        return
    if isinstance(report, JobReport):
        _job(t, sender, report)
        return
    known = _known(t, sender, report.job)
    if known is None or not _has_a_say(t, sender, known):
        _log.warning("node %s reports on job %s, which is not its own", sender.id, report.job)
    elif isinstance(report, StateReport):
        _state(t, sender, report, known)
    elif isinstance(report, PictureReport):
        _picture(t, sender, report, known)
    else:
        _step(t, sender, report)


def _has_a_say(t: Transaction, sender: Node, known: AnyRow) -> bool:
    """Holders have, and the origin; so has whoever was to release it, and was replaced as a holder since."""
    if known.holds or known.node == sender.id:
        return True
    this = (release.c.organisation == sender.organisation, release.c.job == known.id, release.c.node == sender.id)
    return t.one(select(release.c.id).where(*this).limit(1)) is not None


def _job(t: Transaction, sender: Node, report: JobReport) -> None:
    if report.state not in _STATES:
        _log.warning("node %s reports a job in a state that nobody knows", sender.id)
        return
    known = _known(t, sender, report.job)
    checked = key_tables.check(t, sender, report.job, report.table, known) if report.table else None
    if known is None:
        if (report.table and checked is None) or _add_job(t, sender, report, checked):
            return
        known = _known(t, sender, report.job)  # another holder was first
        assert known is not None
    if known.node != sender.id and (known.site != sender.site or checked is None):
        _log.warning("node %s reports job %s, which is another's", sender.id, report.job)
    elif known.ended is not None and report.state != State.DONE:
        _log.info("node %s reports job %s, which has ended", sender.id, report.job)
    else:
        if checked is not None:
            key_tables.install(t, sender, checked, known)
        if known.node == sender.id:
            _update_job(t, sender, report, known)


def _add_job(t: Transaction, sender: Node, report: JobReport, checked: Checked | None) -> bool:
    """A job that the cloud has not heard of; False when it has by now."""
    origin = checked.author if checked is not None else sender
    owner = _owner(t, sender, origin, report)
    values = {
        "organisation": sender.organisation,
        "id": report.job,
        "site": sender.site,
        "node": origin.id,
        "generation": report.generation,
        "cloud_key": report.cloud_key,
        "cloud_slot": report.cloud_slot,
        "state_ballot": 0,
        "steps": 0,
        "printer_name": "",
        "trouble": False,
        "ballot": report.ballot,
        **_described(t, report, owner),
        **_in_state(t, report, None),
    }
    if checked is not None:
        table, slot = checked.table, checked.slot
        values |= {"generation": table.generation, "cloud_key": slot.key, "cloud_slot": slot.sealed}
    if jobs.has_ended(report.state):
        values["cloud_slot"] = b""
    if not t.add(job, values):
        return False
    holders = checked.table.holders if checked is not None else (sender.id,)
    key_tables.add_holders(t, sender.organisation, report.job, holders)
    jobs.changed(t, sender.organisation, owner)
    return True


def _update_job(t: Transaction, sender: Node, report: JobReport, known: AnyRow) -> None:
    """What a job's origin says of it."""
    owner = known.owner or _owner(t, sender, sender, report)
    values = _described(t, report, owner) | {"ballot": max(report.ballot, known.ballot)}
    if known.generation == 1 and not report.table:
        values |= {
            "generation": report.generation,
            "cloud_key": report.cloud_key,
            "cloud_slot": report.cloud_slot if known.ended is None else b"",
        }
        if not known.holds and known.ended is None:
            key_tables.add_holders(t, sender.organisation, report.job, (sender.id,))
    if jobs.has_ended(report.state) or not _is_anothers(t, sender, known):
        values |= _in_state(t, report, known.ended)
    t.run(update(job).where(job.c.organisation == sender.organisation, job.c.id == report.job).values(values))
    if known.missing is not None:
        _note_missing(t, sender, report.job, None)
    jobs.changed(t, sender.organisation, owner)


def _described(t: Transaction, report: JobReport, owner: str) -> dict[str, Any]:
    return {
        "job_uuid": printable(report.job_uuid, _NAME),
        "cups_job_id": report.cups_job_id,
        "queue": printable(report.queue, _NAME),
        "owner": owner,
        "submitter": printable(report.submitter, _NAME),
        "host": printable(report.host, _NAME),
        "title": printable(report.title, _NAME),
        "content_type": printable(report.content_type, _NAME),
        "size": report.size,
        "ticket": jobs.ticket_to_text(report.ticket),
        "facts": json.dumps(report.facts.to_dict()) if report.facts else "",
        "created": report.created,
        "expires": report.expires,
        "direct_printer": printable(report.direct_printer, _NAME),
        "claim_hash": jobs.claim_hash(report.claim_code) if report.claim_code and not owner else None,
    }


def _in_state(t: Transaction, report: JobReport, ended: float | None) -> dict[str, Any]:
    values: dict[str, Any] = {"state": report.state, "sentence": printable(report.sentence, _TEXT), "ended": None}
    if jobs.has_ended(report.state):
        values |= {"ended": ended or t.now, "cloud_slot": b"", "picture": None}
    return values


def _owner(t: Transaction, sender: Node, origin: Node, report: JobReport) -> str:
    """What a managed host says; of another one only what the user has confirmed of the account that it came from.

    A host that is not managed is believed of nobody's accounts but its own.
    """
    name = report.owner.lower()
    if sender.id != origin.id and not sender.managed:
        return ""
    if origin.managed:
        return name if name and users.exists(t, sender.organisation, name) else ""
    local = not report.host
    return name if local and name and accounts.is_bound(t, origin.id, report.submitter, name) else ""


def _state(t: Transaction, sender: Node, report: StateReport, known: AnyRow) -> None:
    if report.state not in _STATES:
        _log.warning("node %s reports a state that nobody knows", sender.id)
        return
    if known.ended is not None and report.state != State.DONE:
        _log.info("node %s moves job %s, which has ended", sender.id, report.job)
        return
    elsewhere = bool(report.ballot) and _outcome(t, sender, report, known)
    values: dict[str, Any] = {"ballot": max(known.ballot, report.ballot)}
    if _counts(t, sender, report, known):
        values |= {"state": report.state, "ended": None, "state_ballot": max(known.state_ballot, report.ballot)}
        if not _is_replaced(t, sender, report, known):
            trouble = report.state == State.HELD and report.nothing_sent and not elsewhere
            values |= {"sentence": printable(report.sentence, _TEXT), "trouble": trouble}
        if report.pages is not None:
            values["pages"] = report.pages
        if jobs.has_ended(report.state):
            values |= {"ended": known.ended or t.now, "cloud_slot": b"", "claim_hash": None, "picture": None}
    else:
        _log.info("node %s reports on an attempt of job %s that was replaced", sender.id, report.job)
    t.run(update(job).where(job.c.organisation == sender.organisation, job.c.id == report.job).values(values))
    if report.state == State.CANCELLED and known.cancelling is None:
        _cancel_elsewhere(t, sender, report.job, known.owner or sender.name)
    jobs.changed(t, sender.organisation, known.owner)


def _cancel_elsewhere(t: Transaction, sender: Node, job_id: str, by: str) -> None:
    """The job was deleted at its owner's terminal: the other holders have copies yet."""
    for node_id in jobs.holders(t, sender.organisation, job_id):
        if node_id != sender.id:
            inbox.put(t, node_id, CancelItem(seq=0, job=job_id, by=by))


def _counts(t: Transaction, sender: Node, report: StateReport, known: AnyRow) -> bool:
    """Whether a report says how the job is, and not only what became of an attempt."""
    if jobs.has_ended(report.state):
        return True
    if report.ballot:
        return bool(report.ballot >= known.state_ballot)
    if known.cancelling is not None:
        return True
    return bool(known.node == sender.id) and not _is_anothers(t, sender, known)


def _is_anothers(t: Transaction, sender: Node, known: AnyRow) -> bool:
    """Whether the job is at a printer, or may have been printed, by another node, which alone says how that ends."""
    if not known.state_ballot or known.state not in jobs.BUSY | {State.UNCERTAIN}:
        return False
    this = (release.c.organisation == sender.organisation, release.c.job == known.id)
    by = t.run(select(release.c.node).where(*this, release.c.ballot == known.state_ballot)).scalar()
    return by is not None and by != sender.id


def _is_replaced(t: Transaction, sender: Node, report: StateReport, known: AnyRow) -> bool:
    """Whether it came to nothing and a later order is out, of which the job's page already speaks."""
    nothing = report.state == State.HELD or (report.state == State.UNCERTAIN and report.nothing_sent)
    return nothing and 0 < report.ballot < known.ballot and jobs.under_way(t, sender.organisation, report.job)


def _outcome(t: Transaction, sender: Node, report: StateReport, known: AnyRow) -> bool:
    """Note what became of an attempt; whether another holder may be asked to do it instead."""
    state = State(report.state)
    if state in jobs.BUSY:
        outcome = ""
    elif report.nothing_sent:
        outcome = "nothing-sent"
    else:
        outcome = state.value
    this = (
        release.c.organisation == sender.organisation,
        release.c.job == report.job,
        release.c.ballot == report.ballot,
    )
    row = t.one(select(release.c.id, release.c.printer, release.c.node).where(*this))
    if row is not None and report.order and _ORDER_ID.fullmatch(row.id) and row.id != report.order:
        _log.warning("node %s reports on job %s under another order of that ballot", sender.id, report.job)
        return False
    if row is not None and not report.order and row.node != sender.id:
        return False  # what became of an order, its own node says
    if row is not None:
        latest = bool(report.ballot == known.ballot and row.printer)
        elsewhere = latest and report.elsewhere and report.nothing_sent and state in _NOT_UNDER_WAY
        patience = SILENT if state is State.PREPARED else LOST
        due = t.now if elsewhere else t.now + patience if latest and state in jobs.BUSY else None
        t.run(update(release).where(*this).values(outcome=outcome, due=due))
        if elsewhere:
            t.wake(orders_topic())
        return elsewhere
    # Released without the cloud. The row makes the ballot one that the owner can name.
    values = {
        "organisation": sender.organisation,
        "id": f"{report.job}-{report.ballot}",
        "job": report.job,
        "ballot": report.ballot,
        "printer": "",
        "printer_name": "",
        "node": sender.id,
        "by": "",
        "ticket": "",
        "forces": "[]",
        "issued": t.now,
        "expires": t.now,
        "outcome": outcome,
    }
    t.run(insert(release), values)
    return False


def _step(t: Transaction, sender: Node, report: TraceReport) -> None:
    detail = {printable(name, 64): printable(value, _TEXT) for name, value in report.detail.items()}
    values = {
        "organisation": sender.organisation,
        "job": report.job,
        "source": sender.id,
        "seq": report.seq,
        "at": report.at if 0 <= report.at < _TIME_LIMIT else t.now,  # neither NaN nor infinity
        "host": sender.name,
        "event": printable(report.event, 64),
        "text": printable(report.text, _TEXT),
        "detail": json.dumps(detail),
    }
    t.add(trace, values)


def _picture(t: Transaction, sender: Node, report: PictureReport, known: AnyRow) -> None:
    if len(report.picture) > PICTURE_LIMIT:
        _log.warning("node %s reports a picture that is too large", sender.id)
        return
    this = (party_key.c.organisation == sender.organisation, party_key.c.id == report.cloud_key)
    row = t.one(select(party_key.c.private).where(*this))
    try:
        if row is None:
            raise PartRefused(reason="its key is not here")
        picture = unwrap_picture(report.picture, bytes(row.private), job=report.job, key=report.cloud_key)
    except PartRefused as error:
        _log.warning("node %s reports a picture of job %s: %s", sender.id, report.job, error)
        return
    kept = (
        update(job)
        .where(job.c.organisation == sender.organisation, job.c.id == report.job)
        .where(job.c.ended.is_(None), job.c.cancelling.is_(None))
        .values(picture=picture)
    )
    if t.run(kept).rowcount:
        jobs.changed(t, sender.organisation, known.owner)


def _missing(t: Transaction, sender: Node, row: AnyRow) -> None:
    if row.missing is None:
        _note_missing(t, sender, row.id, t.now)
    elif row.missing <= t.now - MISSING_FOR:
        _lost(t, sender, row)


def _note_missing(t: Transaction, sender: Node, job_id: str, since: float | None) -> None:
    t.run(_this_copy(update(holder), sender, job_id).values(missing=since))


def _lost(t: Transaction, sender: Node, row: AnyRow) -> None:
    """The node holds it no more; when nobody does, it is gone."""
    others = select(holder.c.node).where(holder.c.organisation == sender.organisation, holder.c.job == row.id)
    if t.one(others.where(holder.c.node != sender.id).limit(1)) is None:
        _gone(t, sender, row)
    else:
        t.run(_this_copy(delete(holder), sender, row.id))
    jobs.add_step(t, sender.organisation, row.id, "gone", f"{sender.name} does not hold it any more.")
    jobs.changed(t, sender.organisation, row.owner)


def _this_copy(statement: Any, sender: Node, job_id: str) -> Any:
    of_sender = (holder.c.organisation == sender.organisation, holder.c.node == sender.id)
    return statement.where(*of_sender, holder.c.job == job_id)


def _gone(t: Transaction, sender: Node, row: AnyRow) -> None:
    state = State.CANCELLED if row.cancelling is not None else State.EXPIRED
    t.run(
        update(job)
        .where(job.c.organisation == sender.organisation, job.c.id == row.id)
        .values(
            state=state.value,
            ended=t.now,
            cloud_slot=b"",
            picture=None,
            sentence="Its host does not hold it any more.",
        )
    )


def _known(t: Transaction, sender: Node, job_id: str) -> AnyRow | None:
    """What is known of a job, and whether the sender holds it; `take` has locked it."""
    return t.one(_ONE_KNOWN, {"of": sender.organisation, "job": job_id, "sender": sender.id})
