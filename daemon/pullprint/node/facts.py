"""Counting a document's facts, where the document can do no harm.

Nothing in this process parses a document. A program of ``filters/`` does, in a `Sandbox`, and its answer is as
untrusted as the document was.

Where there is no sandbox nothing is counted; the job is held either way.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.model.facts import Facts
from pullprint.node.sandbox import DEFAULT_LIMITS, Limits, Sandbox, TooMuchSaid, find_tools

_ANSWER_KEYS = frozenset({"format", "pages", "color_pages", "sheets", "encrypted", "problem"})
_FORMATS = frozenset({"pdf", "pwg-raster", "image", "text", "other"})
_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,62}")
_PAGES_ONLY = "count=pages"
# bwrap tells a signal as a shell does: SIGKILL (hard processor limit), SIGALRM (the program's own), SIGXCPU.
_OUT_OF_TIME = frozenset({128 + 9, 128 + 14, 128 + 24})


class FactCounter:
    """Counts documents, one at a time: facts are never worth the machine that prints."""

    def __init__(self, program: Path, clock: Clock, limits: Limits = DEFAULT_LIMITS) -> None:
        self._program = program
        self._clock = clock
        self._limits = limits
        self._turn = asyncio.Semaphore(1)

    async def count(self, document_fd: int, content_type: str) -> Facts:
        """As `count_facts`; *document_fd* must stay open until this returns."""
        async with self._turn:
            return await count_facts(
                document_fd, content_type, program=self._program, clock=self._clock, limits=self._limits
            )


async def count_facts(
    document_fd: int, content_type: str, *, program: Path, clock: Clock, limits: Limits = DEFAULT_LIMITS
) -> Facts:
    """The facts of the regular file or memfd open as *document_fd*, whose position stays where it is.

    Never raises for what a document or *program* does: such facts are unknown, with a problem. A document on
    which *program* dies is counted a second time without looking at its pages' content.
    """
    # stat() of a program on a sleeping disk is not for the event loop.
    tools = await asyncio.to_thread(find_tools, program)
    if tools is None:
        return Facts.unknown("no-sandbox")
    with _read_only(document_fd) as document:
        if document is None:
            return Facts.unknown("unsupported")
        deadline = clock.monotonic() + limits.wall_seconds
        sandbox = Sandbox(tools, document, _clean_type(content_type), limits, deadline)
        try:
            return await _facts(sandbox, "", clock)
        except _Died as death:
            if not death.out_of_time and not await _works(sandbox, clock):
                return Facts.unknown("no-sandbox")
            return await _count_again(sandbox, clock, death.problem)
        except TimeoutError:
            return Facts.unknown("timeout")
        except OSError:  # no process or descriptor left to start one with
            return Facts.unknown("no-sandbox")
        except _Lied:
            return Facts.unknown("invalid")


async def _count_again(sandbox: Sandbox, clock: Clock, problem: str) -> Facts:
    try:
        facts = await _facts(sandbox, _PAGES_ONLY, clock)
    except (_Died, _Lied, OSError):
        return Facts.unknown(problem)
    return replace(facts, problem=facts.problem or problem)


class _Died(Exception):
    """The program ended without an answer."""

    def __init__(self, status: int) -> None:
        self.out_of_time = status in _OUT_OF_TIME
        self.problem = "timeout" if self.out_of_time else "crashed"


class _Lied(Exception):
    """The program's answer is too long or not an answer."""


async def _facts(sandbox: Sandbox, options: str, clock: Clock) -> Facts:
    """Raises TimeoutError, OSError, _Died, _Lied."""
    arguments = [sys.executable, "-I", "-B", sandbox.tools.program, "0", "-", "-", "1", options]
    try:
        answer, status = await sandbox.run(arguments, clock)
    except TooMuchSaid as error:
        raise _Lied from error
    if status:
        raise _Died(status)
    return _checked(answer)


async def _works(sandbox: Sandbox, clock: Clock) -> bool:
    """Whether a harmless program runs in it; kernels and container hosts can forbid user namespaces."""
    try:
        _, status = await sandbox.run(["/usr/bin/true"], clock)
    except (OSError, TooMuchSaid):
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
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
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


def _refuse_constant(_name: str) -> NoReturn:
    raise _Lied
