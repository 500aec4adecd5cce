"""Copies of other nodes' jobs: offered, received, checked, and at last held.

A copy lies under a hidden name until its origin's signed key table makes this node a holder; up to then it is nothing
but bytes that may be sent again. What a peer says is believed of its own jobs only: header and table carry the origin's
signature, and our own key part has to open.
"""

import asyncio
import hashlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError, TooLarge
from pullprint.base.files import rename, replace
from pullprint.base.platform import sync
from pullprint.mesh.handlers import Incoming
from pullprint.model.placement import Role
from pullprint.model.states import ENDED
from pullprint.model.votes import Vote
from pullprint.node.holder import Holder, replica_of
from pullprint.node.metrics import Counts
from pullprint.node.settings import Settings
from pullprint.node.site import Site
from pullprint.vault.generation import in_generation, measure, own_part
from pullprint.vault.header import DOCUMENT_LIMIT, HEADER_LIMIT, Header, SealDamaged, payload_length
from pullprint.vault.index import Index
from pullprint.vault.keyring import Identity
from pullprint.vault.opening import read_header
from pullprint.vault.parts import PartRefused
from pullprint.vault.record import Record
from pullprint.wire.mesh import FIRST_TABLE, Accepted, Installation, KeyTable, Offer, Peer, Received, read_table
from pullprint.wire.signature import node_id

log = logging.getLogger(__name__)

MIB = 1 << 20
UNFINISHED = 64
"""Copies that have been begun and not installed, at most."""
UNFINISHED_TIME = 3_600.0
"""Seconds after which one that has stopped coming is removed."""
COMPLETE_TIME = 86_400.0
"""Seconds for which one that is complete waits for its key table: its origin may be switched off meanwhile."""
LONGEST_LIFE = 31 * 86_400
"""Seconds from now to the end of a job, at most."""
BATCH = MIB
"""Bytes that are written at a time."""
_COPY = re.compile(r"\.([0-9a-f]{32})\.copy")


class NotAHolder(PullprintError):
    """This host keeps no copies of other hosts' jobs. The job is still held where it is."""

    code = "not-a-holder"
    http_status = 409


class NoRoomForCopy(PullprintError):
    """This host has no room for another copy. The job is still held where it is."""

    code = "no-room"
    http_status = 507


class CopiesBusy(PullprintError):
    """This host is receiving too many copies already. The job is still held where it is."""

    code = "busy"
    http_status = 503


class CopyRefused(PullprintError):
    """A copy of this job was refused: {reason}. The job is still held where it is."""

    code = "copy-refused"
    http_status = 409


class CopyDamaged(CopyRefused):
    """A copy of this job arrived damaged: {reason}. It was thrown away; the job is still held where it is."""

    code = "copy-damaged"


class CopyOver(PullprintError):
    """This job has ended on the host that should hold a copy of it. Nothing was kept."""

    code = "ended"
    http_status = 410


