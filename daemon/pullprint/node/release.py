"""Releasing a job: from an order to paper, at most once.

Everything that can fail is tried before COMMIT: the printer is asked whether it can, the voters promise, every chunk is
checked, the backend is loaded. Then the other voters commit, and this node last, in the write that says SENDING; then
the first byte is let go. Up to there any failure is proof that nothing was sent, and the job is simply held again; from
there on only the printer's word or the owner's decides. Because COMMIT is so late, a releaser that dies before it is
replaced by another holder without anybody's being asked.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.model.job import attempt_name
from pullprint.model.states import Event, State, WrongState
from pullprint.model.ticket import Ticket
from pullprint.model.uri import PrinterUri, check_uri
from pullprint.model.votes import (
    FIRST,
    Attempt,
    Refusal,
    Verdict,
    Vote,
    commit,
    doubtful,
    judge,
    promise,
    prove_nothing_sent,
)
from pullprint.node.holder import LOST_TRACK, Holder
from pullprint.node.memory import PrinterMemory, PrinterState
from pullprint.node.metrics import Counts
from pullprint.node.quorum import HoldersChanging, NoQuorum, Quorum
from pullprint.node.site import Site
from pullprint.printers.delivery import DeliveryRequest, Prepared, deliver
from pullprint.printers.outcome import Outcome, Phase, Progress, Reason, Result
from pullprint.printers.uri import resolve
from pullprint.vault.generation import own_part
from pullprint.vault.header import Header, SealDamaged
from pullprint.vault.index import Index, IndexFailed, OtherGeneration, VoteRefused
from pullprint.vault.keyring import Identity
from pullprint.vault.opening import OpenJob
from pullprint.vault.parts import PartRefused, open_for_release
from pullprint.vault.record import Record, Step
from pullprint.wire.mesh import KeyTable, read_table
from pullprint.wire.node import CLOUD, OrderItem, Printer
from pullprint.wire.order import Order, verify_order

log = logging.getLogger(__name__)

PROBE_FRESH = 30.0
"""Seconds for which a printer's capabilities are taken as still true."""
READ_AHEAD = 16
"""Chunks of 64 KiB that are decrypted at a time, in a thread."""
PROGRESS_EVERY = 1.0
"""Seconds between two reports of the pages that are out."""
_INLINE = 1 << 18
"""Bytes; a smaller document is decrypted without a thread, which would take longer than the work."""


class FormatRefused(PullprintError):
    """The printer {printer} does not take documents of the kind {kind}. Nothing was printed; the job is still
    held, release it at another printer."""

    code = "format-refused"
    http_status = 409


class PrinterAway(PullprintError):
    """{printer} cannot print now. {trouble} Nothing was printed and the document is still held: release it again, or
    at another printer."""

    code = "printer-away"
    http_status = 409


class InDoubt(PullprintError):
    """An earlier attempt may have printed this job. It is still held: look at the printer, then choose “print
    again” or “it came out”."""

    code = "in-doubt"
    http_status = 409


class DoubtElsewhere(InDoubt):
    """It may have been printed already: {names} was at it and does not answer now. The document is still held. Look at
    the printer, then choose “print again” or “it came out”."""


class BeingReleased(PullprintError):
    """This job waits for its turn at another printer, or is being printed there. Nothing was started by this order;
    look at its history, and release it again if it comes back."""

    code = "being-released"
    http_status = 409


class Occupied(PullprintError):
    """{printer} is still printing other documents. Nothing of this one was printed and it is still held: release it
    again in a moment, or at another printer."""

    code = "occupied"
    http_status = 409


class Stopping(PullprintError):
    """The host that holds this job is being restarted. Nothing was printed; the job is still held, release it
    again in a
    moment."""

    code = "stopping"
    http_status = 409


class OrderUsed(PullprintError):
    """This order to print was used before or came too late. Nothing was printed by it; the job is still held."""

    code = "order-used"
    http_status = 409


class VoteLost(PullprintError):
    """This host lost its record of what was printed, so it has no vote on this job. Nothing was printed; another host
    that holds the job can print it."""

    code = "vote-lost"
    http_status = 409


class VoteLent(PullprintError):
    """This host was asleep, and its vote on this job is still with the cloud, which does not answer. Nothing was
    printed by it; another host that holds the job can print it."""

    code = "vote-lent"
    http_status = 409


