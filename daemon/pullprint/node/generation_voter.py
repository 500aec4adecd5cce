"""New generations of holders, as a node takes part in them: it closes the old one, accepts what is proposed for the
next, and opens that once a majority of the old holders has accepted it.

Who asks is a peer whose certificate was checked, and nothing more: closing and accepting takes an order of the
organisation that names it, and that it holds the job; opening takes the signed acceptances. What is said is durable
before it is said. Who makes a new generation is `node.generation_author`'s matter.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import NotAllowed, NotFound, PullprintError
from pullprint.base.files import rename
from pullprint.base.files import replace as write_file
from pullprint.model import votes
from pullprint.model.states import ENDED, UNDER_WAY, State
from pullprint.model.votes import Refusal, Vote
from pullprint.node.holder import Holder, replica_of
from pullprint.node.site import Site
from pullprint.node.voter import StillAtWork
from pullprint.vault.generation import in_generation, measure, own_part
from pullprint.vault.header import Header, SealDamaged
from pullprint.vault.index import Cast, Index, OtherGeneration, VoteRefused
from pullprint.vault.keyring import Identity
from pullprint.vault.opening import read_header
from pullprint.vault.parts import PartRefused
from pullprint.vault.record import Record, Step
from pullprint.wire.holders import (
    Accept,
    Acceptance,
    AcceptanceAnswer,
    Accepted,
    Close,
    Closed,
    HoldersOrder,
    Link,
    Opening,
    Proven,
    check_links,
    check_successor,
    proposal_from_wire,
    proposal_to_wire,
    sign_acceptance,
    start_digest,
    table_digest,
    verify_holders_order,
)
from pullprint.wire.jws import StatementRefused
from pullprint.wire.mesh import FIRST_TABLE, Installation, KeySlot, KeyTable, read_table, vote_from_wire, vote_to_wire
from pullprint.wire.node import CLOUD
from pullprint.wire.signature import node_id

log = logging.getLogger(__name__)

LONGEST_LIFE = 31 * 86_400
"""Seconds from now to the end of a job, at most."""
LONG_CLOSED = 600.0
"""Seconds after which a host says that it still waits for a new generation."""


class HoldersRefused(PullprintError):
    """Other hosts to hold this job were refused: {reason}. The job is still held where it is."""

    code = "holders-refused"
    http_status = 409


class HoldersOver(PullprintError):
    """This job has ended on this host. Nothing was changed."""

    code = "ended"
    http_status = 410


class GenerationVoter:
    """What this node says to whoever makes a new generation."""

    def __init__(
        self, holder: Holder, site: Site, identity: Identity, clock: Clock, name: Callable[[str], str],
        arrived: Callable[[str], Path], taken: Callable[[str], Awaitable[None]],
    ) -> None:  # fmt: skip
        """*name* gives a node's name for people; *arrived* where a job's copy lies that is not held yet, and *taken*
        sees to it that nobody writes to that any more."""
        self._holder = holder
        self._site = site
        self._identity = identity
        self._clock = clock
        self._name = name
        self._arrived = arrived
        self._taken = taken
        self._opening = asyncio.Lock()
        self._closed: set[str] | None = None
        """Jobs on which this host votes no more, as far as is known; None before the index was looked through once."""

    # What peers ask.

    async def close(self, peer: str, asked: Close) -> Closed:
        """Vote no more in this generation. Raises NotFound, NotAllowed, OtherGeneration, StillAtWork,
        StatementRefused."""
        record, order = await self._checked(peer, asked)
        return await self.close_for(record, order)

    async def close_for(self, record: Record, order: HoldersOrder) -> Closed:
        """As `close`, under an *order* that was checked."""
        text = "Its holders are being changed; until that is done it cannot be printed."
        step = Step("closed", text, {"by": self._name(order.aud), "number": str(order.number)})
        key = await asyncio.to_thread(self._holder.keyring.current, self._site.cloud_now())
        try:
            after = await self._cast(record, partial(votes.close, number=order.number), step)
        except VoteRefused as error:
            return _closed(error.vote).model_copy(update={"refused": error.refusal.value})
        checkpoint("closed")
        self._has_closed(record.id)
        return _closed(after.vote).model_copy(update={"key": key})

    async def accept(self, peer: str, asked: Accept) -> AcceptanceAnswer:
        """Accept what is proposed. Raises as `close`, and SealDamaged, HoldersRefused."""
        record, order = await self._checked(peer, asked)
        return await self.accept_for(record, order, proposal_from_wire(asked.proposal))

    async def accept_for(self, record: Record, order: HoldersOrder, proposal: votes.Proposal) -> AcceptanceAnswer:
        """As `accept`, under an *order* that was checked."""
        base = await self._holder.read(Index.key_table, record.id)
        table = read_table(proposal.table)
        check_successor(table, read_table(base))
        await asyncio.to_thread(self._fits, record.id, table)
        step = Step("accepted", "Agreed to its new holders.", {"by": self._name(order.aud)})
        try:
            await self._cast(record, partial(votes.accept, number=order.number, proposal=proposal), step)
        except VoteRefused as error:
            return AcceptanceAnswer(refused=error.refusal.value)
        checkpoint("accepted")
        self._has_closed(record.id)
        statement = Acceptance(
            voter=self._identity.public, job=record.id, base=record.generation, base_table=table_digest(base),
            number=order.number, table=table_digest(proposal.table), start=start_digest(proposal.start),
        )  # fmt: skip
        return AcceptanceAnswer(acceptance=sign_acceptance(statement, self._identity.key.private_bytes_raw()))

    async def open(self, peer: str, opening: Opening) -> None:
        """Another generation is in force: durable when this returns; the same again changes nothing.

        Raises NotFound when there is no copy, HoldersRefused, HoldersOver, OtherGeneration, StillAtWork,
        StatementRefused, SealDamaged.
        """
        table = read_table(opening.table)
        async with self._opening:
            known = await self._known(table.job)
            if known is not None and known.generation > table.generation:
                raise OtherGeneration
            proven = await self._prove(known, opening, table)
            if peer != self._identity.node and peer not in (*table.holders, *proven.base.holders):
                raise NotAllowed(reason="it does not hold the job")
            if self._identity.node not in table.holders:
                await self._leave(known, proven)
            elif known is None or known.generation < table.generation:
                await self._join(known, opening, proven)

    # For whoever makes one.

    async def links(self, record: Record) -> tuple[Link, ...]:
        """Why the generation of *record* is in force. Raises NotFound, HoldersRefused."""
        token = await self._holder.read(Index.key_table, record.id)
        kept = await asyncio.to_thread(kept_links, self._holder.keys_path(record.id))
        # A later one may stand there, if this host stopped before it was in the index.
        links = kept[: record.generation - 1]
        if len(links) != record.generation - 1 or links[-1].table != token:
            raise HoldersRefused(reason="this host does not know why its key table is in force")
        return links

    async def opening(self, record: Record) -> Opening | None:
        """What makes others holders of *record*, whose generation is in force here; None where that is not after the
        second, or this host holds it no more."""
        if record.generation <= FIRST_TABLE or not record.own_key:
            return None
        try:
            raw = await asyncio.to_thread(self._holder.keys_path(record.id).read_bytes)
            opening = Opening.model_validate_json(raw)
        except (OSError, ValueError) as error:
            raise HoldersRefused(reason="this host does not know why its key table is in force") from error
        if opening.table != await self._holder.read(Index.key_table, record.id):
            return None
        pictures = await self._holder.read(Index.picture_keys, [record.id])
        return opening.model_copy(update={"owner": record.owner, "picture_key": pictures.get(record.id, b"")})

    async def say_still_closed(self) -> None:
        """Tell in their trace which jobs have waited for long: a holder that closed stays closed, whatever happens."""
        if self._closed is None:
            held = await self._holder.read(Index.in_states, State.HELD, State.UNCERTAIN)
            self._closed = {record.id for record in held if record.vote.closed}
        for job in tuple(self._closed):
            try:
                record = await self._holder.read(Index.get, job)
            except NotFound:
                record = None
            if record is None or record.state in ENDED or not record.vote.closed:
                self._closed.discard(job)
                continue
            trace = await self._holder.read(Index.trace, record.id)
            told = [traced for traced in trace if traced.step.event in ("closed", "accepted", "still-closed")]
            if told and told[-1].step.event != "still-closed" and told[-1].at < self._clock.now() - LONG_CLOSED:
                text = "Its holders were to be changed, and too few of them could be asked; they are asked again."
                await self._holder.change(Index.learn, record.id, Step("still-closed", text))

    # How.

    async def _checked(self, peer: str, asked: Close | Accept) -> tuple[Record, HoldersOrder]:
        record = await self._holder.read(Index.get, asked.job)
        own = self._identity.node
        if record.state in ENDED:
            raise HoldersOver
        if record.generation != asked.generation:
            raise OtherGeneration
        if peer not in record.holders or own not in record.holders:
            raise NotAllowed(reason="it does not hold the job")
        member = self._site.membership
        order = verify_holders_order(asked.order, self._site.pin, peer, member.organisation, self._site.cloud_now())
        if (order.job, order.base, order.number) != (asked.job, asked.generation, asked.number):
            raise StatementRefused(reason="the order is for something else")
        return record, order

    async def _cast(self, record: Record, change: Cast, step: Step) -> Record:
        """Raises StillAtWork, OtherGeneration, VoteRefused."""
        if record.state in UNDER_WAY or record.id in self._holder.busy or not self._holder.vouched:
            raise StillAtWork
        return await self._holder.change(Index.cast, record.id, change, step, generation=record.generation)

    def _has_closed(self, job: str) -> None:
        if self._closed is not None:
            self._closed.add(job)

    def _fits(self, job: str, table: KeyTable) -> None:
        """Our own part in *table* opens. Blocking. Raises SealDamaged, HoldersRefused."""
        try:
            current = in_generation(read_header(self._holder.path(job)), table)
        except FileNotFoundError:
            return  # without a copy there is nothing that it has to fit; the vote counts all the same
        if self._identity.node in table.holders:
            _open_own(self._holder, current, self._identity.node)

    async def _known(self, job: str) -> Record | None:
        """Raises HoldersOver."""
        try:
            record = await self._holder.read(Index.get, job)
        except NotFound:
            return None
        if record.state in ENDED:
            raise HoldersOver
        return record

    def _file(self, job: str) -> Path:
        """Blocking."""
        path = self._holder.path(job)
        return path if path.exists() else self._arrived(job)

    async def _prove(self, known: Record | None, opening: Opening, table: KeyTable) -> Proven:
        """Raises StatementRefused, HoldersRefused, NotFound, SealDamaged."""
        links, own = opening.links(), self._identity.node
        path = await asyncio.to_thread(self._file, table.job)
        try:
            origin = (await asyncio.to_thread(read_header, path)).context.origin_node
        except FileNotFoundError as error:
            if own in table.holders or known is None:
                raise NotFound(what="copy of the job") from error
            origin = node_id(read_table(links[0].table).author) if known.replica else own
        if known is not None and known.generation > 1:
            # The proof has to pass through what is known here, or somebody tells another story.
            token = await self._holder.read(Index.key_table, table.job)
            place = known.generation - FIRST_TABLE
            if not 0 <= place < len(links) or links[place].table != token:
                raise HoldersRefused(reason="its key table does not follow from the one that is known here")
        return await asyncio.to_thread(check_links, links, origin, vote_from_wire(opening.start))

    async def _leave(self, known: Record | None, proven: Proven) -> None:
        """Others hold it now: our copy and our key part go, and what is known of it stays."""
        if known is None:
            raise NotAllowed(reason="this host does not hold the job")
        table = proven.table
        if known.generation < table.generation:
            cloud = _cloud_slot(table)
            left = replace(
                known, generation=table.generation, holders=table.holders, own_key="", cloud_key=cloud.key,
                cloud_slot=cloud.sealed,
            )  # fmt: skip
            names = ", ".join(map(self._name, table.holders))
            step = Step("left", "Other hosts hold it now; the copy on this host is destroyed.", {"hosts": names})
            await self._open(left, proven, lambda before: before.vote if before else Vote(), step)
            checkpoint("left")
        await self._holder.shred(known.id)

    async def _join(self, known: Record | None, opening: Opening, proven: Proven) -> None:
        job, table, own = proven.table.job, proven.table, self._identity.node
        held, now = self._holder.path(job), self._site.cloud_now()
        if known is None and not now < opening.expires < now + LONGEST_LIFE:
            raise HoldersRefused(reason="its time is over, or the clocks of the two hosts differ by too much")
        path = await asyncio.to_thread(self._file, job)
        header = await asyncio.to_thread(read_header, path)
        context, config = header.context, self._site.config
        if (context.organisation, context.site) != (config.organisation, config.site):
            raise HoldersRefused(reason="it is another site's")
        if path != held:
            await self._taken(job)
        if path != held and await asyncio.to_thread(measure, path) != (table.size, table.digest):
            raise NotFound(what="whole copy of the job")
        record = replica_of(header, table, opening, own, Vote())
        await asyncio.to_thread(_open_own, self._holder, in_generation(header, table), own)
        kept = opening.model_copy(update={"picture_key": b"", "again": False}).model_dump_json().encode()
        self._check_idle(job)
        await asyncio.to_thread(write_file, self._holder.keys_path(job), kept)
        checkpoint("generation-keys")
        if path != held:
            await asyncio.to_thread(rename, path, held)
            checkpoint("generation-renamed")
        names = ", ".join(map(self._name, table.holders))
        text = "This host holds it, too, from now on." if known is None else "Its holders have changed."
        start = partial(_start, proven=proven, own=own, again=opening.again)
        await self._open(record, proven, start, Step("holders", text, {"hosts": names}), opening.picture_key)
        checkpoint("generation-opened")

    def _check_idle(self, job: str) -> None:
        if job in self._holder.busy:
            raise StillAtWork

    async def _open(
        self, record: Record, proven: Proven, start: Callable[[Record | None], Vote | Refusal], step: Step,
        picture: bytes = b"",
    ) -> None:  # fmt: skip
        # A release that has begun must not find another generation under its feet. Nothing is waited for between this
        # and the call's place in the index's queue; one that begins later reads the index after it.
        self._check_idle(record.id)
        opened = await self._holder.change(Index.open_generation, record, proven.token, start, step, picture)
        if opened.state in ENDED:
            await self._holder.shred(record.id)
            raise HoldersOver


def _cloud_slot(table: KeyTable) -> KeySlot:
    """Raises SealDamaged."""
    found = [slot for slot in table.slots if slot.party == CLOUD]
    if len(found) != 1:
        raise SealDamaged(reason="its key table has not one part for each holder and the cloud")
    return found[0]


def kept_links(path: Path) -> tuple[Link, ...]:
    """What the file beside a copy says of why its key table is in force. Blocking. Raises NotFound."""
    try:
        raw = path.read_bytes()
        try:
            return Opening.model_validate_json(raw).links()
        except ValueError:
            return (Link(table=Installation.model_validate_json(raw).table),)
    except (OSError, ValueError) as error:
        raise NotFound(what="key table of the job") from error


def _start(before: Record | None, *, proven: Proven, own: str, again: bool) -> Vote | Refusal:
    """The record that a voter of the new generation starts with.

    Where this host may have opened it before, have voted, and lost that, its record is lost: the others can print
    without it, and the generation after this one makes it whole. A holder of the old one that comes into the new one
    had closed; a host that comes in anew has a copy that waits for this.
    """
    vote = None if before is None else before.vote
    generation = 0 if before is None else before.generation
    base = proven.table.generation - 1
    opened = votes.open_generation(vote, generation, proven.acceptances, proven.base.holders, own)
    if isinstance(opened, Refusal):
        return opened
    if before is not None and before.own_key and not (generation == base and before.vote.closed):
        again = True
    if vote is not None:
        opened = replace(opened, loan=vote.loan)  # its numbers only go up, whichever generation a loan was of
    return votes.lose(opened) if again or (vote is not None and vote.lost) else opened


def _open_own(holder: Holder, current: Header, own: str) -> None:
    """Blocking. Raises SealDamaged, HoldersRefused."""
    try:
        own_part(current.slot(own)[1], current.job, current.generation, holder.keyring)
    except PartRefused as error:
        raise HoldersRefused(reason="this host's key part of it cannot be opened") from error


def _closed(vote: Vote) -> Closed:
    accepted = None
    if vote.accepted is not None:
        accepted = Accepted(number=vote.accepted.number, proposal=proposal_to_wire(vote.accepted.proposal))
    return Closed(vote=vote_to_wire(vote), closed=vote.closed, accepted=accepted)


def closed_vote(answer: Closed) -> Vote:
    """The voter's record out of its answer. Raises StatementRefused."""
    accepted = None
    if answer.accepted is not None:
        accepted = votes.Acceptance(answer.accepted.number, proposal_from_wire(answer.accepted.proposal))
    return replace(vote_from_wire(answer.vote), closed=answer.closed, accepted=accepted)
