"""Intake: the socket where CUPS's backend hands over a document, and waits until it is sealed and durable.

The answer `stored` is a promise. It is given after the sealed file, its folder and the index row have reached the
disk. A backend that hangs up without a word was killed, and cupsd believes that such a job is finished; so its document
is kept as well if all of it is here, and only the word ``drop`` (a cancelled job) lets go of it. Where the admin wants
more copies before that promise, the backend asks again until there are so many; copies of all others are made after
the answer.
"""

import asyncio
import logging
import os
import pwd
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from urllib.parse import unquote

from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError, TooLarge
from pullprint.base.platform import peer_uid
from pullprint.base.text import printable
from pullprint.model.facts import Facts
from pullprint.model.job import Context, Submission, new_job_id
from pullprint.model.owner import new_code
from pullprint.model.states import ENDED
from pullprint.model.ticket import TicketRefused
from pullprint.model.votes import Vote
from pullprint.node.document import Dropped, EmptyDocument, IncomingDocument
from pullprint.node.facts import Counted, FactCounter
from pullprint.node.holder import Holder, record_of
from pullprint.node.placement import Placement
from pullprint.node.settings import Settings
from pullprint.node.site import NotJoined, Site
from pullprint.vault.index import Index
from pullprint.vault.keyring import Identity
from pullprint.vault.parts import wrap_picture
from pullprint.vault.picture import seal_picture
from pullprint.vault.record import Record, Step
from pullprint.vault.sealing import Party, Sealed, seal
from pullprint.wire.intake import ANSWER_LIMIT, LINE_LIMIT, LineRefused, read_line
from pullprint.wire.node import CLOUD, PictureReport

log = logging.getLogger(__name__)

DROP = b"drop\n"
CHECK, HERE = b"check\n", "here"
"""What asks whether anybody answers, and the answer."""
LINE_SECONDS = 10.0
"""For the backend to send its line."""
ACCEPT_PAUSE = 0.2
FACTS_BACKLOG = 256
"""Documents that wait to be counted, each with a descriptor; those beyond it are held without facts."""
FACTS_MEMORY = 256 << 20
"""Bytes that those of them take which came through a pipe."""
CONNECTIONS = 256
SEALING_THREADS = 64
"""A slow filter keeps one busy for as long as it runs."""
COPIES_TIME = 20.0
"""Seconds that a backend waits for further copies before it is told to ask again."""
MIB = 1 << 20
LOCAL_HOSTS = frozenset({"", "localhost", "127.0.0.1", "::1", "[::1]"})
"""job-originating-host-name of what was printed on this host; elsewhere a user's name is only a claim."""


class WrongQueue(PullprintError):
    """The queue's address {uri} is not one of Pullprint's: it should be pullprint:/ or pullprint:/printer/NAME.
    Tell who set up the queue; the job stays in CUPS."""

    code = "wrong-queue"


class KeyTooOld(PullprintError):
    """This host has not heard from its cloud for too long to seal another job. The job stays in CUPS until it has."""

    code = "key-too-old"


class AlreadyEnded(PullprintError):
    """This very job was handed over before, and is {state} now. Print the document anew if it is wanted again."""

    code = "already-ended"


class DiskFull(PullprintError):
    """This host has no room for another job. The job stays in CUPS and is tried again; released or expired jobs
    make room."""

    code = "disk-full"


class TooFewCopies(PullprintError):
    """The document is held here, and not on {wanted} hosts yet, as is wanted. CUPS keeps it, too, and asks again; look
    whether the other hosts of the site are switched on."""

    code = "too-few-copies"
    http_status = 503


class IntakeSilent(PullprintError):
    """Nobody answers at {path}, where CUPS hands over documents; jobs wait in CUPS. Restart pullprintd.socket, then
    pullprintd."""

    code = "intake-silent"
    http_status = 503


_REFUSED = (TicketRefused, EmptyDocument, TooLarge, AlreadyEnded)
"""What no later try would change; everything else waits in CUPS."""


