"""The other voters of a job, asked over the mesh by the one that is to print it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pullprint.base.errors import PullprintError
from pullprint.model.votes import Refusal, Verdict, Vote, judge, own_turn
from pullprint.vault.record import Record
from pullprint.wire import mesh
from pullprint.wire.mesh import Ballots, Commit, Prepare, vote_from_wire
from pullprint.wire.node import PartyKey
from pullprint.wire.order import Order
from pullprint.wire.types import Message

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds for a voter's answer."""
HEDGE = 1.0
"""Of these, until the cloud is asked too whether that voter is asleep."""

_CHANGING = frozenset({Refusal.CLOSED.value, "other-generation"})
"""Refusals of voters of which the job is to have others, or has them already."""

Answer = TypeVar("Answer", bound=Message)
Done = TypeVar("Done")
Proxy = Callable[[str, Prepare | Commit], Awaitable[Ballots]]
"""Asks the cloud to vote for a voter (its id) that sleeps; raises PullprintError when it does not."""


class NoQuorum(PullprintError):
    """Too few of the hosts that hold this job can be asked; {missing} did not answer. Nothing was printed and the
    document is still held: switch one of them on, or check the network between them, then release it again."""

    code = "no-quorum"
    http_status = 409


class HoldersChanging(PullprintError):
    """The hosts that hold this job are just changing. Nothing was printed and the document is still held: release it
    again in a moment."""

    code = "holders-changing"
    http_status = 409


class Outvoted(PullprintError):
    """Another host was asked to print this job at the same moment, and goes first. Nothing was printed by this one;
    look at the job's history."""

    code = "outvoted"
    http_status = 409


class Mesh(Protocol):
    """What of `mesh.client` is needed here."""

    async def ask(
        self, node: str, path: str, message: Message, answer: type[Answer], timeout: float = ...
    ) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Promises:
    """What the voters said to PREPARE."""

    verdict: Verdict
    votes: Mapping[str, Vote]
    parts: Mapping[str, bytes]
    """Key parts, HPKE-sealed to us for the order."""
    missing: tuple[str, ...]
    """Voters that did not promise."""
    changing: bool = False
    """Some of them vote no more in this generation."""