@dataclass(eq=False)
class _Coming:
    """A copy that was offered and is not installed."""

    offer: Offer
    peer: str
    turn: object = None
    """Whose bytes count: the latest transfer's, for an earlier one may hang in a dead connection for long."""
    checked: bool = False
    """All of it is here, durable and as offered."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Copies:
    """What this node does for peers that place their jobs."""

    def __init__(
        self, settings: Settings, holder: Holder, site: Site, identity: Identity, clock: Clock,
        counts: Counts | None = None,
    ) -> None:  # fmt: skip
        self._counts = counts or Counts()
        self._settings = settings
        self._holder = holder
        self._site = site
        self._identity = identity
        self._clock = clock
        self._coming: dict[str, _Coming] = {}
        self._installing = asyncio.Lock()
        self.last_room = 0
        """What `room` said last."""

    async def room(self) -> int:
        """Bytes that this node would still store for others."""
        self.last_room = 0 if self._settings.role == Role.CLIENT else max(0, await self._room())
        return self.last_room

    async def _room(self) -> int:
        free = (await asyncio.to_thread(shutil.disk_usage, self._holder.directory)).free
        room = free - self._settings.disk_reserve_mib * MIB
        if self._settings.store_limit_mib:
            stored = (await self._holder.read(Index.counts))["bytes"]
            room = min(room, self._settings.store_limit_mib * MIB - stored)
        return room - sum(coming.offer.size for coming in self._coming.values() if not coming.checked)

    async def offer(self, peer: Peer, job: str, offer: Offer) -> Accepted:
        """Make room for a copy. Raises NotAHolder, NoRoomForCopy, CopiesBusy, CopyRefused, CopyOver, TooLarge."""
        if self._settings.role == Role.CLIENT:
            raise NotAHolder
        now = self._site.cloud_now()
        self._check_time(offer.expires, now)
        limit = min(self._settings.document_limit_mib * MIB, DOCUMENT_LIMIT)
        if offer.size > HEADER_LIMIT + payload_length(limit):
            raise TooLarge(what="The copy", limit=f"{limit // MIB} MiB")
        key = await asyncio.to_thread(self._holder.keyring.current, now)
        held = await self._record(job)
        if held is not None and held.own_key:  # else others hold it now, and this host may come in again
            token = await self._holder.read(Index.key_table, job)
            table = read_table(token) if token else None
            if table is None or (table.size, table.digest) != (offer.size, offer.digest):
                raise CopyRefused(reason="another file is held under its name")
            return Accepted(key=key, have=offer.size)
        known = self._coming.get(job)
        if known is not None and known.offer.digest == offer.digest and known.offer.size == offer.size:
            known.offer, known.peer = offer, peer.node
            return Accepted(key=key, have=await self._have(job, known))
        if known is None and len(self._coming) >= UNFINISHED:
            raise CopiesBusy
        coming = self._coming[job] = _Coming(offer, peer.node)  # before anything is waited for: it counts from now on
        try:
            if known is not None:
                known.turn = None
                async with known.writing:
                    await asyncio.to_thread(self.path(job).unlink, missing_ok=True)
            have = await self._have(job, coming)
            if await self._room() + have < 0:
                raise NoRoomForCopy
        except BaseException:
            if self._coming.get(job) is coming:
                del self._coming[job]
            raise
        return Accepted(key=key, have=have)

    async def receive(self, peer: Peer, job: str, offset: int, pieces: Incoming) -> Received:
        """Keep the sealed file from *offset* on; all of it is checked and durable when this returns.

        Raises NotFound without an offer, CopyRefused, CopyDamaged, NoRoomForCopy, and what *pieces* raise: then what
        came before that is kept.
        """
        coming = self._coming.get(job)
        if coming is None or coming.peer != peer.node:
            raise NotFound(what="offer of a copy")
        offer = coming.offer
        if offset + pieces.size != offer.size:
            raise CopyRefused(reason="it is not as long as was offered")
        coming.turn = turn = object()
        async with coming.writing:  # what an earlier transfer is just writing is waited for
            if coming.turn is not turn or self._coming.get(job) is not coming:
                raise CopyRefused(reason="it is being sent a second time")
            coming.checked = False
            target = _Target(await asyncio.to_thread(self._open, job, offset))
        try:
            digest = await self._append(target, coming, turn, offset, pieces)
            if digest != offer.digest:
                raise CopyDamaged(reason="it is not what was offered")
            await asyncio.to_thread(self._check, job, offer.size)
            coming.checked = True
        except ConnectionError:
            raise
        except (CopyDamaged, SealDamaged, OSError) as error:
            if coming.turn is turn:
                self._forget(job, coming)
                await asyncio.to_thread(self.path(job).unlink, missing_ok=True)
            log.warning("a copy from %s was thrown away: %s", peer.name, error)
            if isinstance(error, OSError):
                raise NoRoomForCopy from error
            raise _damaged(error) from error
        finally:
            await asyncio.to_thread(target.close)
            self._counts.transfer("received", pieces.size, done=coming.checked)
        checkpoint("copy-received")
        return Received(size=offer.size, digest=offer.digest)

    async def open_copy(self, peer: Peer, job: str) -> tuple[Path, int]:
        """Where the sealed file of *job* is, and its length; for its holders only. Raises NotFound."""
        record = await self._holder.read(Index.get, job)
        if record.state in ENDED or peer.node not in record.holders:
            raise NotFound(what="job")
        path = self._holder.path(job)
        try:
            return path, (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError as error:
            raise NotFound(what="job") from error

    async def install(self, peer: Peer, installation: Installation) -> None:
        """Become a holder of what was received: durable when this returns; the same again changes nothing.

        Raises NotFound when there is no copy, CopyRefused, CopyDamaged, CopyOver, PartRefused, StatementRefused.
        """
        table = read_table(installation.table)
        self._check_time(installation.expires, self._site.cloud_now())
        own = self._identity.node
        if node_id(table.author) != peer.node:
            raise CopyRefused(reason="its key table was made by somebody else")
        if own not in table.holders or len(set(table.holders)) != len(table.holders):
            raise CopyRefused(reason="its key table does not name this host")
        async with self._installing:
            known = await self._record(table.job)
            if known is not None:
                if known.generation > table.generation:
                    raise CopyRefused(reason="a newer key table is in force")
                token = await self._holder.read(Index.key_table, table.job)
                if known.generation == table.generation and token == installation.table:
                    return
            if table.generation != FIRST_TABLE or known is not None:
                raise CopyRefused(reason="its key table does not follow from the one before")
            await self._install(peer, installation, table)

    async def keep_house(self) -> None:
        """Remove copies that nobody finished."""
        for job in await asyncio.to_thread(self._old):
            coming = self._coming.get(job)
            if coming is not None:
                coming.turn = None
                self._forget(job, coming)
            await asyncio.to_thread(self.path(job).unlink, missing_ok=True)
        for job, coming in list(self._coming.items()):
            if coming.turn is None and not await asyncio.to_thread(self.path(job).exists):
                self._forget(job, coming)  # offered, and never sent

    async def take(self, job: str) -> None:
        """The copy of *job* is about to be held: from here on nobody writes to it."""
        coming = self._coming.pop(job, None)
        if coming is not None:
            async with coming.writing:
                coming.turn = None

    def path(self, job: str) -> Path:
        """Where the copy of *job* lies until it is held."""
        return self._holder.directory / f".{job}.copy"

    async def _install(self, peer: Peer, installation: Installation, table: KeyTable) -> None:
        job, path = table.job, self.path(table.job)
        coming = self._coming.pop(job, None)
        if coming is not None:
            async with coming.writing:  # and from here on nobody writes to it
                coming.turn = None
        try:
            record = await self._examined(peer, installation, table, path, coming)
        except BaseException:
            if coming is not None:
                self._coming.setdefault(job, coming)
            raise
        # The picture's key dies with its row in the index; a file would keep it on the disk.
        kept = installation.model_copy(update={"picture_key": b""}).model_dump_json().encode()
        await asyncio.to_thread(replace, self._holder.keys_path(job), kept)
        checkpoint("copy-keys")
        await asyncio.to_thread(rename, path, self._holder.path(job))
        checkpoint("copy-renamed")
        installed = await self._holder.change(Index.install, record, installation.table, installation.picture_key)
        checkpoint("copy-installed")
        if installed.state in ENDED:
            await self._holder.shred(job)
            raise CopyOver

    async def _examined(
        self, peer: Peer, installation: Installation, table: KeyTable, path: Path, coming: _Coming | None
    ) -> Record:
        """What is to be held, if the copy at *path* and *table* are what they should be. Raises as `install`."""
        header = await asyncio.to_thread(_header, path)
        origin = header.context.origin_node
        if origin != peer.node or header.origin_key != table.author:
            raise CopyRefused(reason="its key table was made by somebody else")
        if coming is not None and coming.checked and coming.offer.digest != table.digest:
            raise CopyDamaged(reason="its key table is for other bytes")
        if coming is None or not coming.checked:
            if await asyncio.to_thread(_measured, path) != (table.size, table.digest):
                raise CopyDamaged(reason="its key table is for other bytes")
            await asyncio.to_thread(self._check, table.job, table.size)
        elif coming.offer.size != table.size:
            raise CopyDamaged(reason="its key table is for other bytes")
        return await asyncio.to_thread(self._checked, header, table, installation)

    def _checked(self, header: Header, table: KeyTable, installation: Installation) -> Record:
        """What is to be held; blocking. Raises CopyRefused, CopyDamaged, PartRefused."""
        try:
            record = replica_of(header, table, installation, self._identity.node, Vote(lost=installation.again))
        except SealDamaged as error:
            raise _damaged(error) from error
        context, config = header.context, self._site.config
        if (context.organisation, context.site) != (config.organisation, config.site):
            raise CopyRefused(reason="it is another site's")
        _, slot = in_generation(header, table).slot(self._identity.node)
        try:
            own_part(slot, header.job, table.generation, self._holder.keyring)
        except PartRefused as error:
            raise CopyRefused(reason="this host's key part of it cannot be opened") from error
        return record

    async def _record(self, job: str) -> Record | None:
        """What is known of *job*. Raises CopyOver."""
        try:
            record = await self._holder.read(Index.get, job)
        except NotFound:
            return None
        if record.state in ENDED:
            raise CopyOver
        return record

    @staticmethod
    def _check_time(expires: int, now: float) -> None:
        if not now < expires < now + LONGEST_LIFE:
            raise CopyRefused(reason="its time is over, or the clocks of the two hosts differ by too much")

    async def _have(self, job: str, coming: _Coming) -> int:
        """From which byte on the rest is to be sent."""
        if coming.checked:
            return coming.offer.size
        try:
            size = (await asyncio.to_thread(self.path(job).stat)).st_size
        except FileNotFoundError:
            return 0
        # Less than all of it: only what is sent is checked, and its last byte is sent again for that.
        return max(0, min(size, coming.offer.size - 1))

    def _open(self, job: str, offset: int) -> int:
        """The copy, cut off at *offset*, for reading and writing. Blocking."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        target = os.open(self.path(job), flags, 0o600)
        try:
            if os.fstat(target).st_size < offset:
                raise CopyRefused(reason="a part of it is missing")
            os.ftruncate(target, offset)
        except BaseException:
            os.close(target)
            raise
        return target

    async def _append(self, target: "_Target", coming: _Coming, turn: object, offset: int, pieces: Incoming) -> bytes:
        """Write *pieces* from *offset* on; the SHA-256 of the whole file, which is durable then."""
        await asyncio.to_thread(target.begin, offset)
        batch: list[bytes] = []
        size, position = 0, offset
        writing: asyncio.Task[None] | None = None

        async def write(data: list[bytes], at: int) -> None:
            async with coming.writing:
                if coming.turn is not turn:
                    raise CopyRefused(reason="it is being sent a second time")
                await asyncio.to_thread(target.write, data, at)

        try:
            async for piece in pieces:
                batch.append(piece)
                size += len(piece)
                if size >= BATCH:
                    await _done(writing)
                    writing = asyncio.create_task(write(batch, position), name="copy: write")
                    batch, position, size = [], position + size, 0
        finally:
            await _done(writing)
            await write(batch, position)  # also what came before it broke off
        return await asyncio.to_thread(target.finish)

    def _check(self, job: str, size: int) -> None:
        """Blocking. Raises SealDamaged."""
        header = _header(self.path(job))
        if header.job != job:
            raise SealDamaged(reason="it is another job's file")
        if len(header.encode()) + payload_length(header.size) != size:
            raise SealDamaged(reason="it is not as long as its header says")

    def _forget(self, job: str, coming: _Coming | None) -> None:
        if self._coming.get(job) is coming and coming is not None:
            del self._coming[job]

    def _old(self) -> list[str]:
        """The jobs whose copies have waited for too long. Blocking."""
        now, old = self._clock.now(), []
        for path in self._holder.directory.glob(".*.copy"):
            if match := _COPY.fullmatch(path.name):
                status = path.stat()
                if now - status.st_mtime > (COMPLETE_TIME if _complete(path, status.st_size) else UNFINISHED_TIME):
                    old.append(match[1])
        return old


