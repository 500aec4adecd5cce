"""A document goes to a printer, at most once, through CUPS's own backend.

When is it safe to send again? Only as long as not one byte can have left. Backends take the document from a
pipe that cannot be read twice, and are never started twice. ipp and socket read the first part of stdin
*before* they connect, so they get `PRIME` octets, and the rest once they say that the document is now on its
way; lpd spools it all first (RFC 1179 wants its size) into *spool*, which is why that must be memory. If a
backend ends without having said so, nothing was sent. Everything else is uncertain until the printer itself
says what became of it.

What is lost: over ipp, the ticket of documents that are neither PDF nor images
(`pullprint.printers.options`); over socket and lpd, every ticket. socket has no acknowledgement at all:
DELIVERED there means that the printer took all bytes and closed its side, or kept quiet for 90 s after the
last.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Self

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.model.uri import PrinterUri
from pullprint.printers.backend import Backend, command
from pullprint.printers.ipp import USER, IppClient
from pullprint.printers.options import option_string, options_travel
from pullprint.printers.outcome import Outcome, Phase, Progress, Reason, Result
from pullprint.printers.tell import ABORTED, CANCELED, COMPLETED, FORMAT_REASONS, Testimony, follow, withdraw
from pullprint.printers.witness import speaks

PRIME = 1_024
"""Octets before the backend says that it is connected; what socket.c itself reads first."""

Document = Callable[[], AsyncIterator[bytes]]
"""Gives the document from its start, once per copy; chunks of any size."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Patience, in seconds."""

    connect: float = 20.0
    """For a printer to accept the document: a person stands in front of it. CUPS itself would try for a week.
    """
    refused: float = 6.0
    """The same, once the printer's host says that nobody listens; long enough for a second try of every
    backend.
    """
    stall: float = 300.0
    """Without a byte taken: time to fill paper in."""
    finish: float = 900.0
    """For the printer to finish after the last byte, or without a change in what it says of the job."""
    silence: float = 30.0
    """Without an answer to the question what became of the job."""


@dataclass(frozen=True, slots=True)
class DeliveryRequest:
    """What is sent, in words that say nothing about whose it is."""

    tag: str
    """Opaque, unique per attempt, [A-Za-z0-9_-]{1,64}: the job's name at the printer."""
    content_type: str
    copies: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    """IPP names, as `Ticket.ipp_options` gives them."""
    size: int | None = None
    """Octets of one copy, if known."""


class _Fed(Enum):
    ALL = auto()
    STOPPED = auto()
    """Not accepted, broken off, or the backend ended."""
    STALLED = auto()
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class _Program:
    argv: list[str]
    speaks: bool
    room: bool


class Prepared:
    """A backend that is loaded and waits for the document: without a byte of it, it does not even connect.

    Loading takes longer than anything else that a release does on its host, so it can begin before it is certain that
    there will be one. Whoever has one either gives it to `deliver` or closes it.
    """

    def __init__(
        self,
        uri: PrinterUri,
        request: DeliveryRequest,
        *,
        spool: Path,
        trust: Path | None = None,
        limits: Limits = Limits(),
    ) -> None:
        """For *uri*, which is resolved, so that its host is an address; nothing runs before `load`.

        *spool* is a folder on a tmpfs, *trust* one that lasts, in which ipps keeps the certificates of printers.
        """
        self.uri = uri
        self.request = request
        self.spool = spool
        self.trust = trust
        self.limits = limits
        self.options_travel = options_travel(uri.scheme, request.content_type)
        self.speaks = False
        self.backend: Backend | None = None
        self.problem = Reason.BACKEND_FAILED
        """Why there is no backend."""
        self.closed = False

    @property
    def repeats(self) -> int:
        """How often the document is sent."""
        return 1 if self.options_travel else self.request.copies

    async def load(self, backend_dir: Path) -> Self:
        """Start the program; what goes wrong is the delivery's outcome."""
        size = (self.request.size or 0) * self.repeats
        try:
            program = await asyncio.to_thread(_program, self.uri.scheme, backend_dir, self.spool, size)
        except OSError:
            self.problem = Reason.BACKEND_MISSING
            return self
        self.speaks = program.speaks
        if program.room:
            self._start(program)
        else:
            self.problem = Reason.SPOOL_FULL
        return self

    def close(self) -> None:
        """End it."""
        self.closed = True
        if self.backend is not None:
            self.backend.end()

    def _start(self, program: _Program) -> None:
        request = self.request
        options = option_string(request.copies, request.options) if self.options_travel else ""
        argv = [*program.argv, "1", USER, request.tag, "1", options]
        environment = _environment(self.uri, request, self.spool, self.trust, self.limits)
        with contextlib.suppress(OSError):
            self.backend = Backend.start(self.uri.scheme, argv, environment)