_ELSEWHERE = (NoQuorum, PrinterAway, SealDamaged, Stopping, VoteLent, VoteLost)
"""What another holder may be spared."""
_ELSEWHERE_REASONS = frozenset(
    {Reason.PRINTER_OFF, Reason.BACKEND_MISSING, Reason.BACKEND_FAILED, Reason.SPOOL_FULL, Reason.DOCUMENT_BROKEN}
)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One order that is being carried out."""

    order: Order
    token: str
    """The order's JWS."""
    printer: Printer
    uri: PrinterUri
    parts: Mapping[str, bytes]
    """Key parts that were handed over for this order, HPKE-sealed to us, by party."""
    part_key: str
    """Which of our day keys they are sealed to."""
    begun: float
    """When the order came, by the monotonic clock."""


class Releaser:
    """Carries out release orders on this node."""

    def __init__(
        self,
        holder: Holder,
        site: Site,
        identity: Identity,
        clock: Clock,
        *,
        backend_dir: Path,
        spool: Path,
        trust: Path,
        counts: Counts | None = None,
    ) -> None:
        self._counts = counts or Counts()
        self._holder = holder
        self._site = site
        self._identity = identity
        self._clock = clock
        self._born = clock.monotonic()
        self._orders: dict[str, str] = {}
        self.quorum: Quorum | None = None
        """The other voters, as soon as this node has a mesh."""
        self.reclaim: Callable[[str], Awaitable[None]] = _nothing
        """Takes back the vote on a job that this host lent when it went to sleep, if it can."""
        self.doubted: Callable[[Record, Sequence[Attempt]], None] = lambda *_: None
        """Told of a job that turned out to be in doubt, and of the attempts that may have printed it."""
        self.damaged: Callable[[str], None] = lambda _: None
        """Told of a job whose copy here could not be read."""
        self.closing = False
        """Set when the daemon is about to stop: nothing new is begun."""
        self._backend_dir = backend_dir
        self._spool = spool
        self._trust = trust
        self.printers = PrinterMemory(clock, trust)

    async def prepare(self, record: Record, printer: str, changes: Mapping[str, str]) -> Prepared | None:
        """Load the backend that an order for *record* at *printer* (an id) will need, while it is being asked for.

        None when that is not worth while or not possible; whatever is wrong is found again, and told, by the release.
        """
        state = self.printer_state(printer)
        if state.turn.locked() or self.closing or record.id in self._holder.busy:
            return None
        try:
            uri = await self._resolve(self._site.printer(printer))
            request = self._request(record, record.ticket.changed(changes), record.vote.promised + 1)
        except PullprintError:
            return None
        if state.prepared is not None and not state.prepared.closed:
            return None
        state.prepared = Prepared(uri, request, spool=self._spool, trust=self._trust)
        try:
            return await state.prepared.load(self._backend_dir)
        except BaseException:
            state.prepared.close()
            raise

    async def _resolve(self, printer: Printer) -> PrinterUri:
        return await resolve(check_uri(printer.uri), self._site.networks)

    @staticmethod
    def _request(record: Record, ticket: Ticket, ballot: int) -> DeliveryRequest:
        return DeliveryRequest(
            tag=attempt_name(record.id, ballot),
            content_type=record.content_type,
            copies=ticket.copies,
            options=ticket.ipp_options(),
            size=record.size,
        )

    async def _loaded(self, uri: PrinterUri, request: DeliveryRequest, prepared: Prepared | None) -> Prepared:
        """The backend for an attempt: the one that is loaded already, if it is for exactly this."""
        if prepared is not None and (prepared.uri, prepared.request) == (uri, request):
            return prepared
        return await Prepared(uri, request, spool=self._spool, trust=self._trust).load(self._backend_dir)

    async def execute(self, item: OrderItem, prepared: Prepared | None = None) -> None:
        """Carry out the order in *item*, with what was *prepared* for it, which is used up in any case.

        Whatever goes wrong ends in the job's trace; raises StatementRefused only.
        """
        try:
            await self._carry_out(item, prepared)
        finally:
            if prepared:
                prepared.close()

    async def _carry_out(self, item: OrderItem, prepared: Prepared | None) -> None:
        order = verify_order(
            item.order,
            self._site.pin,
            self._identity.node,
            self._site.membership.organisation,
            self._site.cloud_now(),
        )
        if order.job in self._holder.busy:
            if self._orders.get(order.job) != order.jti:
                # Told, but not refused: that would use up the ballots of the order that is being carried out.
                await self._holder.change(Index.note, order.job, Step("refused", BeingReleased().sentence))
            return
        if self.closing:
            await self._refused(order, Stopping())
            return
        self._holder.busy.add(order.job)
        self._orders[order.job] = order.jti
        try:
            await self._execute(order, item, prepared)
        except IndexFailed as error:
            log.error("order %s: %s", order.jti, error)
        except PullprintError as error:
            await self._refused(order, error)
        finally:
            # Where a full disk or a fault of ours got in between, this ends as a restart would.
            try:
                await self._holder.settle(order.job)
            finally:
                self._holder.busy.discard(order.job)
                del self._orders[order.job]

    async def _execute(self, order: Order, item: OrderItem, prepared: Prepared | None) -> None:
        begun = self._clock.monotonic()
        record = await self._holder.read(Index.get, order.job)
        if record.vote.lent:
            await self.reclaim(record.id)
            record = await self._holder.read(Index.get, order.job)
        if record.state not in (State.HELD, State.UNCERTAIN):
            raise WrongState(state=record.state.value)
        if order.ballot <= record.vote.promised or (
            record.vote.lost and order.iat < int(self._site.cloud_time(self._born))
        ):
            # Second case: it may be what was carried out before the record was lost.
            raise OrderUsed
        checkpoint("order-verified")
        printer = self._site.printer(order.printer)
        uri = await self._resolve(printer)
        state = self.printer_state(printer.id)
        async with self._turn(order, printer, state) as waited:
            if waited:
                # What was true of job and order need not be so any more.
                record = await self._holder.read(Index.get, order.job)
                if self._site.cloud_now() > order.exp or order.ballot <= record.vote.promised:
                    raise OrderUsed
                if self.closing:
                    raise Stopping
            await self._preflight(record, printer, uri)
            handed_over = {CLOUD: item.part} if item.part else {}
            attempt = _Attempt(order, item.order, printer, uri, handed_over, item.part_key, begun)
            record, attempt = await self._prepare(record, attempt)
            checkpoint("prepared")
            await self._print(record, attempt, prepared)

    def printer_state(self, printer: str) -> PrinterState:
        """What is remembered of the printer with that id."""
        return self.printers.state(printer)

    @asynccontextmanager
    async def _turn(self, order: Order, printer: Printer, state: PrinterState) -> AsyncIterator[bool]:
        """The printer is ours; whether that took a while. Raises Occupied when the order's time is over first."""
        waits = state.turn.locked()
        if waits:
            text = f"Waits until {printer.name} is done with other documents."
            await self._holder.change(Index.progress, order.job, text)
        try:
            async with asyncio.timeout(order.exp - self._site.cloud_now() if waits else None):
                await state.turn.acquire()
        except TimeoutError as error:
            raise Occupied(printer=printer.name) from error
        try:
            yield waits
        finally:
            state.turn.release()

    async def _preflight(self, record: Record, printer: Printer, uri: PrinterUri) -> None:
        """Ask an IPP printer what it takes, unless it said so a moment ago; others have no words for that."""
        if uri.scheme not in ("ipp", "ipps"):
            return
        found = self.printers.fresh(printer, PROBE_FRESH) or await self.printers.ask(printer, uri)
        if not found.answers:
            raise PrinterAway(printer=printer.name, trouble=" ".join(found.troubles))
        if not found.accepts(record.content_type):
            raise FormatRefused(printer=printer.name, kind=record.content_type)

    def _key_parts(self, header: Header, attempt: _Attempt) -> dict[str, bytes]:
        """Our own part of the job, and those that were handed over for this order. Raises PartRefused."""
        _, slot = header.slot(self._identity.node)
        ours = own_part(slot, header.job, header.generation, self._holder.keyring)
        private = self._holder.keyring.private(attempt.part_key)
        found, refused = {slot.party: ours}, PartRefused(reason="nobody handed over a second one")
        for party, sealed in attempt.parts.items():
            try:
                found[party] = open_for_release(
                    sealed, private, job=header.job, order=attempt.order.jti, key=attempt.part_key
                )
            except PartRefused as error:  # of several, one may be bad
                refused = error
        if len(found) < 2:
            raise refused
        return found

    async def _prepare(self, record: Record, attempt: _Attempt) -> tuple[Record, _Attempt]:
        """PREPARE, ours and the other voters'; with what they handed over.

        In the first ballot nobody else is asked, unless for a key part: see `model.votes`. Raises InDoubt, VoteLost,
        OrderUsed, NoQuorum.
        """
        order, own = attempt.order, self._identity.node
        voters = record.voters(own)
        alone = len(voters) == 1
        promised = partial(promise, ballot=order.ballot, forced=bool(order.forces), alone=alone)
        fresh = replace(record.vote, loan=0) == Vote()
        asks = not alone and (order.ballot != FIRST or not fresh or not attempt.parts)
        if asks:
            record = await self._refusable(
                record, self._holder.change(Index.cast, record.id, promised, generation=record.generation)
            )
            attempt = await self._ask_voters(record, attempt)
        who = {"by": order.by, "printer": attempt.printer.name, "order": order.jti, "ballot": str(order.ballot)}
        step = Step("prepared", f"Released for {attempt.printer.name}.", who)

        def change(vote: Vote) -> Vote | Refusal:
            after = vote if asks else promised(vote)
            if not alone or isinstance(after, Refusal):
                return after
            if judge({own: after}, voters, order.ballot, order.forces) is not Verdict.GO:
                raise InDoubt
            return after

        record = await self._refusable(
            record,
            self._holder.change(
                Index.move, record.id, Event.PREPARE, step, order=order.jti, ballot=order.ballot, vote=change,
                printer=attempt.printer.id, token=attempt.token, generation=record.generation,
            ),
        )  # fmt: skip
        return record, attempt

    async def _refusable(self, record: Record, changed: Awaitable[Record]) -> Record:
        """What *changed* gives. Raises InDoubt, VoteLent, VoteLost, HoldersChanging and OrderUsed for a refusal of our
        own vote."""
        try:
            return await changed
        except OtherGeneration as error:
            raise HoldersChanging from error
        except VoteRefused as error:
            if error.refusal is Refusal.LENT:
                raise VoteLent from error
            if error.refusal is Refusal.CLOSED:
                raise HoldersChanging from error
            if error.refusal is not Refusal.VOTE_LOST:
                raise OrderUsed from error
            if record.holders:
                raise VoteLost from error
            if record.state is State.HELD:
                step = Step("vote-lost", InDoubt().sentence)
                await self._holder.change(Index.move, record.id, Event.LOST_TRACK, step)
            raise InDoubt from error

    async def _ask_voters(self, record: Record, attempt: _Attempt) -> _Attempt:
        """*attempt* with the key parts of the voters that promise. Raises InDoubt, NoQuorum."""
        if self.quorum is None:
            raise NoQuorum(missing="the other hosts that hold it")
        order = attempt.order
        key = await asyncio.to_thread(self._holder.keyring.party, attempt.part_key)
        promises = await self.quorum.prepare(record, record.vote, order, attempt.token, key)
        if promises.verdict is Verdict.NO_QUORUM and promises.changing:
            raise HoldersChanging
        if promises.verdict is Verdict.NO_QUORUM:
            missing = ", ".join(self.quorum.name(voter) for voter in promises.missing)
            raise NoQuorum(missing=missing)
        if promises.verdict is Verdict.IN_DOUBT:
            raise await self._in_doubt(record, promises.votes, order)
        return replace(attempt, parts={**attempt.parts, **promises.parts})

    async def _in_doubt(self, record: Record, votes: Mapping[str, Vote], order: Order) -> InDoubt:
        """Earlier attempts of other holders may have printed: their printers are asked, and the owner is told."""
        assert self.quorum is not None
        found = doubtful(votes, record.holders, order.ballot) - set(order.forces)
        attempts = {(a.ballot, a.order): a for vote in votes.values() for a in vote.attempts if a.ballot in found}
        names = sorted({self.quorum.name(a.releaser) for a in attempts.values() if a.releaser})
        doubt = DoubtElsewhere(names=", ".join(names)) if names else InDoubt()
        if record.state is State.HELD:
            step = Step("in-doubt", doubt.sentence, {"ballots": ", ".join(map(str, sorted(found)))})
            record = await self._holder.change(
                Index.move, record.id, Event.LOST_TRACK, step, order=order.jti, ballot=order.ballot
            )
        self.doubted(record, list(attempts.values()))
        return doubt

    async def _commit(self, record: Record, attempt: _Attempt) -> None:
        """COMMIT, the other voters' and then ours, and SENDING. Raises NoQuorum, Outvoted, VoteLost, OrderUsed."""
        order, own = attempt.order, self._identity.node
        voted: tuple[str, ...] = ()
        if len(record.voters(own)) > 1:
            if self.quorum is None:
                raise NoQuorum(missing="the other hosts that hold it")
            voted = await self.quorum.commit(record, order, attempt.token)
            checkpoint("voted")
        names = ", ".join(self.quorum.name(voter) for voter in voted) if self.quorum else ""
        text = f"Connecting to {attempt.printer.name}."
        if names:
            text = f"{names} voted for it; connecting to {attempt.printer.name}."
        detail = {"votes": names} if names else {}
        sending = Step("sending", f"{attempt.printer.name} is being sent the document.")
        await self._refusable(
            record,
            self._holder.change(
                Index.move, record.id, Event.COMMIT, Step("committed", text, detail), then=[(Event.SEND, sending)],
                order=order.jti, ballot=order.ballot, generation=record.generation,
                vote=partial(commit, ballot=order.ballot, order=order.jti, releaser=own),
            ),
        )  # fmt: skip

    async def _print(self, record: Record, attempt: _Attempt, prepared: Prepared | None) -> None:
        order, printer = attempt.order, attempt.printer
        sending = False

        async def first_byte() -> None:
            nonlocal sending
            checkpoint("checked")
            await self._commit(record, attempt)
            sending = True
            self._counts.release(self._clock.monotonic() - attempt.begun)
            checkpoint("sending")

        table = await self._table(record)
        document = _Document(
            self._holder.path(record.id), record.id, lambda header: self._key_parts(header, attempt), table
        )
        try:
            async with _Teller(self._holder, record.id, printer.name) as teller:
                outcome = await deliver(
                    await self._loaded(attempt.uri, self._request(record, order.ticket, order.ballot), prepared),
                    document.chunks,
                    on_first_byte=first_byte,
                    on_progress=teller.tell,
                    clock=self._clock,
                )
        except Exception as error:
            # After PREPARE every end is written down, a fault of ours too.
            if isinstance(error, SealDamaged | OSError):
                self.damaged(record.id)
            sentence = error.sentence if isinstance(error, PullprintError) else DAMAGED
            if not isinstance(error, PullprintError | OSError):
                log.exception("delivery failed")
                sentence = FAULT
            if sending:
                await self._lost_track(record, order, Step("lost-track", LOST_TRACK))
            else:
                elsewhere = isinstance(error, (*_ELSEWHERE, OSError))
                await self._nothing_sent(record, order, Step("nothing-sent", sentence), elsewhere=elsewhere)
            return
        finally:
            document.close()
        checkpoint("delivered")
        await self._conclude(record, attempt, outcome)

    async def _table(self, record: Record) -> KeyTable | None:
        token = await self._holder.read(Index.key_table, record.id) if record.generation > 1 else ""
        return read_table(token) if token else None

    async def _conclude(self, record: Record, attempt: _Attempt, outcome: Outcome) -> None:
        order, printer = attempt.order, attempt.printer
        if outcome.reason is Reason.DOCUMENT_BROKEN:
            self.damaged(record.id)
        detail = {"reason": outcome.reason.value, "bytes": str(outcome.bytes_sent), **dict(outcome.testimony)}
        match outcome.result:
            case Result.DELIVERED:
                step = Step("printed", f"Printed at {printer.name}.", detail)
                await self._holder.end(
                    record.id,
                    Event.DELIVERED,
                    step,
                    order=order.jti,
                    ballot=order.ballot,
                    pages=outcome.pages_completed,
                    news=self._holder.news_of(record, "printed"),
                )
            case Result.NOTHING_SENT:
                elsewhere = outcome.reason in _ELSEWHERE_REASONS
                await self._nothing_sent(
                    record, order, Step("nothing-sent", outcome.sentence, detail), elsewhere=elsewhere
                )
                self.printers.doubt(printer.id)
            case Result.UNCERTAIN:
                await self._lost_track(record, order, Step("uncertain", outcome.sentence, detail))

    async def _lost_track(self, record: Record, order: Order, step: Step) -> None:
        await self._holder.change(Index.move, record.id, Event.LOST_TRACK, step, order=order.jti, ballot=order.ballot)

    async def _nothing_sent(self, record: Record, order: Order, step: Step, *, elsewhere: bool) -> None:
        current = await self._holder.read(Index.get, record.id)
        event = Event.ABANDON if current.state is State.PREPARED else Event.NOTHING_SENT
        proof = partial(prove_nothing_sent, ballot=order.ballot, order=order.jti, releaser=self._identity.node)
        await self._holder.change(
            Index.move, record.id, event, step, order=order.jti, ballot=order.ballot, vote=proof, elsewhere=elsewhere,
            news=self._holder.news_of(record, "nothing-sent"),
        )  # fmt: skip

    async def _refused(self, order: Order, error: PullprintError) -> None:
        log.info("order %s refused: %s", order.jti, error.code)
        step = Step("refused", error.sentence, {"order": order.jti, "code": error.code})
        elsewhere = isinstance(error, _ELSEWHERE)
        try:
            await self._holder.change(Index.refuse, order.job, step, order.jti, order.ballot, elsewhere=elsewhere)
        except PullprintError:
            log.warning("order %s is for a job that is not held here", order.jti)


