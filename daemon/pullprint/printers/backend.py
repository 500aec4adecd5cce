"""One run of a CUPS backend as a child process: pipes, evidence, and an end that is certain.

cupsd's calling convention (backend(7)): the document on stdin and no file argument, fd 3 the back channel, fd
4 the side channel. Without an open fd 4 the ipp backend waits for ever; with a file argument it prints again
by itself when the printer says busy. posix_spawn(3) puts descriptors where they belong without a fork of this
process, whose page tables can be large. setpriv(1), where there is one, makes the child die with us: a
backend that outlives the daemon sees the end of its stdin and prints half a document as if it were whole.
"""

import array
import asyncio
import contextlib
import fcntl
import functools
import os
import shutil
import signal
import socket
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pullprint.base.platform import no_more_descriptors, pidfd
from pullprint.printers.witness import Witness

STDERR_READ = 65_536
TERM_GRACE = 2.0
"""Seconds that the ipp backend gets after SIGTERM, to cancel its job at the printer."""


class Backend:
    """A running backend; ``async with`` ends its whole process group and reaps it, whatever happened."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.witness = Witness(scheme, self._heard)
        self.exit: int | None = None
        """Exit status, or minus the signal; None while it runs."""
        self.written = 0
        """Octets of the document put into the pipe."""
        self.stalled = False
        """It took nothing for too long."""
        self.pid = 0
        self._stdin = self._stderr = self._pidfd = -1
        self._side: socket.socket | None = None
        self._fenced = False

    @classmethod
    def start(cls, scheme: str, argv: Sequence[str], env: Mapping[str, str]) -> Self:
        """Start ``argv[0]``; raises OSError when it cannot be run."""
        self = cls(scheme)
        try:
            self._spawn(argv, env)
        except OSError:
            self._close()
            raise
        return self

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        with contextlib.ExitStack() as theirs:
            keep = functools.partial(_high, theirs)
            null = keep(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            read, self._stdin = os.pipe()
            read = keep(read)
            self._stderr, write = os.pipe()
            write = keep(write)
            self._side, other = socket.socketpair()
            side = keep(other.detach())
            # fd 3 is /dev/null, because a back channel that nobody drains costs the backend a second per
            # write.
            places = ((read, 0), (null, 1), (write, 2), (null, 3), (side, 4))
            self.pid = os.posix_spawn(
                argv[0],
                list(argv),
                dict(env),
                file_actions=[(os.POSIX_SPAWN_DUP2, source, target) for source, target in places],
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
            )
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stderr, False)
        self._loop.add_reader(self._stderr, self._read_stderr)
        self._pidfd = pidfd(self.pid)
        if self._pidfd >= 0:
            self._loop.add_reader(self._pidfd, self._reap)
        else:
            self._poll()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.exit is None and self._scheme in {"ipp", "ipps"} and self.witness.connected:
                self.signal(signal.SIGTERM)
                await self.until(lambda: self.exit is not None, TERM_GRACE)
        finally:
            self.end()

    def end(self) -> None:
        """Kill it if it still runs, and let go of its pipes."""
        self.kill()
        self._close()

    def kill(self) -> None:
        """End the process group now; after this the backend can do nothing more, and `exit` is known."""
        if self.exit is None:
            self.signal(signal.SIGKILL)
            # Blocks for as long as the kernel needs to end a killed process: microseconds.
            self._reaped(os.waitpid(self.pid, 0)[1])

    def signal(self, number: signal.Signals) -> None:
        """Send *number* to the process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    @property
    def taken(self) -> int:
        """Octets of the document that the backend has read."""
        if self._stdin < 0:
            return self._taken
        unread = array.array("i", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._stdin, termios.FIONREAD, unread)
        return self.written - unread[0]

    _taken = 0

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until *condition* holds, looking again whenever something happened; False after *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return condition()
        return True

    async def write(self, data: bytes, stall: float) -> bool:
        """Put *data* into the pipe; False once the backend takes no more: ended, in trouble, or *stall* s idle."""
        view = memoryview(data)
        while view:
            if self.over:
                return False
            try:
                count = os.write(self._stdin, view)
            except BlockingIOError:
                if not await self._writable(stall):
                    self.stalled = not self.over
                    return False
                continue
            except BrokenPipeError:
                # It is about to end; how it ends is evidence.
                await self.until(lambda: self.exit is not None, TERM_GRACE)
                return False
            self.written += count
            view = view[count:]
        return True

    @property
    def over(self) -> bool:
        """Whether there is no point in feeding it any more."""
        return self.exit is not None or self.witness.broken

    async def _writable(self, stall: float) -> bool:
        room = False

        def roomy() -> None:
            nonlocal room
            room = True
            self._loop.remove_writer(self._stdin)
            self._wake.set()

        self._loop.add_writer(self._stdin, roomy)
        try:
            return await self.until(lambda: room or self.over, stall)
        finally:
            self._loop.remove_writer(self._stdin)

    def close_stdin(self) -> None:
        """The document is complete."""
        if self._stdin >= 0:
            self._taken = self.written
            os.close(self._stdin)
            self._stdin = -1

    def _heard(self) -> None:
        # lpd.c sends its spooled file again after a no, 30 s later, for ever. Once it is connected it gets no
        # new descriptors: the kernel refuses the socket that a second attempt would need, also while we are
        # stopped.
        if self._scheme == "lpd" and self.witness.connected and not self._fenced:
            self._fenced = True
            no_more_descriptors(self.pid)
        self._wake.set()

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr, STDERR_READ)
        except BlockingIOError:
            return
        if data:
            self.witness.feed(data)
        else:
            self._loop.remove_reader(self._stderr)

    def _drain_stderr(self) -> None:
        if self._stderr < 0:
            return
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._stderr, STDERR_READ):
                self.witness.feed(data)

    def _reap(self) -> None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self._reaped(status)

    def _poll(self) -> None:
        """Where there is no pidfd: look fifty times a second."""
        if self.exit is None:
            self._reap()
            self._loop.call_later(0.02, self._poll)

    def _reaped(self, status: int) -> None:
        # What it said last may still be in the pipe, and must be heard before anybody judges its end.
        self._drain_stderr()
        self.exit = os.waitstatus_to_exitcode(status)
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
        self._wake.set()

    def _close(self) -> None:
        if self._stdin >= 0:
            self._taken = self.taken
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
        for fd in (self._stdin, self._stderr, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._stdin = self._stderr = self._pidfd = -1
        if self._side is not None:
            self._side.close()


def command(program: Path) -> list[str]:
    """How *program* is run: dying with us where setpriv can do that; by the loader where it may only be read.

    Debian installs lpd 0744, so that cupsd runs it as root for the sake of ports below 1024. An unprivileged
    daemon needs no such port, and the loader needs no permission to execute. Raises OSError when it is not
    there.
    """
    run = [str(program)] if os.access(program, os.X_OK) else [_interpreter(program), str(program)]
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *run] if setpriv else run


def _interpreter(program: Path) -> str:
    """PT_INTERP of a 64-bit little-endian ELF file (elf(5)); raises PermissionError for anything else."""
    with program.open("rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            raise PermissionError(f"{program} may not be run")
        (table,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(table)
        entries = file.read(size * count)
        for start in range(0, len(entries) - 55, size):
            kind, offset, length = struct.unpack_from("<I4xQ16xQ", entries, start)
            if kind == 3:  # PT_INTERP
                file.seek(offset)
                return file.read(min(length, 4_096)).rstrip(b"\0").decode("ascii")
    raise PermissionError(f"{program} may not be run")


def _high(stack: contextlib.ExitStack, fd: int) -> int:
    """*fd* moved to 10 or above, so that putting one into place never overwrites another; closed with *stack*."""
    high: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    stack.callback(os.close, high)
    return high
