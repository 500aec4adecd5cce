"""Processes that are started, waited for, frozen and ended by their id; never by name."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.rig.namespaces import enter, inside

LOG_TAIL = 4_000


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(address: tuple[str, int] | Path, namespace: str = "") -> bool:
    """Whether somebody accepts connections at a TCP address (of *namespace*) or a unix socket."""
    with inside(namespace):
        probe = socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET)
    with probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(address) if isinstance(address, Path) else address)
        except OSError:
            return False
        return True


def wait_until(what: str, condition: Callable[[], object], timeout: float = 15.0, every: float = 0.02) -> None:
    """Return once *condition* is true; raise TimeoutError naming *what* after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        time.sleep(every)


class Process:
    """One child process, its output in *log*; the end of ``with`` is SIGTERM, then SIGKILL.

    With *namespace* it runs in that network.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        namespace: str = "",
    ) -> None:
        self.argv = [str(argument) for argument in argv]
        self.log = log
        self.env = env
        self.namespace = namespace
        self._cwd = cwd
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; RuntimeError before `start` and after `stop`."""
        if self._popen is None:
            raise RuntimeError(f"{self.argv[0]} is not running")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended by itself."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def started(self) -> bool:
        """Whether it was started and not yet stopped; it may have ended by itself."""
        return self._popen is not None

    def start(self, ready: tuple[str, int] | Path | None = None, timeout: float = 15.0) -> None:
        """Start it; with *ready*, return only when that address answers.

        Raises RuntimeError with the end of the log when it dies first, TimeoutError when it never answers.
        """
        if self._popen is not None:
            raise RuntimeError(f"{self.argv[0]} was started already")
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                enter(self.namespace, self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self._cwd,
            )
        if ready is None:
            return
        try:
            wait_until(
                f"{self.argv[0]} at {ready}", lambda: not self.running or answers(ready, self.namespace), timeout
            )
        except TimeoutError:
            self.stop(grace=0)
            raise
        if not self.running:
            self.stop()
            raise RuntimeError(f"{self.argv[0]} ended at once:\n{self.log_tail()}")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; after SIGKILL also wait for the end, so that `start` may follow."""
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            self.stop()

    def freeze(self) -> None:
        """SIGSTOP: alive, connected, silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self, grace: float = 10.0) -> int | None:
        """End it: SIGTERM, SIGKILL after *grace* seconds. Returns its exit status; negative: the signal."""
        popen, self._popen = self._popen, None
        if popen is None:
            return None
        if popen.poll() is None and grace:
            popen.send_signal(signal.SIGCONT)
            popen.terminate()
            try:
                return popen.wait(grace)
            except subprocess.TimeoutExpired:
                pass
        popen.kill()
        return popen.wait()

    def log_tail(self) -> str:
        """The last few kilobytes of its output."""
        return self.log.read_bytes()[-LOG_TAIL:].decode("utf-8", "replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        if self._popen is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
