"""Release orders: who may have what printed where, signed, once.

An order, its ballot, the cloud's key part for it and its place in the holder's inbox are one transaction. What becomes
of an order whose holder does not answer is in `takeover`.

Rows are locked in this order everywhere: jobs, nodes, users. An inbox counts in its node's row, and a user's list in
the user's.
"""

import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from pullprint.base.errors import BadRequest, NotAllowed, NotFound, PullprintError
from pullprint.cloud import accounts, inbox, jobs, keys, printers
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import holder, job, node, organisation, party_key, release
from pullprint.model.placement import Role
from pullprint.model.states import State, WrongState
from pullprint.model.ticket import Ticket
from pullprint.vault.parts import PartRefused
from pullprint.wire.node import PARK, Ask, OrderItem, PartAsk, PartItem
from pullprint.wire.order import LIFETIME, Order, sign_order
from pullprint.wire.views import JobView, PrinterView, ReleaseRequest

AWAY_AFTER = 2.4 * PARK
"""Seconds of silence after which a node is not there: no poll lasts half as long."""
CONNECTED = 5.0
"""Seconds since a node was last seen within which it is taken to be connected, whatever is known of its polls."""
TAKE_OVER = 4.0
"""Seconds in which the holder that was given an order through its inbox has to be heard on that job."""
SILENT = 15.0
"""Seconds without any request from a releaser that had been heard, after which it is taken to be dead."""
LOST = 60.0
"""Seconds of silence after which a node that had begun to send a document is believed to be gone: a poll parks less."""
TAKEN_OVER = "taken-over"
"""Outcome of an order that another holder was given instead; its attempt is as doubtful as any without a proof."""

IsHere = Callable[[str], bool]
"""Whether a node has a poll parked here (`presence.Presence.is_here`)."""

_AT_HOLDERS = (
    select(
        job.c.organisation, job.c.id, job.c.site, job.c.owner, job.c.state, job.c.ticket, job.c.expires,
        job.c.cancelling, job.c.ended, job.c.direct_printer, job.c.generation, job.c.cloud_key, job.c.cloud_slot,
        job.c.ballot, job.c.state_ballot, job.c.node.label("origin"),
        node.c.id.label("holder"), node.c.name.label("node_name"), node.c.seen.label("node_seen"),
        node.c.revoked.label("node_revoked"), node.c.role, node.c.key_id, node.c.key_public,
        organisation.c.order_key, party_key.c.private,
    )
    .join(holder, (holder.c.organisation == job.c.organisation) & (holder.c.job == job.c.id))
    .join(node, node.c.id == holder.c.node)
    .join(organisation, organisation.c.id == job.c.organisation)
    .outerjoin(
        party_key, (party_key.c.organisation == job.c.organisation) & (party_key.c.id == job.c.cloud_key)
    )
    .where(job.c.organisation == bindparam("of"), job.c.id == bindparam("job"))
    .with_for_update(of=job)
)  # fmt: skip
_AT_HOLDER = _AT_HOLDERS.where(node.c.id == bindparam("holder"))
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
    """The job, and the holder that is to print it."""
    printer: PrinterView
    ticket: Ticket
    forces: tuple[int, ...]
    by: str
    wished: float
    """When its owner asked for it."""
    tried: tuple[str, ...] = ()
    """Nodes that were given it before."""


def nobody_is_here(_node_id: str) -> bool:
    """Where nothing is known of parked polls."""
    return False


