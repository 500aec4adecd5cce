"""What nodes report: each event once and in order; of a job's state its node is the authority.

A report that makes no sense (a job of another node, a state or a kind that nobody knows) is noted in the log and passed
over: refusing it would stop everything that the node has to say after it.
"""

import json
import logging
from typing import Any

from sqlalchemy import insert, select, update

from pullprint import __version__
from pullprint.base.errors import BadRequest
from pullprint.base.text import printable
from pullprint.cloud import accounts, jobs, nodes, users
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import holder, job, node, party_key, release, trace
from pullprint.model.states import State
from pullprint.vault.parts import PartRefused, unwrap_picture
from pullprint.wire import OLDEST, PROTOCOL, check_protocol
from pullprint.wire.node import (
    Differences,
    Events,
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
_NAME = 255
_TEXT = 1_000
_TIME_LIMIT = 1 << 40

_log = logging.getLogger(__name__)
_FORGOTTEN = State.UNCERTAIN.value
"""Outcome of orders that a node had before it lost its record of them."""


def take(t: Transaction, sender: Node, events: Events) -> int:
    """Apply what is new in *events*; the number up to which everything is stored. Raises BadRequest.

    A node numbers its events in order and repeats them until they are acknowledged, so a gap means that the
    missing ones were acknowledged to a cloud that has since been restored from a backup. They are not waited for.
    """
    row = t.one(select(node.c.epoch, node.c.last_event).where(node.c.id == sender.id).with_for_update())
    assert row is not None
    last = row.last_event if row.epoch == events.epoch else 0
    previous = 0
    for event in events.events:
        if event.n <= previous:
            raise BadRequest(reason="events are not in order")
        previous = event.n
        if event.n > last:
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
        return Differences(report=(), cancelled=(), restored=True, now=t.now, version=__version__)
    if heard.epoch != holdings.epoch:
        # It knows nothing of the orders that it was given before, and refuses them: their time need not be waited for.
        t.run(update(release).where(release.c.node == sender.id, release.c.outcome == "").values(outcome=_FORGOTTEN))
        t.run(update(node).where(node.c.id == sender.id).values(epoch=holdings.epoch, last_event=0))
    nodes.note_key(t, sender.id, holdings.key, printable(holdings.version, _NAME))
    held = {holding.job: holding.state for holding in holdings.jobs}
    rows = t.all(
        select(job.c.id, job.c.owner, job.c.state, job.c.ended, job.c.missing, job.c.cancelling)
        .where(job.c.organisation == sender.organisation, job.c.node == sender.id)
        .with_for_update()
    )
    known = {row.id: row for row in rows}
    over = {row.id for row in rows if row.id in held and (row.ended is not None or row.cancelling is not None)}
    for row in rows:
        if row.id in held and row.missing is not None:
            _note_missing(t, sender, row.id, None)
        elif row.ended is None and row.id not in held:
            _missing(t, sender, row)
    unknown = [j for j, state in held.items() if j not in over and (j not in known or known[j].state != state)]
    return Differences(report=tuple(unknown), cancelled=tuple(sorted(over)), now=t.now, version=__version__)


def _apply(t: Transaction, sender: Node, report: Report) -> None:
    if isinstance(report, UnknownReport):
        _log.info("node %s reports something of the kind %s, which is not known here", sender.id, report.kind)
        return
    if isinstance(report, JobReport):
        _job(t, sender, report)
        return
    known = _known(t, sender, report.job)
    if known is None or known.node != sender.id:
        _log.warning("node %s reports on job %s, which is not its own", sender.id, report.job)
    elif isinstance(report, StateReport):
        _state(t, sender, report, known)
    elif isinstance(report, PictureReport):
        _picture(t, sender, report, known)
    else:
        _step(t, sender, report)


def _job(t: Transaction, sender: Node, report: JobReport) -> None:
    known = _known(t, sender, report.job)
    if known is not None and known.node != sender.id:
        _log.warning("node %s reports job %s, which is another's", sender.id, report.job)
        return
    if report.state not in _STATES:
        _log.warning("node %s reports a job in a state that nobody knows", sender.id)
        return
    owner = known.owner if known is not None and known.owner else _owner(t, sender, report)
    ended = jobs.has_ended(report.state)
    if known is not None and known.ended is not None and report.state != State.DONE:
        _log.info("node %s reports job %s, which has ended", sender.id, report.job)
        return
    values: dict[str, Any] = {
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
        "state": report.state,
        "missing": None,
        "sentence": printable(report.sentence, _TEXT),
        "created": report.created,
        "expires": report.expires,
        "ended": t.now if ended else None,
        "direct_printer": printable(report.direct_printer, _NAME),
        "claim_hash": jobs.claim_hash(report.claim_code) if report.claim_code and not owner else None,
        "generation": report.generation,
        "cloud_key": report.cloud_key,
        "cloud_slot": b"" if ended else report.cloud_slot,
        "ballot": max(report.ballot, known.ballot if known is not None else 0),
    }
    if known is None:
        fixed = {"organisation": sender.organisation, "id": report.job, "site": sender.site, "node": sender.id}
        t.run(insert(job), {**fixed, **values})
        t.run(
            insert(holder),
            {"organisation": sender.organisation, "job": report.job, "node": sender.id, "voter": True},
        )
    else:
        values |= {"picture": None} if ended else {}
        t.run(update(job).where(job.c.organisation == sender.organisation, job.c.id == report.job).values(values))
    jobs.changed(t, sender.organisation, owner)


def _owner(t: Transaction, sender: Node, report: JobReport) -> str:
    """What a managed host says; of another one only what the user has confirmed of the account that it came from."""
    name = report.owner.lower()
    if sender.managed:
        return name if name and users.exists(t, sender.organisation, name) else ""
    local = not report.host
    return name if local and name and accounts.is_bound(t, sender.id, report.submitter, name) else ""


def _state(t: Transaction, sender: Node, report: StateReport, known: AnyRow) -> None:
    if report.state not in _STATES:
        _log.warning("node %s reports a state that nobody knows", sender.id)
        return
    if known.ended is not None and report.state != State.DONE:
        _log.info("node %s moves job %s, which has ended", sender.id, report.job)
        return
    values: dict[str, Any] = {
        "state": report.state,
        "missing": None,
        "sentence": printable(report.sentence, _TEXT),
        "trouble": report.state == State.HELD and report.nothing_sent,
        "ballot": max(known.ballot, report.ballot),
    }
    if jobs.has_ended(report.state):
        values |= {"ended": known.ended or t.now, "cloud_slot": b"", "claim_hash": None, "picture": None}
    else:
        values["ended"] = None
    if report.pages is not None:
        values["pages"] = report.pages
    t.run(update(job).where(job.c.organisation == sender.organisation, job.c.id == report.job).values(values))
    if report.ballot:
        _outcome(t, sender, report)
    jobs.changed(t, sender.organisation, known.owner)


def _outcome(t: Transaction, sender: Node, report: StateReport) -> None:
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
    if t.run(update(release).where(*this).values(outcome=outcome)).rowcount == 0:
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
        _gone(t, sender, row)


def _note_missing(t: Transaction, sender: Node, job_id: str, since: float | None) -> None:
    t.run(update(job).where(job.c.organisation == sender.organisation, job.c.id == job_id).values(missing=since))


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
    jobs.add_step(t, sender.organisation, row.id, "gone", f"{sender.name} does not hold it any more.")
    jobs.changed(t, sender.organisation, row.owner)


def _known(t: Transaction, sender: Node, job_id: str) -> AnyRow | None:
    return t.one(
        select(job.c.node, job.c.owner, job.c.ended, job.c.ballot)
        .where(job.c.organisation == sender.organisation, job.c.id == job_id)
        .with_for_update()
    )
