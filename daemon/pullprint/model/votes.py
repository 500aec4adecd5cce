"""Printed once: what a voter promises, what it commits to, and when a releaser may go on.

Paper cannot be rolled back, and a printer checks no fencing token. So the holders of a job vote before the first
byte leaves: ``PREPARE(ballot)``, then ``COMMIT(ballot, order)``. A voter durably keeps the highest ballot that it
promised and the set of attempts that it committed to, to which it only ever adds. These are pure functions over
that record; who stores it, and how messages travel, is none of their business.

The `FIRST` ballot needs no PREPARE: a fresh record counts as having promised it, to whoever comes first. Nothing can
have been decided before it, and of two orders in one ballot a voter commits to one only, so at most one of them has a
quorum. That is what makes a usual release one round trip.

The releaser is itself a voter, and commits in its own record last, when with that the quorum is full (`own_turn`).
So its own record says what became of an attempt: no commit there, and nothing was sent.

A voter that goes to sleep lends its vote (`lend`, `borrow`, `give_back`, `take_back`); a voter that vanished is
replaced by a new generation of voters (`close`, `propose`, `accept`, `open_generation`). ``docs/votes.md`` tells both.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

FIRST = 1
KEPT = 32
"""How many proven attempts a record keeps, see `forget`."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ballot that a voter committed to."""

    ballot: int
    order: str
    releaser: str = ""
    """The node that was to print it: whose word counts for what became of it."""
    nothing_sent: bool = False
    """Proven: not one byte of this attempt left the releaser, or the printer itself says that it drew nothing."""
    carried: bool = False
    """Of an earlier generation, whose voters may have decided on it: nobody's commit here, and no COMMIT repeats it."""