def release_for_user(
    t: Transaction,
    organisation_id: str,
    user: str,
    job_id: str,
    request: ReleaseRequest,
    is_here: IsHere = nobody_is_here,
) -> JobView:
    """The owner presses Print on the page: the order goes into the inbox of the best holder.

    Raises NotFound, WrongState, InDoubt, BeingPrinted, HolderAway, TicketRefused, NoKey.
    """
    rows = holders_of(t, organisation_id, job_id)
    if not rows or not user or rows[0].owner != user:
        raise NotFound(what="job")
    row = best(t, rows, is_here) or _last_seen(rows)
    printer = printers.by_id_or_name(t, organisation_id, row.site, request.printer)
    doubts = jobs.doubtful(t, organisation_id, job_id) if row.state == State.UNCERTAIN else ()
    seen = doubts if request.doubtful is None else request.doubtful
    if row.state == State.UNCERTAIN and (not request.again or set(doubts) - set(seen)):
        raise InDoubt
    if _is_away(t, row, is_here):
        raise HolderAway(name=row.node_name)
    wish = _Wish(row, printer, _ticket(row, request.changes), doubts, user, t.now)
    _check_state(t, row)
    order = _send(t, wish)
    _tell(t, wish, order, "release", _released(wish), f"On its way to {printer.name}.")
    return jobs.view(t, organisation_id, user, job_id)


def release_for_node(t: Transaction, sender: Node, ask: Ask) -> OrderItem:
    """A holder asks, for the owner in a terminal or for a direct queue: the order is the answer.

    What the owner's host says of who sits at it counts on managed hosts, and where the owner said that an account of
    it is theirs. A job from a direct queue needs no owner, and goes to that queue's printer and no other. Raises as
    `release_for_user`, and NotAllowed.
    """
    row = t.one(_AT_HOLDER, {"of": sender.organisation, "job": ask.job, "holder": sender.id})
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
    wish = _Wish(row, printer, _ticket(row, ask.changes), doubts, row.owner or row.submitter, t.now)
    _check_state(t, row)
    order, item = _make(t, wish)
    # Whoever asks was heard; another holder takes over only once it is silent.
    _record(t, wish, order, acknowledged=t.now, due=t.now + SILENT)
    _tell(t, wish, order, "release", _released(wish), f"On its way to {printer.name}.")
    return item


def part_for_holder(t: Transaction, sender: Node, ask: PartAsk) -> PartItem:
    """A holder that lost the data key with its memory asks for the cloud's part, to make others holders of the job too.

    Raises NotFound, WrongState, BadRequest, NoKey.
    """
    row = t.one(_AT_HOLDER, {"of": sender.organisation, "job": ask.job, "holder": sender.id})
    if row is None:
        raise NotFound(what="job on this host")
    if row.state != State.HELD:
        raise WrongState(state=row.state)
    _check_state(t, row)
    if row.generation != ask.generation:
        raise BadRequest(reason="its key parts are of another generation")
    word = f"placement-{ask.generation}"
    part = handed_over(row, word)
    text = f"{row.node_name} was given the cloud's key part, to place copies."
    jobs.add_step(t, row.organisation, row.id, "placement-part", text, generation=str(ask.generation))
    return PartItem(order=word, part=part, part_key=row.key_id)


def take_over(t: Transaction, old: AnyRow, rows: Sequence[AnyRow], is_here: IsHere) -> bool:
    """Give what the order *old* (a row of `release`) asks for to the best of the job's holders (*rows* of `holders_of`)
    that has not been tried; whether there is one. Raises NotFound when the printer is gone, and NoKey."""
    tried = tuple(json.loads(old.tried)) or (old.node,)
    row = best(t, rows, is_here, without=tried)
    if row is None:
        return False
    printer = printers.by_id_or_name(t, row.organisation, row.site, old.printer)
    # What the owner has forced is forced once: unless nothing came of that, the owner is to be asked again.
    forces = tuple(json.loads(old.forces)) if old.outcome == "nothing-sent" else ()
    wish = _Wish(row, printer, jobs.ticket_from_text(old.ticket), forces, old.by, old.wished, tried)
    order = _send(t, wish)
    before = t.one(select(node.c.name).where(node.c.id == old.node))
    assert before is not None
    new, former, place = row.node_name, before.name, printer.name
    text = f"{new} takes over from {former}."
    _tell(t, wish, order, "take-over", text, f"{new} takes over from {former}: on its way to {place}.")
    return True


