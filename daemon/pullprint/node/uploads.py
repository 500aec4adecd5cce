"""Uploads: what a user's browser sealed to this node becomes a held job of theirs.

Small documents are opened into memory, looked at and made PDF there, in a sandbox; a PDF that is larger than that goes
into its seal as it comes, like one that is printed. Nothing is kept of what does not end as it should.
"""

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from pullprint.base.errors import PullprintError, TooLarge
from pullprint.base.platform import memory_file
from pullprint.base.text import printable
from pullprint.model.job import TITLE_LIMIT, UNTITLED, Submission
from pullprint.model.ticket import Ticket
from pullprint.node.client import CloudClient
from pullprint.node.convert import HEAD, Converter, Kind, kind_of
from pullprint.node.document import COPY_LIMIT, Dropped, EmptyDocument, IncomingDocument
from pullprint.node.intake import DiskFull, Intake, KeyTooOld
from pullprint.vault.keyring import Keyring
from pullprint.vault.parts import PartRefused
from pullprint.vault.record import Record
from pullprint.vault.upload import Opener, UploadDamaged
from pullprint.wire.node import UploadItem, UploadResult

log = logging.getLogger(__name__)

AT_ONCE = 4
IDLE = 60.0
"""Seconds between two pieces: longer than the cloud waits for its own sender."""
TOTAL = 3_600.0
MEMORY_LIMIT = COPY_LIMIT
"""Bytes of a document that is looked at in memory; beyond it PDF only, unseen."""
PDF = "application/pdf"
_JOBS = uuid.UUID("6e3f1f5c-6f0e-5d0c-9c57-5a1b6f0b7a55")
"""The namespace of uploads' job-uuids: one upload is one job, however often it is told of."""


class Busy(PullprintError):
    """The computer that should take the document is busy with others. Nothing was stored; upload it again in a
    minute."""

    code = "busy"
    http_status = 503


class NoRoom(PullprintError):
    """The computer that should hold the document cannot take another one now. Nothing was stored. Release or delete
    what you do not need, or tell who looks after it."""

    code = "no-room"
    http_status = 507


class Failed(PullprintError):
    """Pullprint has a fault and could not take the document. Nothing was stored. Tell who looks after it."""

    code = "failed"


class Uploads:
    """Takes what the inbox announces."""

    def __init__(self, client: CloudClient, intake: Intake, keyring: Keyring, converter: Converter) -> None:
        self._client = client
        self._intake = intake
        self._keyring = keyring
        self._converter = converter
        self._under_way = 0

    async def take(self, item: UploadItem, report: Callable[[], Awaitable[None]]) -> None:
        """Hold what *item* announces, *report* it, and say what became of it; a task of its own, so nothing may pass
        but cancellation."""
        result = await self._result(item)
        try:
            if result.job:
                await report()
            await self._client.tell(f"/node/v1/uploads/{item.upload}", result)
        except PullprintError as error:
            log.info("an upload's sender is not told: %s", error)

    async def _result(self, item: UploadItem) -> UploadResult:
        try:
            return UploadResult(job=(await self._admit(item)).id)
        except (DiskFull, KeyTooOld):
            error: PullprintError = NoRoom()
        except (PartRefused, ConnectionError):
            error = UploadDamaged()
        except OSError as cause:
            log.error("an upload was not stored: %s", cause.strerror)
            error = NoRoom()
        except PullprintError as cause:
            error = cause
        except Exception:
            log.exception("an upload failed")
            error = Failed()
        log.info("an upload is no job: %s", error.code)
        return UploadResult(code=error.code, sentence=error.sentence)

    async def _admit(self, item: UploadItem) -> Record:
        if known := await self._intake.known(_submission(item)):
            return known  # stored before this daemon restarted
        if self._under_way >= AT_ONCE:
            raise Busy
        self._under_way += 1
        try:
            return await self._hold(item)
        finally:
            self._under_way -= 1

    async def _hold(self, item: UploadItem) -> Record:
        private = await asyncio.to_thread(self._keyring.private, item.key)
        document = memory_file("upload")
        try:
            async with (
                self._client.stream(f"/node/v1/uploads/{item.upload}", IDLE, TOTAL) as sealed,
                contextlib.aclosing(_opened(sealed, Opener(private, item.upload))) as pieces,
            ):
                head = await _head(pieces)
                kind = kind_of(head[:HEAD])
                if kind is Kind.PDF and item.size > MEMORY_LIMIT:
                    return await self._pass_on(item, head, pieces)
                await _collect(document, head, pieces)
            made = await self._converter.pdf(document, kind)
        finally:
            os.close(document)
        return await self._intake.hold(_submission(item), IncomingDocument(made, in_memory=True), item.owner)

    async def _pass_on(self, item: UploadItem, head: bytes, pieces: AsyncIterator[bytes]) -> Record:
        """Seal the document while it comes."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            document = IncomingDocument(theirs.detach())
            holding = asyncio.create_task(self._intake.hold(_submission(item), document, item.owner), name="upload")
            try:
                await _feed(ours, head, pieces)
            except BaseException:
                document.dropped = True  # before its end, which it must not take for the document's
                ours.close()
                await asyncio.gather(holding, return_exceptions=True)
                raise
        try:
            return await holding
        except Dropped as error:
            raise UploadDamaged from error


async def _opened(sealed: AsyncIterator[bytes], opener: Opener) -> AsyncGenerator[bytes, None]:
    """The document's pieces. Raises PartRefused, UploadDamaged, CloudAway: then those before are worth nothing."""
    async for data in sealed:
        for piece in opener.feed(data):
            yield piece
    yield opener.finish()


async def _head(pieces: AsyncIterator[bytes]) -> bytes:
    """The beginning, `HEAD` bytes or all there are. Raises EmptyDocument."""
    head = b""
    async for piece in pieces:
        head += piece
        if len(head) >= HEAD:
            break
    if not head:
        raise EmptyDocument
    return head


async def _collect(target: int, head: bytes, pieces: AsyncIterator[bytes]) -> None:
    size = _append(target, head)
    async for piece in pieces:
        size += _append(target, piece)
        if size > MEMORY_LIMIT:
            raise TooLarge(what="The document", limit=f"{MEMORY_LIMIT >> 20} MiB")


def _append(target: int, data: bytes) -> int:
    left = memoryview(data)
    while left:
        left = left[os.write(target, left) :]
    return len(data)


async def _feed(ours: socket.socket, head: bytes, pieces: AsyncIterator[bytes]) -> None:
    if await _sent(ours, head):
        async for piece in pieces:
            if not await _sent(ours, piece):
                break


async def _sent(ours: socket.socket, piece: bytes) -> bool:
    """Whether anybody reads: otherwise sealing has ended early, and says why."""
    try:
        await asyncio.get_running_loop().sock_sendall(ours, piece)
    except ConnectionError:
        return False
    return True


def _submission(item: UploadItem) -> Submission:
    return Submission(
        job_uuid=str(uuid.uuid5(_JOBS, item.upload)), cups_job_id=0, queue="", device_uri="pullprint:/",
        submitter=item.owner, host="", title=printable(item.title, TITLE_LIMIT).strip() or UNTITLED, content_type=PDF,
        ticket=Ticket.from_cups(1, ""),
    )  # fmt: skip
