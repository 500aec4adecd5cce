"""Making a new generation of holders: one of the present ones sees to it, under an order of the organisation.

In this order: whoever comes in gets the sealed file; a majority of the present holders closes the old generation, and
says what it accepted before; what is then proposed is accepted by a majority, durably; that is the decision, and
everybody is told until they have heard. The host that does this may stop anywhere: the cloud orders another one with a
higher number, which finds what a majority may have accepted, and finishes that instead of what it wanted itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError
from pullprint.mesh.client import PeerAway
from pullprint.model import votes
from pullprint.model.states import ENDED, UNDER_WAY, State
from pullprint.model.votes import Verdict, Vote, decided, propose, quorum
from pullprint.node.generation_voter import GenerationVoter, HoldersRefused, closed_vote
from pullprint.node.holder import Holder
from pullprint.node.site import Site
from pullprint.node.telling import Telling
from pullprint.node.transfer import PATIENCE, Mesh
from pullprint.node.voter import StillAtWork
from pullprint.vault.generation import make_table, recovered_key
from pullprint.vault.header import Header
from pullprint.vault.index import Index
from pullprint.vault.keyring import Identity
from pullprint.vault.opening import read_header
from pullprint.vault.record import Record, Step
from pullprint.vault.sealing import Party
from pullprint.wire.holders import (
    LINKS_LIMIT,
    Accept,
    AcceptanceAnswer,
    Close,
    Closed,
    HoldersOrder,
    Link,
    Opening,
    check_links,
    proposal_to_wire,
    read_acceptance,
    start_digest,
    table_digest,
    verify_holders_order,
)
from pullprint.wire.jws import StatementRefused
from pullprint.wire.mesh import KeyTable, read_table, vote_to_wire
from pullprint.wire.node import CLOUD, HoldersItem
from pullprint.wire.signature import node_id
from pullprint.wire.types import Message

log = logging.getLogger(__name__)

SLOW_DISK = 10 << 20
"""Bytes per second that a peer reads, at least."""
RETRY = 1.0
"""Seconds until a node that does not answer is told again, at first."""
REFUSED_RETRY = 60.0
"""The same for one that refused."""
OPEN_TRIES = 90
"""How often this host tries, every `RETRY` seconds, to open what was decided while a release waits for its printer."""
LOOK_EVERY = 60.0
"""Seconds between two looks for jobs that have been closed for long."""
CLOSE, ACCEPT, OPEN = (f"/mesh/v1/generations/{word}" for word in ("close", "accept", "open"))
_OVER = frozenset({"ended", "other-generation"})
"""Refusals that no repetition changes."""
_NOT_ITS = frozenset({NotFound.code, "not-allowed", "not-a-peer"})
"""The same for a node that is to hold the job no more."""

Answer = TypeVar("Answer", bound=Message)
Bring = Callable[[str, Record], Awaitable[Party | None]]
"""Gives a node the sealed file of a job; None when it does not take it."""


class TooFew(PullprintError):
    """Too few of the hosts that hold this job can be asked to change its holders. The job is safe; it is tried
    again."""

    code = "too-few"
    http_status = 409


@dataclass(frozen=True, slots=True)
class _Base:
    """The generation that ends."""

    record: Record
    table: KeyTable
    token: str
    links: tuple[Link, ...]
    header: Header
    data_key: bytes
    order: str
    """The order's JWS."""


