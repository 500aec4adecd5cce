"""Bit rot: each copy that this node holds is read about once a week, and a damaged one is replaced with a peer's.

What a copy should be, its key table says: length and SHA-256 of the sealed file. A job of the first generation has no
table and no other holder: there the signature of the header, which names the job, and the length are all that can be
checked; whether its payload is sound, only who opens it can tell.

Reading gives way to everything else by its rate, and to a release of the same job at once. It has no lower priority for
the processor or the disk: threads come from the pool that all share, and a thread that was made nice can only be made
as before by the privileged.
"""

import asyncio
import errno
import hashlib
import logging
import os
import shutil
import stat
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from random import Random, SystemRandom
from typing import Protocol

from pullprint.base.backoff import Backoff
from pullprint.base.bell import Bell
from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError
from pullprint.base.files import rename
from pullprint.base.platform import forget_cached, sync
from pullprint.mesh.client import PeerAway, PeerRefused
from pullprint.mesh.peers import NotAPeer
from pullprint.mesh.rate import Rate
from pullprint.model.states import ENDED, UNDER_WAY, State
from pullprint.node.holder import Holder
from pullprint.node.metrics import Counts
from pullprint.vault.header import SealDamaged, SealNewer, payload_length
from pullprint.vault.index import Index
from pullprint.vault.opening import read_header
from pullprint.vault.record import Record, Step
from pullprint.wire.mesh import KeyTable, read_table

log = logging.getLogger(__name__)

RATE = 16 << 20
"""Bytes per second that are read."""
PIECE = 1 << 20
ROUND = 7 * 86_400.0
"""Seconds in which each copy is read once."""
LOOK = 600.0
"""Seconds between two looks how many there are, and what of the damaged ones may go."""
KEEP_DAMAGED = 86_400.0
"""Seconds for which a damaged copy is kept for whoever wants to know what happened to it."""
RETRY, LONGEST_RETRY = 15.0, 600.0
"""Seconds until another try when no peer could help."""
BUSY_RETRY = 1.0
"""Seconds until a job that is being released is looked at again."""

DAMAGED = "The copy on this host is damaged. It is replaced with that of another host."
DAMAGED_ALONE = "The only copy of this document is damaged, so it may not come out. Print the document again."

_NOT_ITS_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})
"""Errors that say nothing of the file."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Mesh(Protocol):
    """What of `mesh.client` is needed here."""

    async def fetch_copy(
        self, node: str, job: str, offset: int, size: int, sink: Callable[[bytes], Awaitable[None]]
    ) -> None: ...


class _Found(Enum):
    """What came of a look at a copy."""

    SOUND = auto()
    """Also when it cannot be helped."""
    OVER = auto()
    """The job has ended, or others hold it now."""
    BUSY = auto()
    DAMAGED = auto()
    """And set aside: nothing lies under the job's name."""


