"""This node's votes on jobs that another holder releases, and what it then learns of them.

Whoever asks is a peer whose certificate was checked, and nothing more: it must hold the job, in the generation that is
known here, and show an order of the organisation that names it. What a voter says is durable before it is said.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from pullprint.base.clock import Clock
from pullprint.base.errors import NotAllowed, PullprintError
from pullprint.model.states import ENDED, UNDER_WAY, Event, State
from pullprint.model.votes import Refusal, Vote, commit, promise, prove_nothing_sent
from pullprint.node.holder import Holder
from pullprint.node.metrics import Counts
from pullprint.node.site import Site
from pullprint.vault.generation import own_part
from pullprint.vault.index import Cast, Index, OtherGeneration, VoteRefused
from pullprint.vault.keyring import Identity
from pullprint.vault.parts import seal_for_release
from pullprint.vault.record import Record, Step
from pullprint.wire.mesh import Ballots, Commit, News, Prepare, read_table, vote_to_wire
from pullprint.wire.node import PartyKey
from pullprint.wire.order import Order, OrderRefused, verify_order

log = logging.getLogger(__name__)


class StillAtWork(PullprintError):
    """This host is at work on the job itself and takes no news of it now. The job is safe; it is asked again."""

    code = "still-at-work"
    http_status = 409


class Voter:
    """Votes in this node's name."""

    def __init__(
        self, holder: Holder, site: Site, identity: Identity, clock: Clock, name: Callable[[str], str],
        counts: Counts | None = None,
    ) -> None:  # fmt: skip
        """*name* gives a node's name for people."""
        self._counts = counts or Counts()
        self._name = name
        self._holder = holder
        self._site = site
        self._identity = identity
        self._born = clock.monotonic()

    async def prepare(self, peer: str, asked: Prepare) -> Ballots:
        """Promise *peer* its ballot, and hand over our key part for its order.

        Raises NotFound, NotAllowed, OtherGeneration, StatementRefused, PartRefused.
        """
        record, order = await self._checked(peer, asked)
        change = partial(promise, ballot=asked.ballot, forced=bool(order.forces))
        step = Step("promised", f"Its vote is promised to {self._name(peer)}.", _who(peer, asked, order))
        answer = self._counted("promised", await self._cast(record, order, change, step))
        if answer.refused:
            return answer
        part = await self._part(record, order, asked.key)
        return answer.model_copy(update={"part": part})

    async def commit(self, peer: str, asked: Commit) -> Ballots:
        """Vote for *peer*'s order. Raises NotFound, NotAllowed, OtherGeneration, StatementRefused."""
        record, order = await self._checked(peer, asked)
        change = partial(commit, ballot=asked.ballot, order=order.jti, releaser=peer)
        step = Step("voted", f"Voted for {self._name(peer)} to print it.", _who(peer, asked, order))
        return self._counted("committed", await self._cast(record, order, change, step))

    async def news(self, peer: str, said: News) -> None:
        """What became of *peer*'s attempt. Raises StillAtWork, StatementRefused."""
        record = await self._holder.read(Index.get, said.job)
        if record.state in ENDED:
            return
        if said.generation > record.generation:
            raise StillAtWork  # this host is behind, and hears of the new generation, too
        # That it was the peer's attempt the order shows, also when it is no holder any more.
        order = verify_order(said.order, self._site.pin, peer, self._site.membership.organisation, None)
        if order.job != record.id:
            raise OrderRefused(reason="it is for another job")
        if said.kind == "nothing-sent":
            await self._free(peer, record, said.ballot, order)
            return
        if record.state in UNDER_WAY or record.id in self._holder.busy:
            raise StillAtWork
        step = Step("printed-elsewhere", f"{self._name(peer)} printed it; the copy on this host is destroyed.")
        await self._holder.end(record.id, Event.PRINTED_ELSEWHERE, step, tell=False)

    async def _free(self, peer: str, record: Record, ballot: int, order: Order) -> None:
        """*peer* proves that it sent nothing; a job that was in doubt here, and is no more, is simply held again."""
        proof = partial(prove_nothing_sent, ballot=ballot, order=order.jti, releaser=peer)
        after = await self._holder.read(Index.cast, record.id, proof)
        if after.state is State.UNCERTAIN and all(attempt.nothing_sent for attempt in after.vote.attempts):
            text = f"{self._name(peer)} is back, and had sent nothing to the printer. The document is still held."
            step = Step("nothing-sent", text, {"releaser": peer, "ballot": str(ballot)})
            await self._holder.change(
                Index.move, record.id, Event.NOTHING_SENT, step, order=after.last_order, ballot=after.last_ballot
            )

    async def _checked(self, peer: str, asked: Prepare | Commit) -> tuple[Record, Order]:
        if not self._holder.vouched:
            raise StillAtWork
        record = await self._holder.read(Index.get, asked.job)
        self._check_peer(record, peer, asked.generation)
        now = self._site.cloud_now()
        order = verify_order(asked.order, self._site.pin, peer, self._site.membership.organisation, now)
        if order.job != record.id:
            raise OrderRefused(reason="it is for another job")
        if record.state in ENDED:
            raise NotAllowed(reason="the job has ended")
        return record, order

    @staticmethod
    def _check_peer(record: Record, peer: str, generation: int) -> None:
        if record.generation != generation:
            raise OtherGeneration
        if peer not in record.holders:
            raise NotAllowed(reason="it does not hold the job")

    async def _cast(self, record: Record, order: Order, change: Cast, step: Step) -> Ballots:
        def guarded(vote: Vote) -> Vote | Refusal:
            # It may be what was carried out before the record was lost.
            if vote.lost and order.iat < int(self._site.cloud_time(self._born)):
                return Refusal.VOTE_LOST
            return change(vote)

        try:
            after = await self._holder.change(
                Index.cast, record.id, guarded, step, order.printer, generation=record.generation
            )
        except VoteRefused as error:
            return Ballots(vote=vote_to_wire(error.vote), refused=error.refusal.value)
        return Ballots(vote=vote_to_wire(after.vote))

    def _counted(self, kind: Literal["promised", "committed"], answer: Ballots) -> Ballots:
        self._counts.vote("refused" if answer.refused else kind)
        return answer

    async def _part(self, record: Record, order: Order, key: PartyKey) -> bytes:
        table = read_table(await self._holder.read(Index.key_table, record.id))
        if table.generation != record.generation:
            raise OtherGeneration
        slot = next(slot for slot in table.slots if slot.party == self._identity.node)

        def handed_over() -> bytes:
            part = own_part(slot, record.id, table.generation, self._holder.keyring)
            return seal_for_release(part, key.public, job=record.id, order=order.jti, key=key.key)

        return await asyncio.to_thread(handed_over)


def _who(peer: str, asked: Prepare | Commit, order: Order) -> dict[str, str]:
    return {"releaser": peer, "order": order.jti, "ballot": str(asked.ballot), "by": order.by}
