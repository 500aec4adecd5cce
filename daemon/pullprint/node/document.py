"""The document that a backend handed over: read once, from a file or from a filter's pipe."""

import os
import select
import stat
from dataclasses import dataclass, field

from pullprint.base.errors import BadRequest, PullprintError
from pullprint.base.platform import MEMORY_FILES, memory_file

COPY_LIMIT = 64 << 20
"""Bytes of a piped document that are kept in memory for counting its facts; a pipe cannot be read twice."""
_POLL = 500
"""Milliseconds after which a silent pipe is looked at again, to notice that its document was dropped."""
_PDF_END = b"%%EOF"
_TAIL = 1_024
"""Bytes from the end in which readers look for it (PDF 1.7, Adobe's implementation note 18)."""


class Dropped(Exception):
    """Nobody wants the document any more, or nobody knows whether this is the whole of it. CUPS still has the job."""


class EmptyDocument(PullprintError):
    """The document is empty, so there is nothing to print. Print it again from the program that made it."""

    code = "empty-document"


@dataclass
class IncomingDocument:
    """An open descriptor that becomes ours. `read` blocks: it is for a thread."""

    fd: int
    in_memory: bool = False
    """*fd* is a file in memory: what waits in it takes memory."""
    dropped: bool = False
    """Set by the loop when the backend takes the document back: the job was cancelled, or cupsd is stopping."""
    abandoned: bool = False
    """Set by the loop when the backend hung up without a word. cupsd takes a backend that somebody killed for a
    finished one, so the document may be nowhere else any more."""
    _copy: int = field(default=-1, init=False)
    _copied: int = field(default=0, init=False)
    _tail: bytes = field(default=b"", init=False)
    _empty: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        mode = os.fstat(self.fd).st_mode
        self._piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        if not self._piped and not stat.S_ISREG(mode):
            raise BadRequest(reason="the document is neither a file nor a pipe")
        if self._piped:
            self._copy = memory_file("document") if MEMORY_FILES else -1
        else:
            os.lseek(self.fd, 0, os.SEEK_SET)

    def read(self, buffer: memoryview) -> int:
        """Fill the beginning of *buffer*; 0 at the end. Raises Dropped, OSError."""
        if self._piped:
            self._wait()
        if self.dropped:
            raise Dropped
        count = os.readv(self.fd, [buffer])
        self._empty = self._empty and not count
        if not count:
            # Here, because what has been sealed to its end may be found and kept after a crash.
            self.check_wanted()
        elif self._piped:
            self._keep(buffer[:count])
        return count

    def check_wanted(self) -> None:
        """After the end: raise Dropped unless this is the whole document and somebody may still want it, or
        EmptyDocument.

        A pipe also ends when its filter was killed together with the backend. Filters write PDF, whose end can be told.
        """
        if self.dropped or (self.abandoned and self._piped and _PDF_END not in self._tail):
            raise Dropped
        if self._empty:
            raise EmptyDocument

    @property
    def countable(self) -> int:
        """A descriptor of the whole document for counting its facts, or -1."""
        return self._copy if self._piped else self.fd

    @property
    def memory(self) -> int:
        """Bytes of memory that `countable` takes."""
        if self.in_memory:
            return os.fstat(self.fd).st_size
        return self._copied if self._copy >= 0 else 0

    def close(self) -> None:
        """Let go of everything."""
        for fd in (self.fd, self._copy):
            if fd >= 0:
                os.close(fd)
        self.fd = self._copy = -1

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while not self.dropped and not poll.poll(_POLL):
            pass

    def _keep(self, data: memoryview) -> None:
        self._tail = (self._tail + bytes(data[-_TAIL:]))[-_TAIL:]
        if self._copy < 0:
            return
        self._copied += len(data)
        if self._copied > COPY_LIMIT:
            os.close(self._copy)
            self._copy = -1
            return
        while data:
            data = data[os.write(self._copy, data) :]