class _Trouble(Exception):
    """The copy is damaged."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """A stable word, for the trace."""


class Scrub:
    """Looks after the sealed files of one node."""

    def __init__(
        self, holder: Holder, name: Callable[[str], str], clock: Clock, counts: Counts | None = None,
        random: Random | None = None,
    ) -> None:  # fmt: skip
        """*name* gives a node's name for people."""
        self._holder = holder
        self._name = name
        self._clock = clock
        self._counts = counts or Counts()
        self._random = random or SystemRandom()
        self._rate = Rate(clock, RATE)
        self._due: dict[str, float] = {}
        """Jobs that are looked at out of turn, and when, by the monotonic clock."""
        self._pauses: dict[str, Backoff] = {}
        self._wake = Bell()

    def doubt(self, job: str) -> None:
        """The copy of *job* may be damaged: it is looked at as soon as nothing else is done with it."""
        self._due[job] = self._clock.monotonic()
        self._wake.ring()

    async def run(self, client: Mesh) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._go_round(), name="scrub: round")
            group.create_task(self._mend(client), name="scrub: repairs")

    # Going round.

    async def _go_round(self) -> None:
        """Read one copy after the other, in the order of their ids, spread over `ROUND`.

        Where it begins, and how soon, is left to chance, so that nothing needs to be written down, and each copy has
        its turn also on a host that is switched off every evening.
        """
        position, share = f"{self._random.getrandbits(128):032x}", self._random.random()
        since, looked = self._clock.monotonic(), False
        while True:
            rest = LOOK
            try:
                if not looked:
                    await self._find_missing()
                    looked = True
                job, count = await self._holder.read(Index.next_held, position)
                rest = since + share * ROUND / count - self._clock.monotonic() if count else LOOK
                if rest <= 0:
                    position, share, since = job, 1.0, self._clock.monotonic()
                    if await self._look(job) in (_Found.DAMAGED, _Found.BUSY) and job not in self._due:
                        self.doubt(job)
                    continue
                await self._tidy()
            except (PullprintError, OSError) as error:
                log.error("copies are not checked: %s", error)
            except Exception:
                log.exception("checking a copy failed")
            await self._clock.sleep(min(max(rest, 1.0), LOOK))

    async def _find_missing(self) -> None:
        """That a file is not there is seen without reading any."""
        held = await self._holder.read(
            lambda index: [each.id for each in index.in_states(State.HELD, State.UNCERTAIN) if each.own_key]
        )
        there = set(await asyncio.to_thread(os.listdir, self._holder.directory))
        for job in held:
            if job not in there:
                self.doubt(job)

    async def _tidy(self) -> None:
        """Remove damaged copies that are old, or whose jobs have ended; not those that were found without a row, of
        which there may be no other."""
        for path in await asyncio.to_thread(lambda: list(self._holder.directory.glob("*.damaged"))):
            found = None
            with suppress(NotFound):
                found = await self._holder.read(Index.get, path.stem)
            if found is None:
                continue
            with suppress(FileNotFoundError):
                old = (await asyncio.to_thread(path.lstat)).st_mtime < self._clock.now() - KEEP_DAMAGED
                if old or not _holds(found):
                    await asyncio.to_thread(_discard, path)

    # Looking at one.

    async def _look(self, job: str) -> _Found:
        """Check the copy of *job*, and set it aside when it is damaged. Raises IndexFailed, OSError."""
        record = await self._record(job)
        if record is None:
            return _Found.OVER
        if self._at_work(record):
            return _Found.BUSY
        table = await self._table(record)
        try:
            if table is None:
                await asyncio.to_thread(_check_header, self._holder.path(job), job)
            elif not await self._checked(job, table):
                return _Found.BUSY
        except SealNewer:
            return _Found.SOUND
        except (_Trouble, SealDamaged, OSError) as error:
            if isinstance(error, OSError) and error.errno in _NOT_ITS_FAULT:
                raise
            return await self._condemn(record, _reason(error))
        return _Found.SOUND

    async def _condemn(self, before: Record, reason: str) -> _Found:
        """The copy of *before* is damaged, if that still is what is held."""
        record = await self._record(before.id)
        if record is None:
            return _Found.OVER
        if self._at_work(record) or record.generation != before.generation:
            return _Found.BUSY
        alone = await self._table(record) is None
        if not alone:
            aside, now = self._aside(record.id), self._clock.now()
            await asyncio.to_thread(_set_aside, self._holder.path(record.id), aside, now)
            checkpoint("set-aside")
        traced = [each.step.event for each in await self._holder.read(Index.trace, record.id)]
        if [event for event in traced if event in ("damaged", "repaired")][-1:] != ["damaged"]:
            log.warning("the copy of %s is damaged: %s", record.id, reason)
            self._counts.damaged += 1
            step = Step("damaged", DAMAGED_ALONE if alone else DAMAGED, {"reason": reason})
            await self._holder.change(Index.note if alone else Index.learn, record.id, step)
        return _Found.SOUND if alone else _Found.DAMAGED

    async def _checked(self, job: str, table: KeyTable) -> bool:
        """Whether the whole file was read and is what *table* says; False when a release began meanwhile.

        Raises _Trouble, OSError.
        """
        reading = await asyncio.to_thread(_Reading, self._holder.path(job))
        try:
            if not reading.regular:
                raise _Trouble("unreadable")
            if reading.size != table.size:
                raise _Trouble("length")
            while count := await asyncio.to_thread(reading.next):
                self._counts.scrubbed += count
                if job in self._holder.busy:
                    return False
                await self._rate.take(count)
            if reading.digest != table.digest:
                raise _Trouble("bytes")
        finally:
            await asyncio.to_thread(reading.close)
        return True

    async def _record(self, job: str) -> Record | None:
        """None when this node has no copy of *job* to look after."""
        try:
            record = await self._holder.read(Index.get, job)
        except NotFound:
            return None
        return record if _holds(record) else None

    async def _table(self, record: Record) -> KeyTable | None:
        token = await self._holder.read(Index.key_table, record.id)
        return read_table(token) if token else None

    def _at_work(self, record: Record) -> bool:
        return record.id in self._holder.busy or record.state in UNDER_WAY

    # Replacing it.

    async def _mend(self, client: Mesh) -> None:
        while True:
            ticket, now = self._wake.ticket, self._clock.monotonic()
            for job in [job for job, at in self._due.items() if at <= now]:
                del self._due[job]
                pause = await self._mended(client, job)
                if pause is None:
                    self._pauses.pop(job, None)
                else:
                    self._due.setdefault(job, self._clock.monotonic() + pause)
            rest = min(self._due.values(), default=None)
            await self._wake.wait(ticket, None if rest is None else max(rest - self._clock.monotonic(), 0.0))

    async def _mended(self, client: Mesh, job: str) -> float | None:
        """None when there is nothing to do any more for *job*; else seconds until the next try."""
        try:
            match await self._look(job):
                case _Found.BUSY:
                    return BUSY_RETRY
                case _Found.DAMAGED if not await self._replaced(client, job):
                    return self._pause(job)
                case _Found.OVER:
                    await asyncio.to_thread(_discard, self._aside(job))
        except (PullprintError, OSError) as error:
            log.error("the copy of %s is not repaired: %s", job, error)
            if isinstance(error, OSError) and error.errno in _FULL:
                with suppress(OSError):  # what is damaged must not take the place of what is not
                    await asyncio.to_thread(_discard, self._aside(job))
            return self._pause(job)
        except Exception:
            log.exception("repairing a copy failed")
            return self._pause(job)
        return None

    def _pause(self, job: str) -> float:
        return self._pauses.setdefault(job, Backoff(RETRY, LONGEST_RETRY)).next()

    async def _replaced(self, client: Mesh, job: str) -> bool:
        """Whether one of the other holders had a good copy, or none is needed any more. Raises IndexFailed, OSError."""
        record = await self._record(job)
        table = await self._table(record) if record is not None else None
        if record is None or table is None:
            return True
        path = self._holder.directory / f".{job}.copy"  # `Copies` clears away what a crash leaves of it
        for node in record.holders:
            if node == self._holder.node:
                continue
            try:
                if await self._fetched(client, node, path, table):
                    await self._put(job, node, path)
                    return True
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)
        return False

    async def _fetched(self, client: Mesh, node: str, path: Path, table: KeyTable) -> bool:
        """Whether *path* is a good copy from *node* now, and durable. Raises OSError."""
        target = await asyncio.to_thread(_Target, path, table.size)
        try:
            await client.fetch_copy(node, table.job, 0, table.size, target.take)
            if await asyncio.to_thread(target.finish) != (table.size, table.digest):
                raise ValueError("its copy is damaged, too")
        except (PeerAway, PeerRefused, NotAPeer, ValueError) as error:
            log.info("%s gives no copy of %s: %s", self._name(node), table.job, error)
            return False
        finally:
            await asyncio.to_thread(target.close)
        return True

    async def _put(self, job: str, node: str, path: Path) -> None:
        """Hold the copy at *path*, which is that of *node*, unless the job is over."""
        if await self._record(job) is None:
            return
        checkpoint("fetched")
        await asyncio.to_thread(rename, path, self._holder.path(job))
        checkpoint("repaired")
        if await self._record(job) is None:  # who ended it found no file to destroy
            await self._holder.shred(job)
            return
        self._counts.repaired += 1
        step = Step("repaired", f"A damaged copy was replaced with that of {self._name(node)}.", {"from": node})
        await self._holder.change(Index.learn, job, step)

    def _aside(self, job: str) -> Path:
        return self._holder.directory / f"{job}.damaged"


