"""A node that goes to sleep lends its votes to the cloud; awake again, it takes them back.

Between the two it votes on nothing that it lent, whatever it believes of the cloud: what the cloud may have got is only
its own again once the cloud has said that the loan is over (`model.votes`). So nothing is lent that the cloud could not
be told of, as far as that can be known before.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from pullprint.base.backoff import Backoff
from pullprint.base.bell import Bell
from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.model.states import State
from pullprint.model.votes import Refusal, Vote, lend, take_back
from pullprint.node.client import CloudAway
from pullprint.node.holder import Holder
from pullprint.node.quorum import PATIENCE
from pullprint.vault.index import Index, IndexFailed
from pullprint.vault.record import Record
from pullprint.wire.loans import (
    LIMIT,
    Loan,
    LoanName,
    Loans,
    LoansTaken,
    ProxyVote,
    SleepView,
    lent_vote,
)
from pullprint.wire.mesh import Ballots, Commit, Prepare, vote_to_wire
from pullprint.wire.types import Message

log = logging.getLogger(__name__)

LOOK_TIME = 2.0
"""Seconds for the cloud to show that it is there, before anything is lent."""
LEND_TIME = 5.0
"""Seconds for a request with loans: systemd lets nobody hold up a suspension for long."""
ATTEMPTS_AT_ONCE = 20_000
"""Attempts in the records of one message, which is a few megabytes."""
POLL = 1.0
"""Seconds between two looks whether votes can be taken back, while there are some."""
LONGEST_PAUSE = 30.0
GAP = 5.0
"""Seconds by which the clock must have jumped for this host to have been asleep."""
SETTLE = 30.0
"""Seconds after `Sleeper.sleep` in which a new connection to the cloud does not mean that this host is awake again."""

Answer = TypeVar("Answer", bound=Message)


class Cloud(Protocol):
    """What of `node.client` is needed here."""

    async def post(self, path: str, message: Message, answer: type[Answer], timeout: float = ...) -> Answer: ...


class Sleeper:
    """This node's votes on their way to the cloud and back."""

    def __init__(self, holder: Holder, clock: Clock, cloud: Callable[[], Cloud | None]) -> None:
        """*cloud* gives the cloud while it is there."""
        self._holder = holder
        self._clock = clock
        self._cloud = cloud
        self._lock = asyncio.Lock()
        self._bell = Bell()
        self._asleep = False
        self._since = 0.0
        self._owing = True
        """There may be votes to take back."""

    async def sleep(self) -> SleepView:
        """Lend every vote on which another host can do without this one. Raises IndexFailed."""
        async with self._lock:
            self._asleep, self._since = True, self._clock.now()
            cloud = self._cloud()
            if cloud is None or not await _is_there(cloud):
                away = "The cloud is away, so this host keeps its votes."
                return await self._view(away, away)
            jobs = [record.id for record in await self._holder.read(Index.in_states, State.HELD, State.UNCERTAIN)]
            self._owing = True
            lent = await self._holder.read(Index.cast_many, jobs, self._lent)
            taken: set[str] = set()
            for some in _batches(lent):
                taken |= await _posted(cloud, some)
            await self._return([record for record in lent if record.id not in taken])
            self._bell.ring()
            return await self._view("No vote is with the cloud.", "The cloud votes for this host until it wakes up.")

    async def wake(self) -> SleepView:
        """Take every vote back. Raises IndexFailed."""
        async with self._lock:
            self._asleep = False
        await self._wake()
        return await self._view("This host has its votes.", "Some votes are still with the cloud; they are asked for.")

    async def reclaim(self, job: str) -> None:
        """This host is to release *job*, so it is awake: take its vote on that back first, and then the others.

        What cannot be had stays lent. Raises IndexFailed, NotFound.
        """
        async with self._lock:
            self._asleep, self._owing = False, True
            await self._return([await self._holder.read(Index.get, job)])
            self._bell.ring()

    async def vote_for(self, voter: str, message: Prepare | Commit) -> Ballots:
        """Ask the cloud to vote for *voter*, which sleeps. Raises CloudAway, CloudRefused."""
        cloud = self._cloud()
        if cloud is None:
            raise CloudAway(cloud="", reason="not connected")
        prepare, commit = (message, None) if isinstance(message, Prepare) else (None, message)
        asked = ProxyVote(voter=voter, prepare=prepare, commit=commit)
        return await cloud.post("/node/v1/loans/votes", asked, Ballots, timeout=PATIENCE)

    async def run(self) -> None:
        """Until cancelled, take back what is lent although this host is awake: after a start, and after a sleep of
        whose end nobody told."""
        backoff = Backoff(first=POLL, cap=LONGEST_PAUSE)
        there, again = False, 0.0
        while True:
            ticket = self._bell.ticket
            was, there = there, self._cloud() is not None
            if self._asleep and there and not was and self._clock.now() - self._since > SETTLE:
                self._asleep = False
            if there and not was:
                again = 0.0
            if self._owing and there and not self._asleep and self._clock.monotonic() >= again:
                try:
                    await self._wake()
                except IndexFailed as error:
                    log.error("lent votes: %s", error)
                if self._owing:
                    again = self._clock.monotonic() + backoff.next()
                else:
                    backoff.reset()
            before, pause = self._clock.now(), POLL if self._owing else None
            rang = await self._bell.wait(ticket, pause)
            if pause is not None and not rang and self._clock.now() - before > pause + GAP:
                self._asleep = False

    async def _wake(self) -> None:
        """Unless this host was told to sleep meanwhile."""
        async with self._lock:
            if self._asleep:
                return
            lent = await self._lent_ones()
            await self._return(lent)
            self._owing = bool(lent) and bool(await self._lent_ones())
            if lent:
                self._bell.ring()

    def _lent(self, record: Record) -> Vote | Refusal:
        """The vote on *record*, lent, if it can be; one that is lent already is told of once more."""
        vote = record.vote
        idle = record.state in (State.HELD, State.UNCERTAIN) and record.id not in self._holder.busy
        if not idle or self._holder.node not in record.holders or len(record.holders) < 2 or record.generation < 2:
            return Refusal.OUTDATED
        if vote.closed or vote.accepted is not None:
            return Refusal.CLOSED
        return lend(vote, vote.loan if vote.lent else vote.loan + 1)

    async def _return(self, lent: Sequence[Record]) -> None:
        """Have the cloud say that these loans are over, and take back what it says. What it does not, stays lent."""
        cloud = self._cloud()
        if cloud is None:
            return
        for some in _batches([record for record in lent if record.vote.lent]):
            asked = LoansTaken(loans=tuple(_name(record) for record in some))
            try:
                answer = await cloud.post("/node/v1/loans/return", asked, Loans, timeout=LEND_TIME)
            except PullprintError as error:
                log.warning("votes are not returned yet: %s", error)
                return
            given = {one.job: one for one in answer.loans}

            def taken_back(record: Record, given: dict[str, Loan] = given) -> Vote | Refusal:
                one = given[record.id]
                if one.generation != record.generation:
                    return Refusal.OUTDATED
                left = None if one.vote is None else lent_vote(one.vote, one.number)
                return take_back(record.vote, one.number, left)

            await self._holder.read(Index.cast_many, given, taken_back)
        self._holder.changes.ring()

    async def _lent_ones(self) -> list[Record]:
        return await self._holder.read(lambda index: [one for one in index.jobs() if one.vote.lent])

    async def _view(self, without: str, having: str) -> SleepView:
        """How things stand; the sentence is *having* while votes are lent, *without* otherwise."""
        shared = [
            record for record in await self._holder.read(Index.jobs)
            if len(record.holders) > 1 and self._holder.node in record.holders
        ]  # fmt: skip
        lent = sum(record.vote.lent for record in shared)
        return SleepView(lent=lent, own=len(shared) - lent, sentence=having if lent else without)


