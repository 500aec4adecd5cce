"""Counting a document's facts and drawing its first page, where the document can do no harm.

Nothing in this process parses a document. A program of ``filters/`` does, in a `Sandbox`, and its answer is as
untrusted as the document was: of a picture only the outside is looked at, and whoever shows it decodes it in a sandbox.

Where there is no sandbox nothing is counted; the job is held either way.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.base.platform import SANDBOX, reopen
from pullprint.model.facts import Facts
from pullprint.node.sandbox import DEFAULT_LIMITS, Limits, NoSandbox, Sandbox, TooMuchSaid

_ANSWER_KEYS = frozenset({"format", "pages", "color_pages", "sheets", "encrypted", "problem"})
_FORMATS = frozenset({"pdf", "pwg-raster", "image", "text", "other"})
_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,62}")
_PAGES_ONLY = "count=pages"
PICTURE_WIDTH = 256
"""Pixels; a picture is at most one and a half times as high."""
PICTURE_LIMIT = 24 << 10
"""Bytes."""
_WITH_PICTURE = f"picture={PICTURE_WIDTH}"
# bwrap tells a signal as a shell does: SIGKILL (hard processor limit), SIGALRM (the program's own), SIGXCPU.
_OUT_OF_TIME = frozenset({128 + 9, 128 + 14, 128 + 24})


@dataclass(frozen=True, slots=True)
class Counted:
    """What became known of a document."""

    facts: Facts
    picture: bytes = field(default=b"", repr=False)
    """Its first page: a WebP file within `PICTURE_WIDTH` and `PICTURE_LIMIT`, as yet undecoded; empty for none."""


class FactCounter:
    """Counts documents, one at a time: facts are never worth the machine that prints."""

    def __init__(
        self, program: Path, clock: Clock, limits: Limits = DEFAULT_LIMITS, service: Path | None = None
    ) -> None:
        self._program = program
        self._clock = clock
        self._limits = limits
        self._service = service
        self._turn = asyncio.Semaphore(1)

    async def count(self, document_fd: int, content_type: str) -> Counted:
        """As `count_facts`; *document_fd* must stay open until this returns."""
        async with self._turn:
            return await count_facts(
                document_fd, content_type, program=self._program, clock=self._clock, limits=self._limits,
                service=self._service,
            )  # fmt: skip


async def count_facts(
    document_fd: int, content_type: str, *, program: Path, clock: Clock, limits: Limits = DEFAULT_LIMITS,
    service: Path | None = None,
) -> Counted:  # fmt: skip
    """The facts of the regular file or memfd open as *document_fd*, whose position stays where it is.

    Never raises for what a document or *program* does: such facts are unknown, with a problem. A document on
    which *program* dies before it told them is counted a second time without looking at its pages' content.
    """
    if not SANDBOX:
        return _unknown("no-sandbox")
    with _read_only(document_fd) as document:
        if document is None:
            return _unknown("unsupported")
        deadline = clock.monotonic() + limits.wall_seconds
        sandbox = Sandbox("facts", program, document, _clean_type(content_type), limits, deadline, service)
        try:
            return await _count(sandbox, _WITH_PICTURE, clock)
        except _Died as death:
            if not death.out_of_time and not await _works(sandbox, clock):
                return _unknown("no-sandbox")
            return await _count_again(sandbox, clock, death.problem)
        except TimeoutError:
            return _unknown("timeout")
        except NoSandbox:
            return _unknown("no-sandbox")
        except _Lied:
            return _unknown("invalid")


async def _count_again(sandbox: Sandbox, clock: Clock, problem: str) -> Counted:
    try:
        facts = (await _count(sandbox, _PAGES_ONLY, clock)).facts
    except (_Died, _Lied, TimeoutError, NoSandbox):
        return _unknown(problem)
    return Counted(replace(facts, problem=facts.problem or problem))


def _unknown(problem: str) -> Counted:
    return Counted(Facts.unknown(problem))


class _Died(Exception):
    """The program ended before it had told the facts."""

    def __init__(self, status: int) -> None:
        self.out_of_time = status in _OUT_OF_TIME
        self.problem = "timeout" if self.out_of_time else "crashed"


class _Lied(Exception):
    """The program's answer is too long or not an answer."""


async def _count(sandbox: Sandbox, options: str, clock: Clock) -> Counted:
    """Raises TimeoutError, NoSandbox, _Died, _Lied."""
    try:
        answer, status = await sandbox.run(options, clock)
    except TooMuchSaid as error:
        raise _Lied from error
    line, newline, picture = answer.partition(b"\n")
    if status and not newline:
        raise _Died(status)
    return Counted(_checked(line + newline), picture if is_picture(picture) else b"")


async def _works(sandbox: Sandbox, clock: Clock) -> bool:
    """Whether a harmless program runs in it; kernels and container hosts can forbid user namespaces."""
    try:
        _, status = await replace(sandbox, kind="nothing").run("", clock)
    except (TimeoutError, NoSandbox, TooMuchSaid):
        return False
    return status == 0


@contextlib.contextmanager
def _read_only(fd: int) -> Iterator[int | None]:
    """*fd* opened again for reading only: the program shares no position with us and cannot write to a memfd.

    A file that may not be opened again (root's, handed over by the backend) is passed as it is, rewound, if
    it was opened for reading only. None for what is not a regular file, or may only be passed writable.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        yield None
        return
    try:
        own = reopen(fd)
    except OSError:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            yield None
            return
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            yield fd
        finally:
            os.lseek(fd, position, os.SEEK_SET)
        return
    try:
        yield own
    finally:
        os.close(own)


def _clean_type(content_type: str) -> str:
    declared = content_type.partition(";")[0].strip().lower()
    return declared if _CONTENT_TYPE.fullmatch(declared) else "application/octet-stream"


def _checked(answer: bytes) -> Facts:
    """The facts in one line of JSON from the program. Raises _Lied."""
    try:
        if not answer.endswith(b"\n") or answer.count(b"\n") != 1:
            raise _Lied
        values = json.loads(answer, parse_constant=_refuse_constant)
        if not isinstance(values, dict) or values.keys() != _ANSWER_KEYS:
            raise _Lied
        if not isinstance(values["encrypted"], bool) or values["format"] not in _FORMATS:
            raise _Lied
        return Facts.from_dict(values)
    except (ValueError, TypeError, RecursionError, PullprintError) as error:
        raise _Lied from error


# RFC 9649, 2.5: a RIFF header and one VP8 chunk; RFC 6386, 9.1: the frame tag of a key frame, start code, dimensions.
_WEBP_HEADER = struct.Struct("<4sI4s4sI3s3sHH")
_VP8_START = b"\x9d\x01\x2a"


def is_picture(data: bytes) -> bool:
    """Whether *data* says of itself that it is one lossy WebP picture within the limits, and nothing else."""
    if not _WEBP_HEADER.size < len(data) <= PICTURE_LIMIT or len(data) % 2:
        return False
    riff, size, webp, chunk, length, tag, start, width, height = _WEBP_HEADER.unpack_from(data)
    whole = size == len(data) - 8 and length in (size - 12, size - 13)  # a chunk of odd length is padded
    key_frame = not tag[0] & 1 and start == _VP8_START
    # The two bits above each dimension ask for scaling, which makes it larger than it may be.
    fits = 0 < width <= PICTURE_WIDTH and 0 < height <= PICTURE_WIDTH * 3 // 2
    return (riff, webp, chunk) == (b"RIFF", b"WEBP", b"VP8 ") and whole and key_frame and fits


def _refuse_constant(_name: str) -> NoReturn:
    raise _Lied