def _holds(record: Record) -> bool:
    return record.state not in ENDED and bool(record.own_key)


def _reason(error: Exception) -> str:
    match error:
        case _Trouble():
            return error.reason
        case FileNotFoundError():
            return "missing"
        case SealDamaged():
            return "header"
        case _:
            return "unreadable"


class _Reading:
    """A file that is read from the disk, not from the page cache, which is left without it. All calls block."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        # Not blocking, should something else than a file have taken its place.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        status = os.fstat(self._fd)
        self.size, self.regular = status.st_size, stat.S_ISREG(status.st_mode)
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self._forget()

    @property
    def digest(self) -> bytes:
        """SHA-256 of what was read."""
        return self._hash.digest()

    def next(self) -> int:
        """Read a piece; how long it is, 0 at the end. Raises OSError."""
        with self._lock:
            piece = os.read(self._fd, PIECE)
            self._hash.update(piece)
            return len(piece)

    def close(self) -> None:
        """Let go of it; a read that is under way ends first."""
        with self._lock:
            self._forget()
            os.close(self._fd)

    def _forget(self) -> None:
        with suppress(OSError):
            forget_cached(self._fd)


class _Target:
    """A copy that is being fetched. All calls but `take` block; a write that is under way when its task is cancelled
    keeps the descriptor from being closed."""

    def __init__(self, path: Path, limit: int) -> None:
        """At most *limit* bytes are taken. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        self._limit = limit
        self._size = 0
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()

    async def take(self, piece: bytes) -> None:
        """Add *piece*. Raises OSError, and ValueError when that is too much."""
        await asyncio.to_thread(self._write, piece)

    def _write(self, piece: bytes) -> None:
        with self._lock:
            if self._size + len(piece) > self._limit:
                raise ValueError("it sends more than the copy has")
            self._hash.update(piece)
            self._size += len(piece)
            left = memoryview(piece)
            while left:
                left = left[os.write(self._fd, left) :]

    def finish(self) -> tuple[int, bytes]:
        """Make it durable; its length and SHA-256. Raises OSError."""
        with self._lock:
            sync(self._fd)
            return self._size, self._hash.digest()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            os.close(self._fd)
            self._fd = -1


def _check_header(path: Path, job: str) -> None:
    """What can be told of a file without its digest. Blocking. Raises SealDamaged, SealNewer, _Trouble, OSError."""
    header = read_header(path)
    if header.job != job:
        raise SealDamaged(reason="it is another job's file")
    if len(header.encode()) + payload_length(header.size) != path.stat().st_size:
        raise _Trouble("length")


def _set_aside(path: Path, aside: Path, now: float) -> None:
    """Blocking. Raises OSError."""
    try:
        path.lstat()
    except FileNotFoundError:
        return
    _discard(aside)
    rename(path, aside)
    with suppress(OSError):
        os.utime(aside, (now, now), follow_symlinks=False)


def _discard(path: Path) -> None:
    """Blocking. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