@dataclass(frozen=True, slots=True)
class Vote:
    """A voter's durable record for one job."""

    promised: int = 0
    attempts: tuple[Attempt, ...] = ()
    lost: bool = False
    """The record was lost (restored from a backup, index rebuilt): this voter can vouch for nothing earlier."""
    loan: int = 0
    """The number of the last time that this vote was lent; 0: never."""
    lent: bool = False
    """Another votes with it: with this record nobody does."""
    closed: int = 0
    """This generation is at an end for this voter, which accepts no proposal below this number; 0: it is not."""
    accepted: "Acceptance | None" = None
    """What it accepted for the next generation, the highest number's."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the next generation of voters is to be."""

    generation: int
    table: str
    """What identifies its key table; opaque here."""
    voters: tuple[str, ...]
    start: Vote
    """The record that each of them starts with: `carry_over`."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A voter's durable word for a proposal."""

    number: int
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A borrower's durable record of one voter's vote for one job."""

    loan: int = 0
    """The last loan that it knows of; it may be over."""
    vote: Vote | None = None
    """The borrower votes with it by the same functions as with its own, until it is ``lent`` again: then the loan is
    over, and it is kept to be asked for once more. None: the loan was over before the vote arrived."""


class Refusal(StrEnum):
    """Why a voter says no."""

    OUTDATED = "outdated"
    """A higher ballot was promised, or this one was used."""
    VOTE_LOST = "vote-lost"
    LENT = "lent"
    """Another votes in its stead: ask there."""
    CLOSED = "closed"
    """This generation of voters is at an end, or about to be."""
    UNDECIDED = "undecided"
    """No majority of the generation before accepted this one."""


class Verdict(StrEnum):
    """What a releaser may do with the promises that it has."""

    GO = "go"
    NO_QUORUM = "no-quorum"
    IN_DOUBT = "in-doubt"
    """An earlier attempt may have printed: ask the printer, then the owner."""


def quorum(voters: int) -> int:
    """How many of *voters* decide: one of one, both of two, two of three."""
    if voters < 1:
        raise ValueError("a job has at least one voter")
    return voters // 2 + 1


def promise(vote: Vote, ballot: int, *, forced: bool = False, alone: bool = False) -> Vote | Refusal:
    """PREPARE: the record after promising *ballot*, or why not.

    A voter that lost its record takes part only in an order that the owner *forced* or, if it is *alone* (the job's
    only voter), in the job's very first ballot, before which nothing can have been committed. The latter makes its
    record whole again; the former does not: what was committed before the loss is as unknown after a forced ballot that
    came to nothing as it was before it. Both stand on two things that whoever calls this sees to: orders are made in
    the order of their ballots, and none from before the loss is carried out after it. Where orders are made without
    the cloud, which number their ballots themselves, the first does not hold: *alone* must then be False.
    """
    if shut := _shut(vote):
        return shut
    heals = alone and ballot == FIRST
    if vote.lost and not heals and not forced:
        return Refusal.VOTE_LOST
    if ballot <= vote.promised:
        return Refusal.OUTDATED
    return replace(vote, promised=ballot, lost=vote.lost and not heals)


def commit(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote | Refusal:
    """COMMIT: the record after committing to *order* in *ballot*; a repeated message changes nothing.

    A lost record has no `FIRST` ballot: that somebody else had it may be what was lost.
    """
    if shut := _shut(vote):
        return shut
    attempt = Attempt(ballot, order, releaser)
    if any(done.ballot == ballot for done in vote.attempts):
        return vote if attempt in vote.attempts else Refusal.OUTDATED
    if vote.lost and (ballot == FIRST or ballot != vote.promised):
        return Refusal.VOTE_LOST
    if ballot != max(vote.promised, FIRST):
        return Refusal.OUTDATED
    return replace(vote, promised=ballot, attempts=(*vote.attempts, attempt))


def own_turn(committed: Collection[str], voters: Collection[str], releaser: str) -> bool:
    """Whether the *releaser* may now commit in its own record, and if that succeeds, send the first byte.

    *committed* are those that answered its COMMIT with yes. A releaser that is no voter never may.
    """
    return releaser in voters and len(set(committed) & set(voters) | {releaser}) >= quorum(len(set(voters)))


def prove_nothing_sent(vote: Vote, ballot: int, order: str, releaser: str = "") -> Vote:
    """The record with the releaser's proof for *order* in *ballot* noted; that attempt is no obstacle any more.

    It is noted also where there was no commit, or one to another order: one that is still on its way is refused then,
    and in the next generation of voters, too. The releaser notes its proof in its own record first, and before it
    opens a new generation; a record that is lent or closed notes proofs like any other.
    """
    proven = Attempt(ballot, order, releaser, nothing_sent=True)
    attempts = tuple(proven if (a.ballot, a.order) == (ballot, order) else a for a in vote.attempts)
    return forget(replace(vote, attempts=attempts if proven in attempts else (*attempts, proven)))


def forget(vote: Vote, keep: int = KEPT) -> Vote:
    """The record without old proven attempts, of which it keeps the last *keep*.

    Only those go that are proven and whose ballot is below the promised one. They stand in nobody's way, and a late
    COMMIT for them is outdated. Should another voter have missed the proof, its commit may count as doubtful again:
    that asks too much, and prints nothing. Attempts without proof stay for ever, and so does a proof in the current
    ballot, which is what refuses a COMMIT that is on its way.
    """
    past = [a for a in vote.attempts if a.nothing_sent and a.ballot < vote.promised]
    gone = set(past[: max(0, len(past) - keep)])
    return replace(vote, attempts=tuple(a for a in vote.attempts if a not in gone)) if gone else vote


def burn(vote: Vote, ballot: int, order: str = "", releaser: str = "") -> Vote:
    """The record after *ballot* was refused before any vote: a late copy of its order can do nothing any more.

    That holds only if *order* is named, too: a promised ballot is one that can still be committed to.
    """
    burnt = replace(vote, promised=max(vote.promised, ballot))
    return prove_nothing_sent(burnt, ballot, order, releaser) if order else burnt


def lose(vote: Vote) -> Vote:
    """The record of a voter that cannot tell whether it is its last one (restored from a backup).

    What it promised it must not act upon: a COMMIT for that may come from before the loss. Attempts stay known.
    """
    return replace(vote, promised=0, lost=True)


def sent_nothing(vote: Vote, ballot: int, order: str = "") -> bool:
    """Whether this record, the releaser's, proves that *ballot*, which is not under way, printed nothing and never
    will.

    Where orders may share a ballot, *order* must be named: the proof of one says nothing of another.
    """
    if vote.lost or ballot > vote.promised:
        return False
    return all(a.nothing_sent for a in vote.attempts if a.ballot == ballot and order in ("", a.order))


def doubtful(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    """Earlier ballots that could have had a quorum and are not proven to have sent nothing.

    *promises* are the records of the voters that answered; one that did not answer, or lost its record, may have
    committed to anything.
    """
    return frozenset(earlier for earlier, _ in _doubts(promises, voters) if earlier < ballot)


def _doubts(promises: Mapping[str, Vote], voters: Collection[str]) -> frozenset[tuple[int, str]]:
    """The ballots and orders that could have had a quorum of *voters* and have no proof."""
    answers = [promises[voter] for voter in set(voters) & set(promises)]
    silent = len(set(voters)) - len(answers)
    attempts = [(vote, attempt) for vote in answers for attempt in vote.attempts]
    known = {(attempt.ballot, attempt.order) for _, attempt in attempts}
    proven = {(attempt.ballot, attempt.order) for _, attempt in attempts if attempt.nothing_sent}

    def could_have_decided(ballot: int, order: str) -> bool:
        possible = sum(
            vote.lost or any((a.ballot, a.order) == (ballot, order) for a in vote.attempts) for vote in answers
        )
        return possible + silent >= quorum(len(set(voters)))

    return frozenset(one for one in known - proven if could_have_decided(*one))


def judge(promises: Mapping[str, Vote], voters: Collection[str], ballot: int, forces: Collection[int] = ()) -> Verdict:
    """Whether the releaser may send COMMIT for *ballot*; *forces* are the doubtful ballots that the owner named."""
    if len(set(promises) & set(voters)) < quorum(len(set(voters))):
        return Verdict.NO_QUORUM
    if doubtful(promises, voters, ballot) - set(forces):
        return Verdict.IN_DOUBT
    return Verdict.GO


def lend(vote: Vote, loan: int) -> Vote | Refusal:
    """The holder's record after lending its vote as its *loan*'th; it goes to the borrower as it is.

    From now on it refuses every vote, until `take_back`. A holder lends only when no release of its own is under way.
    """
    if vote.lost:
        return Refusal.VOTE_LOST
    if vote.lent:
        return vote if vote.loan == loan else Refusal.LENT
    return replace(vote, loan=loan, lent=True) if loan > vote.loan else Refusal.OUTDATED


def borrow(borrowed: Borrowed, vote: Vote) -> Borrowed | Refusal:
    """The borrower's record after the message of `lend` came; repeated, it changes nothing.

    Refuses a loan that is over, however late its message comes.
    """
    if vote.loan <= borrowed.loan:
        under_way = borrowed.vote is not None and not borrowed.vote.lent and vote.loan == borrowed.loan
        return borrowed if under_way else Refusal.OUTDATED
    if borrowed.vote is not None and not borrowed.vote.lent:
        return Refusal.LENT
    return Borrowed(vote.loan, replace(vote, lent=False))


def give_back(borrowed: Borrowed, loan: int) -> Borrowed | Refusal:
    """The borrower's record after the holder asked for its vote of *loan* back: that loan is over.

    To be durable before the answer, which is its ``vote`` (None: it never came, and never will be used).
    """
    if loan < borrowed.loan:
        return Refusal.OUTDATED
    if loan == borrowed.loan:
        return replace(borrowed, vote=borrowed.vote and replace(borrowed.vote, lent=True))
    if borrowed.vote is not None and not borrowed.vote.lent:
        return Refusal.LENT
    return Borrowed(loan)


def take_back(vote: Vote, loan: int, returned: Vote | None) -> Vote | Refusal:
    """The holder's record after the borrower answered that *loan* is over and *returned* what is left of it.

    Proofs that were noted in *vote* meanwhile stay, and a record that is lost stays lost. Refuses the answer to an
    earlier question.
    """
    if not vote.lent or vote.loan != loan:
        return Refusal.OUTDATED
    back = vote if returned is None else _proofs_of(vote, returned)
    return replace(back, lent=False, lost=back.lost or vote.lost)


def close(vote: Vote, number: int) -> Vote | Refusal:
    """The record after promising to vote no more in this generation, and to accept no proposal below *number*.

    It is the answer to the author, with what was accepted before. A number, once closed for, is used up: an author
    that starts again takes a higher one, and so does another one.
    """
    if vote.lost or vote.lent:
        return Refusal.VOTE_LOST if vote.lost else Refusal.LENT
    return replace(vote, closed=number) if number > vote.closed else Refusal.OUTDATED


def propose(
    answers: Mapping[str, Vote], voters: Collection[str], number: int, proposal: Proposal
) -> Proposal | Verdict:
    """What the author may ask the *voters* to accept under *number*, given the *answers* to its `close`.

    The *proposal* of its own only if none of them accepted any before, starting from their `carry_over`; else the
    latest of those. NO_QUORUM without a majority. An author proposes once under a number, whatever it hears later.
    """
    closed = {voter: vote for voter, vote in answers.items() if voter in voters and vote.closed == number}
    if len(closed) < quorum(len(set(voters))):
        return Verdict.NO_QUORUM
    accepted = [vote.accepted for vote in closed.values() if vote.accepted]
    if accepted:
        return max(accepted, key=lambda acceptance: acceptance.number).proposal
    return replace(proposal, start=carry_over(closed, voters))


def carry_over(votes: Mapping[str, Vote], voters: Collection[str]) -> Vote:
    """The record that the next generation starts with; *votes* are those of a majority of *voters*, all closed.

    An attempt that with the silent voters' commits could have a quorum, or get it yet, is in doubt for every new
    voter. One that cannot is proven to send nothing, ever: those that closed commit to nothing any more.
    """
    attempts = [attempt for voter in sorted(votes) for attempt in votes[voter].attempts]
    promised = max([vote.promised for vote in votes.values()] + [attempt.ballot for attempt in attempts], default=0)
    doubts = _doubts(votes, voters)
    merged: dict[tuple[int, str], Attempt] = {}
    for attempt in attempts:
        doubt = (attempt.ballot, attempt.order) in doubts
        known = replace(attempt, nothing_sent=not doubt, carried=doubt)
        merged.setdefault((attempt.ballot, attempt.order), known)
    return forget(Vote(promised, tuple(merged.values())))


def accept(vote: Vote, number: int, proposal: Proposal) -> Vote | Refusal:
    """The record after accepting *proposal* under *number*; that closes the generation for this voter, too."""
    if vote.lost or vote.lent:
        return Refusal.VOTE_LOST if vote.lost else Refusal.LENT
    acceptance = Acceptance(number, proposal)
    if vote.accepted == acceptance:
        return vote
    if number < vote.closed or (vote.accepted is not None and vote.accepted.number == number):
        return Refusal.OUTDATED
    return replace(vote, closed=number, accepted=acceptance)


def decided(acceptances: Mapping[str, Acceptance], voters: Collection[str]) -> Proposal | None:
    """The proposal that a majority of *voters* accepted under one number; there is never a second one."""
    counts = Counter(acceptance for voter, acceptance in acceptances.items() if voter in voters)
    return next((a.proposal for a, count in counts.items() if count >= quorum(len(set(voters)))), None)


def open_generation(
    vote: Vote | None, generation: int, acceptances: Mapping[str, Acceptance], voters: Collection[str], own: str
) -> Vote | Refusal:
    """The first record of *own*, a voter of the new generation; the *acceptances* of the old *voters* are the proof.

    *vote* is its record in *generation*, the latest that it has (None and 0: it was no voter). What it promised, and
    its own proofs, it takes along: an order that it proved to have sent nothing must not find a record without that.
    """
    proposal = decided(acceptances, voters)
    if proposal is None or own not in proposal.voters:
        return Refusal.UNDECIDED
    if proposal.generation <= generation:
        return Refusal.OUTDATED
    if vote is None:
        return proposal.start
    start = replace(proposal.start, promised=max(proposal.start.promised, vote.promised))
    return _proofs_of(vote, start)


def _shut(vote: Vote) -> Refusal | None:
    if vote.lent:
        return Refusal.LENT
    return Refusal.CLOSED if vote.closed else None


def _proofs_of(vote: Vote, other: Vote) -> Vote:
    for attempt in vote.attempts:
        if attempt.nothing_sent:
            other = prove_nothing_sent(other, attempt.ballot, attempt.order, attempt.releaser)
    return other
