"""Running a program that reads what may be hostile where it can do no harm: see `confine`, which this asks.

That is a service of systemd's, so that pullprintd's own needs no right to make namespaces; where it is not installed,
a child. Its answer is as untrusted as what the program read.
"""

import asyncio
import contextlib
import io
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from pullprint.base.clock import Clock
from pullprint.node.confine import MOST, STARTED

_ENTRY = "from pullprint.node.confine import main; main()"
_PATH = "/usr/bin:/bin"
_ANSWER_LIMIT = 64
_ENDING_SECONDS = 5.0
"""How long a run that is ended may take for it, before nobody waits for it any more."""
_KILLED = 128 + 9


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use; what is not said here stands at `confine.MOST`."""

    wall_seconds: float = 60.0
    answer: int = 64 << 10
    """Bytes on stdout."""
    cpu_seconds: int = MOST["facts"]["cpu_seconds"]
    memory: int = MOST["facts"]["memory"]
    scratch: int = MOST["facts"]["scratch"]
    processes: int = MOST["facts"]["processes"]
    files: int = MOST["facts"]["files"]


DEFAULT_LIMITS = Limits()


class TooMuchSaid(Exception):
    """The program's answer is longer than its limit."""


class NoSandbox(Exception):
    """Bubblewrap or the program is missing, or nothing can be started any more."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One document, and everything that a program is given to read it."""

    kind: str
    """One of `confine.MOST`."""
    program: Path
    """Used where *service* is not there, which has programs of its own."""
    document: int
    """A descriptor, opened for reading only: the program's stdin."""
    content_type: str
    limits: Limits
    deadline: float
    """By the clock's `monotonic`."""
    service: Path | None = None
    """The socket of pullprint-sandbox.socket."""

    async def run(self, options: str, clock: Clock) -> tuple[bytes, int]:
        """What the program says on stdout, and its exit status, 128 and more for a signal.

        Raises TimeoutError, TooMuchSaid, NoSandbox.
        """
        answer = bytearray()
        status = await self.run_into(answer.extend, options, clock)
        return bytes(answer), status

    async def run_into(self, take: Callable[[bytes], object], options: str, clock: Clock) -> int:
        """As `run`; *take* gets what is said as it is said, which may turn out to be too much or cut off."""
        async with _pipe() as (stdout, said), self._confined() as connection:
            try:
                socket.send_fds(connection, [self._request(options)], [self.document, said.fileno()])
            except OSError as error:
                raise NoSandbox from error
            said.close()
            async with asyncio.timeout(self.deadline - clock.monotonic()):
                await _read_all(stdout, self.limits.answer, take)
                return _status(await _read_answer(connection))

    def _request(self, options: str) -> bytes:
        limits = {name: getattr(self.limits, name) for name in MOST[self.kind]}
        values = {"kind": self.kind, "content_type": self.content_type, "options": options, "limits": limits}
        return json.dumps(values).encode() + b"\n"

    @contextlib.asynccontextmanager
    async def _confined(self) -> AsyncIterator[socket.socket]:
        """A connection to a `confine` of our own. When the block ends, everything ends that was started through it.
        Raises NoSandbox."""
        served = await _connected(self.service) if self.service else None
        if served is not None:
            with served:
                try:
                    yield served
                finally:
                    await _end(served)
            return
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                child = await self._child(theirs)
            ours.setblocking(False)
            try:
                yield ours
            finally:
                if not await _end(ours):
                    child.kill()
                await child.wait()

    async def _child(self, connection: socket.socket) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", _ENTRY, f"{self.kind}={self.program}"),
                stdin=connection.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={"PATH": _PATH},
                start_new_session=True,
            )
        except OSError as error:
            raise NoSandbox from error


async def _connected(service: Path) -> socket.socket | None:
    """None where nobody listens, or not for this account, which is not the package's then."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, str(service))
    except (FileNotFoundError, ConnectionRefusedError, PermissionError):
        connection.close()
        return None
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise NoSandbox from error
        raise
    return connection


async def _end(connection: socket.socket) -> bool:
    """Say that nobody waits any more, and wait until everything has ended; False if that takes too long."""
    try:
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_ENDING_SECONDS):
            while await asyncio.get_running_loop().sock_recv(connection, _ANSWER_LIMIT):
                pass
    except TimeoutError:
        return False
    except OSError:  # the other side has closed it, unread
        return True
    return True


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, io.RawIOBase]]:
    """What is read from a pipe, and its end for writing. Once the block has ended nobody has that any more: whoever is
    killed takes a moment to be gone. Raises NoSandbox."""
    try:
        reading, writing = os.pipe()
    except OSError as error:
        raise NoSandbox from error
    with os.fdopen(writing, "wb", buffering=0) as said:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
        )
        try:
            yield reader, said
        finally:
            said.close()
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ENDING_SECONDS):
                        while await reader.read(1 << 16):
                            pass
            finally:
                transport.close()


async def _read_all(stream: asyncio.StreamReader, limit: int, take: Callable[[bytes], object]) -> None:
    while chunk := await stream.read(min(limit + 1, 1 << 16)):
        limit -= len(chunk)
        if limit < 0:
            raise TooMuchSaid
        take(chunk)


async def _read_answer(connection: socket.socket) -> bytes:
    said = bytearray()
    with contextlib.suppress(ConnectionResetError):  # systemd ends a connection that is one too many unread
        while len(said) < _ANSWER_LIMIT and (data := await asyncio.get_running_loop().sock_recv(connection, 64)):
            said += data
    return bytes(said)


def _status(answer: bytes) -> int:
    """Raises NoSandbox."""
    if not answer.startswith(STARTED):
        raise NoSandbox
    # Nothing more, when the memory of the whole run was at an end: then its last witness is killed too.
    status = answer.removeprefix(STARTED).strip()
    return int(status) if status.isdigit() else _KILLED