async def deliver(
    prepared: Prepared,
    document: Document,
    *,
    on_first_byte: Callable[[], Awaitable[None]],
    clock: Clock,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Send *document*, once; *prepared* is used up.

    *on_first_byte* is awaited before the backend gets its first byte; when it raises, nothing is sent and its
    error passes. So does an error of *document* before its first chunk. After a cancellation the backend
    is dead, and the job uncertain if *on_first_byte* had been awaited.
    """
    backend, uri = prepared.backend, prepared.uri
    if backend is None:
        return Outcome(Result.NOTHING_SENT, prepared.problem)
    run = _Run(uri, prepared.request, backend, prepared.limits, on_progress)
    try:
        async with backend, contextlib.aclosing(_copies(document, prepared.repeats)) as chunks:
            first = await anext(chunks, b"")
            if not first:
                return Outcome(Result.NOTHING_SENT, Reason.EMPTY_DOCUMENT)
            await on_first_byte()
            fed = await run.feed(first, chunks)
            if fed is _Fed.ALL:
                fed = await run.finish()
            ended_by_itself = backend.exit is not None
    finally:
        if backend.exit is not None and backend.exit < 0 and uri.scheme != "socket":
            await asyncio.shield(asyncio.to_thread(_sweep, prepared.spool, backend.pid))
    if not backend.witness.sending:
        if not prepared.speaks or backend.witness.deaf:
            return run.outcome(Result.UNCERTAIN, Reason.BACKEND_FAILED)
        return run.outcome(Result.NOTHING_SENT, run.why_nothing(fed, ended_by_itself))
    if uri.scheme in {"ipp", "ipps"}:
        return await run.ask(fed, clock, prepared.trust)
    return run.judge_bytes(fed)


class _Run:
    """One delivery under way."""

    def __init__(
        self,
        uri: PrinterUri,
        request: DeliveryRequest,
        backend: Backend,
        limits: Limits,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._uri = uri
        self._tag = request.tag
        self._backend = backend
        self._witness = backend.witness
        self._limits = limits
        self._tell = on_progress

    async def feed(self, first: bytes, chunks: AsyncIterator[bytes]) -> _Fed:
        """The document into the pipe, the greater part of it behind the gate."""
        backend, stall = self._backend, self._limits.stall
        self._tell(Progress(Phase.CONNECTING))
        spools = self._uri.scheme == "lpd"
        if not await backend.write(first[:PRIME], stall):
            return self._stopped()
        if not spools and not await self._gate():
            return _Fed.STOPPED
        if not await backend.write(first[PRIME:], stall):
            return self._stopped()
        try:
            async for chunk in chunks:
                if not await backend.write(chunk, stall):
                    return self._stopped()
                self._tell(Progress(Phase.CONNECTING if spools else Phase.SENDING, backend.taken))
        except (PullprintError, OSError, ValueError):
            # The bytes so far must not be taken for the whole document, so the pipe is not closed: it is
            # killed.
            return _Fed.UNREADABLE
        backend.close_stdin()
        if spools and not await self._gate():
            return _Fed.STOPPED
        self._tell(Progress(Phase.SENDING, backend.taken))
        return _Fed.ALL

    def _stopped(self) -> _Fed:
        return _Fed.STALLED if self._backend.stalled else _Fed.STOPPED

    async def _gate(self) -> bool:
        """Wait for the line that comes before the document; False when it does not come or must not."""
        backend, witness, limits = self._backend, self._witness, self._limits

        def settled() -> bool:
            return witness.sending or witness.format_unknown or witness.certificate or backend.over

        await backend.until(lambda: settled() or witness.refused or witness.busy, limits.connect)
        if not settled() and (witness.refused or witness.busy):
            self._tell(Progress(Phase.CONNECTING, waiting=True))
            await backend.until(settled, limits.refused if witness.refused else limits.connect)
        return witness.sending and not witness.format_unknown

    async def finish(self) -> _Fed:
        """Wait for the backend to end, for as long as it gets on."""
        backend, witness, limits = self._backend, self._witness, self._limits
        if self._uri.scheme != "lpd":
            return _Fed.ALL if await backend.until(lambda: backend.over, limits.finish) else _Fed.STALLED
        while True:
            lines = witness.lines  # «Spooling job, N% complete.», one for every 32 KiB
            if await backend.until(lambda: backend.over, limits.stall):
                return _Fed.ALL
            if witness.lines == lines:
                return _Fed.STALLED

    def why_nothing(self, fed: _Fed, ended_by_itself: bool) -> Reason:
        """The reason when not one byte of the document has left."""
        witness, status = self._witness, self._backend.exit
        if fed is _Fed.UNREADABLE:
            return Reason.DOCUMENT_BROKEN
        if witness.certificate:
            return Reason.CERTIFICATE_CHANGED
        if witness.format_unknown or witness.format_refused:
            return Reason.FORMAT_REFUSED
        if witness.options_refused:
            return Reason.OPTIONS_REFUSED
        if witness.temporary_failed or (fed is _Fed.STALLED and not witness.connected):
            return Reason.SPOOL_FULL if self._uri.scheme == "lpd" else Reason.BACKEND_FAILED
        if ended_by_itself and status == 2:  # CUPS_BACKEND_AUTH_REQUIRED, backend(7)
            return Reason.NEEDS_PASSWORD
        if witness.busy:
            return Reason.PRINTER_BUSY
        if not witness.connected:
            return (
                Reason.BACKEND_FAILED if ended_by_itself and status != 0 and not witness.refused else Reason.PRINTER_OFF
            )
        if ended_by_itself or witness.broken:
            return Reason.PRINTER_REFUSED
        return Reason.PRINTER_BUSY

    def judge_bytes(self, fed: _Fed) -> Outcome:
        """socket and lpd: the end of the backend is all that there is to know."""
        witness = self._witness
        if fed is _Fed.ALL and self._backend.exit == 0 and not witness.broken:
            if self._uri.scheme == "socket" or (witness.accepted and not witness.unanswered):
                return self.outcome(Result.DELIVERED, Reason.DONE)
            return self.outcome(Result.UNCERTAIN, Reason.NO_ANSWER)
        return self.outcome(Result.UNCERTAIN, _broken_off(fed))

    async def ask(self, fed: _Fed, clock: Clock, trust: Path | None) -> Outcome:
        """ipp: the printer's word on what became of the job."""
        whole = fed is _Fed.ALL and not self._witness.broken
        limits = self._limits
        async with IppClient(self._uri, trust) as client:
            withdrawn = not self._witness.accepted and await withdraw(client, self._tag, self._witness.job_id)
            said = await follow(
                client,
                self._tag,
                self._witness.job_id,
                clock=clock,
                finish=limits.finish,
                silence=limits.silence,
                seen=self._seen,
            )
        if said is None:
            return self.outcome(Result.UNCERTAIN, Reason.NO_ANSWER if whole else _broken_off(fed))
        if withdrawn and said.never_begun:
            return self.outcome(Result.NOTHING_SENT, Reason.PRINTER_REFUSED, said)
        if said.nothing_printed:
            refused = FORMAT_REASONS & set(said.reasons)
            reason = Reason.FORMAT_REFUSED if refused else Reason.JOB_ABORTED if whole else _broken_off(fed)
            return self.outcome(Result.NOTHING_SENT, reason, said)
        # A printer without a job history forgets a job the moment that it is done; it had accepted all of it.
        if whole and (said.state == COMPLETED or (said.state is None and self._witness.accepted)):
            return self.outcome(Result.DELIVERED, Reason.DONE, said)
        if not whole:
            return self.outcome(Result.UNCERTAIN, _broken_off(fed), said)
        reasons = {ABORTED: Reason.JOB_ABORTED, CANCELED: Reason.JOB_CANCELLED, None: Reason.NO_ANSWER}
        return self.outcome(Result.UNCERTAIN, reasons.get(said.state, Reason.TIMED_OUT), said)

    def _seen(self, said: Testimony) -> None:
        self._tell(Progress(Phase.PRINTING, self._backend.taken, said.pages))

    def outcome(self, result: Result, reason: Reason, said: Testimony | None = None) -> Outcome:
        return Outcome(
            result=result,
            reason=reason,
            bytes_sent=self._backend.taken if self._witness.sending else 0,
            printer_job_id=self._witness.job_id if said is None or said.job_id is None else said.job_id,
            pages_completed=self._witness.pages if said is None or said.pages is None else said.pages,
            testimony={} if said is None else said.words(),
        )


def _broken_off(fed: _Fed) -> Reason:
    return {_Fed.STALLED: Reason.TIMED_OUT, _Fed.UNREADABLE: Reason.DOCUMENT_BROKEN}.get(fed, Reason.CONNECTION_LOST)


async def _copies(document: Document, repeats: int) -> AsyncGenerator[bytes, None]:
    for _ in range(repeats):
        async for chunk in document():
            if chunk:
                yield chunk


def _program(scheme: str, backend_dir: Path, spool: Path, size: int) -> _Program:
    program = backend_dir / scheme
    room = scheme != "lpd" or shutil.disk_usage(spool).free > size
    return _Program([*command(program)], speaks(program, scheme), room)


def _sweep(spool: Path, pid: int) -> None:
    """Remove what a killed backend left in *spool*: cupsTempFd names files after the process id
    (cups/tempfile.c).
    """
    for file in spool.glob(f"{pid:05x}????????"):
        file.unlink(missing_ok=True)


def _environment(
    uri: PrinterUri, request: DeliveryRequest, spool: Path, trust: Path | None, limits: Limits
) -> dict[str, str]:
    # waitjob=false: the backend's own polling begins after a second; ours says more and comes sooner.
    # snmp stays on: without a PPD nothing is ever asked, and with snmp=false the ipp backend of CUPS 2.4.2 dies in
    # the middle of a Print-Job, of FD_SET(-1).
    ours = [("contimeout", str(max(1, int(limits.connect))))]
    if uri.scheme in {"ipp", "ipps"}:
        ours.append(("waitjob", "false"))
    return {
        "DEVICE_URI": uri.with_query(*ours),
        "PRINTER": "pullprint",
        "CONTENT_TYPE": request.content_type,
        "FINAL_CONTENT_TYPE": _final_type(request.content_type),
        "LC_ALL": "C.UTF-8",
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "HOME": str(trust or spool),
        "TMPDIR": str(spool),
        "CUPS_SERVER": str(spool / "no-cupsd-here"),
        "AUTH_INFO_REQUIRED": "none",
    }


def _final_type(content_type: str) -> str:
    raw = content_type.startswith("printer/") or content_type == "application/vnd.cups-raw"
    return "application/octet-stream" if raw else content_type