async def _is_there(cloud: Cloud) -> bool:
    """Whether *cloud* answers now, by asking it for nothing."""
    try:
        await cloud.post("/node/v1/loans/return", LoansTaken(), Loans, timeout=LOOK_TIME)
    except PullprintError as error:
        log.warning("votes are not lent: %s", error)
        return False
    return True


async def _posted(cloud: Cloud, lent: Sequence[Record]) -> set[str]:
    """Which of these votes the cloud says that it has."""
    loans = tuple(Loan(**dict(_name(record)), vote=vote_to_wire(record.vote)) for record in lent)
    try:
        answer = await cloud.post("/node/v1/loans", Loans(loans=loans), LoansTaken, timeout=LEND_TIME)
    except PullprintError as error:
        log.warning("it is not known whether the cloud has these votes: %s", error)
        return set()
    return {one.job for one in answer.loans}


def _name(record: Record) -> LoanName:
    return LoanName(job=record.id, generation=record.generation, number=record.vote.loan)


def _batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """What goes into one message each."""
    some: list[Record] = []
    attempts = 0
    for record in records:
        attempts += len(record.vote.attempts)
        if some and (len(some) == LIMIT or attempts > ATTEMPTS_AT_ONCE):
            yield some
            some, attempts = [], len(record.vote.attempts)
        some.append(record)
    if some:
        yield some
