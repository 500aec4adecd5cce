"""A stand-in for pullprintd's intake: keeps what the backend sends in memory, and answers as it is told."""

import hashlib
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LINE_LIMIT = 1 << 18
DOCUMENT_LIMIT = 64 << 20
IDLE_SECONDS = 10.0


@dataclass(frozen=True)
class Received:
    """One connection: the raw line, its fields, and the document read from the descriptor."""

    line: bytes
    fields: dict[str, Any]
    document: bytes
    is_file: bool


def stored(received: Received) -> bytes:
    """The answer to a job that is kept, with an id that depends on the job-uuid only."""
    job = hashlib.sha256(str(received.fields["job_uuid"]).encode()).hexdigest()[:32]
    return f"stored {job} Held: release it at any printer.\n".encode()


Answer = Callable[[Received], bytes | None]
"""The bytes to answer with; None breaks the connection off without a word."""


@dataclass
class Intake:
    """Listens at *path* in a thread, as a context manager. *answer* may be replaced at any time.

    With *reads* False the document is left alone, as a daemon does that answers ``later`` at once.
    """

    path: Path
    answer: Answer = stored
    reads: bool = True
    received: list[Received] = field(default_factory=list)

    def start(self) -> None:
        """Listen; anybody may connect, because the backend of a private cupsd runs as lp."""
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)
        self._socket.listen(64)
        self._thread = threading.Thread(target=self._serve, name="intake stand-in")
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; what was received stays."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(IDLE_SECONDS)
                try:
                    self._take(connection)
                except OSError:
                    continue  # the backend was killed

    def _take(self, connection: socket.socket) -> None:
        line, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 4)
        try:
            while not line.endswith(b"\n") and len(line) <= LINE_LIMIT:
                more = connection.recv(1 << 16)
                if not more:
                    return
                line += more
            document, is_file = b"", False
            with open(descriptors[0], "rb", closefd=False) as file:
                is_file = file.seekable()
                if self.reads:
                    document = file.read(DOCUMENT_LIMIT)
        finally:
            for descriptor in descriptors:
                socket.close(descriptor)
        received = Received(line, json.loads(line), document, is_file)
        self.received.append(received)
        answer = self.answer(received)
        if answer is not None:
            connection.sendall(answer)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
