"""A raw printer that keeps nothing but the times: of a document's first byte, and of its end."""

import queue
import socket
import time
from dataclasses import dataclass

from tests.rig.printers import RawPrinter

READ = 1 << 18


@dataclass(frozen=True, slots=True)
class Arrival:
    """One document; times by ``time.monotonic``."""

    first: float
    end: float
    size: int


class Sink(RawPrinter):
    """Discards what it is sent. Connections without a byte are nobody's document."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Arrival] = queue.SimpleQueue()

    def take(self, connection: socket.socket) -> None:
        """Read to the end."""
        buffer = bytearray(READ)
        count = connection.recv_into(buffer)
        first = time.monotonic()
        if not count:
            return
        self._begun.put(first)
        size = count
        while count := connection.recv_into(buffer):
            size += count
        self._ended.put(Arrival(first, time.monotonic(), size))

    def first_byte(self, timeout: float = 20.0) -> float:
        """When the next document began to arrive. Raises queue.Empty."""
        return self._begun.get(timeout=timeout)

    def arrival(self, timeout: float = 60.0) -> Arrival:
        """The next document that ended. Raises queue.Empty."""
        return self._ended.get(timeout=timeout)
