"""Release orders: who may have what printed where, signed, once.

An order, its ballot, the cloud's key part for it and its place in the holder's inbox are one transaction.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from pullprint.base.errors import BadRequest, NotAllowed, NotFound, PullprintError
from pullprint.cloud import accounts, inbox, jobs, keys, printers
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import holder, job, node, organisation, party_key, release
from pullprint.model.states import State, WrongState
from pullprint.model.ticket import Ticket
from pullprint.vault.parts import PartRefused
from pullprint.wire.node import PARK, Ask, OrderItem
from pullprint.wire.order import LIFETIME, Order, sign_order
from pullprint.wire.views import JobView, PrinterView, ReleaseRequest

AWAY_AFTER = 2.4 * PARK
"""Seconds of silence after which a node is not there: no poll lasts half as long."""

_AT_BEST = (
    select(
        job.c.organisation, job.c.id, job.c.site, job.c.owner, job.c.state, job.c.ticket, job.c.expires,
        job.c.cancelling, job.c.direct_printer, job.c.generation, job.c.cloud_key, job.c.cloud_slot, job.c.ballot,
        node.c.id.label("holder"), node.c.name.label("node_name"), node.c.seen.label("node_seen"),
        node.c.revoked.label("node_revoked"), node.c.key_id, node.c.key_public,
        organisation.c.order_key, party_key.c.private,
    )
    .join(holder, (holder.c.organisation == job.c.organisation) & (holder.c.job == job.c.id))
    .join(node, node.c.id == holder.c.node)
    .join(organisation, organisation.c.id == job.c.organisation)
    .outerjoin(
        party_key, (party_key.c.organisation == job.c.organisation) & (party_key.c.id == job.c.cloud_key)
    )
    .where(job.c.organisation == bindparam("of"), job.c.id == bindparam("job"))
    .order_by(node.c.revoked.is_not(None), node.c.seen.desc())
    .limit(1)
    .with_for_update(of=job)
)  # fmt: skip
_AT_HOLDER = _AT_BEST.where(node.c.id == bindparam("holder"))
_INSERT = insert(release)
_ON_ITS_WAY = (
    update(job)
    .where(job.c.organisation == bindparam("of"), job.c.id == bindparam("job"))
    .values(
        ballot=bindparam("to_ballot"),
        sentence=bindparam("to_sentence"),
        printer_name=bindparam("to_printer"),
        trouble=False,
        pages=None,
    )
)


class InDoubt(WrongState):
    """This job may have been printed already. Look at the printer first; then say that it came out, or print again."""

    code = "in-doubt"


class HolderAway(PullprintError):
    """The computer that holds this job ({name}) does not answer. The job is safe there: wake it up, then try again."""

    code = "holder-away"
    http_status = 409


class NoKey(PullprintError):
    """The cloud cannot help to open this job: {reason}. Release it where it is held, or print it again."""

    code = "no-key"
    http_status = 409


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be printed, after all checks on who asks."""

    job: AnyRow
    printer: PrinterView
    ticket: Ticket
    forces: tuple[int, ...]
    by: str


def release_for_user(t: Transaction, organisation_id: str, user: str, job_id: str, request: ReleaseRequest) -> JobView:
    """The owner presses Print on the page: the order goes into the inbox of a holder.

    Raises NotFound, WrongState, InDoubt, BeingPrinted, HolderAway, TicketRefused, NoKey.
    """
    row = _locked(t, organisation_id, job_id)
    if row is None or not user or row.owner != user:
        raise NotFound(what="job")
    printer = printers.by_id_or_name(t, organisation_id, row.site, request.printer)
    doubts = jobs.doubtful(t, organisation_id, job_id) if row.state == State.UNCERTAIN else ()
    seen = doubts if request.doubtful is None else request.doubtful
    if row.state == State.UNCERTAIN and (not request.again or set(doubts) - set(seen)):
        raise InDoubt
    if row.node_revoked is not None or row.node_seen < t.now - AWAY_AFTER:
        raise HolderAway(name=row.node_name)
    wish = _Wish(row, printer, _ticket(row, request.changes), doubts, user)
    item = _issue(t, wish)
    inbox.put(t, row.holder, item, expires=t.now + LIFETIME)
    return jobs.view(t, organisation_id, user, job_id)