class Quorum:
    """Asks the voters of a job."""

    def __init__(self, client: Mesh, own: str, name: Callable[[str], str]) -> None:
        """*own* is this node; *name* gives a node's name for people."""
        self._client = client
        self._own = own
        self.name = name
        self.proxy: Proxy | None = None
        self._late: set[asyncio.Task[Any]] = set()

    async def prepare(self, record: Record, vote: Vote, order: Order, token: str, key: PartyKey) -> Promises:
        """PREPARE at the other voters; *vote* is our own record, which has promised. As soon as they suffice, the rest
        is not waited for."""
        message = Prepare(job=record.id, generation=record.generation, ballot=order.ballot, order=token, key=key)
        votes, parts = {self._own: vote}, {}
        verdict, changing = Verdict.NO_QUORUM, False
        async with aclosing(self._ask(record, "/mesh/v1/votes", message)) as answers:
            async for voter, answer in answers:
                if answer.refused:
                    log.info("%s does not promise: %s", voter, answer.refused)
                    changing = changing or answer.refused in _CHANGING
                    continue
                votes[voter] = vote_from_wire(answer.vote)
                if answer.part is not None:
                    parts[voter] = answer.part
                verdict = judge(votes, record.holders, order.ballot, order.forces)
                if verdict is Verdict.GO:
                    break
        missing = tuple(voter for voter in record.holders if voter not in votes)
        return Promises(verdict, votes, parts, missing, changing)

    async def commit(self, record: Record, order: Order, token: str) -> tuple[str, ...]:
        """COMMIT at as many other voters as make a quorum with us, who commit last; who they are.

        Raises NoQuorum, HoldersChanging, Outvoted.
        """
        message = Commit(job=record.id, generation=record.generation, ballot=order.ballot, order=token)
        voted, outvoted, changing = [], False, False
        async with aclosing(self._ask(record, "/mesh/v1/commits", message)) as answers:
            async for voter, answer in answers:
                if answer.refused:
                    log.info("%s does not vote for this: %s", voter, answer.refused)
                    outvoted = outvoted or answer.refused == Refusal.OUTDATED
                    changing = changing or answer.refused in _CHANGING
                    continue
                voted.append(voter)
                if own_turn(voted, record.holders, self._own):
                    return tuple(voted)
        if outvoted:
            raise Outvoted
        if changing:
            raise HoldersChanging
        missing = [self.name(voter) for voter in record.holders if voter not in (self._own, *voted)]
        raise NoQuorum(missing=", ".join(missing))

    async def close(self) -> None:
        """Wait for nobody any more."""
        for task in self._late:
            task.cancel()
        if self._late:
            await asyncio.wait(self._late)

    async def _ask(
        self, record: Record, path: str, message: Prepare | Commit
    ) -> AsyncGenerator[tuple[str, Ballots], None]:
        """The other voters' answers as they come; whoever does not answer is left out.

        Those that are not waited for go on by themselves: a request that is broken off costs its connection.
        """
        others = [voter for voter in record.holders if voter != self._own]
        answers: asyncio.Queue[tuple[str, Ballots | None]] = asyncio.Queue()

        async def one(voter: str) -> None:
            answer = None
            try:
                answer = await self._answer(voter, path, message)
            finally:
                answers.put_nowait((voter, answer))

        for voter in others:
            self._beside(one(voter), "vote")
        for _ in others:
            voter, answer = await answers.get()
            if answer is not None:
                yield voter, answer

    async def _answer(self, voter: str, path: str, message: Prepare | Commit) -> Ballots | None:
        """What *voter* says, or if it is asleep the cloud for it; None when neither does.

        One that hangs is not waited for before the cloud is asked. Only one of both has the vote, however they answer.
        """
        if self.proxy is None:
            return await self._of_voter(voter, path, message)
        asking, asked_cloud = {self._beside(self._of_voter(voter, path, message), "ask a voter")}, False
        refused: Ballots | None = None
        while asking:
            limit = None if asked_cloud else HEDGE
            done, asking = await asyncio.wait(asking, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for answer in (task.result() for task in done):
                if _settled(answer):
                    return answer
                refused = answer or refused
            if not asked_cloud:
                asked_cloud = True
                asking.add(self._beside(self._of_cloud(voter, message), "ask the cloud"))
        return refused

    async def _of_voter(self, voter: str, path: str, message: Message) -> Ballots | None:
        try:
            return await self._client.ask(voter, path, message, Ballots, timeout=PATIENCE)
        except PullprintError as error:
            log.info("%s does not vote: %s", voter, error)
            # In the first case it is ahead of us, or behind.
            return Ballots(vote=mesh.Vote(), refused=error.code) if error.code in _CHANGING else None

    async def _of_cloud(self, voter: str, message: Prepare | Commit) -> Ballots | None:
        assert self.proxy is not None
        try:
            async with asyncio.timeout(PATIENCE - HEDGE):
                return await self.proxy(voter, message)
        except TimeoutError:
            log.info("the cloud does not vote for %s: it is silent", voter)
        except PullprintError as error:
            log.info("the cloud does not vote for %s: %s", voter, error.code)
        return None

    def _beside(self, work: Coroutine[Any, Any, Done], name: str) -> "asyncio.Task[Done]":
        """Do *work*, which goes on by itself when it is not waited for any more."""
        task = asyncio.create_task(work, name=name)
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return task


def _settled(answer: Ballots | None) -> bool:
    """Whether nobody else need be asked in that voter's stead."""
    return answer is not None and answer.refused != Refusal.LENT