def _header(path: Path) -> Header:
    """Blocking. Raises NotFound, SealDamaged."""
    try:
        return read_header(path)
    except FileNotFoundError as error:
        raise NotFound(what="copy of this job") from error


def _measured(path: Path) -> tuple[int, bytes]:
    """Blocking. Raises NotFound."""
    try:
        return measure(path)
    except FileNotFoundError as error:
        raise NotFound(what="copy of this job") from error


def _complete(path: Path, size: int) -> bool:
    try:
        header = read_header(path)
    except (SealDamaged, OSError):
        return False
    return len(header.encode()) + payload_length(header.size) == size


class _Target:
    """A copy that is being written, and the digest of what is in it. All calls block; one that is under way in its
    thread when its task is cancelled keeps the descriptor from being closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()

    def begin(self, size: int) -> None:
        """*size* bytes are there already."""
        with self._lock:
            offset = 0
            while offset < size:
                piece = os.pread(self._fd, min(BATCH, size - offset), offset)
                if not piece:
                    raise OSError("the copy is shorter than it was")
                self._digest.update(piece)
                offset += len(piece)

    def write(self, pieces: list[bytes], offset: int) -> None:
        """Add *pieces* at *offset*."""
        with self._lock:
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    written = os.pwrite(self._fd, left, offset)
                    offset, left = offset + written, left[written:]
                self._digest.update(piece)

    def finish(self) -> bytes:
        """Make it durable; its SHA-256."""
        with self._lock:
            sync(self._fd)
            return self._digest.digest()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            os.close(self._fd)
            self._fd = -1


def _damaged(error: PullprintError) -> CopyDamaged:
    return error if isinstance(error, CopyDamaged) else CopyDamaged(reason=error.fields.get("reason", "unknown"))


async def _done(writing: Awaitable[None] | None) -> None:
    if writing is not None:
        await writing
