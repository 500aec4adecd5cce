"""Printed once: what a voter promises, what it commits to, and when a releaser may go on.

Paper cannot be rolled back, and a printer checks no fencing token. So the holders of a job vote before the first
byte leaves: ``PREPARE(ballot)``, then ``COMMIT(ballot, order)``. A voter durably keeps the highest ballot that it
promised and the set of attempts that it committed to, to which it only ever adds. These are pure functions over
that record; who stores it, and how messages travel, is none of their business.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ballot that a voter committed to."""

    ballot: int
    order: str
    nothing_sent: bool = False
    """Proven: not one byte of this attempt left the releaser, or the printer itself says that it drew nothing."""


@dataclass(frozen=True, slots=True)
class Vote:
    """A voter's durable record for one job."""

    promised: int = 0
    attempts: tuple[Attempt, ...] = ()
    lost: bool = False
    """The record was lost (restored from a backup, index rebuilt): this voter can vouch for nothing earlier."""


class Refusal(StrEnum):
    """Why a voter says no."""

    OUTDATED = "outdated"
    """A higher ballot was promised, or this one was used."""
    VOTE_LOST = "vote-lost"


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


def promise(vote: Vote, ballot: int, *, forced: bool = False) -> Vote | Refusal:
    """PREPARE: the record after promising *ballot*, or why not.

    A voter that lost its record takes part only in a job's very first ballot, before which nothing can have been
    committed, or in one that the owner *forced*. The first makes its record whole again; the second does not: what was
    committed before the loss is as unknown after a forced ballot that came to nothing as it was before it. Both stand
    on two things that whoever calls this sees to: orders are made in the order of their ballots, and none from before
    the loss is carried out after it.
    """
    if vote.lost and ballot > 1 and not forced:
        return Refusal.VOTE_LOST
    if ballot <= vote.promised:
        return Refusal.OUTDATED
    return replace(vote, promised=ballot, lost=vote.lost and ballot > 1)


def commit(vote: Vote, ballot: int, order: str) -> Vote | Refusal:
    """COMMIT: the record after committing to *order* in *ballot*; a repeated message changes nothing."""
    attempt = Attempt(ballot, order)
    if any(done.ballot == ballot for done in vote.attempts):
        return vote if attempt in vote.attempts else Refusal.OUTDATED
    if ballot != vote.promised:
        return Refusal.OUTDATED
    return replace(vote, attempts=(*vote.attempts, attempt))


def prove_nothing_sent(vote: Vote, ballot: int) -> Vote:
    """The record with the releaser's proof for *ballot* noted; that attempt is no obstacle any more."""
    return replace(
        vote,
        attempts=tuple(replace(a, nothing_sent=True) if a.ballot == ballot else a for a in vote.attempts),
    )


def burn(vote: Vote, ballot: int) -> Vote:
    """The record after *ballot* was refused before any vote: a late copy of its order can do nothing any more."""
    return replace(vote, promised=max(vote.promised, ballot))


def sent_nothing(vote: Vote, ballot: int) -> bool:
    """Whether this record proves that *ballot*, which is not under way, printed nothing and never will."""
    if vote.lost or ballot > vote.promised:
        return False
    return all(attempt.nothing_sent for attempt in vote.attempts if attempt.ballot == ballot)


def doubtful(promises: Mapping[str, Vote], voters: Collection[str], ballot: int) -> frozenset[int]:
    """Earlier ballots that could have had a quorum and are not proven to have sent nothing.

    *promises* are the records of the voters that answered; one that did not answer, or lost its record, may have
    committed to anything.
    """
    answers = [promises[voter] for voter in set(voters) & set(promises)]
    silent = len(set(voters)) - len(answers)
    known = {attempt.ballot for vote in answers for attempt in vote.attempts}
    proven = {attempt.ballot for vote in answers for attempt in vote.attempts if attempt.nothing_sent}

    def could_have_decided(earlier: int) -> bool:
        possible = sum(vote.lost or any(a.ballot == earlier for a in vote.attempts) for vote in answers)
        return possible + silent >= quorum(len(set(voters)))

    return frozenset(b for b in known - proven if b < ballot and could_have_decided(b))


def judge(promises: Mapping[str, Vote], voters: Collection[str], ballot: int, forces: Collection[int] = ()) -> Verdict:
    """Whether the releaser may send COMMIT for *ballot*; *forces* are the doubtful ballots that the owner named."""
    if len(set(promises) & set(voters)) < quorum(len(set(voters))):
        return Verdict.NO_QUORUM
    if doubtful(promises, voters, ballot) - set(forces):
        return Verdict.IN_DOUBT
    return Verdict.GO
