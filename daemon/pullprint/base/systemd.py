"""What systemd is told, and what it hands over, where there is one.

systemd-python is the one thing in ``base`` from outside the standard library, and only if it is there:
macOS has no systemd, and then these do nothing.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from pullprint.base.text import printable

try:
    from systemd import daemon as _daemon
except ImportError:  # macOS
    _daemon = None

START_STEP, START_LIMIT = 10.0, 3_600.0
"""Seconds between two requests for more time to start in, and after which no more is asked for."""
STATUS_EVERY = 5.0
"""Seconds between two status lines, each of which is an answer of what matters."""
_STATUS_LIMIT = 200


def notify(state: str) -> bool:
    """Send *state* (``READY=1``, ``STOPPING=1``, ``STATUS=…``) as sd_notify(3) does; False where nobody listens."""
    return bool(_daemon and _daemon.notify(state))


def tell_status(text: str) -> None:
    """The line that ``systemctl status`` shows."""
    notify(f"STATUS={printable(text, _STATUS_LIMIT)}")


def inherited_sockets() -> dict[str, socket.socket]:
    """Sockets passed by socket activation, by their ``FileDescriptorName=`` (sd_listen_fds_with_names(3))."""
    if not _daemon:
        return {}
    return {
        name: socket.socket(fileno=fd) for fd, name in _daemon.listen_fds_with_names(unset_environment=True).items()
    }


def state_directory() -> Path | None:
    """The folder that ``StateDirectory=`` made (systemd.exec(5)), the first of them; None without."""
    first = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None


def watchdog_seconds() -> float:
    """How long systemd waits for a beat of this process (sd_watchdog_enabled(3)); 0 where it does not wait."""
    wanted, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not wanted.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(wanted) / 1_000_000


@contextlib.asynccontextmanager
async def starting(what: str) -> AsyncIterator[None]:
    """Ask for more time as long as the block, which rebuilds or migrates something, lets the event loop turn; up to
    `START_LIMIT`, because a start that hangs must end, too."""
    tell_status(what)
    asking = asyncio.create_task(_ask_for_time(), name="start")
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.wait([asking])


async def _ask_for_time() -> None:
    for _ in range(int(START_LIMIT / START_STEP)):
        notify(f"EXTEND_TIMEOUT_USEC={int(3 * START_STEP * 1_000_000)}")
        await asyncio.sleep(START_STEP)


class Pulse:
    """Whether a part that must answer still does: it is asked again and again, one question at a time."""

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        """*ask* returns when the part has answered, or raises: an error is an answer, too."""
        self._ask = ask
        # The loop's clock stands still while the host sleeps; so does systemd's watchdog.
        self._now = asyncio.get_running_loop().time
        self._answered = self._now()

    @property
    def silence(self) -> float:
        """Seconds since the last answer."""
        return self._now() - self._answered

    async def run(self, every: float) -> None:
        """Ask, with a pause of *every* seconds, until cancelled."""
        while True:
            with contextlib.suppress(Exception):
                await self._ask()
            self._answered = self._now()
            await asyncio.sleep(every)


async def beat(ask: Callable[[], Awaitable[object]], patience: Callable[[], float]) -> None:
    """Tell systemd that this process is alive, at half of its watchdog's time, until cancelled; returns where nobody
    listens.

    The beat comes from the event loop itself, so a loop that stands still is not heard; and it is left out when *ask*
    has had no answer for *patience* seconds.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    every = watchdog_seconds() / 2
    pulse = Pulse(ask)
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(pulse.run(STATUS_EVERY), name="pulse")
        while every:
            if pulse.silence <= STATUS_EVERY + patience():
                notify("WATCHDOG=1")
            await asyncio.sleep(every)
        await asking