FAULT = "Pullprint has a fault. Nothing was printed and the document is still held; tell who looks after this host."
DAMAGED = "The stored copy of this job cannot be read on this host. Nothing was printed; print the document again."


async def _nothing(_job: str) -> None:
    pass


class _Teller:
    """Tells what a delivery shows of itself, an async context manager: each phase once in the trace, and how many pages
    are out as often as that changes, at most every `PROGRESS_EVERY` seconds."""

    def __init__(self, holder: Holder, job: str, printer: str) -> None:
        self._holder = holder
        self._job = job
        self._printer = printer
        self._told: set[tuple[Phase, bool]] = set()
        self._steps: list[Progress] = []
        self._pages = 0
        self._bell = asyncio.Event()

    def tell(self, progress: Progress) -> None:
        """Take note; what is new is written soon."""
        key, pages = (progress.phase, progress.waiting), progress.pages_completed or 0
        if key not in self._told and (progress.waiting or progress.phase is Phase.PRINTING):
            self._told.add(key)
            self._steps.append(progress)
        elif pages <= self._pages:
            return
        self._pages = max(self._pages, pages)
        self._bell.set()

    async def __aenter__(self) -> "_Teller":
        self._task = asyncio.create_task(self._write(), name=f"teller {self._job}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _write(self) -> None:
        told = 0
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._steps:
                progress = self._steps.pop(0)
                text = f"Waiting for {self._printer}." if progress.waiting else f"{self._printer} is printing."
                await self._holder.change(Index.note, self._job, Step(progress.phase.value, text))
            if self._pages > told:
                told = self._pages
                text = f"{self._printer} is printing. Pages out so far: {told}."
                await self._holder.change(Index.progress, self._job, text, told)
                await asyncio.sleep(PROGRESS_EVERY)


class _Document:
    """The document of one release, decrypted in threads a megabyte at a time: the loop waits for no AES and no disk."""

    def __init__(
        self, path: Path, job: str, parts: Callable[[Header], Mapping[str, bytes]], table: KeyTable | None
    ) -> None:
        self._open = partial(OpenJob, path, job, parts, table)
        self._opened: OpenJob | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes from their start; every one of them was checked before the first. Raises what OpenJob raises."""
        if self._opened is None:
            self._opened = await asyncio.to_thread(self._open)
        small = self._opened.header.size <= _INLINE
        chunks = self._opened.chunks()

        def some() -> bytes:
            return b"".join(bytes(chunk) for chunk in islice(chunks, READ_AHEAD))

        while piece := some() if small else await asyncio.to_thread(some):
            yield piece
            checkpoint("half-sent")

    def close(self) -> None:
        """Forget the key."""
        if self._opened:
            self._opened.close()