def release_for_node(t: Transaction, sender: Node, ask: Ask) -> OrderItem:
    """A holder asks, for the owner in a terminal or for a direct queue: the order is the answer.

    What the owner's host says of who sits at it counts on managed hosts, and where the owner said that an account of
    it is theirs. A job from a direct queue needs no owner, and goes to that queue's printer and no other. Raises as
    `release_for_user`, and NotAllowed.
    """
    row = _locked(t, sender.organisation, ask.job, sender.id)
    if row is None:
        raise NotFound(what="job on this host")
    if not row.owner and not row.direct_printer:
        raise NotAllowed(reason="nobody has claimed this job yet")
    if row.owner and ask.by.lower() != row.owner:
        raise NotAllowed(reason="it is somebody else's job")
    printer = printers.by_id_or_name(t, sender.organisation, row.site, ask.printer)
    if row.direct_printer:
        if printer.name.lower() != row.direct_printer.lower():
            raise NotAllowed(reason="a job from a direct queue goes to the printer of that queue")
    elif not sender.managed and not accounts.has_user(t, sender.id, row.owner):
        raise NotAllowed(reason="this host is not managed; run `pullprint login`, or print from the web page")
    doubts = jobs.doubtful(t, sender.organisation, ask.job) if row.state == State.UNCERTAIN else ()
    if set(doubts) - set(ask.forces):
        raise InDoubt
    if set(ask.forces) - set(doubts):
        raise BadRequest(reason="it names attempts that are not in doubt")
    return _issue(t, _Wish(row, printer, _ticket(row, ask.changes), doubts, row.owner or row.submitter))


def _ticket(row: AnyRow, changes: Mapping[str, str]) -> Ticket:
    """The job's ticket with *changes*. Raises TicketRefused."""
    return jobs.ticket_from_text(row.ticket).changed(changes)


def _locked(t: Transaction, organisation_id: str, job_id: str, holder_id: str = "") -> AnyRow | None:
    """The job, one holder of it (*holder_id*, or the one that was heard of last), and the keys that an order takes."""
    values = {"of": organisation_id, "job": job_id}
    return t.one(_AT_HOLDER, {**values, "holder": holder_id}) if holder_id else t.one(_AT_BEST, values)


def _issue(t: Transaction, wish: _Wish) -> OrderItem:
    row = wish.job
    _check_state(t, row)
    order = Order(
        jti=secrets.token_hex(16),
        iss=row.organisation,
        aud=row.holder,
        iat=int(t.now),
        exp=int(t.now) + LIFETIME,
        job=row.id,
        printer=wish.printer.id,
        ticket=wish.ticket,
        ballot=row.ballot + 1,
        forces=wish.forces,
        by=wish.by,
    )
    part = _part(row, order.jti)
    _record(t, wish, order)
    return OrderItem(order=sign_order(order, row.order_key), part=part, part_key=row.key_id)


def _check_state(t: Transaction, row: AnyRow) -> None:
    if row.state in jobs.BUSY:
        raise jobs.BeingPrinted
    if row.state not in (State.HELD, State.UNCERTAIN):
        raise WrongState(state=row.state)
    if row.cancelling is not None:
        raise WrongState(state="being deleted")
    if row.expires <= t.now:
        raise WrongState(state=State.EXPIRED.value)
    if jobs.under_way(t, row.organisation, row.id):
        raise jobs.BeingPrinted


def _part(row: AnyRow, order_id: str) -> bytes:
    if row.private is None:
        raise NoKey(reason="it was sealed to a key that the cloud does not have")
    try:
        return keys.hand_over(
            row.cloud_slot,
            row.private,
            job_id=row.id,
            key=row.cloud_key,
            generation=row.generation,
            order=order_id,
            to=row.key_public,
            to_key=row.key_id,
        )
    except PartRefused as error:
        raise NoKey(reason="its key part is damaged or another job's") from error


def _record(t: Transaction, wish: _Wish, order: Order) -> None:
    row = wish.job
    values = {
        "organisation": row.organisation,
        "id": order.jti,
        "job": row.id,
        "ballot": order.ballot,
        "printer": wish.printer.id,
        "printer_name": wish.printer.name,
        "node": row.holder,
        "by": wish.by,
        "ticket": jobs.ticket_to_text(wish.ticket),
        "forces": json.dumps(wish.forces),
        "issued": t.now,
        "expires": order.exp,
    }
    t.run(_INSERT, values)
    sentence = f"On its way to {wish.printer.name}."
    this = {"of": row.organisation, "job": row.id}
    t.run(_ON_ITS_WAY, {**this, "to_ballot": order.ballot, "to_sentence": sentence, "to_printer": wish.printer.name})
    text = f"Released by {wish.by} for {wish.printer.name}."
    if wish.forces:
        text = f"Released once more by {wish.by} for {wish.printer.name}."
    jobs.add_step(t, row.organisation, row.id, "release", text, order=order.jti, printer=wish.printer.name)
    jobs.changed(t, row.organisation, wish.by)