class Intake:
    """Serves the intake socket."""

    def __init__(
        self,
        settings: Settings,
        holder: Holder,
        site: Site,
        identity: Identity,
        counter: FactCounter,
        clock: Clock,
        placement: Placement | None = None,
    ) -> None:
        """*placement* finds further holders; without it a job stays on this node alone."""
        self._settings = settings
        self._holder = holder
        self._site = site
        self._identity = identity
        self._counter = counter
        self._clock = clock
        self._placement = placement
        self._threads = ThreadPoolExecutor(SEALING_THREADS, thread_name_prefix="seal")
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._arriving: dict[str, asyncio.Future[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._counting = 0
        self._counting_memory = 0
        self._allowed = {0, os.geteuid(), *_uids(settings.intake_accounts)}

    async def run(self, listener: socket.socket) -> None:
        """Accept connections on *listener* until cancelled."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                while True:
                    await self._slots.acquire()
                    try:
                        connection, _ = await loop.sock_accept(listener)
                    except OSError as error:
                        # Out of descriptors, most likely; those in use come back.
                        self._slots.release()
                        log.error("intake cannot accept: %s", error.strerror)
                        await self._clock.sleep(ACCEPT_PAUSE)
                        continue
                    connection.setblocking(False)
                    task = self._tasks.create_task(self._serve(connection), name="intake")
                    task.add_done_callback(lambda _: self._slots.release())
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def hold(self, submission: Submission, document: IncomingDocument, owner: str | None = None) -> Record:
        """Store *document*, which becomes ours, and have it counted; the record of *submission*, new or known.

        *owner* is whose it is; None: whoever the submitter's account belongs to. Raises AlreadyEnded, DiskFull,
        KeyTooOld, NotJoined, TooLarge, WrongQueue, OSError, and what reading *document* raises.
        """
        record, place = await self._hold(submission, document, owner)
        place()
        return record

    async def _hold(
        self, submission: Submission, document: IncomingDocument, owner: str | None = None
    ) -> tuple[Record, Callable[[], None]]:
        """As `hold`; what is to be called, once whoever waits has its answer, for further holders to be found."""
        assert self._tasks is not None
        handed_on = False
        try:
            record, sealed = await self._store(submission, document, owner)
            fresh = sealed is not None
            if fresh and (problem := self._uncountable(document)):
                self._tasks.create_task(self._learn(record, Counted(Facts.unknown(problem))), name="facts")
            elif fresh:
                self._tasks.create_task(self._count(record, document), name="facts")
                handed_on = True
            if sealed is None or self._placement is None:
                return record, _nothing
            return record, partial(self._placement.place, record, sealed.data_key)
        finally:
            if not handed_on:
                document.close()

    async def known(self, submission: Submission) -> Record | None:
        """The record that an earlier run for *submission* made. Raises AlreadyEnded."""
        known = await self._holder.read(Index.by_uuid, submission.job_uuid)
        if known and known.state in ENDED:
            raise AlreadyEnded(state=known.state.value)
        return known

    async def _serve(self, connection: socket.socket) -> None:
        fds: list[int] = []
        after: list[Callable[[], None]] = []
        with connection:
            try:
                answer = await self._answer(connection, fds, after)
            except Dropped:
                return
            except _REFUSED as error:
                answer = f"refused {error.sentence}"
            except PullprintError as error:
                log.info("a job waits in CUPS: %s", error.code)
                answer = f"later {error.sentence}"
            except OSError as error:
                log.error("a job waits in CUPS: %s", error.strerror)
                answer = f"later {DiskFull().sentence}"
            except Exception:
                log.exception("intake failed")
                answer = "later Pullprint has a fault; the job stays in CUPS. Tell who looks after this host."
            finally:
                for fd in fds:
                    os.close(fd)
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(LINE_SECONDS):
                    line = printable(answer, ANSWER_LIMIT // 4).encode() + b"\n"
                    await asyncio.get_running_loop().sock_sendall(connection, line)
        for call in after:
            call()

    async def _answer(self, connection: socket.socket, fds: list[int], after: list[Callable[[], None]]) -> str:
        """The line for the backend; what is to be done when it has been sent is added to *after*."""
        if peer_uid(connection) not in self._allowed:
            raise LineRefused(reason="its account may not hand over jobs")
        line = await _receive(connection, fds)
        if line == CHECK:
            return HERE
        submission = read_line(line)
        if len(fds) != 1:
            raise LineRefused(reason="it did not pass exactly one document")
        if not self._site.joined:
            raise NotJoined
        checkpoint("line-received")
        document = IncomingDocument(fds[0])
        fds.clear()
        loop = asyncio.get_running_loop()

        def heard() -> None:
            word = _word(connection)
            document.dropped = document.dropped or word == DROP
            document.abandoned = document.abandoned or not word
            if not word:
                loop.remove_reader(connection)

        loop.add_reader(connection, heard)
        try:
            record, place = await self._hold(submission, document)
        finally:
            loop.remove_reader(connection)
        checkpoint("indexed")
        if self._settings.min_copies == 1:
            after.append(place)
        else:
            place()
            await self._enough(record)
        return f"stored {record.id} {_told(record, self._site.config.public_url)}"

    async def _store(
        self, submission: Submission, document: IncomingDocument, owner: str | None
    ) -> tuple[Record, Sealed | None]:
        """The record of *submission*, and what was sealed if it is new; a second run for the same job waits for the
        first."""
        while arriving := self._arriving.get(submission.job_uuid):
            await asyncio.wait([arriving])
        done = asyncio.get_running_loop().create_future()
        self._arriving[submission.job_uuid] = done
        try:
            known = await self.known(submission)
            return (known, None) if known else await self._seal(submission, document, owner)
        finally:
            del self._arriving[submission.job_uuid]
            done.set_result(None)

    async def _enough(self, record: Record) -> None:
        """Wait until *record* has as many copies as the admin wants. Raises TooFewCopies."""
        wanted = self._settings.min_copies
        if self._placement is None or not await self._placement.enough(record.id, wanted, COPIES_TIME):
            raise TooFewCopies(wanted=wanted)

    async def _seal(
        self, submission: Submission, document: IncomingDocument, owner: str | None
    ) -> tuple[Record, Sealed]:
        now = self._site.cloud_now()
        config = self._site.config
        direct = _direct_printer(submission.device_uri)
        local = submission.host in LOCAL_HOSTS
        if owner is None:
            owner = self._site.user_of(submission.submitter) if local else ""
        job = new_job_id()
        context = Context(
            organisation=config.organisation, site=config.site, origin_node=self._identity.node,
            queue=submission.queue, owner=owner, submitter=submission.submitter, job_uuid=submission.job_uuid,
            title=submission.title, content_type=submission.content_type, ticket=submission.ticket,
            direct_printer=direct, created=int(now),
        )  # fmt: skip
        if config.cloud_key.expires <= now:
            raise KeyTooOld
        await self._check_room()
        own = await asyncio.to_thread(self._holder.keyring.current, now)
        parties = [
            Party(self._identity.node, own.key, own.public),
            Party(CLOUD, config.cloud_key.key, config.cloud_key.public),
        ]
        path = self._holder.path(job)
        sealing = partial(
            seal, document.read, path, job=job, context=context, parties=parties, identity=self._identity.key,
            limit=self._settings.document_limit_mib * MIB,
        )  # fmt: skip
        sealed = await asyncio.get_running_loop().run_in_executor(self._threads, sealing)
        checkpoint("sealed")
        try:
            document.check_wanted()
            code = "" if owner or direct else new_code()
            host = "" if local else submission.host
            record = record_of(
                sealed.header, self._identity.node, expires=int(now) + config.hold, vote=Vote(), host=host,
                cups_job_id=submission.cups_job_id, claim_code=code,
            )  # fmt: skip
            return await self._holder.change(Index.add, record, _first_steps(record)), sealed
        except Exception:
            # Not for a cancellation: the row may be committed by then, and at the next start the file is adopted.
            path.unlink(missing_ok=True)
            raise

    async def _check_room(self) -> None:
        free = shutil.disk_usage(self._holder.directory).free
        stored = 0
        if self._settings.store_limit_mib:
            stored = (await self._holder.read(Index.counts))["bytes"]
        if free < self._settings.disk_reserve_mib * MIB or stored > self._settings.store_limit_mib * MIB > 0:
            raise DiskFull

    def _uncountable(self, document: IncomingDocument) -> str:
        """Why the facts of *document* stay unknown; empty if they will be counted."""
        if document.countable < 0:
            return "too-large"
        full = self._counting >= FACTS_BACKLOG or self._counting_memory + document.memory > FACTS_MEMORY
        return "busy" if full else ""

    async def _count(self, record: Record, document: IncomingDocument) -> None:
        """Count the facts from the descriptor that the backend handed over, after its answer."""
        memory = document.memory
        self._counting += 1
        self._counting_memory += memory
        try:
            counted = await self._counter.count(document.countable, record.content_type)
        except Exception:
            log.exception("counting failed")
            counted = Counted(Facts.unknown("failed"))
        finally:
            self._counting -= 1
            self._counting_memory -= memory
            document.close()
        await self._learn(record, counted)

    async def _learn(self, record: Record, counted: Counted) -> None:
        facts = counted.facts
        try:
            step = Step("facts", _counted(facts))
            picture = self._sealed(record.id, counted.picture) if counted.picture else None
            await self._holder.change(Index.learn, record.id, step, facts=facts, picture=picture)
        except (PullprintError, ValueError) as error:  # ValueError: the cloud's key is none
            log.info("facts of %s: %s", record.id, error)

    def _sealed(self, job: str, picture: bytes) -> tuple[bytes, PictureReport]:
        """A fresh key, and *picture* sealed with it as the cloud is told."""
        sealed, cloud = seal_picture(picture, job=job), self._site.config.cloud_key
        wrapped = wrap_picture(sealed.sealed, cloud.public, job=job, key=cloud.key)
        return sealed.key, PictureReport(job=job, cloud_key=cloud.key, picture=wrapped)


async def check_intake(path: str) -> None:
    """Ask at *path*, as a backend would, whether the intake answers. Raises IntakeSilent."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(CHECK)
            answer = await reader.readline()
        finally:
            writer.close()
    except OSError as error:
        raise IntakeSilent(path=path) from error
    if answer.decode("ascii", "replace").rstrip() != HERE:
        raise IntakeSilent(path=path)


async def _receive(connection: socket.socket, fds: list[int]) -> bytes:
    """The backend's line; descriptors that came with it are added to *fds*."""
    loop = asyncio.get_running_loop()
    line = bytearray()
    try:
        async with asyncio.timeout(LINE_SECONDS):
            while not line.endswith(b"\n"):
                try:
                    data, received, _, _ = socket.recv_fds(connection, 1 << 16, 4, socket.MSG_CMSG_CLOEXEC)
                except BlockingIOError:
                    await _readable(loop, connection)
                    continue
                fds.extend(received)
                line += data
                if len(line) > LINE_LIMIT:
                    raise LineRefused(reason="the line is too long")
                if not data:
                    raise Dropped
    except TimeoutError as error:
        raise LineRefused(reason="the line did not come in time") from error
    except ConnectionError as error:
        raise Dropped from error
    return bytes(line)


def _word(connection: socket.socket) -> bytes:
    """What the backend says after its line: `DROP`, or nothing more because it has hung up."""
    try:
        return connection.recv(len(DROP))
    except ConnectionError:
        return b""


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    """Wait until there is something to receive; asyncio's own calls cannot receive descriptors."""
    event = asyncio.Event()
    loop.add_reader(connection, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(connection)


def _nothing() -> None:
    """What there is to place of a job that was known."""


def _direct_printer(device_uri: str) -> str:
    """The printer's name in ``pullprint:/printer/NAME``, or empty for a hold queue. Raises WrongQueue."""
    path = device_uri.removeprefix("pullprint:").replace("//", "/").rstrip("/")
    if device_uri.startswith("pullprint:") and path == "":
        return ""
    name = printable(unquote(path.removeprefix("/printer/")), 255)
    if not device_uri.startswith("pullprint:") or not path.startswith("/printer/") or "/" in name:
        raise WrongQueue(uri=device_uri)
    return name


def _first_steps(record: Record) -> list[Step]:
    stored = Step(
        "stored",
        f"Received from {record.submitter} and sealed: {record.size:,} bytes.",
        {"queue": record.queue},
    )
    if record.direct_printer:
        return [stored, Step("direct", f"Goes to {record.direct_printer} at once.")]
    if not record.owner:
        return [stored, Step("unclaimed", "Nobody owns it yet: its submitter can claim it with a code.")]
    return [stored, Step("held", f"Held for {record.owner} until released at a printer.")]


def _told(record: Record, url: str) -> str:
    """What the submitter reads in the queue. Every account of the host can read it too, and cupsd logs it."""
    name = record.id[:8]
    if record.direct_printer:
        return f"Sealed as {name}; goes to {record.direct_printer} at once."
    if record.owner:
        return f"Held as {name}: release it at {url} or with “pullprint release”."
    if record.host:
        return f"Held as {name} without an owner: claim it at {url} with the code {record.claim_code}."
    return f"Held as {name} without an owner: “pullprint jobs” shows the code to claim it with at {url}."


def _counted(facts: Facts) -> str:
    if facts.pages is None:
        return f"Its pages could not be counted ({facts.problem or 'unknown'}). It is held all the same."
    if facts.color_pages is None:
        return f"Pages: {facts.pages}."
    return f"Pages: {facts.pages}, with colour: {facts.color_pages}."


def _uids(accounts: tuple[str, ...]) -> set[int]:
    uids = set()
    for account in accounts:
        with suppress(KeyError):
            uids.add(pwd.getpwnam(account).pw_uid)
    return uids
