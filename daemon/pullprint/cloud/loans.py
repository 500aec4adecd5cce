"""Votes that nodes lent to the cloud when they went to sleep (`wire.loans`): it votes as they would, and gives no key
part with that.

What may be done with a vote, `model.votes` decides; here it is kept, one row for each voter of a job, also when the
loan is over: a late copy of its message must find that out. Rows go with their job's. They are locked after the job's.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import bindparam, insert, select, true, update

from pullprint.base.errors import NotAllowed, NotFound, PullprintError
from pullprint.cloud import jobs
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import holder, job, loan, node, organisation
from pullprint.model.votes import Borrowed, Refusal, Vote, borrow, commit, give_back, promise
from pullprint.wire import mesh
from pullprint.wire.loans import Loan, LoanName, Loans, LoansTaken, ProxyVote, lent_vote
from pullprint.wire.mesh import Ballots, Commit, vote_to_wire
from pullprint.wire.order import Order, OrderRefused, verify_order

_log = logging.getLogger(__name__)
_IDS_AT_ONCE = 500
"""In one statement; SQLite has a limit."""

# Always in this order, so that two nodes that lend at once do not wait for each other.
_JOBS = (
    select(job.c.id, job.c.generation, job.c.ended, holder.c.voter)
    .outerjoin(
        holder,
        (holder.c.organisation == job.c.organisation)
        & (holder.c.job == job.c.id)
        & (holder.c.node == bindparam("sender")),
    )
    .where(
        job.c.organisation == bindparam("of"),
        job.c.site == bindparam("site"),
        job.c.id.in_(bindparam("jobs", expanding=True)),
    )
    .order_by(job.c.id)
    .with_for_update(of=job)
)
_LOANS = (
    select(loan)
    .where(
        loan.c.organisation == bindparam("of"),
        loan.c.node == bindparam("sender"),
        loan.c.job.in_(bindparam("jobs", expanding=True)),
    )
    .order_by(loan.c.job)
    .with_for_update()
)
_INSERT = insert(loan)
_UPDATE = (
    update(loan)
    .where(
        loan.c.organisation == bindparam("of"), loan.c.job == bindparam("of_job"), loan.c.node == bindparam("of_node")
    )
    .values(
        number=bindparam("number"), generation=bindparam("generation"), vote=bindparam("vote"), over=bindparam("over")
    )
)
_ASKED = (
    select(job.c.id, job.c.generation, job.c.ended, job.c.cancelling, organisation.c.order_key)
    .join(holder, (holder.c.organisation == job.c.organisation) & (holder.c.job == job.c.id))
    .join(organisation, organisation.c.id == job.c.organisation)
    .where(
        job.c.organisation == bindparam("of"), job.c.id == bindparam("job"), holder.c.node == bindparam("sender"),
        holder.c.voter == true(),
    )
    .with_for_update(of=job)
)  # fmt: skip
_LENT = (
    select(loan, node.c.name)
    .join(node, node.c.id == loan.c.node)
    .where(
        loan.c.organisation == bindparam("of"), loan.c.job == bindparam("job"), loan.c.node == bindparam("voter"),
        loan.c.over.is_(False), loan.c.vote != "",
    )
    .with_for_update(of=loan)
)  # fmt: skip


class NotLent(PullprintError):
    """That host has not lent the cloud its vote on this job. Nothing was printed by this; the job is still held."""

    code = "not-lent"
    http_status = 409


def take(t: Transaction, sender: Node, asked: Loans) -> LoansTaken:
    """*sender* goes to sleep: which of its votes the cloud has from now on."""
    wanted = {one.job: one for one in asked.loans}
    voting = {row.id: row for row in _rows(t, _JOBS, sender, wanted)}
    known = {row.job: row for row in _rows(t, _LOANS, sender, voting)}
    taken, changed = [], {}
    for one in wanted.values():
        row = voting.get(one.job)
        after = None
        if row is None or not row.voter or row.ended is not None or row.generation != one.generation:
            _log.info("node %s lends its vote on job %s, where it has none", sender.id, one.job)
        elif one.vote is not None and not one.vote.lost:
            before = _borrowed(known.get(one.job), one.generation)
            after = before and borrow(before, lent_vote(one.vote, one.number))
        if isinstance(after, Borrowed):
            taken.append(one)
            changed[one.job] = (one.generation, after)
    _keep(t, sender, known, changed)
    return LoansTaken(loans=tuple(_name(one) for one in taken))


def give(t: Transaction, sender: Node, asked: LoansTaken) -> Loans:
    """*sender* is awake: its loans are over, and this is what is left of its votes.

    One on a job that the cloud does not know is left out, because nothing could be noted that keeps its message from
    being taken later.
    """
    wanted = {one.job: one for one in asked.loans}
    here = {row.id for row in _rows(t, _JOBS, sender, wanted)}
    known = {row.job: row for row in _rows(t, _LOANS, sender, here)}
    given, changed = [], {}
    for one in wanted.values():
        before = _borrowed(known.get(one.job), one.generation) if one.job in here else None
        after = before and give_back(before, one.number)
        if isinstance(after, Borrowed):
            changed[one.job] = (one.generation, after)
            vote = vote_to_wire(after.vote) if after.vote is not None else None
            given.append(Loan(**dict(_name(one)), vote=vote))
        else:
            _log.warning("node %s asks back its vote on job %s: %s", sender.id, one.job, after or "not known")
    _keep(t, sender, known, changed)
    return Loans(loans=tuple(given))


def vote(t: Transaction, sender: Node, asked: ProxyVote) -> Ballots:
    """*sender* releases a job, and one of its voters sleeps: the answer is that one's, durable like any.

    Checked is what every voter checks. Raises NotFound, NotAllowed, NotLent, StatementRefused.
    """
    message = asked.asked
    row = t.one(_ASKED, {"of": sender.organisation, "job": message.job, "sender": sender.id})
    if row is None:
        raise NotFound(what="job on this host")
    order = _order(t, sender, message, row)
    if row.generation != message.generation:
        raise NotAllowed(reason="the hosts that hold the job have changed")
    if row.ended is not None or row.cancelling is not None:
        raise NotAllowed(reason="the job has ended")
    lent = t.one(_LENT, {"of": sender.organisation, "job": message.job, "voter": asked.voter})
    if lent is None or lent.generation != message.generation or asked.voter == sender.id:
        raise NotLent
    before = _vote(lent)
    if isinstance(message, Commit):
        change = partial(commit, ballot=message.ballot, order=order.jti, releaser=sender.id)
    else:
        change = partial(promise, ballot=message.ballot, forced=bool(order.forces))
    after = change(before)
    if isinstance(after, Refusal):
        return Ballots(vote=vote_to_wire(before), refused=after.value)
    if after != before:
        changed = {message.job: (lent.generation, Borrowed(lent.number, after))}
        _keep(t, Node(lent.node, sender.organisation, sender.site, lent.name, managed=False), {message.job}, changed)
        _tell(t, sender, lent, message, order)
    return Ballots(vote=vote_to_wire(after))


def end_all(t: Transaction, sender: Node) -> None:
    """*sender* lost its records, and with them that it lent any: nobody votes for it any more.

    Its own records vote again only where the owner forces them to; a vote cast here would then count twice.
    """
    mine = (loan.c.organisation == sender.organisation, loan.c.node == sender.id, loan.c.over.is_(False))
    t.run(update(loan).where(*mine).values(over=True))


def _order(t: Transaction, sender: Node, message: mesh.Prepare | Commit, row: AnyRow) -> Order:
    pin = Ed25519PrivateKey.from_private_bytes(row.order_key).public_key().public_bytes_raw()
    order = verify_order(message.order, pin, sender.id, sender.organisation, t.now)
    if order.job != message.job or order.ballot != message.ballot:
        raise OrderRefused(reason="it is for another job or ballot")
    return order


def _tell(t: Transaction, sender: Node, lent: AnyRow, message: mesh.Prepare | Commit, order: Order) -> None:
    detail = {"voter": lent.node, "releaser": sender.id, "order": order.jti, "ballot": str(message.ballot)}
    if isinstance(message, Commit):
        text = f"Voted for {lent.name}, which is asleep, so that {sender.name} may print it."
        jobs.add_step(t, sender.organisation, message.job, "voted", text, **detail, by=order.by)
    else:
        text = f"Promised the vote of {lent.name}, which is asleep, to {sender.name}."
        jobs.add_step(t, sender.organisation, message.job, "promised", text, **detail, by=order.by)


def _rows(t: Transaction, query: Any, sender: Node, ids: Iterable[str]) -> list[AnyRow]:
    found: list[AnyRow] = []
    ordered = sorted(ids)
    values = {"of": sender.organisation, "site": sender.site, "sender": sender.id}
    names = set(query.compile().params)
    for begin in range(0, len(ordered), _IDS_AT_ONCE):
        some = {**values, "jobs": ordered[begin : begin + _IDS_AT_ONCE]}
        found += t.all(query, {name: value for name, value in some.items() if name in names})
    return found


def _borrowed(row: AnyRow | None, generation: int) -> Borrowed | None:
    """What is known of a voter's loans in *generation*, whose numbers begin anew; None when that is over itself."""
    if row is None or row.generation < generation:
        return Borrowed()
    if row.generation > generation:
        return None
    return Borrowed(row.number, _vote(row) if row.vote else None)


def _vote(row: AnyRow) -> Vote:
    return replace(lent_vote(mesh.Vote.model_validate_json(row.vote), row.number), lent=row.over)


def _keep(t: Transaction, voter: Node, known: Iterable[str], changed: dict[str, tuple[int, Borrowed]]) -> None:
    """Write the records that *changed*; there are rows already for those in *known*."""
    there, new, old = set(known), [], []
    for job_id, (generation, borrowed) in changed.items():
        values = {
            "number": borrowed.loan,
            "generation": generation,
            "vote": vote_to_wire(borrowed.vote).model_dump_json() if borrowed.vote is not None else "",
            "over": borrowed.vote is None or borrowed.vote.lent,
        }
        if job_id in there:
            old.append({"of": voter.organisation, "of_job": job_id, "of_node": voter.id, **values})
        else:
            new.append({"organisation": voter.organisation, "job": job_id, "node": voter.id, **values})
    if new:
        t.run(_INSERT, new)
    if old:
        t.run(_UPDATE, old)


def _name(one: LoanName) -> LoanName:
    return LoanName(job=one.job, generation=one.generation, number=one.number)
