"""Releasing a job: from an order to paper, at most once.

Everything that can fail is tried before the vote. With the vote comes the key; with the key every chunk is checked;
and only when the backend has reached the printer is SENDING written down and the first byte let go. Up to there any
failure is proof that nothing was sent, and the job is simply held again; from there on only the printer's word or the
owner's decides.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
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
from pullprint.model.votes import Refusal, Verdict, Vote, commit, judge, promise, prove_nothing_sent
from pullprint.node.holder import LOST_TRACK, Holder
from pullprint.node.memory import PrinterMemory, PrinterState
from pullprint.node.site import Site
from pullprint.printers.delivery import DeliveryRequest, Prepared, deliver
from pullprint.printers.outcome import Outcome, Phase, Progress, Result
from pullprint.printers.uri import resolve
from pullprint.vault import parts
from pullprint.vault.header import Header
from pullprint.vault.index import Index, IndexFailed
from pullprint.vault.keyring import Identity
from pullprint.vault.opening import OpenJob
from pullprint.vault.record import Record, Step
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
    ) -> None:
        self._holder = holder
        self._site = site
        self._identity = identity
        self._clock = clock
        self._born = clock.monotonic()
        self._orders: dict[str, str] = {}
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
            record = await self._vote(record, order, printer)
            checkpoint("committed")
            await self._print(record, order, printer, uri, item, prepared)

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

    def _key_parts(self, header: Header, order: Order, item: OrderItem) -> dict[str, bytes]:
        """Our own part of the job, and the one that the cloud handed over for this order."""
        _, slot = header.slot(self._identity.node)
        ours = parts.open_part(
            slot.sealed, self._holder.keyring.private(slot.key), job=header.job, party=slot.party, key=slot.key,
            generation=header.generation,
        )  # fmt: skip
        theirs = parts.open_for_release(
            item.part,
            self._holder.keyring.private(item.part_key),
            job=header.job,
            order=order.jti,
            key=item.part_key,
        )
        return {slot.party: ours, CLOUD: theirs}

    async def _vote(self, record: Record, order: Order, printer: Printer) -> Record:
        """PREPARE and COMMIT. This node is the only voter of its jobs; the rule is that of any number."""
        name, forced = self._identity.node, bool(order.forces)
        promised = promise(record.vote, order.ballot, forced=forced)
        if promised is Refusal.VOTE_LOST and record.state is State.HELD:
            await self._holder.change(Index.move, record.id, Event.LOST_TRACK, Step("vote-lost", InDoubt().sentence))
        if promised is Refusal.VOTE_LOST:
            raise InDoubt
        if isinstance(promised, Refusal):
            raise OrderUsed
        if judge({name: promised}, [name], order.ballot, order.forces) is not Verdict.GO:
            raise InDoubt
        committed = commit(promised, order.ballot, order.jti)
        assert isinstance(committed, Vote)
        who = {"by": order.by, "printer": printer.name, "order": order.jti, "ballot": str(order.ballot)}
        await self._holder.change(
            Index.move, record.id, Event.PREPARE, Step("prepared", f"Released for {printer.name}.", who),
            order=order.jti, ballot=order.ballot, vote=promised, printer=printer.id,
        )  # fmt: skip
        checkpoint("prepared")
        return await self._holder.change(
            Index.move, record.id, Event.COMMIT, Step("committed", f"Connecting to {printer.name}."),
            order=order.jti, ballot=order.ballot, vote=committed,
        )  # fmt: skip

    async def _print(
        self,
        record: Record,
        order: Order,
        printer: Printer,
        uri: PrinterUri,
        item: OrderItem,
        prepared: Prepared | None,
    ) -> None:
        sending = False

        async def first_byte() -> None:
            nonlocal sending
            step = Step("sending", f"{printer.name} is being sent the document.")
            await self._holder.change(Index.move, record.id, Event.SEND, step, order=order.jti, ballot=order.ballot)
            sending = True
            checkpoint("sending")

        path = self._holder.path(record.id)
        document = _Document(path, record.id, lambda header: self._key_parts(header, order, item))
        try:
            async with _Teller(self._holder, record.id, printer.name) as teller:
                outcome = await deliver(
                    await self._loaded(uri, self._request(record, order.ticket, order.ballot), prepared),
                    document.chunks,
                    on_first_byte=first_byte,
                    on_progress=teller.tell,
                    clock=self._clock,
                )
        except Exception as error:
            # After COMMIT every end is written down, a fault of ours too.
            sentence = error.sentence if isinstance(error, PullprintError) else DAMAGED
            if not isinstance(error, PullprintError | OSError):
                log.exception("delivery failed")
                sentence = FAULT
            if sending:
                await self._lost_track(record, order, Step("lost-track", LOST_TRACK))
            else:
                await self._nothing_sent(record, order, Step("nothing-sent", sentence))
            return
        finally:
            document.close()
        checkpoint("delivered")
        await self._conclude(record, order, printer, outcome)

    async def _conclude(self, record: Record, order: Order, printer: Printer, outcome: Outcome) -> None:
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
                )
            case Result.NOTHING_SENT:
                await self._nothing_sent(record, order, Step("nothing-sent", outcome.sentence, detail))
                self.printers.doubt(printer.id)
            case Result.UNCERTAIN:
                await self._lost_track(record, order, Step("uncertain", outcome.sentence, detail))

    async def _lost_track(self, record: Record, order: Order, step: Step) -> None:
        await self._holder.change(Index.move, record.id, Event.LOST_TRACK, step, order=order.jti, ballot=order.ballot)

    async def _nothing_sent(self, record: Record, order: Order, step: Step) -> None:
        current = await self._holder.read(Index.get, record.id)
        vote = prove_nothing_sent(current.vote, order.ballot)
        await self._holder.change(
            Index.move, record.id, Event.NOTHING_SENT, step, order=order.jti, ballot=order.ballot, vote=vote
        )

    async def _refused(self, order: Order, error: PullprintError) -> None:
        log.info("order %s refused: %s", order.jti, error.code)
        step = Step("refused", error.sentence, {"order": order.jti, "code": error.code})
        try:
            await self._holder.change(Index.refuse, order.job, step, order.jti, order.ballot)
        except PullprintError:
            log.warning("order %s is for a job that is not held here", order.jti)


FAULT = "Pullprint has a fault. Nothing was printed and the document is still held; tell who looks after this host."
DAMAGED = "The stored copy of this job cannot be read on this host. Nothing was printed; print the document again."


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

    def __init__(self, path: Path, job: str, parts: Callable[[Header], Mapping[str, bytes]]) -> None:
        self._open = partial(OpenJob, path, job, parts)
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