class GenerationAuthor:
    """Makes new generations, and tells of them."""

    def __init__(
        self, holder: Holder, site: Site, identity: Identity, clock: Clock, generations: GenerationVoter, bring: Bring
    ) -> None:
        self._holder = holder
        self._site = site
        self._identity = identity
        self._clock = clock
        self._generations = generations
        self._bring = bring
        self._client: Mesh | None = None
        self._at_work: set[str] = set()
        self.telling = Telling(self._tell, clock, RETRY)
        """Nodes that are to hear of new generations."""
        self._leaving: dict[str, Opening] = {}
        """What this host decided, and is itself not to hold any more: it goes once the others have heard."""

    async def run(self, client: Mesh) -> None:
        """Tell of new generations until cancelled."""
        self._client = client
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._remember(), name="generations: after a restart")
                group.create_task(self._look(), name="generations: closed")
                await self.telling.run()
        finally:
            self._client = None

    async def take(self, item: HoldersItem) -> None:
        """See to what *item* orders; whatever goes wrong is logged, and ordered again."""
        try:
            order = verify_holders_order(
                item.order, self._site.pin, self._identity.node, self._site.membership.organisation,
                self._site.cloud_now(),
            )  # fmt: skip
        except StatementRefused as error:
            log.warning("new holders: %s", error)
            return
        if order.job in self._at_work or self._client is None:
            return
        self._at_work.add(order.job)
        try:
            await self._make(order, item)
        except (PullprintError, OSError) as error:
            log.info("%s gets no new holders now: %s", order.job, error)
        finally:
            self._at_work.discard(order.job)

    # One order.

    async def _make(self, order: HoldersOrder, item: HoldersItem) -> None:
        """Raises PullprintError, OSError."""
        own = self._identity.node
        record = await self._holder.read(Index.get, order.job)
        if record.generation != order.base or own not in record.holders:
            raise HoldersRefused(reason="the order is for another generation")
        if record.state in UNDER_WAY or record.state in ENDED or record.id in self._holder.busy:
            raise HoldersRefused(reason="the job is being released, or has ended")
        base = await self._base(record, order, item)
        newcomers = await self._newcomers(record, order)
        if not newcomers and not order.urgent:
            await self._say_short(record)
            return
        checkpoint("newcomers")
        proposal = await self._propose(base, order, newcomers)
        checkpoint("proposed")
        acceptances = await self._accepted(base, order, proposal)
        checkpoint("decided")
        await self._decide(base, proposal, acceptances)

    async def _base(self, record: Record, order: HoldersOrder, item: HoldersItem) -> _Base:
        """All that it takes, so that nothing is closed in vain. Raises what is missing."""
        links = await self._generations.links(record)
        if len(links) >= LINKS_LIMIT:
            raise HoldersRefused(reason="it has had too many of them")
        token = links[-1].table
        table = read_table(token)
        header = await asyncio.to_thread(read_header, self._holder.path(record.id))
        data_key = await asyncio.to_thread(
            recovered_key, header, table, self._identity.node, self._holder.keyring, part=item.part,
            part_key=item.part_key, order=order.jti,
        )  # fmt: skip
        return _Base(record, table, token, links, header, data_key, item.order)

    async def _newcomers(self, record: Record, order: HoldersOrder) -> list[Party]:
        """Those of the candidates, best first, that have a durable copy now."""
        found: list[Party] = []
        for node in order.candidates:
            if len(found) >= order.wanted:
                break
            if node in record.holders or node == self._identity.node:
                continue
            party = await self._bring(node, record)
            if party is not None:
                found.append(party)
        return found

    async def _propose(self, base: _Base, order: HoldersOrder, newcomers: Sequence[Party]) -> votes.Proposal:
        """CLOSE; what may be proposed then. Raises TooFew, HoldersRefused, StillAtWork, OtherGeneration."""
        record, own = base.record, self._identity.node
        message = Close(job=record.id, generation=record.generation, number=order.number, order=base.order)
        answers = dict(await self._ask(record, CLOSE, message, Closed))
        # Ours last: without the others it would only keep this host from printing.
        if sum(not answer.refused for answer in answers.values()) + 1 < quorum(len(record.holders)):
            raise TooFew
        answers[own] = await self._generations.close_for(record, order)
        if answers[own].refused:
            raise HoldersRefused(reason=f"this host says {answers[own].refused}")
        closed: dict[str, Vote] = {}
        for voter, answer in answers.items():
            try:
                vote = closed_vote(answer)
            except StatementRefused as error:
                log.warning("%s: what %s accepted cannot be read: %s", record.id, voter, error)
                continue
            if not answer.refused and answer.closed == order.number:
                closed[voter] = vote
        nothing = votes.Proposal(record.generation + 1, "", (), Vote())
        found = propose(closed, record.holders, order.number, nothing)
        if isinstance(found, Verdict):
            raise TooFew
        if found.table:  # what one of them accepted may have been decided
            log.info("%s: what was proposed before is finished", record.id)
            return found
        parties = []
        for voter in record.holders:
            key = answers[voter].key if voter in closed else None
            if key is not None and voter not in order.out:
                parties.append(Party(voter, key.key, key.public))
        parties += newcomers
        if len(parties) < len(set(record.holders) - set(order.out)):
            raise TooFew  # who was only slow has a good copy
        token = await asyncio.to_thread(self._table, base, parties)
        mine = votes.Proposal(record.generation + 1, token, tuple(party.name for party in parties), Vote())
        proposal = propose(closed, record.holders, order.number, mine)
        assert isinstance(proposal, votes.Proposal)
        return proposal

    def _table(self, base: _Base, parties: Sequence[Party]) -> str:
        """Blocking. Raises HoldersRefused."""
        config = self._site.config
        if config.cloud_key.expires <= self._site.cloud_now():
            raise HoldersRefused(reason="this host has not heard from its cloud for too long")
        cloud = Party(CLOUD, config.cloud_key.key, config.cloud_key.public)
        try:
            return make_table(
                base.header, base.data_key, list(parties), cloud, generation=base.table.generation + 1,
                size=base.table.size, digest=base.table.digest, identity=self._identity.key,
            )  # fmt: skip
        except ValueError as error:  # cryptography's own
            raise HoldersRefused(reason="a holder's key is none") from error

    async def _accepted(self, base: _Base, order: HoldersOrder, proposal: votes.Proposal) -> tuple[str, ...]:
        """ACCEPT; the acceptances (JWS) of a majority. Raises TooFew, HoldersRefused, StatementRefused."""
        record, own = base.record, self._identity.node
        answers = {own: await self._generations.accept_for(record, order, proposal)}
        if answers[own].refused:
            raise HoldersRefused(reason=f"this host says {answers[own].refused}")
        message = Accept(
            job=record.id, generation=record.generation, number=order.number, proposal=proposal_to_wire(proposal),
            order=base.order,
        )  # fmt: skip
        answers |= await self._ask(record, ACCEPT, message, AcceptanceAnswer)
        good = {
            voter: answer.acceptance
            for voter, answer in answers.items()
            if not answer.refused and _is_for(answer.acceptance, voter, base, order.number, proposal)
        }
        said = {voter: votes.Acceptance(order.number, proposal) for voter in good}
        if decided(said, record.holders) is None:
            raise TooFew
        return tuple(good.values())

    async def _decide(self, base: _Base, proposal: votes.Proposal, acceptances: Sequence[str]) -> None:
        """It is in force: here at once, or last of all if it goes on without this host."""
        record, own = base.record, self._identity.node
        pictures = await self._holder.read(Index.picture_keys, [record.id])
        opening = Opening(
            table=proposal.table, expires=record.expires, owner=record.owner, host=record.host,
            cups_job_id=record.cups_job_id, claim_code=record.claim_code, picture_key=pictures.get(record.id, b""),
            earlier=base.links, acceptances=tuple(acceptances), start=vote_to_wire(proposal.start),
        )  # fmt: skip
        proven = await asyncio.to_thread(check_links, opening.links(), base.header.context.origin_node, proposal.start)
        if own in proposal.voters:
            await self._open(opening)
        else:
            self._leaving[record.id] = opening
        self._tell_all(record.id, proven.table.holders, proven.former, again=False)

    async def _open(self, opening: Opening) -> None:
        """Here. A release that began meanwhile finds that this host votes no more, and is over soon."""
        for _ in range(OPEN_TRIES):
            try:
                await self._generations.open(self._identity.node, opening)
            except StillAtWork:
                await self._clock.sleep(RETRY)
            else:
                return
        raise StillAtWork

    async def _say_short(self, record: Record) -> None:
        trace = await self._holder.read(Index.trace, record.id)
        if not any(traced.step.event == "not-replaced" for traced in trace):
            step = Step("not-replaced", "No other host takes a copy of it now, so it has fewer copies than it should.")
            await self._holder.change(Index.learn, record.id, step)

    async def _ask(self, record: Record, path: str, message: Message, answer: type[Answer]) -> Mapping[str, Answer]:
        """The answers of the other voters that come in time."""
        client = self._client
        assert client is not None
        answers: dict[str, Answer] = {}

        async def one(voter: str) -> None:
            try:
                answers[voter] = await client.ask(voter, path, message, answer, timeout=PATIENCE)
            except PullprintError as error:
                log.info("%s: %s of %s: %s", voter, path, record.id, error)

        async with asyncio.TaskGroup() as group:
            for voter in record.holders:
                if voter != self._identity.node:
                    group.create_task(one(voter), name="generations: ask")
        return answers

    # Telling.

    def _tell_all(self, job: str, holders: Sequence[str], former: frozenset[str], *, again: bool) -> None:
        for node in (*holders, *sorted(former)):
            if node != self._identity.node:
                self.telling.add(node, job, again=again)

    async def _remember(self) -> None:
        """Whether those that were told last had answered, nobody knows any more."""
        try:
            for record in await self._holder.read(Index.in_states, State.HELD, State.UNCERTAIN):
                opening = await self._kept(record)
                if opening is None:
                    continue
                origin = node_id(read_table(opening.links()[0].table).author)
                proven = await asyncio.to_thread(check_links, opening.links(), origin)
                self._tell_all(record.id, proven.table.holders, proven.former, again=True)
        except PullprintError as error:
            log.error("generations: %s", error)

    async def _kept(self, record: Record) -> Opening | None:
        try:
            return await self._generations.opening(record)
        except HoldersRefused as error:
            log.warning("%s: %s", record.id, error)
            return None

    async def _look(self) -> None:
        while True:
            try:
                await self._generations.say_still_closed()
            except PullprintError as error:
                log.error("generations: %s", error)
            await self._clock.sleep(LOOK_EVERY)

    async def _tell(self, node: str, job: str) -> float | None:
        """See `telling.Tell`."""
        pause = await self._told(node, job)
        if pause is None:
            await self._last_told(node, job)
        return pause

    async def _told(self, node: str, job: str) -> float | None:
        client = self._client
        assert client is not None
        holds = False
        try:
            record = await self._holder.read(Index.get, job)
            opening = self._leaving.get(job) or await self._kept(record)
            if record.state in ENDED or opening is None:
                return None
            holds = node in read_table(opening.table).holders
            if not holds:
                opening = opening.model_copy(update={"picture_key": b"", "claim_code": ""})
            table = read_table(opening.table)
            timeout = PATIENCE + table.size / SLOW_DISK  # whoever comes in reads all of the file once more
            try:
                await client.tell(node, OPEN, opening, timeout)
            except PullprintError as error:
                if error.code != NotFound.code or not holds:
                    raise
                # It has no copy (any more).
                if await self._bring(node, record) is None:
                    return REFUSED_RETRY
                opening = opening.model_copy(update={"again": self.telling.is_again(node, job)})
                await client.tell(node, OPEN, opening, timeout)
        except PullprintError as error:
            if error.code == PeerAway.code:
                self.telling.may_have_heard(node, job)
                return 0.0
            log.info("%s is told of the new holders of %s: %s", node, job, error)
            if error.code in _OVER or (error.code in _NOT_ITS and not holds):
                return None
            return RETRY if error.code == "still-at-work" else REFUSED_RETRY
        except OSError as error:
            log.error("%s is not told of %s: %s", node, job, error)
            return REFUSED_RETRY
        except Exception:
            log.exception("telling of new holders failed")
            return REFUSED_RETRY
        checkpoint("generation-told")
        return None

    async def _last_told(self, heard: str, job: str) -> None:
        """A host that does not hold it any more goes when all that do have *heard*, the latest included."""
        opening = self._leaving.get(job)
        if opening is None:
            return
        holders = read_table(opening.table).holders
        if any(self.telling.waits(node, job) for node in holders if node != heard):
            return
        try:
            await self._generations.open(self._identity.node, opening)
        except PullprintError as error:
            log.info("%s is not let go: %s", job, error)
            return
        del self._leaving[job]


def _is_for(token: str, voter: str, base: _Base, number: int, proposal: votes.Proposal) -> bool:
    """Whether *token* is the acceptance of *proposal* by *voter*."""
    try:
        said = read_acceptance(token)
    except StatementRefused as error:
        log.warning("%s accepts nothing that can be read: %s", voter, error)
        return False
    found = (node_id(said.voter), said.job, said.base, said.base_table, said.number, said.table, said.start)
    record = base.record
    wanted = (
        voter, record.id, record.generation, table_digest(base.token), number, table_digest(proposal.table),
        start_digest(proposal.start),
    )  # fmt: skip
    return found == wanted
