"""The other end of sd_notify(3): a datagram socket that remembers what it was told and when."""

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig.processes import wait_until


@dataclass
class Notified:
    """What came in at *path*, with its time (monotonic, seconds)."""

    path: Path
    told: list[tuple[float, str]] = field(default_factory=list)

    def lines(self, begin: str) -> list[str]:
        """All that begin so, oldest first."""
        return [text for _, text in list(self.told) if text.startswith(begin)]

    def times(self, text: str) -> list[float]:
        """When exactly that came."""
        return [at for at, line in list(self.told) if line == text]

    def wait_for(self, begin: str, count: int = 1, timeout: float = 30.0) -> str:
        """The *count*-th line that begins so."""
        wait_until(f"{begin} on the notify socket; {self.told[-5:]}", lambda: len(self.lines(begin)) >= count, timeout)
        return self.lines(begin)[count - 1]


@contextlib.contextmanager
def notify_socket() -> Iterator[Notified]:
    """A socket for ``$NOTIFY_SOCKET``."""
    folder = Path(tempfile.mkdtemp(prefix="pullprint-notify-"))
    notified = Notified(folder / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(notified.path))

        def listen() -> None:
            while data := receiver.recv(4_096):
                notified.told += [(time.monotonic(), line) for line in data.decode().splitlines()]

        thread = threading.Thread(target=listen, name="notify")
        thread.start()
        try:
            yield notified
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"", str(notified.path))
            thread.join()
            shutil.rmtree(folder)