def holders_of(t: Transaction, organisation_id: str, job_id: str) -> Sequence[AnyRow]:
    """The job, locked, once for each of its holders, with the keys that an order takes."""
    return t.all(_AT_HOLDERS, {"of": organisation_id, "job": job_id})


def best(t: Transaction, rows: Sequence[AnyRow], is_here: IsHere, without: Collection[str] = ()) -> AnyRow | None:
    """The holder that is to have an order: connected ones first, and of these a super node, then the job's origin;
    of the others the one that was seen last. None where all are away or in *without*."""

    def place(row: AnyRow) -> tuple[bool, bool, bool, float]:
        connected = is_here(row.holder) or row.node_seen >= t.now - CONNECTED
        if not connected:
            return True, True, True, -row.node_seen
        return False, row.role != Role.SUPER, row.holder != row.origin, -row.node_seen

    there = [row for row in rows if row.holder not in without and not _is_away(t, row, is_here)]
    return min(there, key=place, default=None)


def _last_seen(rows: Sequence[AnyRow]) -> AnyRow:
    return max(rows, key=lambda row: (row.node_revoked is None, row.node_seen))


def _is_away(t: Transaction, row: AnyRow, is_here: IsHere) -> bool:
    return row.node_revoked is not None or (row.node_seen < t.now - AWAY_AFTER and not is_here(row.holder))


def _ticket(row: AnyRow, changes: Mapping[str, str]) -> Ticket:
    """The job's ticket with *changes*. Raises TicketRefused."""
    return jobs.ticket_from_text(row.ticket).changed(changes)


def _released(wish: _Wish) -> str:
    if wish.forces:
        return f"Released once more by {wish.by} for {wish.printer.name}."
    return f"Released by {wish.by} for {wish.printer.name}."


def _send(t: Transaction, wish: _Wish) -> Order:
    """Make an order and put it into the holder's inbox."""
    order, item = _make(t, wish)
    seq = inbox.put(t, wish.job.holder, item, expires=t.now + LIFETIME)
    _record(t, wish, order, due=t.now + TAKE_OVER, inbox_seq=seq)
    return order


def _make(t: Transaction, wish: _Wish) -> tuple[Order, OrderItem]:
    row = wish.job
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
    part = handed_over(row, order.jti)
    return order, OrderItem(order=sign_order(order, row.order_key), part=part, part_key=row.key_id)


def _check_state(t: Transaction, row: AnyRow) -> None:
    if row.state in jobs.BUSY:
        raise jobs.BeingPrinted
    if row.ended is not None or row.state not in (State.HELD, State.UNCERTAIN):
        raise WrongState(state=row.state)
    if row.cancelling is not None:
        raise WrongState(state="being deleted")
    if row.expires <= t.now:
        raise WrongState(state=State.EXPIRED.value)
    if jobs.under_way(t, row.organisation, row.id):
        raise jobs.BeingPrinted


def handed_over(row: AnyRow, order_id: str) -> bytes:
    """The cloud's key part of the job in *row* (of `holders_of`), sealed for that holder and this order alone. Raises
    NoKey."""
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


def _record(t: Transaction, wish: _Wish, order: Order, **more: object) -> None:
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
        "wished": wish.wished,
        "tried": json.dumps([*wish.tried, row.holder]),
        "acknowledged": None,
        "inbox_seq": None,
    }
    t.run(_INSERT, {**values, **more})


def _tell(t: Transaction, wish: _Wish, order: Order, event: str, text: str, sentence: str) -> None:
    """Say on the job's page and in its trace that it is on its way."""
    row, printer = wish.job, wish.printer.name
    this = {"of": row.organisation, "job": row.id}
    t.run(_ON_ITS_WAY, {**this, "to_ballot": order.ballot, "to_sentence": sentence, "to_printer": printer})
    jobs.add_step(t, row.organisation, row.id, event, text, order=order.jti, printer=printer)
    jobs.changed(t, row.organisation, row.owner)
