"""The document that a backend handed over: read once, from a file or from a filter's pipe."""

import os
import select
import stat
from dataclasses import dataclass, field

from pullprint.base.errors import BadRequest

COPY_LIMIT = 64 << 20
"""Bytes of a piped document that are kept in memory for counting its facts; a pipe cannot be read twice."""
_POLL = 500
"""Milliseconds after which a silent pipe is looked at again, to notice that its backend has gone."""


class BackendGone(Exception):
    """The backend that handed the document over has ended, so this is not the whole of it, or nobody wants it any
    more."""


@dataclass
class IncomingDocument:
    """An open descriptor that becomes ours. `read` blocks: it is for a thread."""

    fd: int
    gone: bool = False
    """Set by the loop when the backend's connection closes."""
    _copy: int = field(default=-1, init=False)
    _copied: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        mode = os.fstat(self.fd).st_mode
        self._piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        if not self._piped and not stat.S_ISREG(mode):
            raise BadRequest(reason="the document is neither a file nor a pipe")
        if self._piped:
            self._copy = os.memfd_create("document", os.MFD_CLOEXEC) if hasattr(os, "memfd_create") else -1
        else:
            os.lseek(self.fd, 0, os.SEEK_SET)

    def read(self, buffer: memoryview) -> int:
        """Fill the beginning of *buffer*; 0 at the end. Raises BackendGone, OSError."""
        if self._piped:
            self._wait()
        if self.gone:
            raise BackendGone
        count = os.readv(self.fd, [buffer])
        if self._copy >= 0:
            self._keep(buffer[:count])
        return count

    @property
    def countable(self) -> int:
        """A descriptor of the whole document for counting its facts, or -1."""
        return self._copy if self._piped else self.fd

    def close(self) -> None:
        """Let go of everything."""
        for fd in (self.fd, self._copy):
            if fd >= 0:
                os.close(fd)
        self.fd = self._copy = -1

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while not self.gone and not poll.poll(_POLL):
            pass

    def _keep(self, data: memoryview) -> None:
        self._copied += len(data)
        if self._copied > COPY_LIMIT:
            os.close(self._copy)
            self._copy = -1
            return
        while data:
            data = data[os.write(self._copy, data) :]
